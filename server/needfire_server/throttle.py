"""When does a client have to wait, because it asks for more than its share?

Who is beyond its quota is not refused and loses nothing: the server does not read on from its
connection for a while. TCP holds the agent back, its reports stay in its spool, and both the begin
and the end of it are told. The wait is short enough for no agent to be taken for dead meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from needfire_protocol.messages import ReportBatch
from needfire_server.clock import monotonic_s
from needfire_server.config import ServerSettings
from needfire_server.datafiles import BASELINE_BYTES_MAX
from needfire_server.journal import Journal
from needfire_server.quota import Allowance, Quotas, Wish

__all__ = ["Throttle"]

WAIT_S_MAX: Final = 60.0
"""Well below the time after which silence is reported, and an agent tries another connection."""
BURST_S: Final = 100
"""What may come at once is what comes in so many seconds at the highest rate: an upgrade of a
system changes a hundred thousand files."""
ODDITY_REPORTS: Final = 100
"""A gap in the numbers leaves a row that does not expire with the reports, and what is no event has
to be told: each counts as so many reports."""
_STREAMS: Final = Allowance(burst=32, per_s=1 / 60)
"""New spools. A stream leaves a row for ever; an agent has one in its life, or a few."""
_STREAMS_REMEMBERED: Final = 4
_FILES: Final = Allowance(burst=20, per_s=0.1)
_FILE_BYTES: Final = Allowance(burst=BASELINE_BYTES_MAX, per_s=4 * 1024 * 1024)
"""The largest baseline at once. Each request has the file hashed and sealed again, whatever its size."""
_PROPOSALS: Final = Allowance(burst=5, per_s=1 / 60)
_PROPOSAL_BYTES_PER_S: Final = 1024 * 1024
"""Beyond the largest proposal that there may be. An agent waits a minute for the answer to one, with some
MiB still on their way: those must come through in that time. So there is no directive for less."""
_MESSAGES: Final = Allowance(burst=120, per_s=4)
"""Heartbeats, answers and beginnings: an agent has one in SetLoopTime seconds, and one for each
checkpoint."""
_LOG_INS: Final = Allowance(burst=60, per_s=0.2)
"""Each costs arithmetic, and leaves rows and records. An agent has one at its start, and one when its key
is too old; sessions that are resumed over a bad line have the same of their own."""
_STEP_S: Final = 1.0
_RELAY_FACTOR: Final = 100
"""A relay may deliver as much as so many agents: it speaks for all that report to it."""


class Throttle:
    """The quotas of all clients, and those who wait. In the event loop's thread only."""

    def __init__(
        self,
        journal: Journal,
        settings: Callable[[], ServerSettings],
        *,
        steady_s: Callable[[], float] = monotonic_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._steady_s = steady_s
        self._sleep = sleep
        self._quotas = Quotas()
        self._streams: dict[str, tuple[bytes, ...]] = {}

    @property
    def held(self) -> int:
        """Clients that are beyond their quota now."""
        return self._quotas.held

    def forget(self, client: str) -> None:
        """A client is no longer registered."""
        self._streams.pop(client, None)

    async def before_reports(
        self, client: str, batch: ReportBatch, is_wanted: Callable[[], bool]
    ) -> None:
        """Wait until a batch of a client may be taken, and charge it.

        Args:
            is_wanted: False once nobody waits for the batch any more; ends the waiting.
        """
        is_new = self._is_new(client, batch.stream)
        wishes = self._wishes(client)
        if is_new:
            wishes[Wish.STREAMS] = _STREAMS
        await self._wait(client, wishes, len(batch.reports), is_wanted)
        now_s = self._steady_s()
        amounts = {
            Wish.REPORTS: len(batch.reports),
            Wish.BYTES: sum([len(report.body) for report in batch.reports]),
            Wish.STREAMS: 1,
        }
        for wish, allowance in wishes.items():
            self._quotas.charge(client, wish, allowance, amounts[wish], now_s)

    def odd(self, client: str, count: int) -> None:
        """Something was wrong with reports that a client sent."""
        allowance = self._wishes(client).get(Wish.REPORTS)
        if count and allowance is not None:
            amount = ODDITY_REPORTS * count
            self._quotas.charge(client, Wish.REPORTS, allowance, amount, self._steady_s())

    async def before_file(self, client: str, is_wanted: Callable[[], bool]) -> None:
        """Wait until a client may have another file, and charge it."""
        await self._wait(client, {Wish.FILES: _FILES}, 0, is_wanted)
        self._quotas.charge(client, Wish.FILES, _FILES, 1, self._steady_s())

    async def before_chunk(self, client: str, size_bytes: int) -> None:
        """Wait until another chunk of a file may be sent to a client, and charge it.

        Not all of the file before it is sent: an agent waits a minute for each chunk.
        """
        await self._wait(client, {Wish.FILE_BYTES: _FILE_BYTES}, 0, lambda: True)
        self._quotas.charge(client, Wish.FILE_BYTES, _FILE_BYTES, size_bytes, self._steady_s())

    async def before_message(self, client: str, is_wanted: Callable[[], bool]) -> None:
        """Wait until another small message of a client may be looked at, and charge it."""
        await self._wait(client, {Wish.MESSAGES: _MESSAGES}, 0, is_wanted)
        self._quotas.charge(client, Wish.MESSAGES, _MESSAGES, 1, self._steady_s())

    async def before_piece(
        self, client: str, size_bytes: int, is_wanted: Callable[[], bool]
    ) -> None:
        """Wait until another piece of a proposal may be taken, and charge it.

        Those of a proposal that was refused count as well: they have come all the same.
        """
        burst = self._settings().proposal_size_limit_bytes
        allowance = Allowance(burst, _PROPOSAL_BYTES_PER_S)
        await self._wait(client, {Wish.PROPOSAL_BYTES: allowance}, 0, is_wanted)
        self._quotas.charge(client, Wish.PROPOSAL_BYTES, allowance, size_bytes, self._steady_s())

    def may_log_in(self, client: str) -> bool:
        """Return whether somebody may prove to be a client; False where it logged in too often.

        Asked before anything is calculated, and charged by ``logged_in`` alone: what only those
        can use up who have the secret keeps nobody out who merely shares the name with a stranger.
        Not held back but refused: who waits has a connection, and there may be many of them.
        """
        return not self._refusal_s(client, Wish.LOG_INS, _LOG_INS)

    def logged_in(self, client: str) -> None:
        """Charge a log-in: somebody has proved to have the secret, whatever they say next."""
        self._quotas.charge(client, Wish.LOG_INS, _LOG_INS, 1, self._steady_s())

    def may_resume(self, client: str) -> bool:
        """Charge a resumption; False where there were too many lately, and nothing is charged.

        Apart from log-ins: who has the secret but not the session cannot use it up.
        """
        may = not self._refusal_s(client, Wish.RESUMPTIONS, _LOG_INS)
        if may:
            self._quotas.charge(client, Wish.RESUMPTIONS, _LOG_INS, 1, self._steady_s())
        return may

    def proposal_wait_s(self, client: str) -> float:
        """Charge a proposal and return 0.0, or return in how many seconds there may be one.

        Who is refused does not wait, so that is told until nothing is refused for a while.
        """
        wait_s = self._refusal_s(client, Wish.PROPOSALS, _PROPOSALS)
        if not wait_s:
            self._quotas.charge(client, Wish.PROPOSALS, _PROPOSALS, 1, self._steady_s())
        return wait_s

    def sweep(self) -> None:
        """Tell who keeps to its quota again."""
        for each in self._quotas.sweep(self._steady_s()):
            self._journal.raise_event(
                "CLIENT_HELD_BACK_ENDED",
                client=each.client,
                seconds=round(each.seconds),
                waited_s=round(each.waited_s),
                reports=each.reports,
            )

    def _refusal_s(self, client: str, wish: Wish, allowance: Allowance) -> float:
        """Return for how many seconds a client is refused something, and tell of it; 0.0: it is not."""
        now_s = self._steady_s()
        wait_s = self._quotas.wait_s(client, wish, allowance, now_s)
        # Who is refused does not wait.
        if wait_s and self._quotas.hold(client, 0, 0.0, now_s):
            self._tell_held(client, wish, allowance)
        return wait_s

    def _wishes(self, client: str) -> dict[Wish, Allowance]:
        settings = self._settings()
        factor = _RELAY_FACTOR if client in settings.relay_clients else 1
        rates = {
            Wish.REPORTS: settings.agent_report_rate * factor,
            Wish.BYTES: settings.agent_byte_rate * factor,
        }
        return {wish: Allowance(rate * BURST_S, rate) for wish, rate in rates.items() if rate}

    async def _wait(
        self,
        client: str,
        wishes: dict[Wish, Allowance],
        reports: int,
        is_wanted: Callable[[], bool],
    ) -> None:
        now_s = self._steady_s()
        wait_s, wish = max(
            (
                (self._quotas.wait_s(client, wish, each, now_s), wish)
                for wish, each in wishes.items()
            ),
            key=lambda pair: pair[0],
            default=(0.0, Wish.REPORTS),
        )
        if not wait_s:
            return
        wait_s = min(wait_s, WAIT_S_MAX)
        if self._quotas.hold(client, reports, wait_s, now_s):
            self._tell_held(client, wish, wishes[wish])
        end_s = now_s + wait_s
        # A connection that is not read from tells nobody that it has ended: so we look.
        while is_wanted() and (left_s := end_s - self._steady_s()) > 0:
            await self._sleep(min(left_s, _STEP_S))

    def _tell_held(self, client: str, wish: Wish, allowance: Allowance) -> None:
        self._journal.raise_event(
            "CLIENT_HELD_BACK",
            client=client,
            what=wish.value,
            limit=f"{allowance.per_s:.10g} a second, {allowance.burst:.10g} at once",
        )

    def _is_new(self, client: str, stream: bytes) -> bool:
        """True where a client was not heard with this stream lately. It is remembered."""
        known = self._streams.get(client, ())
        if stream in known:
            return False
        self._streams[client] = (*known, stream)[-_STREAMS_REMEMBERED:]
        return True
