"""How the server speaks for itself: its own events go to the log, and what matters to the store.

Raising an event never waits for the disk, so that no stranger can slow the server down by making
it complain: events for the store wait in a bounded queue that one task empties. What a person
does through the admin tool does not pass through here: ``admin/subject.py`` stores it before it is
confirmed, and asks only what is to be kept of it (``kept_of``).
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import StorageError, StorageFullError
from needfire_protocol.event import Event, FieldValue, clean_fields, make_event
from needfire_protocol.severity import Severity
from needfire_server.audit.drafts import draft_of, draft_of_event, has_record
from needfire_server.clock import now_us
from needfire_server.event_classes import SWITCHABLE, ClassSettings
from needfire_server.storage.audit_base import AuditWriteError, Kept
from needfire_server.storage.base import Store
from needfire_server.trouble import Trouble, Troubles, Warned

if TYPE_CHECKING:
    from needfire_server.logbook import Logbook

__all__ = ["Journal"]

_WAITING_MAX: Final = 10_000
"""Events that wait for the store. When it stands still for longer, the log still has them all."""
_SHARE_MAX: Final = 500
"""So many of them may be about one client: it must not displace what is said of others."""
_RESERVED: Final = 1_000
"""Further places for what is about no client; and as many again for alarms about the server."""

_SWITCHABLE_NAMES: Final = ", ".join(each.value for each in SWITCHABLE)
_TOGETHER_MAX: Final = 256
"""Events that are stored by one transaction."""
_GATHERING_S: Final = 0.05
"""Seconds after a write in which what is raised is gathered for the next one: a fleet that comes back
would else have a commit for nearly each of its log-ins. Who has been silent is stored at once."""

_Waiting: TypeAlias = tuple[Kept, str]
"""What is kept of an event, and which client it is about; empty where it is none."""

_logger = logging.getLogger(__name__)


class Journal:
    """Raises the server's own events."""

    def __init__(
        self, logbook: "Logbook", *, store_path: str, on_recorded: Callable[[], None]
    ) -> None:
        """Args:
        store_path: the store, for those who read that it failed.
        on_recorded: called after events have reached the store, for those who follow them.
        """
        self._logbook = logbook
        logbook.to_store = self._store_what_the_log_says
        self._store_path = store_path
        self._on_recorded = on_recorded
        self.troubles = Troubles()
        """What keeps events or acts off the record now."""
        self.classes = ClassSettings()
        """Which events are wanted, and kept; replaced at a reload."""
        self.on_full: Callable[[], None] = lambda: None
        """Called when it is found that there is no room, once until there is some again."""
        self.has_no_room = False
        """Whether the store failed because it is full, and has not worked since."""
        # Neither a Queue nor a Counter: each log-in leaves an event here, and they cost it three times as
        # much as these.
        self._waiting: deque[_Waiting] = deque()
        """Bounded by ``_has_room``."""
        self._arrived = asyncio.Event()
        """Set while something waits."""
        self._stored = asyncio.Event()
        """Set where something has been stored since it was cleared."""
        self._shares: dict[str, int] = {}
        """Events that wait, by client; holds none of those of whom none waits."""
        self._lost = 0
        self._storing = 0
        """Events that were taken from the queue and are on their way to the disk."""

    def raise_event(
        self, code: str, severity: Severity | None = None, /, **fields: FieldValue
    ) -> Event | None:
        """Log an event of the server's own and hand it to the store; return it.

        None where neither log nor store takes it, though the audit log may. What each of thousands of
        connections would say is then not even put into words. A class that is switched off is kept from
        log and store only: who can change the configuration must not be able to choose what goes on
        record.
        """
        entry = CATALOGUE[code]
        event_class, level = entry.event_class, entry.severity if severity is None else severity
        is_wanted = self.classes.takes(event_class)
        is_kept = is_wanted and self.classes.persists(event_class, level)
        if not (is_kept or (is_wanted and self._logbook.takes(level))):
            if has_record(code, event_class) and self._logbook.admits(
                event_class, fields.get("peer")
            ):
                draft = draft_of(code, level, clean_fields(fields))
                self._enqueue((None, draft), code, event_class, draft.client or "")
            return None
        event = make_event(
            code, severity, time_us=now_us(), random_10_bytes=os.urandom(10), **fields
        )
        if self._logbook.write(event):
            self._enqueue_event((event if is_kept else None, draft_of_event(event)), event)
        return event

    def kept_of(self, event: Event) -> Kept:
        """Return what the store is to keep of an event that tells what a person did.

        The audit log has it also where the configuration wants no events of its class.
        """
        return event if self._is_kept(event) else None, draft_of_event(event)

    def already_stored(self, event: Event) -> None:
        """Log an event that the store has from elsewhere, and tell those who follow events."""
        if self.classes.takes(event.event_class):
            self._logbook.write(event)
        self._on_recorded()

    def store_later(self, event: Event) -> None:
        """Log an event that the store did not take, and keep trying, as with those that are raised."""
        if self.classes.takes(event.event_class):
            self._logbook.write(event)
        self._enqueue_event(self.kept_of(event), event)

    def _store_what_the_log_says(self, event: Event) -> None:
        self._enqueue_event(self.kept_of(event), event)

    def _is_kept(self, event: Event) -> bool:
        classes = self.classes
        return classes.takes(event.event_class) and classes.persists(
            event.event_class, event.severity
        )

    def _enqueue_event(self, kept: Kept, event: Event) -> None:
        if kept != (None, None):
            client = event.fields.get("client")
            self._enqueue(kept, event.code, event.event_class, str(client or ""))

    def _enqueue(self, kept: Kept, code: str, event_class: EventClass, client: str) -> None:
        if not self._has_room(client, event_class):
            self._lost += 1
            _logger.debug("the store is behind; %s is in the log only", code)
            return
        self._waiting.append((kept, client))
        self._arrived.set()
        if client:
            self._shares[client] = self._shares.get(client, 0) + 1

    def _has_room(self, client: str, event_class: EventClass) -> bool:
        if client:
            return len(self._waiting) < _WAITING_MAX and self._shares.get(client, 0) < _SHARE_MAX
        is_alarm = event_class is EventClass.ALARM
        return len(self._waiting) < _WAITING_MAX + _RESERVED * (1 + is_alarm)

    @property
    def is_store_failing(self) -> bool:
        """Whether a write failed, and none has succeeded since."""
        return Trouble.STORE in self.troubles

    @property
    def waiting(self) -> int:
        """Events that wait for the store."""
        return len(self._waiting)

    @property
    def warning(self) -> Warned | None:
        """What everybody has to be told who is logged in, for as long as it lasts."""
        return self.troubles.warning

    def store_failed(self, error: StorageError) -> None:
        """Say that the store cannot be written: once, until it works again.

        Where it is the audit log that cannot, nothing else can be written either; both are said.
        """
        reason = str(error)
        if isinstance(error, AuditWriteError) and self.troubles.begin(Trouble.RECORDS, reason):
            told = self.raise_event("AUDIT_LOG_FAILED", reason=reason, path=self._store_path)
            self.troubles.tell_with(Trouble.RECORDS, told)
        if self.troubles.begin(Trouble.STORE, reason):
            told = self.raise_event("STORE_FAILED", reason=reason, path=self._store_path)
            self.troubles.tell_with(Trouble.STORE, told)
        # A failure may begin in another way: a database that is locked, and then has no room.
        if isinstance(error, StorageFullError) and not self.has_no_room:
            self.has_no_room = True
            self.on_full()

    def signing_failed(self, reason: str) -> None:
        """Say that the audit log cannot be signed: once, until it can."""
        if self.troubles.begin(Trouble.SIGNING, reason):
            told = self.raise_event("AUDIT_KEY_MISSING", reason=reason)
            self.troubles.tell_with(Trouble.SIGNING, told)

    def signing_works(self) -> bool:
        """Say that the audit log is signed again, if it was said that it is not; True if so."""
        was_told = self.troubles.end(Trouble.SIGNING)
        if was_told:
            self.raise_event("AUDIT_LOG_SIGNED")
        return was_told

    def configure(self, classes: ClassSettings) -> None:
        """Want and keep other events from now on; what is suspended stays so."""
        self.classes = replace(classes, is_suspended=self.classes.is_suspended)

    def suspend_classes(self) -> None:
        """Only log what can be switched off, until there is room again."""
        self.classes = replace(self.classes, is_suspended=True)
        self.raise_event("CLASSES_SUSPENDED", classes=_SWITCHABLE_NAMES)

    def store_works(self) -> None:
        """Say that the store can be written again, if it was said that it cannot."""
        if self.troubles.end(Trouble.RECORDS):
            self.raise_event("AUDIT_LOG_RECOVERED", path=self._store_path)
        if self.troubles.end(Trouble.STORE):
            self.has_no_room = False
            self.raise_event("STORE_RECOVERED", path=self._store_path)
            if self.classes.is_suspended:
                self.classes = replace(self.classes, is_suspended=False)
                self.raise_event("CLASSES_RESUMED", classes=_SWITCHABLE_NAMES)

    async def store_waiting(self, store: Store) -> None:
        """Empty the queue into the store, for ever; cancelled at the end of the server.

        Each event and its record in the audit log are one transaction. While the store fails, what
        is at the head waits with it: order is kept.
        """
        while True:
            await self._arrived.wait()
            count = min(len(self._waiting), _TOGETHER_MAX)
            taken = [self._waiting.popleft() for _ in range(count)]
            if not self._waiting:
                self._arrived.clear()
            items = [item for item, _ in taken]
            self._storing = len(items)
            while True:
                try:
                    await store.record_all(items)
                    self.store_works()
                    break
                except StorageError as error:
                    self.store_failed(error)
                    await asyncio.sleep(1)
            self._storing = 0
            for _, client in taken:
                self._leave(client)
            self._stored.set()
            self._tell_lost()
            self._on_recorded()
            if len(self._waiting) < _TOGETHER_MAX:
                await asyncio.sleep(_GATHERING_S)

    def _leave(self, client: str) -> None:
        # Of what is about no client there is no share.
        left = self._shares.pop(client, 0) - 1
        if left > 0:
            self._shares[client] = left

    def _tell_lost(self) -> None:
        if self._lost and self._has_room("", EventClass.ALARM):
            lost, self._lost = self._lost, 0
            self.raise_event("EVENTS_NOT_STORED", count=lost)

    async def flush(self, limit_s: float) -> None:
        """Wait until all that was raised is stored, but no longer than limit_s seconds.

        What is not stored by then is lost with this process, but for the log. How many they are is told
        there, as an event and to whoever reads the program's output.
        """
        try:
            async with asyncio.timeout(limit_s):
                while self._waiting or self._storing:
                    self._stored.clear()
                    await self._stored.wait()
        except TimeoutError:
            count = len(self._waiting) + self._storing + self._lost
            _logger.warning("%d events did not reach the store; they are in the log only", count)
            event = make_event(
                "EVENTS_NOT_STORED", time_us=now_us(), random_10_bytes=os.urandom(10), count=count
            )
            self._logbook.write(event)
