"""What a verb has of the server: the spool, the thread that fills it, and the connection.

Reporter ──► SpoolOutbox ──► Spools ──► Session ──► server
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from needfire_client.address import ServerAddress
from needfire_client.backoff import Backoff
from needfire_client.dialer import Dialer
from needfire_client.identity import boot_id, load_password
from needfire_client.link import Link
from needfire_client.memory_spool import MEMORY_MAX_BYTES
from needfire_client.outbox import SpoolOutbox
from needfire_client.reporter import PROGRAM
from needfire_client.runtime import Runtime, clock_us
from needfire_client.session import Session
from needfire_client.spool import Spool, read_last_words
from needfire_client.spools import Spools
from needfire_client.uplink import Uplink
from needfire_client.witness import Witness
from needfire_protocol import __version__
from needfire_protocol.messages import Announce, Command
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["GOODBYE_S", "Network"]

GOODBYE_S: Final = 5.0
"""Seconds in which a stopping agent tries to deliver what it has and to say goodbye."""

_CLOSE_S: Final = 2.0
_CLEAN_ENDS: Final = frozenset({"EXIT", "SUSPEND"})


class Network:
    """Spool and connection of one run of a verb. To be made inside the event loop.

    Args:
        settings: None while the configuration is still on the server.
        mode: the verb, as it is announced.
        on_order: called for each command of an administrator.

    Raises:
        CommandError: there is no usable password.
        StorageError: the spool cannot be used.
    """

    def __init__(
        self,
        runtime: Runtime,
        spool_path: Path,
        servers: Sequence[ServerAddress],
        settings: AgentSettings | None,
        *,
        mode: str,
        on_order: Callable[[Session, Command], None],
    ) -> None:
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._settings = AgentSettings() if settings is None else settings
        self._on_order = on_order
        load_password(runtime.state.password)  # now, while there is somebody to read the advice
        self.spool = self._open_spools(spool_path)
        self._witness = Witness(runtime.state.witness, runtime.reporter.report)
        self.uplink = Uplink(
            self._dialer(servers),
            self.spool,
            make_session=self._make_session,
            announcement=Announce(
                instance=secrets.token_bytes(16),
                boot_id=boot_id(),
                started_us=clock_us(),
                version=__version__,
                mode=mode,
                prior_exit_pending=self._is_prior_exit_pending(),
            ),
            reporter=runtime.reporter,
            random=random.random,
        )
        self._outbox = SpoolOutbox(
            self.spool,
            on_new=self._on_new,
            on_full=self._on_full,
            on_room=self._on_room,
            on_failing=self._on_failing,
            on_lost=self._on_lost,
        )
        runtime.reporter.export_to(self._outbox)

    def configure(self, servers: Sequence[ServerAddress], settings: AgentSettings) -> None:
        """Use what the configuration says from now on; an open connection stays as it is."""
        self._settings = settings
        self.spool.set_size_max(settings.spool_size_limit_bytes)
        self._outbox.room_made()
        if servers:
            self.uplink.dialer.servers = tuple(servers)
        self.uplink.dialer.bind_address = self._bind_address()
        if self.uplink.session is not None:
            self.uplink.session.heartbeat_s = settings.loop_interval_s

    async def written(self, within_s: float = _CLOSE_S) -> bool:
        """Wait until everything that was reported so far is on disk."""
        return await asyncio.to_thread(self._outbox.flush, within_s)

    def let_go(self) -> None:
        """Hold up no scan any longer that waits for room in the spool."""
        self._outbox.let_go()

    async def exit(self, status: str, within_s: float = GOODBYE_S) -> bool:
        """Report EXIT as the last thing of this process, deliver all, and say goodbye.

        Returns:
            False where the server has not heard it; the next process delivers it.
        """
        self._runtime.reporter.report("EXIT", program=PROGRAM, status=status)
        # Whatever a thread still finds must not come after the end: the next start would
        # look like one after a crash.
        self._runtime.reporter.export_to(None)
        await self.written()
        return await self.uplink.goodbye("exit", within_s)

    def close(self) -> None:
        """Write what can be written, and close the spool."""
        self._runtime.reporter.export_to(None)
        lost = self._outbox.close(_CLOSE_S)
        lost += self.spool.close()
        if lost:
            self._runtime.reporter.report_here("REPORTS_LOST", reports=lost)

    def _is_prior_exit_pending(self) -> bool:
        """True where the server has yet to hear of the clean end of this client.

        The service and init/check/update have a spool each, and to the server they are one
        client. An end from before the last welcome proves nothing: counting it would hide that
        a process was killed since.
        """
        state = self._runtime.state
        other = state.oneshot_spool if self.spool.path == state.spool else state.spool
        both = (self.spool.last_words(), read_last_words(other))
        last = max(both, key=lambda words: words.time_us)
        return last.code in _CLEAN_ENDS and last.time_us >= max(w.welcomed_us for w in both)

    def _open_spools(self, path: Path) -> Spools:
        # Told from the loop: while it opens, there is nothing to put the event into.
        return Spools(
            lambda: self._open_spool(path),
            path=path,
            random_bytes=secrets.token_bytes,
            backoff=Backoff(random.random),
            on_refused=lambda reason: self._call(lambda: self._on_refused(reason)),
            on_accepted=lambda moved: self._call(lambda: self._on_accepted(moved)),
        )

    def _open_spool(self, path: Path) -> Spool:
        return Spool(
            path,
            size_max_bytes=self._settings.spool_size_limit_bytes,
            random_bytes=secrets.token_bytes,
            now_us=clock_us,
            on_set_aside=lambda aside, why: self._call(lambda: self._on_set_aside(aside, why)),
        )

    def _dialer(self, servers: Sequence[ServerAddress]) -> Dialer:
        return Dialer(
            servers,
            name=self._runtime.name,
            load_password=lambda: load_password(self._runtime.state.password),
            random_bytes=secrets.token_bytes,
            bind_address=self._bind_address(),
        )

    def _bind_address(self) -> str | None:
        return self._runtime.options.bind_address or self._settings.bind_address

    def _make_session(self, link: Link) -> Session:
        return Session(
            link,
            self.spool,
            on_order=self._on_order,
            on_delivered=self._outbox.room_made,
            clock_us=clock_us,
            heartbeat_s=self._settings.loop_interval_s,
            witness=self._witness,
        )

    def _on_new(self) -> None:
        self._call(self.uplink.reports_waiting)

    def _on_full(self, bytes_used: int, limit: int) -> None:
        self._runtime.reporter.report("SPOOL_FULL", bytes=bytes_used, limit=limit)

    def _on_room(self) -> None:
        self._runtime.reporter.report("SPOOL_HAS_ROOM")

    def _on_refused(self, reason: str) -> None:
        self._runtime.reporter.report("SPOOL_UNWRITABLE", reason=reason, limit=MEMORY_MAX_BYTES)

    def _on_accepted(self, moved: int) -> None:
        self._runtime.reporter.report("SPOOL_WRITABLE", moved=moved)

    def _on_lost(self, reports: int) -> None:
        self._runtime.reporter.report("REPORTS_LOST", reports=reports)

    def _on_failing(self, reason: str) -> None:
        self._runtime.reporter.report_here("LOCAL_STORAGE_FAILED", reason=reason)

    def _on_set_aside(self, aside: Path, reason: str) -> None:
        self._runtime.reporter.report("SPOOL_DAMAGED", reason=reason, path=str(aside))

    def _call(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: we are at the end
            self._loop.call_soon_threadsafe(callback)
