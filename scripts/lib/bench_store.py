"""What storing a report durably costs: this process's CPU for each report, engine by engine.

Rounds are interleaved, so that a busy machine is busy for all of them; what counts is the ratio to
bare SQLite: the same rows, ready made, in one table without indexes, as many to a commit, flushed
like the store's. The store's own figure includes choosing what is new, JSON, indexes, streams and
client states. What PostgreSQL's own processes use is not in it.
"""

import argparse
import asyncio
import gc
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench_options import bench_parser

from needfire_protocol.event import Event, make_event
from needfire_server.states import ClientState
from needfire_server.storage.base import IncomingReport
from needfire_server.storage.event_rows import EVENT_COLUMNS, row_of_event
from needfire_server.storage.postgresql import PostgresStore
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore

NOW_US = 1_795_000_000_000_000


@dataclass(frozen=True)
class Batch:
    client: str
    stream: bytes
    reports: tuple[IncomingReport, ...]


def main() -> None:
    options = _options()
    batches = _batches(options.reports, options.batch, options.clients)
    gc.freeze()  # What only the bench holds in memory is not the store's to look through.
    with tempfile.TemporaryDirectory(dir=options.directory) as directory, ExitStack() as stack:
        contestants = _contestants(Path(directory), options, stack)
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for number in range(options.rounds):
            for name, run in contestants.items():
                costs[name].append(run(batches, f"{name}-{number}".replace(" ", "-")))
    print(
        f"{options.reports} reports, {options.batch} a batch, {options.clients} clients, "
        f"{options.at_once} batches at once, {options.rounds} rounds; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    _print(costs, options.reports)


def _options() -> argparse.Namespace:
    parser = bench_parser("store", __doc__)
    parser.add_argument("--reports", type=int, default=20_000, help="in each round")
    parser.add_argument("--batch", type=int, default=100, help="reports in one batch")
    parser.add_argument("--clients", type=int, default=200, help="clients that the batches are of")
    parser.add_argument("--at-once", type=int, default=50, help="batches under way")
    parser.add_argument("--rounds", type=int, default=5, help="of each engine, in turns")
    parser.add_argument("--directory", help="where the databases are made")
    parser.add_argument("--url", help="a PostgreSQL database, instead of a server of our own")
    return parser.parse_args()


def _contestants(
    directory: Path, options: argparse.Namespace, stack: ExitStack
) -> dict[str, Callable[[Sequence[Batch], str], tuple[float, float]]]:
    def sqlite(batches: Sequence[Batch], name: str) -> tuple[float, float]:
        store = SqliteStore.open(str(directory / name / "needfire.sqlite"))
        return _measured(store, batches, options.at_once)

    found = {"bare SQLite": lambda batches, name: _bare(directory / name, batches, options.at_once)}
    found["SQLite store"] = sqlite
    if (new_database := _postgres(options, stack)) is not None:

        def postgres(batches: Sequence[Batch], name: str) -> tuple[float, float]:
            store = PostgresStore.open(new_database(), str(directory / name))
            return _measured(store, batches, options.at_once)

        found["PostgreSQL store"] = postgres
    return found


def _postgres(options: argparse.Namespace, stack: ExitStack) -> Callable[[], str] | None:
    if options.url:
        return lambda: str(options.url)
    from needfire_testkit.postgres import find_postgres, running_postgres

    programs = find_postgres()
    if programs is None:
        print("no PostgreSQL is installed here; SQLite only", file=sys.stderr)
        return None
    server = stack.enter_context(running_postgres(programs, is_durable=True))
    return server.new_database


def _batches(reports: int, batch: int, clients: int) -> list[Batch]:
    """Reports as agents send them after a package upgrade; each client has one stream."""
    streams = [os.urandom(16) for _ in range(clients)]
    next_sequence = [1] * clients
    batches = []
    for number in range(reports // batch):
        client = number % clients
        first = next_sequence[client]
        next_sequence[client] += batch
        incoming = tuple(
            IncomingReport(sequence, _event(number, sequence), b"", None)
            for sequence in range(first, first + batch)
        )
        batches.append(Batch(f"web{client}.example.org", streams[client], incoming))
    return batches


def _event(batch: int, number: int) -> Event:
    return make_event(
        "POLICY_MODIFIED",
        time_us=NOW_US + batch * 1_000 + number,
        random_10_bytes=os.urandom(10),
        path=f"/usr/lib/python3/dist-packages/module{batch}/file{number}.py",
        change="C-------TS-",
        policy="ReadOnly",
        size_old=number,
        size_new=number + 10,
        mtime_old="2026-11-21T19:40:47.123456Z",
        mtime_new="2026-11-21T19:41:47.123456Z",
        chksum_old="a" * 64,
        chksum_new="b" * 64,
    )


def _bare(directory: Path, batches: Sequence[Batch], at_once: int) -> tuple[float, float]:
    directory.mkdir()
    connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"CREATE TABLE events ({', '.join(EVENT_COLUMNS)})")
    rows = [
        [
            row_of_event(report.sequence, report.event.received(batch.client, NOW_US))
            for batch in batches[start : start + at_once]
            for report in batch.reports
            if report.event is not None
        ]
        for start in range(0, len(batches), at_once)
    ]
    places = ", ".join("?" * len(EVENT_COLUMNS))
    began = _clocks()
    for group in rows:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO events VALUES ({places})", group)
        connection.execute("COMMIT")
    cost = _since(began)
    connection.close()
    shutil.rmtree(directory)
    return cost


def _measured(store: DatabaseStore, batches: Sequence[Batch], at_once: int) -> tuple[float, float]:
    async def run() -> tuple[float, float]:
        began = _clocks()
        await _all(store, batches, at_once)
        cost = _since(began)
        expected = sum(len(batch.reports) for batch in batches)
        assert await store.last_rowid() % expected == 0, "not everything was stored"
        return cost

    try:
        return asyncio.run(run())
    finally:
        store.close()


async def _all(store: DatabaseStore, batches: Sequence[Batch], at_once: int) -> None:
    waiting = iter(batches)

    async def deliver() -> None:
        for batch in waiting:
            await store.ingest(
                batch.client,
                batch.stream,
                batch.reports,
                received_us=NOW_US,
                state=ClientState.initial(batch.client),
            )

    work: list[Awaitable[None]] = [deliver() for _ in range(at_once)]
    await asyncio.gather(*work)


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    now = _clocks()
    return now[0] - began[0], now[1] - began[1]


def _print(costs: dict[str, list[tuple[float, float]]], reports: int) -> None:
    bare = [cpu_s for cpu_s, _ in costs["bare SQLite"]]
    print(f"{'':18}{'CPU us':>9}{'reports':>12}{'wall us':>9}{'CPU, times bare SQLite':>24}")
    print(f"{'':18}{'/report':>9}{'/CPU s':>12}{'/report':>9}{'median (lowest-highest)':>24}")
    for name, rounds in costs.items():
        cpu_s = statistics.median(cpu for cpu, _ in rounds)
        wall_s = statistics.median(wall for _, wall in rounds)
        ratios = sorted(cpu / base for (cpu, _), base in zip(rounds, bare, strict=True))
        shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(
            f"{name:18}{cpu_s / reports * 1e6:9.1f}{reports / cpu_s:12,.0f}"
            f"{wall_s / reports * 1e6:9.1f}{shown:>24}"
        )


if __name__ == "__main__":
    main()
