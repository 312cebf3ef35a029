"""What the audit log costs: prints CPU seconds, ratios and memory; asserts nothing.

Verification runs in a process of its own for each size, so that its peak memory is its own. Ingest
alternates between rounds with and without the record of each batch, on the same disk, so that
whatever else the machine does falls on both. It is measured twice: in the store alone, which only
writes events that it is given, and in whole servers to which agents report over loopback.
"""

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_fleet import PASSWORD, gather, own_address, report_bodies
from bench_options import bench_parser
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fleet.agent import SimulatedAgent
from fleet.server import MeasuredServer

from needfire_protocol.audit.export import checkpoint_line, header_line
from needfire_protocol.audit.merkle import Frontier, leaf_hash
from needfire_protocol.audit.note import Checkpoint, PublicKey, public_key_of, sign_note
from needfire_protocol.audit.record import FIRST_PREVIOUS, KEY_MADE, Draft, Moment, encode_record
from needfire_protocol.audit.verify import verify
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.messages import EVENT_REPORT, Report
from needfire_server.audit.drafts import reports_draft
from needfire_server.audit.log import AuditLog
from needfire_server.storage.base import IncomingReport
from needfire_server.storage.sqlite import SqliteStore

ORIGIN = "needfire.audit/bench"
CHECKPOINT_EVERY = 1_000
SIZES = (1, 20, 100, 500)
AGENTS = 20


def main() -> None:
    arguments = bench_parser("audit", __doc__)
    arguments.add_argument(
        "--records",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000],
        help="records in each log that is verified",
    )
    arguments.add_argument("--rounds", type=int, default=5, help="rounds of ingest, each both ways")
    arguments.add_argument("--batches", type=int, default=200, help="batches in a round")
    arguments.add_argument(
        "--server-rounds", type=int, default=3, help="rounds of whole servers, each both ways"
    )
    arguments.add_argument(
        "--server-batches", type=int, default=8_000, help="batches in such a round, of 1 report"
    )
    arguments.add_argument("--directory", type=Path, help="where to work; default: a temporary one")
    arguments.add_argument("--verify-only", nargs=2, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.verify_only is not None:
        _verify(Path(chosen.verify_only[0]), PublicKey.parse(chosen.verify_only[1]))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=chosen.directory) as directory:
        for count in chosen.records:
            _measure_verify(Path(directory), count)
        asyncio.run(_measure_ingest(Path(directory), chosen.rounds, chosen.batches))
        asyncio.run(_measure_servers(Path(directory), chosen.server_rounds, chosen.server_batches))


# ---- verification -------------------------------------------------------------------------------


def _measure_verify(directory: Path, count: int) -> None:
    path = directory / "audit.log"
    private = Ed25519PrivateKey.generate()
    key = public_key_of(ORIGIN, private)
    began = time.process_time()
    _write_log(path, count, private)
    made_s = time.process_time() - began
    print(f"{count:>9,} records, {path.stat().st_size >> 20} MiB, made in {made_s:.1f} s of CPU")
    subprocess.run([sys.executable, __file__, "--verify-only", str(path), str(key)], check=True)
    path.unlink()


def _write_log(path: Path, count: int, private: Ed25519PrivateKey) -> None:
    """Write the lines behind a header whose length is known, then put the header in its place."""
    key = public_key_of(ORIGIN, private)
    body, note = path.with_suffix(".body"), ""
    with body.open("wb") as file:
        for line, latest in _log(count, private, key):
            file.write(line + b"\n")
            note = latest or note
    with path.open("wb") as out, body.open("rb") as file:
        out.write(header_line([key], note) + b"\n")
        while block := file.read(1 << 20):
            out.write(block)
    body.unlink()


def _log(
    count: int, private: Ed25519PrivateKey, key: PublicKey
) -> Iterator[tuple[bytes, str | None]]:
    frontier, previous, number = Frontier(), FIRST_PREVIOUS, 0
    fields: dict[str, FieldValue] = {
        "stream": "00" * 16,
        "first": 1,
        "last": 100,
        "count": 100,
        "sha256": "ab" * 32,
    }
    for index in range(count):
        draft = Draft(
            "REPORTS_RECEIVED", True, "web1.example.org", "web1.example.org", None, fields
        )
        if index == 0:
            draft = Draft(KEY_MADE, fields={"key": str(key)})
        line = encode_record(index, previous, Moment(index, index), draft)
        previous = leaf_hash(line)
        frontier.append(previous)
        yield line, None
        if (index + 1) % CHECKPOINT_EVERY == 0 or index + 1 == count:
            number += 1
            text = Checkpoint(ORIGIN, index + 1, frontier.root(), number, 1).text()
            note = sign_note(text, ORIGIN, private)
            yield checkpoint_line(note), note


def _verify(path: Path, key: PublicKey) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s, began_wall_s = time.process_time(), time.monotonic()
    with path.open("rb") as file:
        result = verify(file, [key])
    cpu_s, wall_s = time.process_time() - began_s, time.monotonic() - began_wall_s
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"          verified: {result.finding or 'intact'}, {cpu_s:.1f} s of CPU ({wall_s:.1f} s), "
        f"{result.records / cpu_s:,.0f} records/s, {cpu_s / result.records * 1e6:.1f} us each; "
        f"peak memory {after >> 10} MiB, {(after - before) / 1024:.1f} MiB more than before"
    )


