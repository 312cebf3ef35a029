"""How the agent keeps a session with the server for as long as it runs.

    connect ──► serve ──► ended ──► wait (back-off) ──► connect …
                  │ key too old ──► connect at once with a new key
                  │ another agent took over (state 7) ──► wait for minutes, ask without taking over
                  └ suspended ──► nothing until woken up

Reports are never handed to a connection for good: they stay in the spool until acknowledged, so
whatever ends a connection loses none.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from needfire_client.backoff import Backoff
from needfire_client.dialer import Dialer
from needfire_client.link import Link, LinkError, LinkRefusedError
from needfire_client.reporter import Reporter
from needfire_client.session import ExpiredError, Session
from needfire_client.troubles import LinkTroubles, is_taken_over
from needfire_client.waiting import WaitingReports
from needfire_protocol.errors import StorageError
from needfire_protocol.messages import Announce, RefusalCode
from needfire_protocol.srp import BACKEND

__all__ = ["TAKEN_OVER_FIRST_S", "TAKEN_OVER_MOST_S", "Uplink"]

TAKEN_OVER_FIRST_S: Final = 60.0
TAKEN_OVER_MOST_S: Final = 600.0
"""Seconds between questions whether the other agent of this host is done."""

_STEADY_S: Final = 10.0
"""Seconds that a session has to last before the next failure starts with a short wait again: a
server that welcomes and then drops everyone must not be asked once a second by a whole fleet."""

_KEY_LIFE_MIN_S: Final = 1.0
"""Seconds: a key that is called too old sooner than that is a fault, and is paced like one."""


class Uplink:
    """Keeps a session open. ``run`` does the work; everything else asks it for something.

    Args:
        make_session: puts a session on a link that has just been opened.
        announcement: what to say first on each connection.
        random: gives a float in [0, 1), for the waits.
        backoff: waits after failures.
        taken_over_backoff: waits while another agent holds the session.
    """

    def __init__(
        self,
        dialer: Dialer,
        spool: WaitingReports,
        *,
        make_session: Callable[[Link], Session],
        announcement: Announce,
        reporter: Reporter,
        random: Callable[[], float],
        backoff: Backoff | None = None,
        taken_over_backoff: Backoff | None = None,
    ) -> None:
        self.dialer = dialer
        self.failure: LinkError | None = None
        self.was_welcomed = False
        self._spool = spool
        self._make_session = make_session
        self._announcement = announcement
        self._reporter = reporter
        self._troubles = LinkTroubles(reporter)
        self._backoff = backoff or Backoff(random)
        self._taken_over_backoff = taken_over_backoff or Backoff(
            random,
            first_s=TAKEN_OVER_FIRST_S,
            most_s=TAKEN_OVER_MOST_S,
            least_s=TAKEN_OVER_FIRST_S,
        )
        self._session: Session | None = None
        self._awake = asyncio.Event()
        self._awake.set()
        self._hurry = asyncio.Event()
        self._changed = asyncio.Condition()
        self._rounds = 0

    @property
    def session(self) -> Session | None:
        """The open session, if there is one now."""
        session = self._session
        return None if session is None or session.is_over else session

    async def run(self) -> None:
        """Connect, serve, and begin again, until cancelled."""
        while True:
            await self._awake.wait()
            try:
                session = await self._connect()
            except LinkError as error:
                await self._failed(error)
                continue
            if not self._awake.is_set():
                session.stop()
            began_s = time.monotonic()
            ending = await session.run()
            self._session = None
            if self._awake.is_set():
                await self._ended(ending, time.monotonic() - began_s)

    async def first(self) -> Session:
        """Return the first session, as soon as it is open.

        Raises:
            LinkError: the first round through all servers failed. ``run`` goes on trying.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._rounds > 0)
        if self._session is None and self.failure is not None:
            raise self.failure
        return await self.wait_session()

    async def wait_session(self) -> Session:
        """Return an open session; wait for one where there is none."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.session is not None)
        session = self.session
        assert session is not None
        return session

    async def flush(self) -> None:
        """Wait until the server has acknowledged everything in the spool, whatever it takes."""
        while self._spool.waiting:
            session = await self.wait_session()
            try:
                await session.flush()
            except LinkError:
                continue

    async def goodbye(self, reason: str, within_s: float) -> bool:
        """Deliver what waits, say why we go silent, and stay away until ``wake``.

        Returns:
            False where time or connection ran out before the server had noted it, and at once
            while suspended: another agent of this host may have the session now.
        """
        if not self._awake.is_set():
            return False
        try:
            async with asyncio.timeout(within_s):
                session = await self._session_or_failure()
                await session.flush()
                # From here on the end of the session is no reason to connect again.
                self._awake.clear()
                await session.goodbye(reason)
        except TimeoutError:
            return False
        except LinkError as error:
            # The caller may not give ``run`` the time to say it.
            self._troubles.tell(error)
            self.failure = error
            return False
        return True

    async def suspend(self, within_s: float) -> bool:
        """Tell the server, close the connection, and stay away until ``wake``."""
        told = await self.goodbye("suspend", within_s)
        self._awake.clear()
        if self._session is not None:
            self._session.stop()
        return told

    def wake(self) -> None:
        """Connect again, as at a start: the session may belong to another agent now."""
        self.dialer.take_over_again()
        self._backoff.reset()
        self._taken_over_backoff.reset()
        self._awake.set()
        self.hurry()

    def hurry(self) -> None:
        """Do not wait any longer before the next attempt."""
        self._hurry.set()

    def reports_waiting(self) -> None:
        """The spool has something new."""
        if self._session is not None:
            self._session.reports_waiting()

    async def _session_or_failure(self) -> Session:
        """Return an open session, or raise what one more attempt to get one gives."""
        rounds = self._rounds
        self.hurry()
        async with self._changed:
            await self._changed.wait_for(lambda: self.session or self._rounds > rounds)
        if (session := self.session) is not None:
            return session
        raise self.failure or TimeoutError

    async def _connect(self) -> Session:
        link = await self.dialer.dial(self._troubles.tell)
        session = self._make_session(link)
        try:
            welcome = await session.announce(self._announcement)
        except BaseException as error:
            await link.close()
            if isinstance(error, LinkError):
                self._troubles.tell(error)
                if not is_taken_over(error):
                    self.dialer.avoid(link.server)
            raise
        self.dialer.welcomed(welcome.session_lifetime_s)
        self._tell_opened(link)
        self.was_welcomed = True
        # Where the disk refuses, the worst is a crash that is not told from a clean end.
        with contextlib.suppress(StorageError):
            await asyncio.to_thread(self._spool.note_welcome)
        self.failure = None
        self._taken_over_backoff.reset()
        await self._set_session(session)
        return session

    def _tell_opened(self, link: Link) -> None:
        server = str(link.server)
        if link.is_resumed:
            self._reporter.report("SESSION_RESUMED", server=server)
        else:
            self._reporter.report("SESSION_KEY_NEGOTIATED", server=server, backend=BACKEND)
        self._troubles.recovered(link.server, self._spool.waiting)

    async def _failed(self, error: LinkError) -> None:
        """No session could be opened; every reason has been told already."""
        self.failure = error
        await self._set_session(None)
        await self._pause(error)

    async def _ended(self, error: LinkError, lasted_s: float) -> None:
        """A session is over: tell why, and wait as long as that asks for."""
        if lasted_s >= _STEADY_S:
            self._backoff.reset()
        elif not isinstance(error, ExpiredError) and not is_taken_over(error):
            self.dialer.avoid(error.server)
        if isinstance(error, ExpiredError):
            self._reporter.report("SESSION_KEY_EXPIRED", server=str(error.server))
            self.dialer.forget_keys()
            if lasted_s >= _KEY_LIFE_MIN_S:
                return
        else:
            self._troubles.tell(error)
        self.failure = error
        await self._pause(error)

    async def _pause(self, error: LinkError) -> None:
        if is_taken_over(error):
            self.dialer.forget_keys()
            delay_s = self._taken_over_backoff.next_delay_s()
        else:
            if isinstance(error, LinkRefusedError) and error.code is RefusalCode.SESSION_UNKNOWN:
                self.dialer.forget_keys()
            delay_s = self._backoff.next_delay_s()
            if not isinstance(error, ExpiredError):
                self._troubles.service_failed(error, delay_s)
        self._hurry.clear()
        try:
            async with asyncio.timeout(delay_s):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _set_session(self, session: Session | None) -> None:
        self._session = session
        self._rounds += 1
        async with self._changed:
            self._changed.notify_all()
