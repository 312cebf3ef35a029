"""How soon each filter of ``needfire-admin events`` answers, on a store with millions of events.

The store is filled through its own tables, with summaries as a busy server writes them. Then each
question is put to the verb that the admin socket serves, several times; the median counts. Beside it
stands what the database needs to look at every event for the same, once: the ratio is what the
indexes and summaries are worth. Each request is put on the audit record first, which is a commit; the
first row is that alone. A database just written lies in the system's cache as far as it
fits; a million events are some 600 MB, and ten million some 6 GB.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa
from bench_options import bench_parser

from needfire_protocol.event import FieldValue, event_id
from needfire_protocol.severity import Severity
from needfire_server.admin.requests import Arguments, Request
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.audit.log import AuditLog
from needfire_server.datafiles import DataFiles
from needfire_server.registry import Registry
from needfire_server.storage import tables
from needfire_server.storage.base import ClientConnection
from needfire_server.storage.engine import Transaction
from needfire_server.storage.event_rows import EVENT_COLUMNS
from needfire_server.storage.postgresql import PostgresStore
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore
from needfire_server.storage.summaries import BLOCK_ROWS, add
from needfire_server.storage.summary import event_summary

NOW_US = 1_795_000_000_000_000
DAY_US = 86_400 * 1_000_000
DAYS = 180
CLIENTS = 200
GROUP = 5 * BLOCK_ROWS
"""Events of one commit."""

RARE_PATH = "/etc/ssl/private/web.key"
RARE_DIRECTORY = "/srv/www/shop"
REQUEST = "5f2b8c1d9e3a7046"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory, ExitStack() as stack:
        store = _store(options, directory, stack)
        try:
            began = time.perf_counter()
            _fill(store, options.events)
            print(
                f"{options.events:,} events of {CLIENTS} clients in {DAYS} days, written in "
                f"{time.perf_counter() - began:.0f} s{_sizes(store, directory)}; "
                f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            )
            asyncio.run(_measure(store, directory, options))
        finally:
            store.close()


def _options() -> argparse.Namespace:
    parser = bench_parser("events", __doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events in the store")
    parser.add_argument("--rounds", type=int, default=5, help="times that each question is put")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--directory", help="where the database is made; 650 bytes an event")
    return parser.parse_args()


def _store(options: argparse.Namespace, directory: str, stack: ExitStack) -> DatabaseStore:
    if not options.postgresql:
        return SqliteStore.open(os.path.join(directory, "data", "needfire.sqlite"))
    from needfire_testkit.postgres import find_postgres, running_postgres

    programs = find_postgres()
    if programs is None:
        sys.exit("no PostgreSQL is installed here")
    server = stack.enter_context(running_postgres(programs))
    return PostgresStore.open(server.new_database(), os.path.join(directory, "data"))


def _sizes(store: DatabaseStore, directory: str) -> str:
    if not isinstance(store, SqliteStore):
        return ""
    total = os.path.getsize(os.path.join(directory, "data", "needfire.sqlite"))
    keys = sa.func.sum(sa.func.length(tables.event_summaries.c["keys"]))
    paths = sa.func.sum(sa.func.length(tables.event_summaries.c.paths))
    summaries = store.read_now(lambda each: each.execute(sa.select(keys + paths)).scalar_one())
    return f", {total / 1e6:,.0f} MB, of it {summaries / 1e6:,.0f} MB of summaries"


# ---- what is stored ----------------------------------------------------------------------------


def _fill(store: DatabaseStore, count: int) -> None:
    events = _events(count, random.Random(7))
    for first in range(1, count + 1, GROUP):
        group = [next(events) for _ in range(min(GROUP, count + 1 - first))]
        store.write_now(lambda transaction, group=group: _write(transaction, group))  # type: ignore[misc]
    if isinstance(store, PostgresStore):
        store.write_now(lambda transaction: transaction.connection.execute(sa.text("ANALYZE")))


def _write(
    transaction: Transaction, group: list[tuple[tuple[Any, ...], Mapping[str, Any]]]
) -> None:
    rows, fields = [row for row, _ in group], [each for _, each in group]
    transaction.insert_many("events", EVENT_COLUMNS, rows)
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(rows), BLOCK_ROWS)]
    summaries = [event_summary(rows[block], fields[block]) for block in blocks]
    add(transaction, tables.event_summaries, summaries)
    counters = tables.counters
    transaction.connection.execute(
        sa.update(counters).where(counters.c.name == "events").values(value=rows[-1][0])
    )


def _events(count: int, chance: random.Random) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Bursts as package upgrades make them, single changes, receipts of checks, the server's own."""
    step_us = DAYS * DAY_US // count
    number = 0
    rare = {count // 7: RARE_PATH, count // 2: RARE_PATH} | {
        count // 5 + each * count // 100: f"{RARE_DIRECTORY}/page{each}.php" for each in range(40)
    }
    while True:
        client = f"web{chance.randrange(CLIENTS)}.example.org"
        directory, length = _burst(chance)
        for each in range(length):
            number += 1
            if number > count:
                return
            path = rare.get(number) or f"{directory}/file{each}.py"
            time_us = NOW_US - DAYS * DAY_US + number * step_us
            yield _event(number, time_us, client, path, chance)