# ---- ingest -------------------------------------------------------------------------------------


async def _measure_ingest(directory: Path, rounds: int, batches: int) -> None:
    for size in SIZES:
        with_s: list[tuple[float, float]] = []
        without_s: list[tuple[float, float]] = []
        for number in range(rounds):
            for is_audited in (True, False) if number % 2 else (False, True):
                taken = await _ingest(directory, size, batches, is_audited=is_audited)
                (with_s if is_audited else without_s).append(taken)
        wall = statistics.median(a[0] / b[0] for a, b in zip(without_s, with_s, strict=True))
        cpu = statistics.median(a[1] / b[1] for a, b in zip(without_s, with_s, strict=True))
        speed = statistics.median(size * batches / each[0] for each in with_s)
        print(
            f"store alone, batches of {size:>3}: {speed:>8,.0f} reports/s with the audit log; "
            f"{wall:.0%} of the speed without it ({cpu:.0%} by CPU)",
            flush=True,
        )


async def _ingest(
    directory: Path, size: int, batches: int, *, is_audited: bool
) -> tuple[float, float]:
    """Return wall and CPU seconds of so many batches of 8 clients at a time."""
    with tempfile.TemporaryDirectory(dir=directory) as data:
        store = SqliteStore.open(str(Path(data) / "needfire.sqlite"))
        await AuditLog.open(store.audit, data)
        event = _event()
        work = [_batch(number, size, event) for number in range(batches)]
        began_wall_s, began_s = time.monotonic(), time.process_time()
        for at in range(0, batches, 8):
            await asyncio.gather(
                *(_send(store, *each, is_audited=is_audited) for each in work[at : at + 8])
            )
        taken = time.monotonic() - began_wall_s, time.process_time() - began_s
        store.close()
    return taken


def _event() -> Event:
    fields: dict[str, FieldValue] = {
        "path": "/etc/passwd",
        "size_old": 1,
        "size_new": 2,
        "chksum_new": "ab" * 32,
    }
    return make_event("POLICY_ADDED", time_us=1, random_10_bytes=bytes(10), **fields)


def _batch(
    number: int, size: int, event: Event
) -> tuple[str, bytes, list[Report], list[IncomingReport]]:
    client, stream = f"web{number % 8}", bytes((number % 8,)) * 16
    first = number // 8 * size + 1
    body = bytes(400)
    reports = [Report(first + i, EVENT_REPORT, body, bytes(32)) for i in range(size)]
    return client, stream, reports, [IncomingReport(r.sequence, event, body, None) for r in reports]


async def _send(
    store: SqliteStore,
    client: str,
    stream: bytes,
    reports: list[Report],
    incoming: list[IncomingReport],
    *,
    is_audited: bool,
) -> None:
    await store.ingest(
        client,
        stream,
        incoming,
        received_us=1,
        audit=(lambda result: reports_draft(client, stream, reports, result))
        if is_audited
        else None,
    )


async def _measure_servers(directory: Path, rounds: int, batches: int) -> None:
    programs = {
        True: [str(Path(sys.executable).with_name("needfire-server"))],
        False: [sys.executable, str(Path(__file__).parent / "fleet" / "server_without_audit.py")],
    }
    # More of these do not fit into a message.
    for size in (1, 20, 100, 400):
        taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        # As long for large batches as for small ones, more or less.
        each = max(1, batches // (AGENTS * (1 + size // 5)))
        for number in range(rounds):
            for is_audited in (True, False) if number % 2 else (False, True):
                server = MeasuredServer(programs[is_audited], directory / "server", "")
                taken[is_audited].append(await _report(server, size, each))
        wall, cpu = (
            statistics.median(a[i] / b[i] for a, b in zip(taken[False], taken[True], strict=True))
            for i in (0, 1)
        )
        count = size * each * AGENTS
        speed = statistics.median(count / cpu_s for _, cpu_s in taken[True])
        print(
            f"whole server, batches of {size:>3}: {speed:>8,.0f} reports per second of its CPU with "
            f"the audit log; {cpu:.0%} of the speed without it ({wall:.0%} by wall time)",
            flush=True,
        )


async def _report(server: MeasuredServer, size: int, batches: int) -> tuple[float, float]:
    """Return wall seconds, and CPU seconds of the server, for so many batches of each agent."""
    agents = [SimulatedAgent(own_address(number), _lost) for number in range(AGENTS)]
    await server.know(agents, PASSWORD)
    server.start()
    bodies = report_bodies()
    batch = [bodies[number % len(bodies)] for number in range(size)]

    async def one(agent: SimulatedAgent) -> None:
        for _ in range(batches):
            await agent.report(batch)
        await agent.all_acknowledged()

    try:
        await gather(agent.connect(server.port, PASSWORD) for agent in agents)
        before = server.usage()
        await gather(one(agent) for agent in agents)
        after = server.usage()
    finally:
        for agent in agents:
            agent.close()
        server.kill()
    return after.at_s - before.at_s, after.cpu_s - before.cpu_s


def _lost(_agent: SimulatedAgent, reason: str) -> None:
    sys.exit(f"the server ended a connection: {reason}")


if __name__ == "__main__":
    main()
