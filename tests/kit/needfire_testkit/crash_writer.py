"""An agent that does nothing but report, as a process of its own that can be killed at any moment.

    python -m needfire_testkit.crash_writer STATE_DIRECTORY NOTES NAME PORT SEED  < password

Spool and uplink are the agent's real ones. Each report has a token that is used once. What the spool
has promised to keep, and how much of it the server has acknowledged, is appended to
the file NOTES: ``+ TOKEN`` after ``append`` has returned, ``- COUNT`` when acknowledged
reports have left the spool. SIGTERM ends the reporting; the process ends when nothing waits any more.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from needfire_client.address import ServerAddress
from needfire_client.backoff import Backoff
from needfire_client.dialer import Dialer
from needfire_client.link import Link, LinkTimes
from needfire_client.logbook import Logbook
from needfire_client.outbox import report_body
from needfire_client.reporter import Reporter
from needfire_client.session import Session
from needfire_client.spool import NewReport, Spool
from needfire_client.uplink import Uplink
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, make_event
from needfire_protocol.messages import Announce

__all__ = ["CODE", "DISK_REFUSES", "NotesReader"]

DISK_REFUSES = 75
"""Exit status where the spool cannot be opened; a service manager would start it again."""

CODE = "POLICY_ADDED"
"""Code of the reports; the token is the field ``path``."""

_WAITING_MAX = 1_500
"""Reports in the spool beyond which none are added, so that the end does not take for ever."""
_AT_ONCE_MAX = 40
_PAUSE_S = 0.02


class NotesReader:
    """What a writer has noted so far: tokens it was promised, and how many were acknowledged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self.promised: list[str] = []
        self.acknowledged = 0

    def look(self) -> "NotesReader":
        """Read what is new."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                whole = file.read().rpartition(b"\n")[0]
            self._read_bytes += len(whole) + 1 if whole else 0
            for line in whole.decode().splitlines():
                if line.startswith("+ "):
                    self.promised.append(line[2:])
                else:
                    self.acknowledged += int(line[2:])
        return self


class _Notes:
    """What SIGKILL must not take away: written without a buffer of ours."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        if os.write(self._handle, data) < len(data):
            raise OSError("the notes were cut off")


class _Silent:
    """A sink for the agent's own log."""

    def write(self, event: Event) -> None:
        pass


async def _main(state: Path, path: Path, name: str, port: int, seed: str, password: str) -> None:
    notes, chance = _Notes(path), random.Random(seed)
    try:
        spool = Spool(
            state / "spool.sqlite",
            size_max_bytes=1 << 30,
            random_bytes=os.urandom,
            now_us=_now_us,
            on_set_aside=lambda _path, why: sys.exit(f"the spool was damaged: {why}"),
        )
    except StorageError:
        sys.exit(DISK_REFUSES)
    acknowledged = spool.acknowledge

    def acknowledge(stream: bytes, sequence: int) -> int:
        removed = acknowledged(stream, sequence)
        notes.write(f"- {removed}")
        return removed

    spool.acknowledge = acknowledge  # type: ignore[method-assign]
    uplink = _uplink(spool, name, port, password)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(uplink.run())
        number = 0
        while not stop.is_set():
            count = chance.randint(1, _AT_ONCE_MAX)
            tokens = [f"/{seed}/{number + each}" for each in range(count)]
            number += count
            if spool.waiting < _WAITING_MAX and await asyncio.to_thread(_append, spool, tokens):
                notes.write(*(f"+ {token}" for token in tokens))
                uplink.reports_waiting()
            await asyncio.sleep(chance.random() * _PAUSE_S)
        await uplink.flush()
        await uplink.goodbye("exit", 5)
        running.cancel()


def _append(spool: Spool, tokens: list[str]) -> bool:
    """Put reports into the spool; False where its disk takes nothing."""
    events = [
        make_event(
            CODE, time_us=_now_us(), random_10_bytes=os.urandom(10), policy="ReadOnly", path=token
        )
        for token in tokens
    ]
    try:
        spool.append([NewReport(e.code, e.time_us, report_body(e)) for e in events])
    except StorageError:
        return False
    return True


def _uplink(spool: Spool, name: str, port: int, password: str) -> Uplink:
    def make_session(link: Link) -> Session:
        return Session(
            link,
            spool,
            on_order=lambda _session, _order: None,
            on_delivered=lambda: None,
            clock_us=_now_us,
            heartbeat_s=1,
        )

    return Uplink(
        Dialer(
            [ServerAddress("127.0.0.1", port)],
            name=name,
            load_password=lambda: password,
            random_bytes=os.urandom,
            # Names are addresses, so that no name server is asked.
            bind_address=name,
            times=LinkTimes(connect_s=5, handshake_s=5),
        ),
        spool,
        make_session=make_session,
        announcement=Announce(os.urandom(16), "boot", _now_us(), "0", "run", False),
        reporter=Reporter(Logbook(_Silent()), clock_us=_now_us, random_bytes=os.urandom),
        random=random.random,
        backoff=Backoff(random.random, first_s=0.05, most_s=0.4, least_s=0.02),
        taken_over_backoff=Backoff(random.random, first_s=0.1, most_s=0.4, least_s=0.05),
    )


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    state, notes, name, port, seed = sys.argv[1:]
    asyncio.run(_main(Path(state), Path(notes), name, int(port), seed, input().strip()))
