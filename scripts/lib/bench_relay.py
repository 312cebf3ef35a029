"""Reports passed on a second, from a full store to a server above; prints figures, asserts nothing.

The lower server is started with reports of eight clients in its store and passes them all on over
loopback. Printed are reports a second of time, and a second of the CPU of each of the two servers.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench_options import bench_parser

from needfire_protocol.event import make_event
from needfire_server.storage.base import IncomingReport
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.processes import Program, ServerHome, stopping

RELAY = "127.0.0.1"
CLIENTS = 8
BATCH = 100


def report(number: int) -> IncomingReport:
    event = make_event(
        "POLICY_ADDED",
        time_us=1_795_000_000_000_000 + number,
        random_10_bytes=os.urandom(10),
        path=f"/usr/share/doc/package/file{number}",
        size_new=number,
        chksum_new=f"sha256:{number:064x}",
    )
    return IncomingReport(number, event, b"", None)


async def fill(home: ServerHome, count: int) -> None:
    """Put reports into the store of a server that does not run, as if they had come meanwhile."""
    store = SqliteStore.open(str(home.data / "needfire.sqlite"))
    now_us = time.time_ns() // 1_000
    for first in range(1, count // CLIENTS + 1, BATCH):
        batch = [report(number) for number in range(first, first + BATCH)]
        for client in range(CLIENTS):
            await store.ingest(f"web{client}", bytes([client]) * 16, batch, received_us=now_us)
    store.close()


def passed_on(home: ServerHome) -> int:
    with closing(sqlite3.connect(f"file:{home.data}/needfire.sqlite?mode=ro", uri=True)) as store:
        wanted = "SELECT count(*) FROM events WHERE client LIKE '%/web%'"
        return int(store.execute(wanted).fetchone()[0])


def cpu_s(program: Program) -> float:
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def relays_to(home: ServerHome, upper: ServerHome) -> None:
    secret = home.directory / "upper.password"
    secret.touch(0o600)
    secret.write_text(f"{upper.register(RELAY)}\n")
    home.rc.write_text(
        f"{home.rc.read_text()}\n[Outputs]\nOpenOutput = upper\nOutputTarget = relay "
        f"{upper.address}\nOutputUser = {RELAY}\nOutputPasswordFile = {secret}\n"
    )


def main() -> None:
    parser = bench_parser("relay", __doc__)
    parser.add_argument(
        "--reports",
        type=int,
        default=16_000,
        help="reports that the lower server has stored; rounded down to whole batches",
    )
    options = parser.parse_args()
    count = options.reports // (CLIENTS * BATCH) * CLIENTS * BATCH
    with tempfile.TemporaryDirectory() as directory:
        quiet = "LogSeverity=none\nPrintSeverity=none\n"
        upper = ServerHome(Path(directory) / "upper", clients=f"RelayClient = {RELAY}")
        lower = ServerHome(Path(directory) / "lower")
        for home in (upper, lower):
            home.rc.write_text(
                home.rc.read_text().replace("PrintSeverity=*\nLogSeverity=*\n", quiet)
            )
        with stopping(upper, lower):
            upper.start()
            relays_to(lower, upper)
            lower.start()
            lower.running.stop()
            asyncio.run(fill(lower, count))
            measure(lower, upper, count)


def measure(lower: ServerHome, upper: ServerHome, count: int) -> None:
    before_s = cpu_s(upper.running)
    sender = lower.start()
    began_s, started_s = time.monotonic(), cpu_s(sender)
    while passed_on(upper) < count:
        time.sleep(0.1)
    wall_s = time.monotonic() - began_s
    print(f"{count} reports passed on; load {os.getloadavg()[0]:.1f}")
    print(f"{count / wall_s:8.0f} a second of time")
    print(f"{count / (cpu_s(sender) - started_s):8.0f} a second of the lower server's CPU")
    print(f"{count / (cpu_s(upper.running) - before_s):8.0f} a second of the upper server's CPU")


if __name__ == "__main__":
    main()
