"""Another server, which stores what this one has stored: this one is its client, and speaks for others.

Each event travels with its number in the store, in a stream that belongs to the output. Both are the
same whatever dies in between, so the other server takes each event once, however often it comes.
It confirms what is on its disk.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from needfire_protocol import __version__
from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event
from needfire_protocol.keys import SessionKeys, sign_report
from needfire_protocol.limits import (
    REPORT_BATCH_BYTES_MAX,
    REPORT_BODY_BYTES_MAX,
    REPORT_OVERHEAD_BYTES_MAX,
    REPORTS_PER_BATCH_MAX,
)
from needfire_protocol.messages import (
    RELAYED_REPORT,
    Acknowledge,
    Announce,
    Command,
    CommandResult,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    Message,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
)
from needfire_protocol.relayed import Relayed, encode_relayed
from needfire_server.clock import monotonic_s, now_us
from needfire_server.outputs.relay_link import RelayLink
from needfire_server.outputs.relay_origin import RelayOrigin
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.shortening import fitting
from needfire_server.outputs.target import NumberedTarget, TargetError
from needfire_server.storage.output_cursors import StoredEvent

__all__ = ["RelayTarget"]

HEARTBEAT_S: Final = 60.0
GOODBYE_LIMIT_S: Final = 3.0
_RENEW_PART: Final = 0.9
"""Part of a session key's life after which a new one is negotiated."""

_STARTED_US: Final = now_us()
_Numbered = tuple[int, bytes]
"""Number of an event, and the body of its report."""


