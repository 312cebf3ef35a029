"""Kill server, agents and database again and again, fill disks, and count what is lost or doubled.

The law: what a spool has promised to keep (``append`` returned) is in the store in the end, once.
It includes what was acknowledged: that is in no spool any more. Everything is a real process; what
is killed, and after how much progress, is drawn from a seed.
"""

import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from needfire_testkit.crash_writer import CODE, DISK_REFUSES, NotesReader
from needfire_testkit.postgres import PostgresServer, running_postgres
from needfire_testkit.processes import ServerHome, wait_until
from needfire_testkit.rough_proxy import rough_proxy

__all__ = ["CrashFigures", "CrashPlan", "run_crashes"]

_KIT = Path(__file__).parents[1]
_PROGRESS_MAX = 400
"""Reports that are acknowledged between two crashes, at most."""
_LIMIT_S = 120.0
_BALLAST_BYTES = 65_536


@dataclass(frozen=True)
class CrashPlan:
    """What is to be done.

    Attributes:
        postgres: where PostgreSQL's programs are; None for SQLite, which dies with the server.
        is_rough: a proxy between agents and server adds faults of the network.
        server_disk, agent_disk: mount points of small file systems, which are filled now and then.
    """

    seed: int
    rounds: int
    agents: int = 2
    postgres: Path | None = None
    is_rough: bool = False
    server_disk: Path | None = None
    agent_disk: Path | None = None


@dataclass
class CrashFigures:
    """What became of it."""

    plan: CrashPlan
    done: Counter[str] = field(default_factory=Counter)
    """What was killed or filled, and what the proxy did, how often."""
    promised: int = 0
    stored: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    false_gaps: int = 0
    """Alarms about missing reports, and reports that could not be read: none was sent like that."""
    took_s: float = 0.0

    @property
    def is_lawful(self) -> bool:
        return not self.lost and not self.duplicated and not self.false_gaps

    def text(self) -> str:
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.done.items()))
        return (
            f"seed {self.plan.seed}, {self.plan.rounds} rounds in {self.took_s:.0f} s ({done}): "
            f"{self.promised} reports promised, {self.stored} stored, lost {len(self.lost)}, "
            f"duplicated {len(self.duplicated)}, false alarms {self.false_gaps}"
        )


def run_crashes(directory: Path, plan: CrashPlan) -> CrashFigures:
    """Do what the plan says, let everything be delivered in the end, and count."""
    began_s = time.monotonic()
    figures = CrashFigures(plan)
    with ExitStack() as stack:
        scene = _Scene(directory, plan, figures, stack)
        for _ in range(plan.rounds):
            scene.crash()
        scene.settle()
        scene.count()
    figures.took_s = time.monotonic() - began_s
    return figures


