"""One server under a fleet of simulated agents, all on this machine.

The agents speak the real protocol over loopback, each from an address of its own: real handshakes,
real seals, real signatures. What the server costs is read from /proc and stands apart from what the
agents cost. Phases, in this order:

  connect    some agents negotiate a session (full SRP), the others resume one that was put into the
             store before the server started; a few at a time
  idle       nothing but heartbeats; memory per agent stands here
  storm      every agent sends all that it has as fast as the server acknowledges it
  steady     all agents together report at half the rate that the storm reached, in batches of the
             same size, at times that were fixed before: latencies count from when a batch was to
             be sent, whatever it had to wait for
  reconnect  the server is killed (SIGKILL) and started again; every agent backs off as the real one
             does, and comes back
  hostile    strangers that say nothing, garbage, half a log-in, or ask for sessions that do not
             exist, and agents that report without ever reading an answer, while others go on reporting

On a shared machine believe the rates per second of the server's CPU, not those per second. "Stolen"
is what the hypervisor gave to others although this machine wanted it: latencies grow by that.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench_options import bench_parser
from fleet.agent import SimulatedAgent
from fleet.server import MeasuredServer, Usage

from needfire_client.backoff import Backoff
from needfire_protocol.codec import encode
from needfire_protocol.event import make_event, pack_event
from needfire_protocol.power import power
from needfire_protocol.srp import BACKEND

PASSWORD = "correct horse battery staple"
PHASES = ("connect", "idle", "steady", "storm", "reconnect", "hostile")
BODIES = 500
DESCRIPTORS_SPARE = 200


def main() -> None:
    options = parsed()
    raise_descriptor_limit(options.agents)
    # As it is once installed: compiled modules may be kept.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # How an interpreter was built makes a difference of a quarter.
    python = f"Python {platform.python_version()} of {sys.base_prefix}"
    print(f"{options.agents} agents, {python}, {BACKEND}, {machine(power_ms())}", flush=True)
    try:
        with contextlib.ExitStack() as stack:
            url = new_database(stack) if options.postgresql else None
            asyncio.run(Bench(options, url).run())
    finally:
        if not options.keep:
            shutil.rmtree(options.work, ignore_errors=True)


def parsed() -> argparse.Namespace:
    parser = bench_parser("fleet", __doc__)
    parser.add_argument("--agents", type=int, default=1000, help="simulated agents")
    parser.add_argument(
        "--phases", nargs="+", choices=PHASES, default=list(PHASES), help="what to measure"
    )
    parser.add_argument(
        "--negotiate", type=int, default=500, help="agents that log in with a password at first"
    )
    parser.add_argument(
        "--at-once", type=int, default=16, help="log-ins with a password at a time in 'connect'"
    )
    # A fleet that comes back does not come by ones and twos: more in flight share a turn of the loop.
    parser.add_argument(
        "--resume-at-once", type=int, default=64, help="resumptions at a time in 'connect'"
    )
    parser.add_argument("--heartbeat", type=float, default=60.0, help="seconds between heartbeats")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of the idle phase")
    parser.add_argument("--steady", type=float, default=20.0, help="seconds of the steady phase")
    parser.add_argument(
        "--rate", type=float, help="reports a second in 'steady' (default: half of the storm's)"
    )
    parser.add_argument("--reports", type=int, default=200_000, help="of all agents in 'storm'")
    parser.add_argument("--batch", type=int, default=100, help="reports in a batch of the storm")
    parser.add_argument(
        "--steady-batch", type=int, help="reports in a batch of 'steady' (default: the storm's)"
    )
    parser.add_argument("--small-batch", type=int, default=10, help="reports in a hostile batch")
    parser.add_argument("--strangers", type=int, default=400, help="at a time in 'hostile'")
    parser.add_argument("--deaf", type=int, default=20, help="agents that never read in 'hostile'")
    parser.add_argument("--hostile", type=float, default=15.0, help="seconds of 'hostile'")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("/var/tmp/needfire-fleet"),
        help="directory of the server's files",
    )
    parser.add_argument(
        "--server",
        type=Path,
        default=Path(sys.executable).with_name("needfire-server"),
        help="the program to measure, for example that of another version",
    )
    parser.add_argument(
        "--postgresql", action="store_true", help="a PostgreSQL of our own keeps the store"
    )
    parser.add_argument("--keep", action="store_true", help="leave the server's files there")
    return parser.parse_args()


def new_database(stack: contextlib.ExitStack) -> str:
    """Start a PostgreSQL that flushes its commits; what its processes use counts nowhere."""
    from needfire_testkit.postgres import find_postgres, running_postgres

    programs = find_postgres()
    if programs is None:
        sys.exit("no PostgreSQL is installed here")
    return stack.enter_context(running_postgres(programs, is_durable=True)).new_database()


def raise_descriptor_limit(agents: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = agents + DESCRIPTORS_SPARE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{agents} agents need {wanted} descriptors; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def power_ms() -> float:
    """How fast the machine is at the moment: other programs make it slower by half and more."""
    began_s = time.process_time()
    for _ in range(50):
        power(5**1000, 2**256 - 1, 2**3072 - 1)
    return (time.process_time() - began_s) * 1000 / 50


def machine(a_power_ms: float) -> str:
    return (
        f"load {os.getloadavg()[0]:.1f}, {a_power_ms:.2f} ms CPU for a power of 256 bits mod 3072"
    )


def own_address(number: int) -> str:
    """An address of 127.0.0.0/8 for each agent; 127.0.0.x stays free for others."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