def _burst(chance: random.Random) -> tuple[str, int]:
    kind = chance.random()
    if kind < 0.2:
        package = chance.randrange(3_000)
        return f"/usr/lib/python3/dist-packages/package{package}", chance.randrange(20, 400)
    if kind < 0.5:
        return f"/var/www/site{chance.randrange(500)}/cache", chance.randrange(1, 20)
    return f"/etc/service{chance.randrange(200)}", chance.randrange(1, 3)


def _event(
    number: int, time_us: int, client: str, path: str, chance: random.Random
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    kind = chance.random()
    row: tuple[Any, ...]
    fields: dict[str, FieldValue]
    received = time_us + 250_000
    identity = event_id(time_us, chance.randbytes(10))
    if number % 500_000 == 250_000:
        row = (identity, time_us, None, None, client, "provisioning", int(Severity.NOTICE))
        fields = {"client": client, "path": path, "user": "ann", "request": REQUEST}
        return _row(number, row, "CONFIGURATION_PUT", "Configuration put in place", fields)
    if kind < 0.01 and not path.startswith((RARE_PATH, RARE_DIRECTORY)):
        row = (identity, time_us, received, client, client, "system", int(Severity.NOTICE))
        return _row(number, row, "CHECK_COMPLETED", "File check completed.", {"files": number})
    if number % 100_000 == 77_777:
        row = (identity, time_us, received, client, client, "alarm", int(Severity.ALERT))
        return _row(number, row, "STORE_FAILED", "Store failed", {"reason": "x"})
    row = (identity, time_us, received, client, client, "integrity", int(Severity.CRIT))
    fields = {
        "path": path,
        "change": "C-------TS-",
        "policy": "ReadOnly",
        "size_old": number,
        "size_new": number + 10,
        "mtime_old": "2026-11-21T19:40:47.123456Z",
        "mtime_new": "2026-11-21T19:41:47.123456Z",
        "chksum_old": "sha256:" + "a" * 64,
        "chksum_new": "sha256:" + "b" * 64,
    }
    return _row(number, row, "POLICY_MODIFIED", "POLICY [ReadOnly] C-------TS-", fields)


def _row(
    number: int, start: tuple[Any, ...], code: str, msg: str, fields: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # All values are plain: a JSON encoder would take most of the time.
    text = ",".join(
        f'"{name}":{value}' if isinstance(value, int) else f'"{name}":"{value}"'
        for name, value in fields.items()
    )
    return (number, *start, code, msg, "{" + text + "}"), fields


# ---- what is asked -----------------------------------------------------------------------------


def _questions(count: int) -> dict[str, dict[str, Any]]:
    begin_us = NOW_US - DAYS * DAY_US
    client = "web7.example.org"
    return {
        "nothing, but on record": {"limit": 0},
        "first page": {},
        "deep page": {"before": count // 2},
        "page behind a number": {"after": count // 3},
        "until 120 days ago": {"until_us": begin_us + 60 * DAY_US},
        "one hour, 90 days ago": {
            "since_us": begin_us + 90 * DAY_US,
            "until_us": begin_us + 90 * DAY_US + DAY_US // 24,
        },
        "client": {"client": client},
        "client, deep page": {"client": client, "before": count // 2},
        "client and class": {"client": client, "class": "alarm"},
        "client and code": {"client": client, "code": "CHECK_COMPLETED"},
        "rare code": {"code": "STORE_FAILED"},
        "code that nobody has": {"code": "START"},
        "severity alert": {"severity": "alert"},
        "class and severity": {"class": "integrity", "severity": "alert"},
        "path, two events": {"path": RARE_PATH},
        "path, none": {"path": "/etc/nowhere"},
        "path and client": {
            "path": "/usr/lib/python3/dist-packages/package7/file3.py",
            "client": client,
        },
        "below, 40 events": {"below": RARE_DIRECTORY},
        "below, very many": {"below": "/usr"},
        "below and client": {"below": "/etc/service7", "client": client},
        "below, until 120 days ago": {
            "below": "/var/www/site9",
            "until_us": begin_us + 60 * DAY_US,
        },
        "request": {"request": REQUEST},
    }


async def _measure(store: DatabaseStore, directory: str, options: argparse.Namespace) -> None:
    service = await _service(store, os.path.join(directory, "data"))
    scan_ms = await asyncio.to_thread(_scan_ms, store)
    print(f"looking at every event, once: {scan_ms:,.0f} ms\n")
    print(f"{'':28}{'found':>6}{'ms':>10}{'highest':>10}{'times faster than a scan':>26}")
    for name, question in _questions(options.events).items():
        rounds = [await _ask(service, question) for _ in range(options.rounds)]
        taken = [ms for _, ms in rounds]
        median = statistics.median(taken)
        print(
            f"{name:28}{rounds[0][0]:6}{median:10.1f}{max(taken):10.1f}{scan_ms / median:26,.0f}",
            flush=True,
        )


async def _nobody() -> dict[str, ClientConnection]:
    return {}


def _unrecorded(_code: str, /, **_fields: FieldValue) -> None:
    pass


async def _service(store: DatabaseStore, directory: str) -> AdminService:
    hooks = AdminHooks(
        on_command_queued=lambda _client: None,
        on_client_removed=lambda _client: None,
        record_event=_unrecorded,
        kept_of=lambda event: (event, None),
        connections=_nobody,
        states=dict,
    )
    audit = await AuditLog.open(store.audit, directory)
    return AdminService(store, Registry((), []), DataFiles(directory), hooks, audit)


async def _ask(service: AdminService, question: Mapping[str, Any]) -> tuple[int, float]:
    """Return how many events came, and the milliseconds until the last one."""
    request = Request("events", Arguments({"limit": 100, **question}))
    began = time.perf_counter()
    reply = await service.handle(request, user="bench")
    assert reply.pages is not None
    found = sum([len(page) async for page in reply.pages])
    return found, (time.perf_counter() - began) * 1_000


def _scan_ms(store: DatabaseStore) -> float:
    """What the database needs without any of it: to look into the fields of every event."""
    number = tables.events.c.row_id
    likes = tables.events.c.fields.like("%/etc/nowhere%")
    began = time.perf_counter()
    store.read_now(
        lambda each: each.execute(sa.select(sa.func.count(number)).where(likes)).scalar()
    )
    return (time.perf_counter() - began) * 1_000


if __name__ == "__main__":
    main()