class RelayTarget(NumberedTarget):
    """One session at the other server, renewed before its key gets too old."""

    def __init__(
        self, settings: OutputSettings, on_lost: Callable[[], None], origin: RelayOrigin
    ) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._origin = origin
        self._link: RelayLink | None = None
        self._listening: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._stream = b""
        self._renew_s = 0.0
        self._delivery = asyncio.Lock()
        self._waiting: Sequence[StoredEvent] = ()
        self._sent = 0
        self._known = 0
        """Up to this number of what was sent, the other server has it."""
        self._is_other_history = False
        """It has something else under a number that was sent."""
        self._is_farewell_heard = False
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Log in at the first address that can be had."""
        self._link = await self._log_in()

    async def join(self) -> None:
        assert self._link is not None
        self._stream = await self._origin.stream(self._settings.name)
        await self._begin(self._link)
        self._beating = self._kept(self._beat())

    async def deliver(self, events: Sequence[Event]) -> None:
        """Send nothing: only what the store has, with its number, can be passed on.

        For a test of the output, which has gone as far as that: name and password are right.
        """

    async def deliver_numbered(self, events: Sequence[StoredEvent]) -> None:
        async with self._delivery:
            self._waiting = events
            try:
                if monotonic_s() >= self._renew_s:
                    await self._renew()
                bodies = [(number, await self._body(event)) for number, event in events]
                for batch in _batches(bodies):
                    await self._deliver(batch, events)
            finally:
                self._waiting = ()

    async def finish(self) -> bool:
        """Say goodbye: the silence that follows is meant."""
        link, has_joined = self._link, self._beating is not None
        if link is not None and has_joined:
            with suppress(OSError, TargetError):
                async with asyncio.timeout(GOODBYE_LIMIT_S):
                    await link.send(Goodbye("exit"))
                    while not self._is_farewell_heard:
                        await self._next_news()
        self.abort()
        return has_joined

    def abort(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._leave()

    def _leave(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.abort()

    # ---- the session -----------------------------------------------------------------------------

    async def _log_in(self) -> RelayLink:
        assert self._settings.relay is not None
        last: Exception | None = None
        for address in self._settings.addresses:
            try:
                return await RelayLink.open(
                    address, self._settings.relay, self._settings.time_limit_s
                )
            except (TargetError, OSError) as error:
                last = error
        assert last is not None
        raise last

    async def _begin(self, link: RelayLink) -> None:
        """Announce this server, and keep the session from now on."""
        announcement = Announce(
            instance=self._origin.identity,
            boot_id=_boot_id(),
            started_us=_STARTED_US,
            version=__version__,
            mode="relay",
            prior_exit_pending=False,
        )
        async with asyncio.timeout(self._settings.time_limit_s):
            await link.send(announcement)
            welcome = await link.receive()
        if not isinstance(welcome, Welcome):
            raise _unexpected(welcome)
        self._renew_s = monotonic_s() + welcome.session_lifetime_s * _RENEW_PART
        self._listening = self._kept(self._listen(link))

    async def _renew(self) -> None:
        """Go on with another session, whose key is young."""
        self._leave()
        self._link = await self._log_in()
        await self._begin(self._link)

    def _kept(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        # No group can hold it: it lives from one call of the worker's to another. It ends with
        # ``abort``, which always comes, and whatever it raises is the connection's loss.
        return asyncio.create_task(self._until_lost(work))  # noqa: TID251

    async def _until_lost(self, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to be told
            self.is_lost = True
            self.loss = str(error) or type(error).__name__
            self._news.set()
            self._on_lost()

    async def _listen(self, link: RelayLink) -> None:
        while True:
            message = await link.receive()
            if isinstance(message, Acknowledge):
                self._is_other_history |= message.sequence > self._sent
                self._known = message.sequence if message.sequence <= self._sent else self._known
                self._news.set()
            elif isinstance(message, Command):
                refused = "a server takes no commands from another one"
                await link.send(CommandResult(message.command_id, "failed", refused))
            elif isinstance(message, GoodbyeAccepted):
                self._is_farewell_heard = True
                self._news.set()
            else:
                raise _unexpected(message)

    async def _beat(self) -> None:
        while True:
            if monotonic_s() >= self._renew_s:
                async with self._delivery:
                    await self._renew()
            if self._link is not None:
                waiting = self._waiting
                oldest_us = waiting[0][1].time_us if waiting else None
                await self._link.send(Heartbeat(now_us(), len(waiting), oldest_us))
            await asyncio.sleep(HEARTBEAT_S)

    # ---- reports ---------------------------------------------------------------------------------

    async def _body(self, event: Event) -> bytes:
        names = () if event.client is None else tuple(event.client.split("/"))
        path = await self._origin.path_of(event.client)

        def render(shown: Event) -> bytes:
            return encode_relayed(Relayed(names, path, shown))

        try:
            return fitting(event, render, REPORT_BODY_BYTES_MAX)
        except FormatError:
            # Nothing that a client sends may hold up all that follow.
            return render(replace(event, msg=ascii(event.msg)[:500], fields={"shortened": True}))

    async def _deliver(self, batch: Sequence[_Numbered], events: Sequence[StoredEvent]) -> None:
        """Send one batch and wait until it is on the other server's disk."""
        assert self._link is not None
        keys, stream, last = self._link.keys, self._stream, batch[-1][0]
        reports = tuple(
            Report(number, RELAYED_REPORT, body, _sign(keys, stream, number, body))
            for number, body in batch
        )
        self._sent, self._known = last, 0
        await self._link.send(ReportBatch(stream, reports))
        await self._until_answered()
        if self._is_other_history:
            # Our store was set back to an earlier state, and gave the numbers again.
            await self._origin.new_stream(self._settings.name)
            before = max(self._known, batch[0][0] - 1)
            raise TargetError(
                "it has other events under the same numbers; they are sent under new ones",
                delivered=sum(number <= before for number, _ in events),
            )

    async def _until_answered(self) -> None:
        """Wait until the other server has the last number, or something else under one."""
        limit_s = self._settings.time_limit_s
        try:
            async with asyncio.timeout(limit_s):
                while self._known < self._sent and not self._is_other_history:
                    await self._next_news()
        except TimeoutError:
            raise TargetError(f"it acknowledged nothing within {limit_s} seconds") from None

    async def _next_news(self) -> None:
        """Wait for the other server.

        Raises:
            TargetError: the connection is lost.
        """
        if not self.is_lost:
            self._news.clear()
            await self._news.wait()
        if self.is_lost:
            raise TargetError(self.loss)


def _batches(bodies: Sequence[_Numbered]) -> Iterator[Sequence[_Numbered]]:
    """Yield them in parts that fit a frame."""
    part: list[_Numbered] = []
    size = 0
    for number, body in bodies:
        needed = len(body) + REPORT_OVERHEAD_BYTES_MAX
        if part and (size + needed > REPORT_BATCH_BYTES_MAX or len(part) == REPORTS_PER_BATCH_MAX):
            yield part
            part, size = [], 0
        part.append((number, body))
        size += needed
    if part:
        yield part


def _sign(keys: SessionKeys, stream: bytes, number: int, body: bytes) -> bytes:
    return sign_report(keys, stream, number, RELAYED_REPORT, body)


def _unexpected(message: Message) -> TargetError:
    if isinstance(message, SessionExpired):
        return TargetError("the session key is too old")
    return TargetError(f"it answered with {type(message).__name__}")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"