class _Scene:
    """The processes of one run."""

    def __init__(
        self, directory: Path, plan: CrashPlan, figures: CrashFigures, stack: ExitStack
    ) -> None:
        self._chance = random.Random(plan.seed)
        self._plan = plan
        self._figures = figures
        self._postgres: PostgresServer | None = None
        self._url = ""
        if plan.postgres is not None:
            self._postgres = stack.enter_context(running_postgres(plan.postgres, is_durable=True))
            self._url = self._postgres.new_database()
        self._server = ServerHome(
            plan.server_disk / "server" if plan.server_disk else directory / "server"
        )
        # What it prints must not take part in what the disk has room for.
        self._server.directory = directory
        self._server.write_rc(misc=f"StoreURL={self._url}" if self._url else "")
        stack.callback(self._server.stop_all)
        self._server.start()
        self._proxy = (
            stack.enter_context(rough_proxy(self._server.port, plan.seed))
            if plan.is_rough
            else None
        )
        self._port = self._server.port if self._proxy is None else self._proxy.port
        base = plan.agent_disk or directory
        self._writers = [
            _Writer(base / f"agent{number}", directory, f"127.1.{number}.1", self._server)
            for number in range(plan.agents)
        ]
        for writer in self._writers:
            stack.callback(writer.kill)
            writer.start(self._port)
        self._victims = self._possible_victims()

    def _possible_victims(self) -> list[tuple[str, Callable[[], None]]]:
        victims = [("server killed", self._kill_server), ("agent killed", self._kill_agent)]
        if self._postgres is not None:
            victims.append(("database killed", self._kill_database))
        if self._plan.server_disk is not None:
            victims.append(("server's disk full", self._fill_server_disk))
        if self._plan.agent_disk is not None:
            victims.append(("agents' disk full", self._fill_agent_disk))
        return victims

    def crash(self) -> None:
        """One round: some progress, most of the times, then a disaster and a new start."""
        if self._chance.random() < 0.8:
            self._progress(self._chance.randint(1, _PROGRESS_MAX))
        what, disaster = self._chance.choice(self._victims)
        disaster()
        self._figures.done[what] += 1

    def settle(self) -> None:
        """Let the agents deliver what they have, and stop everything properly."""
        for writer in self._writers:
            writer.finish(self._port)
        assert self._server.running.stop() == 0, self._server.running.output()[-2_000:]
        if self._proxy is not None:
            for kind, count in self._proxy.done.items():
                self._figures.done[f"connections: {kind.value}"] += count

    def count(self) -> None:
        """Hold what was promised against what is stored."""
        figures = self._figures
        promised = {token for writer in self._writers for token in writer.notes.look().promised}
        stored = Counter(
            json.loads(fields)["path"]
            for (fields,) in self._rows(f"SELECT fields FROM events WHERE code = '{CODE}'")
        )
        figures.promised, figures.stored = len(promised), sum(stored.values())
        figures.lost = sorted(promised - stored.keys())
        figures.duplicated = sorted(token for token, count in stored.items() if count > 1)
        for question in (
            "SELECT count(*) FROM events WHERE code = 'SEQUENCE_GAP'",
            "SELECT count(*) FROM stream_gaps",
            "SELECT count(*) FROM unusable_reports",
        ):
            figures.false_gaps += self._rows(question)[0][0]

    def _rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        if self._url:
            with psycopg.connect(self._url) as connection:
                return connection.execute(sql.encode()).fetchall()
        with closing(sqlite3.connect(self._server.data / "needfire.sqlite")) as connection:
            return connection.execute(sql).fetchall()

    def _acknowledged(self) -> int:
        return sum(writer.notes.look().acknowledged for writer in self._writers)

    def _progress(self, reports: int) -> None:
        wanted = self._acknowledged() + reports

        def enough() -> bool:
            for writer in self._writers:
                writer.must_run(self._port)
            assert self._server.running.process.poll() is None, self._server.running.output()
            return self._acknowledged() >= wanted

        try:
            wait_until(enough, f"{reports} more acknowledgements", _LIMIT_S)
        except AssertionError as error:
            last = "\n".join(self._server.running.output().splitlines()[-20:])
            raise AssertionError(f"{error} (seed {self._plan.seed})\n{last}") from None

    # ---- disasters

    def _kill_server(self) -> None:
        self._server.running.kill()
        self._server.start()

    def _kill_agent(self) -> None:
        writer = self._chance.choice(self._writers)
        writer.kill()
        writer.start(self._port)

    def _kill_database(self) -> None:
        assert self._postgres is not None
        self._postgres.kill()
        self._postgres.start()

    def _fill_server_disk(self) -> None:
        assert self._plan.server_disk is not None
        running = self._server.running
        failures = running.output().count("Storage failed")
        with _filled(self._plan.server_disk):
            wait_until(
                lambda: running.output().count("Storage failed") > failures,
                "a server that says that it cannot store",
                _LIMIT_S,
            )
            is_killed = self._chance.random() < 0.5
            if is_killed:
                running.kill()
        if is_killed:
            self._figures.done["server killed with a full disk"] += 1
            self._server.start()

    def _fill_agent_disk(self) -> None:
        assert self._plan.agent_disk is not None
        with _filled(self._plan.agent_disk):
            if self._chance.random() < 0.5:
                self._kill_agent()
                self._figures.done["agent killed with a full disk"] += 1
            self._kill_server()


class _Writer:
    """An agent of ``crash_writer``, which is started again and again."""

    def __init__(self, state: Path, outputs: Path, name: str, server: ServerHome) -> None:
        self.state = state
        self.state.mkdir(mode=0o700)
        # Not on the disk that is filled.
        self._notes = outputs / f"{state.name}.notes"
        self.notes = NotesReader(self._notes)
        self._output = outputs / f"{state.name}.out"
        self._name = name
        self._password = server.register(name)
        self._starts = 0
        self._program: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> None:
        self._starts += 1
        seed = f"{self._name}-{self._starts}"
        with self._output.open("ab") as output:
            self._program = subprocess.Popen(
                [
                    *(sys.executable, "-m", "needfire_testkit.crash_writer"),
                    *(str(self.state), str(self._notes), self._name, str(port), seed),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(_KIT)},
            )
        assert self._program.stdin is not None
        self._program.stdin.write(self._password.encode() + b"\n")
        self._program.stdin.close()

    def must_run(self, port: int) -> None:
        assert self._program is not None
        if self._program.poll() == DISK_REFUSES:
            self.start(port)
        assert self._program.poll() is None, self._output.read_text()[-2_000:]

    def kill(self) -> None:
        if self._program is not None:
            self._program.kill()
            self._program.wait()

    def finish(self, port: int) -> None:
        """Let it deliver all that it has, and end."""
        assert self._program is not None
        # A signal that comes before it listens to signals would end it.
        before = len(self.notes.look().promised)

        def goes_on() -> bool:
            self.must_run(port)
            return len(self.notes.look().promised) > before

        wait_until(goes_on, "a writer", _LIMIT_S)
        self._program.send_signal(signal.SIGTERM)
        assert self._program.wait(_LIMIT_S) == 0, self._output.read_text()[-2_000:]


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    """Leave no room on a disk."""
    ballast = disk / "ballast"
    piece = bytes(_BALLAST_BYTES)
    with ballast.open("wb", buffering=0) as file:
        while piece:
            try:
                is_whole = file.write(piece) == len(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                is_whole = False
            if not is_whole:
                piece = piece[: len(piece) // 2]
    try:
        yield
    finally:
        ballast.unlink()