def report_bodies() -> list[bytes]:
    """What a package upgrade gives: changed files, with what changed of each."""
    bodies = []
    for number in range(BODIES):
        event = make_event(
            "POLICY_MODIFIED",
            time_us=1_795_000_000_000_000 + number,
            random_10_bytes=os.urandom(10),
            policy="ReadOnly",
            change="C------TS",
            path=f"/usr/lib/x86_64-linux-gnu/libexample-{number}.so.{number % 7}",
            size_old=18_432 + number,
            size_new=18_944 + number,
            mtime_old="2026-11-01T10:11:12Z",
            mtime_new="2026-11-22T10:11:12Z",
            chksum_old=os.urandom(32).hex(),
            chksum_new=os.urandom(32).hex(),
        )
        bodies.append(encode(pack_event(event)))
    return bodies


@dataclass
class Span:
    """What the server and the agents used between two moments."""

    before: Usage
    after: Usage
    own_cpu_s: float

    @property
    def wall_s(self) -> float:
        return self.after.at_s - self.before.at_s

    @property
    def cpu_s(self) -> float:
        return max(self.after.cpu_s - self.before.cpu_s, 0.01)

    def text(self) -> str:
        stolen_percent = self.after.stolen_percent(self.before)
        return (
            f"{self.wall_s:.1f} s wall, server {self.cpu_s:.2f} s CPU, "
            f"agents {self.own_cpu_s:.2f} s CPU, {stolen_percent:.0f} % of the machine stolen"
        )


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, store_url: str | None) -> None:
        self.options = options
        self.server = MeasuredServer(
            [str(options.server)],
            options.work,
            f"ConnectionLimit={options.agents + options.strangers + 1000}",
            store_url,
        )
        self.agents = [
            SimulatedAgent(own_address(number), self.lost) for number in range(options.agents)
        ]
        self.bodies = report_bodies()
        self.losses: Counter[str] = Counter()
        self.storm_rate = 0.0
        self.idle = Usage(0, 0, 0, 0, 0, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.comes_back = False

    async def run(self) -> None:
        await self.server.know(self.agents, PASSWORD, without_session=self.options.negotiate)
        took_s = self.server.start()
        try:
            await asyncio.sleep(1)
            self.idle = self.server.usage()
            print(f"start: {took_s:.2f} s, {self.idle.rss_kib / 1024:.1f} MiB, idle", flush=True)
            phases = {
                "connect": self.connect,
                "idle": self.be_idle,
                "storm": self.storm,
                "steady": self.steady,
                "reconnect": self.reconnect,
                "hostile": self.hostile,
            }
            for name, phase in phases.items():
                if name == "connect" or name in self.options.phases:
                    await phase()
            self.tell_losses()
        finally:
            for agent in self.agents:
                agent.close()
            self.server.kill()

    # ---- phases

    async def connect(self) -> None:
        known = [agent for agent in self.agents if agent.keys is not None]
        new = [agent for agent in self.agents if agent.keys is None]
        await self.connect_some(new, "full handshakes", self.options.at_once)
        await self.connect_some(known, "resumptions", self.options.resume_at_once)
        await asyncio.sleep(3)
        self.tell_memory("memory")

    async def connect_some(self, agents: list[SimulatedAgent], what: str, at_once: int) -> None:
        gate = asyncio.Semaphore(at_once)
        refused: Counter[str] = Counter()

        async def one(agent: SimulatedAgent) -> None:
            for _attempt in range(20):
                async with gate:
                    try:
                        await agent.connect(self.server.port, PASSWORD)
                        return
                    except (OSError, TimeoutError) as error:
                        refused[type(error).__name__] += 1
                await asyncio.sleep(random.random())

        if not agents:
            return
        span = await self.measured(lambda: gather(one(agent) for agent in agents))
        count = sum(agent.is_welcome for agent in agents)
        a_power_ms = power_ms()
        # Another machine has another rate, and much the same number of powers.
        powers = 1000 * span.cpu_s / max(1, count) / a_power_ms
        print(
            f"connect: {count} of {len(agents)} agents, {span.text()}: "
            f"{count / span.cpu_s:.0f} {what} a second of server CPU, each of {powers:.2f} powers"
            f"{' ' + str(dict(refused)) if refused else ''}; {machine(a_power_ms)}",
            flush=True,
        )

    async def be_idle(self) -> None:
        async def beat(agent: SimulatedAgent) -> None:
            await asyncio.sleep(random.random() * self.options.heartbeat)
            while True:
                agent.heartbeat()
                await asyncio.sleep(self.options.heartbeat)

        span = await self.measured(
            lambda: for_seconds(self.options.idle, [beat(agent) for agent in self.agents])
        )
        beats = len(self.agents) * self.options.idle / self.options.heartbeat
        print(
            f"idle: about {beats:.0f} heartbeats, {span.text()}: "
            f"{100 * span.cpu_s / span.wall_s:.1f} % of a core",
            flush=True,
        )
        self.tell_memory("memory after heartbeats")

    async def storm(self) -> None:
        each = max(1, self.options.reports // len(self.agents) // self.options.batch)
        batch = [self.bodies[number % BODIES] for number in range(self.options.batch)]
        self.forget_latencies()

        async def one(agent: SimulatedAgent) -> None:
            for _ in range(each):
                await agent.report(batch)
            await agent.all_acknowledged()

        span = await self.measured(lambda: gather(one(agent) for agent in self.agents))
        reports = each * self.options.batch * len(self.agents)
        self.storm_rate = reports / span.wall_s
        print(
            f"storm: {reports} durable reports in batches of {self.options.batch}, {span.text()}: "
            f"{reports / span.cpu_s:.0f} a second of server CPU, {self.storm_rate:.0f} a second; "
            f"{self.latency_text()}",
            flush=True,
        )

    async def steady(self) -> None:
        rate = self.options.rate or (self.storm_rate or 10_000) / 2
        size = self.options.steady_batch or self.options.batch
        batch = [self.bodies[number % BODIES] for number in range(size)]
        pause_s = len(self.agents) * size / rate
        sent = 0
        lags_s: list[float] = []
        self.forget_latencies()
        began_s = time.monotonic()
        end_s = began_s + self.options.steady

        async def one(agent: SimulatedAgent, due_s: float) -> None:
            nonlocal sent
            while due_s < end_s:
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                    lags_s.append(time.monotonic() - due_s)
                await agent.report(batch, due_s)
                sent += size
                due_s += pause_s
            await agent.all_acknowledged()

        span = await self.measured(
            lambda: gather(one(agent, began_s + random.random() * pause_s) for agent in self.agents)
        )
        lags_s.sort()
        print(
            f"steady: {sent} reports in batches of {size}, {rate:.0f} a second wanted, "
            f"{sent / span.wall_s:.0f} achieved, {span.text()}: "
            f"{sent / span.cpu_s:.0f} a second of server CPU; {self.latency_text()} of when they "
            f"were due (the bench itself came late by p99 {1000 * at(lags_s, 0.99):.0f} ms); "
            f"{machine(power_ms())}",
            flush=True,
        )

    async def reconnect(self) -> None:
        self.losses.clear()
        self.comes_back = True
        killed_s = time.monotonic()
        self.server.kill()
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        took_s = await loop.run_in_executor(None, self.server.start)
        started = self.server.usage()
        own_s = time.process_time()
        while not all(agent.is_welcome and agent.welcomed_at_s > killed_s for agent in self.agents):
            if time.monotonic() > killed_s + 300:
                break
            await asyncio.sleep(0.05)
        self.comes_back = False
        span = Span(started, self.server.usage(), time.process_time() - own_s)
        back = sorted(
            agent.welcomed_at_s - killed_s
            for agent in self.agents
            if agent.welcomed_at_s > killed_s
        )
        resumed = sum(agent.was_resumed and agent.welcomed_at_s > killed_s for agent in self.agents)
        print(
            f"reconnect: server back after {took_s:.2f} s; {len(back)} of {len(self.agents)} agents "
            f"back after {back[-1] if back else 0:.1f} s (median "
            f"{back[len(back) // 2] if back else 0:.1f} s), {resumed} by resumption, {span.text()}: "
            f"{len(back) / span.cpu_s:.0f} a second of server CPU; "
            f"refused on the way: {dict(self.losses) or 'none'}",
            flush=True,
        )
        self.losses.clear()
        await asyncio.sleep(2)
        self.tell_memory("memory after the restart")

    async def hostile(self) -> None:
        speakers = self.agents[: max(1, len(self.agents) // 20)]
        batch = self.bodies[: self.options.small_batch]
        self.forget_latencies()
        outcomes: Counter[str] = Counter()
        works = [self.stranger(number, outcomes) for number in range(self.options.strangers)]

        async def speak(agent: SimulatedAgent) -> None:
            while True:
                await agent.report(batch)
                await asyncio.sleep(random.random())

        deaf = self.agents[len(speakers) : len(speakers) + self.options.deaf]
        works += [speak(agent) for agent in speakers]
        works += [self.be_deaf(agent, outcomes) for agent in deaf]
        with Newcomers(self) as newcomers:
            span = await self.measured(lambda: for_seconds(self.options.hostile, works))
        total = sum(outcomes.values())
        print(
            f"hostile: {total} strangers came and went ({total / span.wall_s:.0f} a second) "
            f"{dict(outcomes)}, {span.text()}: {100 * span.cpu_s / span.wall_s:.0f} % of a core; "
            f"{self.latency_text()}; {newcomers.text()}; memory "
            f"{(span.after.rss_kib - span.before.rss_kib) / 1024:+.1f} MiB; {machine(power_ms())}",
            flush=True,
        )

    async def be_deaf(self, agent: SimulatedAgent, outcomes: Counter[str]) -> None:
        """Report as fast as the server reads, and read nothing, until it ends that; then again."""
        batch = self.bodies[: self.options.small_batch]
        while True:
            agent.be_deaf()
            try:
                while agent.shout(batch) or agent.is_welcome:  # noqa: ASYNC110
                    await asyncio.sleep(random.random() / 5)
            except ConnectionError:
                outcomes["deaf, cut off"] += 1
            await agent.closed()
            with contextlib.suppress(OSError, TimeoutError):
                await agent.connect(self.server.port, PASSWORD)

    async def stranger(self, number: int, outcomes: Counter[str]) -> None:
        """Comes again and again, each time from an address of its own, and never proves anything."""
        kinds = ("silent", "garbage", "half", "unknown session", "unknown name")
        while True:
            kind = kinds[number % len(kinds)]
            address = f"127.{200 + number % 40}.{random.randrange(250)}.{1 + random.randrange(250)}"
            try:
                await self.intrude(kind, address)
            except (OSError, TimeoutError) as error:
                outcomes[f"{kind}: {type(error).__name__}"] += 1
            else:
                outcomes[kind] += 1

    async def intrude(self, kind: str, address: str) -> None:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.server.port, local_addr=(address, 0)
            )
            try:
                if kind == "garbage":
                    writer.write(os.urandom(2_000))
                elif kind == "unknown session":
                    writer.write(bytes.fromhex("050000003901") + b"\x95\x01\x01\x00\xc4\x10")
                    writer.write(os.urandom(16) + b"\xc4\x20" + os.urandom(32))
                elif kind != "silent":
                    writer.write(hello(address))
                if kind in ("silent", "half"):
                    await asyncio.sleep(random.random())
                    if kind == "half":
                        await reader.read(1)
                else:
                    await reader.read(65_536)
            finally:
                writer.transport.abort()

    # ---- what is lost, and how it comes back

    def lost(self, agent: SimulatedAgent, reason: str) -> None:
        self.losses[f"lost: {reason}"] += 1
        if self.comes_back:
            task = asyncio.get_running_loop().create_task(self.come_back(agent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def come_back(self, agent: SimulatedAgent) -> None:
        backoff = Backoff(random.random)
        while self.comes_back:
            await asyncio.sleep(backoff.next_delay_s())
            try:
                await agent.connect(self.server.port, PASSWORD)
                return
            except (OSError, TimeoutError) as error:
                self.losses[type(error).__name__] += 1
                for refusal in agent.refusals:
                    self.losses[refusal] += 1
                agent.refusals.clear()

    # ---- measuring and telling

    async def measured(self, work: Callable[[], Awaitable[None]]) -> Span:
        before, own_s = self.server.usage(), time.process_time()
        await work()
        return Span(before, self.server.usage(), time.process_time() - own_s)

    def tell_memory(self, what: str) -> None:
        usage = self.server.usage()
        count = sum(agent.is_welcome for agent in self.agents)
        kib = (usage.rss_kib - self.idle.rss_kib) / max(1, count)
        print(
            f"{what}: {usage.rss_kib / 1024:.1f} MiB with {count} agents connected, "
            f"{kib:.1f} KiB each over the idle server; {usage.descriptors} descriptors, "
            f"{usage.threads} threads",
            flush=True,
        )

    def tell_losses(self) -> None:
        if self.losses:
            print(f"connections lost: {dict(self.losses)}")

    def forget_latencies(self) -> None:
        for agent in self.agents:
            agent.latencies_s.clear()

    def latency_text(self) -> str:
        found = sorted(value for agent in self.agents for value in agent.latencies_s)
        if not found:
            return "no acknowledgement"
        p50, p99 = (1000 * at(found, part) for part in (0.5, 0.99))
        return f"acknowledged after p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def at(ordered: list[float], part: float) -> float:
    """What stands at a part of the way through an ordered list; 0 in an empty one."""
    return ordered[int(part * (len(ordered) - 1))] if ordered else 0.0


def hello(name: str) -> bytes:
    """The first frame of somebody who does not know a password; made without any arithmetic."""
    from needfire_protocol.handshake_frames import Hello, encode_frame

    public = b"\x7f" + os.urandom(383)
    return encode_frame(Hello((1,), (1, 2), 0, True, name, os.urandom(32), public))


class Newcomers:
    """Honest agents that log in during the block: one with its password, one that resumes."""

    def __init__(self, bench: Bench) -> None:
        self._found: dict[str, list[tuple[float, int]]] = {}
        self._commands = {
            what: (
                *(sys.executable, "-m", "fleet.newcomer", str(bench.server.port)),
                *(agent.address, PASSWORD, *arguments),
            )
            for what, agent, arguments in (
                ("with a password", bench.agents[-1], ()),
                ("by resumption", bench.agents[-2], ("--resume",)),
            )
        }
        for agent in bench.agents[-2:]:
            agent.close()
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Newcomers":
        for what, command in self._commands.items():
            self._processes[what] = process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
            )
            assert process.stdout is not None
            # The first one is before the flood: the server knows where it comes from.
            process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        for what, process in self._processes.items():
            process.terminate()
            lines = process.communicate()[0].split("\n")
            found = [line.split() for line in lines if " " in line]
            self._found[what] = [(float(took_s), int(refused)) for took_s, refused in found]

    def text(self) -> str:
        return "; ".join(f"honest log-ins {what}: {told(f)}" for what, f in self._found.items())


def told(found: list[tuple[float, int]]) -> str:
    if not found:
        return "none"
    took_s = sorted(each[0] for each in found)
    return (
        f"{len(found)}, median {at(took_s, 0.5):.2f} s, slowest {took_s[-1]:.2f} s, "
        f"{sum(each[1] for each in found)} times refused"
    )


async def gather(works: object) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:  # type: ignore[attr-defined]
            group.create_task(work)


async def for_seconds(limit_s: float, works: Iterable[Awaitable[None]]) -> None:
    """Let work that never ends go on for so long."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(limit_s)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result


if __name__ == "__main__":
    main()
