"""One server at half load for a long time: do memory, descriptors and tasks stay what they are?

Simulated agents of scripts/bench/fleet report at a constant rate, by default half of what a short
storm reaches first. Meanwhile some of them go and come back again, and strangers do what strangers
do: what leaks does so there. A row is printed for each interval; in the end the medians of the
second and of the last quarter are compared (the first one is warming up).
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench_fleet import (
    PASSWORD,
    gather,
    hello,
    machine,
    own_address,
    power_ms,
    raise_descriptor_limit,
    report_bodies,
)
from bench_options import bench_parser
from fleet.agent import SimulatedAgent
from fleet.server import MeasuredServer

STRANGERS = (
    b"",
    b"GET / HTTP/1.0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"\x01\x00\x00\x00\x02\x01\xc1",
    b"\x01\x00\x00",
)
HEADINGS = (
    *("minute", "reports", "a second", "CPU %", "RSS MiB", "descriptors", "threads"),
    *("tasks", "sessions", "p99 ms", "disk ms", "lost", "back", "strangers", "stolen %"),
)


@dataclass(frozen=True)
class Row:
    """How things stood at the end of an interval."""

    minute: float
    reports: int
    rate: float
    cpu_percent: float
    rss_mib: float
    descriptors: int
    threads: int
    tasks: int
    sessions: int
    p99_ms: float
    disk_ms: float
    """The longest that the disk took to keep 4 KiB beside the store, asked four times a second."""
    lost: int
    back: int
    strangers: int
    stolen_percent: float

    def cells(self) -> list[str]:
        numbers = (getattr(self, name) for name in self.__dataclass_fields__)
        return [f"{each:.1f}" if isinstance(each, float) else str(each) for each in numbers]


def main() -> None:
    options = parsed()
    raise_descriptor_limit(options.agents + 64)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(f"{options.agents} agents, {options.minutes} minutes, {machine(power_ms())}", flush=True)
    try:
        asyncio.run(Soak(options).run())
    finally:
        shutil.rmtree(options.work, ignore_errors=True)


def parsed() -> argparse.Namespace:
    parser = bench_parser("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds of a row")
    parser.add_argument("--agents", type=int, default=500, help="simulated agents")
    parser.add_argument("--rate", type=float, help="reports a second; half of a storm without")
    parser.add_argument("--batch", type=int, default=20, help="reports in a batch")
    parser.add_argument("--churn", type=float, default=2.0, help="agents a second that come back")
    parser.add_argument("--strangers", type=float, default=2.0, help="strangers a second")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("/var/tmp/needfire-soak"),
        help="directory of the server's files; it is removed in the end",
    )
    parser.add_argument(
        "--server",
        type=Path,
        default=Path(sys.executable).with_name("needfire-server"),
        help="the program to measure",
    )
    return parser.parse_args()


class DiskProbe(threading.Thread):
    """Says how long the disk keeps somebody waiting who has nothing to do with the server.

    A server that acknowledges what is durable is no faster than that.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(name="disk-probe", daemon=True)
        self._path = directory / "probe"
        self._longest_s = 0.0
        self._stopped = threading.Event()

    def run(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._stopped.wait(0.25):
                began_s = time.monotonic()
                file.seek(0)
                file.write(os.urandom(4096))
                os.fdatasync(file.fileno())
                self._longest_s = max(self._longest_s, time.monotonic() - began_s)

    def take_longest_s(self) -> float:
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.server = MeasuredServer(
            [str(options.server)],
            options.work,
            f"ConnectionLimit={options.agents + 1000}\nMetricsListen=127.0.0.1:0",
        )
        self.agents = [
            SimulatedAgent(own_address(number), self.lost) for number in range(options.agents)
        ]
        self.bodies = report_bodies()
        self.losses: Counter[str] = Counter()
        self.sent = self.back = self.strangers = 0
        self.rows: list[Row] = []
        self.probe = DiskProbe(options.work)

    async def run(self) -> None:
        await self.server.know(self.agents, PASSWORD)
        self.server.start()
        self.probe.start()
        try:
            await gather(self.connect(agent) for agent in self.agents)
            rate = self.options.rate or await self.storm_rate() / 2
            print(f"{rate:.0f} reports a second wanted", flush=True)
            await self.hold(rate)
            self.tell()
        finally:
            for agent in self.agents:
                agent.close()
            self.server.kill()
            self.probe.stop()

    async def storm_rate(self) -> float:
        """What the machine reaches at the moment, agents and server together."""
        # In batches as they come later: small ones cost more.
        batch = self.bodies[: self.options.batch]
        each = max(1, 100_000 // len(batch) // len(self.agents))

        async def one(agent: SimulatedAgent) -> None:
            for _ in range(each):
                await agent.report(batch)
            await agent.all_acknowledged()

        began_s = time.monotonic()
        await gather(one(agent) for agent in self.agents)
        rate = each * len(batch) * len(self.agents) / (time.monotonic() - began_s)
        print(f"a storm reaches {rate:.0f} reports a second; {machine(power_ms())}", flush=True)
        return rate

    async def hold(self, rate: float) -> None:
        print(" | ".join(HEADINGS), flush=True)
        pause_s = len(self.agents) * self.options.batch / rate
        tasks = [
            *(asyncio.ensure_future(self.keep_on(agent, pause_s)) for agent in self.agents),
            asyncio.ensure_future(self.at_rate(self.options.churn, self.come_back)),
            asyncio.ensure_future(self.at_rate(self.options.strangers, self.be_strange)),
        ]
        try:
            until_s = time.monotonic() + self.options.minutes * 60
            began_s = time.monotonic()
            while time.monotonic() < until_s:
                await self.row(began_s)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    print(f"a load generator ended: {result!r}", flush=True)

    async def keep_on(self, agent: SimulatedAgent, pause_s: float) -> None:
        batch = self.bodies[: self.options.batch]
        await asyncio.sleep(random.random() * pause_s)
        while True:
            # While it is away it says nothing: a simulated agent has no spool.
            if agent.is_welcome:
                with contextlib.suppress(ConnectionError):
                    await agent.report(batch)
                    self.sent += len(batch)
            await asyncio.sleep(pause_s)

    async def at_rate(self, a_second: float, work: object) -> None:
        while a_second:
            await asyncio.sleep(random.expovariate(a_second))
            await work()  # type: ignore[operator]

    async def come_back(self) -> None:
        agent = random.choice(self.agents)
        await agent.all_acknowledged()
        await agent.closed()
        await self.connect(agent)
        self.back += 1

    async def connect(self, agent: SimulatedAgent) -> None:
        while True:
            try:
                await agent.connect(self.server.port, PASSWORD)
                return
            except (OSError, TimeoutError) as error:
                self.losses[f"connecting: {type(error).__name__}"] += 1
                await asyncio.sleep(random.random())

    async def be_strange(self) -> None:
        """Garbage, silence, half a frame, or half a log-in; then gone without a farewell."""
        words = random.choice((*STRANGERS, hello("127.0.0.77"), hello(self.agents[0].address)))
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", self.server.port, local_addr=(f"127.0.0.{random.randrange(2, 250)}", 0)
            )
        except OSError:
            return
        writer.write(words)
        await asyncio.sleep(random.random())
        writer.transport.abort()
        self.strangers += 1

    async def row(self, began_s: float) -> None:
        before, sent = self.server.usage(), self.sent
        for agent in self.agents:
            agent.latencies_s.clear()
        await asyncio.sleep(self.options.interval)
        after = self.server.usage()
        metrics = await asyncio.get_running_loop().run_in_executor(None, self.metrics)
        wall_s = after.at_s - before.at_s
        latencies = sorted(value for agent in self.agents for value in agent.latencies_s)
        row = Row(
            (time.monotonic() - began_s) / 60,
            self.sent,
            (self.sent - sent) / wall_s,
            100 * (after.cpu_s - before.cpu_s) / wall_s,
            after.rss_kib / 1024,
            after.descriptors,
            after.threads,
            int(metrics["needfire_tasks"]),
            int(metrics["needfire_sessions"]),
            1000 * latencies[int(0.99 * (len(latencies) - 1))] if latencies else 0.0,
            1000 * self.probe.take_longest_s(),
            int(metrics["needfire_reports_lost"]),
            self.back,
            self.strangers,
            after.stolen_percent(before),
        )
        self.rows.append(row)
        print(" | ".join(row.cells()), flush=True)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.server.monitoring_url(), timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.split() for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in (pair[:2] for pair in pairs)}

    def lost(self, agent: SimulatedAgent, reason: str) -> None:
        self.losses[f"lost: {reason}"] += 1

    def tell(self) -> None:
        quarter = len(self.rows) // 4
        if not quarter:
            return
        early, late = self.rows[quarter : 2 * quarter], self.rows[-quarter:]
        for name in ("rss_mib", "descriptors", "threads", "tasks"):
            first, last = (
                statistics.median(getattr(row, name) for row in rows) for rows in (early, late)
            )
            print(
                f"{name}: {first:.1f} in the second quarter, {last:.1f} in the last: {last - first:+.1f}"
            )
        print(
            f"connections lost by the server: {dict(self.losses) or 'none'}; {machine(power_ms())}"
        )


if __name__ == "__main__":
    main()
