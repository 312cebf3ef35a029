"""The server that is measured: a process of its own, started, killed, and watched through /proc."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.agent import SimulatedAgent
from needfire_protocol.keys import SessionKeys
from needfire_protocol.srp import Verifier, make_verifier
from needfire_server.seal_key import find_seal_key, make_seal_key
from needfire_server.session_seal import SessionSeal, StoredSession, registration_of
from needfire_server.states import ClientState, ClientStatus
from needfire_server.storage.opening import how_to_open

START_LIMIT_S = 60
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used until a moment, and holds then."""

    at_s: float
    cpu_s: float
    rss_kib: int
    descriptors: int
    threads: int
    stolen_s: float
    """What other machines on the same host had of this machine's cores, all of them together."""

    def stolen_percent(self, since: "Usage") -> float:
        """Of all cores; latencies and rates per second of wall time suffer from it."""
        wall_s = self.at_s - since.at_s
        return 100 * (self.stolen_s - since.stolen_s) / (wall_s * (os.cpu_count() or 1))


class MeasuredServer:
    """needfire-server on a directory of its own.

    Args:
        command: what starts it, without arguments.
        misc: lines of its section [Misc].
        store_url: a PostgreSQL database; None for SQLite.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, misc: str, store_url: str | None = None
    ) -> None:
        self._command = command
        shutil.rmtree(directory, ignore_errors=True)
        self.data = directory / "data"
        self.data.mkdir(parents=True, mode=0o700)
        self._config = directory / "serverrc"
        self._output = directory / "output"
        self._open_store = how_to_open(str(self.data), store_url, None)
        user = "ServerUser=root\n" if os.geteuid() == 0 else ""
        misc += "" if store_url is None else f"\nStoreURL={store_url}"
        self._config.write_text(
            f"[Misc]\n{user}HostsAllowFile={directory}/hosts.allow\n"
            f"HostsDenyFile={directory}/hosts.deny\n{misc}\n[Log]\nPrintSeverity=none\n"
        )
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    async def _register(self, names: list[str], verifier: Verifier) -> None:
        """Put clients into the store, all with one verifier: making 10,000 would take a minute."""
        store = self._open_store()
        try:
            for at in range(0, len(names), 256):
                some = names[at : at + 256]
                await asyncio.gather(
                    *(store.register(name, verifier, now_us=1, user="bench") for name in some)
                )
        finally:
            store.close()

    async def know(
        self, agents: Sequence[SimulatedAgent], password: str, *, without_session: int = 0
    ) -> None:
        """Register agents, and plant a session for all but the first ones, before the start."""
        verifier = make_verifier(password, os.urandom)
        await self._register([agent.address for agent in agents], verifier)
        known = []
        for agent in agents[without_session:]:
            agent.keys = SessionKeys(
                os.urandom(16), os.urandom(32), os.urandom(32), version=1, suite=1, features=0
            )
            known.append((agent.address, agent.keys, agent.instance))
        await self._plant(known, verifier)

    async def _plant(
        self, sessions: list[tuple[str, SessionKeys, bytes]], verifier: Verifier
    ) -> None:
        """Put sessions into the store as if those agents had logged in before, in no time."""
        data = str(self.data)
        seal = SessionSeal(find_seal_key(data) or make_seal_key(data, os.urandom), os.urandom)
        now_us = time.time_ns() // 1000
        expires_us = now_us + 7_200 * 1_000_000
        registration = registration_of(verifier)
        store = self._open_store()
        try:
            for at in range(0, len(sessions), 256):
                await asyncio.gather(
                    *(
                        store.keep_session(
                            seal.seal(
                                StoredSession(name, keys, instance, registration, expires_us)
                            ),
                            (),
                            (started(name, instance, now_us),),
                        )
                        for name, keys, instance in sessions[at : at + 256]
                    )
                )
        finally:
            store.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start it and wait until it listens; return how many seconds that took."""
        began = time.monotonic()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *self._command,
                    "serve",
                    f"--config={self._config}",
                    f"--data-dir={self.data}",
                    f"--listen=0.0.0.0:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while b"listening on" not in self._output.read_bytes():
            if self._process.poll() is not None or time.monotonic() > began + START_LIMIT_S:
                raise SystemExit(f"the server did not start:\n{self._output.read_text()}")
            time.sleep(0.01)
        self.port = int(self._output.read_text().split("listening on ")[1].split()[0].split(":")[1])
        return time.monotonic() - began

    def monitoring_url(self) -> str:
        """Where the metrics are, of a server with MetricsListen."""
        address = self._output.read_text().split("monitoring on ")[1].split()[0]
        return f"http://{address}/metrics"

    def kill(self) -> None:
        """SIGKILL: what a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def usage(self) -> Usage:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        rss_kib = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Rss:"))
        return Usage(
            at_s=time.monotonic(),
            cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
            rss_kib=int(rss_kib),
            descriptors=len(os.listdir(f"/proc/{self.pid}/fd")),
            threads=int(fields[17]),
            stolen_s=stolen_s(),
        )


def started(name: str, instance: bytes, now_us: int) -> ClientState:
    """What a log-in stores beside its session: without it, a resumption would be a start to tell of."""
    status = ClientStatus.STARTED
    return ClientState(name, status, instance, now_us, name, latest={status: now_us})


def stolen_s() -> float:
    """Seconds since the start in which a core was wanted and the hypervisor gave none; proc(5)."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8]) / TICKS_PER_S
