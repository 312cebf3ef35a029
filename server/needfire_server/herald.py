"""Who is told that nothing can be put on record, when the record itself cannot tell it.

Outputs read the store, and a store that fails has nothing new for them. So while there is trouble
each output that takes alerts is told directly, on a connection of its own, and everybody who is
logged in on this host on the terminal: at once, and again until it is mended. Those who use the
admin tool are told by ``admin/``.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from needfire_protocol.event import Event
from needfire_server.clock import monotonic_s
from needfire_server.outputs.engine import SentNow
from needfire_server.outputs.records import marked
from needfire_server.outputs.threads import in_thread
from needfire_server.terminals import tell_terminals
from needfire_server.trouble import Trouble, Troubles

__all__ = ["Channels", "Herald", "HeraldSettings"]

_LOOK_S: Final = 1.0
_RETRY_S: Final = 10.0
"""After a channel that did not take it."""

_Key: TypeAlias = tuple[str, str]
"""Identifier of an event, and an output."""


class Channels(Protocol):
    """What outputs can do without the store."""

    def channels_for(self, event: Event) -> list[str]:
        """Return the outputs that take an event."""

    async def send_now(self, name: str, event: Event) -> SentNow | None:
        """Send it; never raises what a target does."""


class HeraldSettings(Protocol):
    """What the configuration says."""

    @property
    def warn_interval_s(self) -> int:
        """How often it is said again."""

    @property
    def warn_terminals(self) -> bool:
        """Whether terminals are written on."""


@dataclass(slots=True)
class _Telling:
    """One event on its way to one output, again and again."""

    due_s: float
    task: asyncio.Task[None] | None = None
    was_sent: bool = False
    was_tried: bool = False


class Herald:
    """Tells of trouble for as long as it lasts. In the event loop's thread only."""

    def __init__(
        self,
        troubles: Troubles,
        channels: Channels,
        settings: Callable[[], HeraldSettings],
        *,
        tell: Callable[[str], int] = tell_terminals,
        clock_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._troubles = troubles
        self._channels = channels
        self._settings = settings
        self._tell = tell
        self._clock_s = clock_s
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._tellings: dict[_Key, _Telling] = {}
        troubles.on_change = self._changed.set

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._changed.wait()
            try:
                await self._while_it_lasts()
            finally:
                self._stop_telling()

    async def last_words(self, limit_s: float) -> None:
        """Wait until each channel was tried once, but no longer than limit_s: the server ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(not self._was_tried(event) for event in self._urgent()):
                    self._tried.clear()
                    await self._tried.wait()

    async def _while_it_lasts(self) -> None:
        walled: frozenset[Trouble] = frozenset()
        wall_due_s = 0.0
        while True:
            self._changed.clear()
            warning = self._troubles.warning
            if warning is None:
                return
            is_due = not walled or self._clock_s() >= wall_due_s
            if is_due or not warning.kinds <= walled:
                walled = warning.kinds if is_due else walled | warning.kinds
                wall_due_s = self._clock_s() + self._settings().warn_interval_s
                await self._wall(warning.text)
            for event in self._troubles.events:
                for name in self._channels.channels_for(event):
                    self._tell_channel(event, name)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()

    async def _wall(self, warning: str) -> None:
        if self._settings().warn_terminals:
            await in_thread(lambda: self._tell(warning))

    def _urgent(self) -> tuple[Event, ...]:
        """Return what the store cannot tell: everything, while it fails."""
        return self._troubles.events if Trouble.STORE in self._troubles else ()

    def _was_tried(self, event: Event) -> bool:
        tellings = self._tellings
        return all(
            (event.id, name) in tellings and tellings[event.id, name].was_tried
            for name in self._channels.channels_for(event)
        )

    def _tell_channel(self, event: Event, name: str) -> None:
        now_s, interval_s = self._clock_s(), self._settings().warn_interval_s
        is_urgent = event in self._urgent()
        telling = self._tellings.setdefault(
            (event.id, name),
            # While the store works, the first time is the output's own.
            _Telling(now_s if is_urgent else now_s + interval_s, was_sent=not is_urgent),
        )
        is_due = now_s >= telling.due_s or (is_urgent and not telling.was_tried)
        if is_due and (telling.task is None or telling.task.done()):
            record = marked(event, is_resent=telling.was_sent)
            telling.task = asyncio.get_running_loop().create_task(
                self._send(telling, name, record, interval_s)
            )

    async def _send(self, telling: _Telling, name: str, record: Event, interval_s: float) -> None:
        sent = await self._channels.send_now(name, record)
        was_taken = sent is not None and not sent.reason
        telling.was_tried = True
        self._tried.set()
        telling.was_sent |= was_taken
        telling.due_s = self._clock_s() + (interval_s if was_taken else min(_RETRY_S, interval_s))

    def _stop_telling(self) -> None:
        for telling in self._tellings.values():
            if telling.task is not None:
                telling.task.cancel()
        self._tellings.clear()
