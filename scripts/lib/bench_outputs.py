"""Reports stored a second, without outputs and with some, in turns; prints ratios, asserts nothing.

Eight clients store batches of 50 in one SQLite store while its outputs send on what is stored: none,
one file, or two files and a syslog receiver over TCP. Of each stands how fast reports were stored, this
as a share of that without outputs, the CPU time, and when all had been sent.
"""

import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass

from bench_options import bench_parser

from needfire_protocol.event import FieldValue, make_event
from needfire_server.outputs.engine import OutputEngine
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.storage.base import IncomingReport
from needfire_server.storage.output_cursors import CursorStore
from needfire_server.storage.sqlite import SqliteStore

BATCH = 50
CLIENTS = 8


@dataclass(frozen=True)
class Took:
    """One run."""

    wall_s: float
    cpu_s: float
    drained_s: float


def reports(count: int, first: int) -> list[IncomingReport]:
    made = []
    for number in range(first, first + count):
        event = make_event(
            "POLICY_ADDED",
            time_us=1_795_000_000_000_000 + number,
            random_10_bytes=os.urandom(10),
            path=f"/usr/share/doc/package/file{number}",
            size_new=number,
            chksum_new=f"sha256:{number:064x}",
        )
        made.append(IncomingReport(number, event, b"", None))
    return made


async def store_all(store: SqliteStore, engine: OutputEngine, client: int, count: int) -> None:
    for first in range(1, count + 1, BATCH):
        batch = reports(BATCH, first)
        await store.ingest(f"web{client}", bytes([client]) * 16, batch, received_us=first)
        engine.notify()


async def run(directory: str, outputs: list[OutputSettings], count: int) -> Took:
    store = SqliteStore.open(os.path.join(directory, "needfire.sqlite"))

    def raise_event(code: str, /, **fields: FieldValue) -> None:
        print(code, fields)

    engine = OutputEngine(CursorStore(store), raise_event=raise_event)
    await engine.begin(outputs)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.run())
        await asyncio.sleep(0)
        began, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as clients:
            for client in range(CLIENTS):
                clients.create_task(store_all(store, engine, client, count // CLIENTS))
        took = Took(time.monotonic() - began, time.process_time() - cpu, 0)
        # Nobody rings when a target has all.
        while any(each.waiting for each in await engine.status()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        drained = time.monotonic() - began
        await engine.stop()
        task.cancel()
    store.close()
    return Took(took.wall_s, took.cpu_s, drained)


async def discard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass
    writer.close()


async def main() -> None:
    parser = bench_parser("outputs", __doc__)
    parser.add_argument("--events", type=int, default=8_000, help="events stored in each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turns")
    options = parser.parse_args()
    receiver = await asyncio.start_server(discard, "127.0.0.1", 0)
    address = receiver.sockets[0].getsockname()
    took: dict[str, list[Took]] = {"none": [], "file": [], "three": []}
    for _ in range(options.rounds):
        for name, runs in took.items():
            with tempfile.TemporaryDirectory() as directory:
                file = OutputSettings(
                    name="file", kind=TargetKind.FILE, where=os.path.join(directory, "out.json")
                )
                ecs = OutputSettings(
                    name="ecs",
                    kind=TargetKind.FILE,
                    where=os.path.join(directory, "out.ecs"),
                    format="ecs",
                )
                tcp = OutputSettings(
                    name="tcp", kind=TargetKind.SYSLOG_TCP, where="", address=address, format="cef"
                )
                outputs = {"none": [], "file": [file], "three": [file, ecs, tcp]}[name]
                runs.append(await run(directory, outputs, options.events))
    receiver.close()
    base = statistics.median(each.wall_s for each in took["none"])
    print(f"{options.events} events in batches of {BATCH}; load {os.getloadavg()[0]:.1f}")
    for name, runs in took.items():
        wall = statistics.median(each.wall_s for each in runs)
        cpu = statistics.median(each.cpu_s for each in runs)
        drained = statistics.median(each.drained_s for each in runs)
        print(
            f"{name:>6} outputs: {options.events / wall:8.0f} stored/s ({base / wall:.0%} of none), "
            f"{cpu:.2f} CPU s, all sent after {drained:.1f} s"
        )


asyncio.run(main())
