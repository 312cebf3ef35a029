"""Many agents in one process: the real spool, session and back-off, and reports without end."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from needfire_client.address import ServerAddress
from needfire_client.dialer import Dialer
from needfire_client.link import Link
from needfire_client.logbook import Logbook
from needfire_client.outbox import report_body
from needfire_client.reporter import Reporter
from needfire_client.session import Session
from needfire_client.spool import NewReport, Spool
from needfire_client.uplink import Uplink
from needfire_client.witness import Witness
from needfire_protocol.event import Event, make_event
from needfire_protocol.messages import Announce, Command

__all__ = ["ReportingAgent", "reporting_agents"]


@dataclass
class ReportingAgent:
    """One of them; its name is the address that it connects from, so no name server is asked."""

    name: str
    spool: Spool
    uplink: Uplink
    said: list[Event]
    directory: Path
    written: set[str] = field(default_factory=set)
    """Identifiers of the events that it has put into its spool."""
    _numbers: Iterator[int] = field(default_factory=count)

    def report(self, how_many: int) -> None:
        """Put events into the spool, as the outbox does; durable on return. Blocks."""
        events = [
            make_event(
                "POLICY_ADDED",
                time_us=1_700_000_000_000_000,
                random_10_bytes=os.urandom(10),
                path=f"/{next(self._numbers)}",
            )
            for _ in range(how_many)
        ]
        self.spool.append([NewReport(e.code, e.time_us, report_body(e)) for e in events])
        self.written |= {event.id for event in events}

    def records_seen(self) -> int:
        """How many records the latest checkpoint covers that the servers showed it; 0 for none."""
        try:
            return int((self.directory / "audit-checkpoint").read_text().splitlines()[1])
        except FileNotFoundError:
            return 0

    def count(self, code: str) -> int:
        """How often it said something of its own connection."""
        return sum(event.code == code for event in self.said)


@asynccontextmanager
async def reporting_agents(
    directory: Path, names: Sequence[str], password: str, servers: Sequence[ServerAddress]
) -> AsyncIterator[list[ReportingAgent]]:
    """Run agents until the end of the context."""
    agents = [_agent(directory / name, name, password, servers) for name in names]
    tasks = [asyncio.create_task(agent.uplink.run()) for agent in agents]
    try:
        yield agents
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        for agent in agents:
            agent.spool.close()


def _agent(
    directory: Path, name: str, password: str, servers: Sequence[ServerAddress]
) -> ReportingAgent:
    directory.mkdir(parents=True)
    said: list[Event] = []
    spool = Spool(
        directory / "spool.sqlite",
        size_max_bytes=100_000_000,
        random_bytes=os.urandom,
        now_us=lambda: 1,
        on_set_aside=lambda _path, _reason: None,
    )

    reporter = Reporter(Logbook(_Memory(said)), clock_us=lambda: 1_000, random_bytes=os.urandom)
    witness = Witness(directory / "audit-checkpoint", reporter.report)

    def make_session(link: Link) -> Session:
        return Session(
            link,
            spool,
            on_order=_obey,
            on_delivered=lambda: None,
            clock_us=lambda: 1,
            heartbeat_s=60,
            witness=witness,
        )

    uplink = Uplink(
        Dialer(
            servers,
            name=name,
            load_password=lambda: password,
            random_bytes=os.urandom,
            bind_address=name,
        ),
        spool,
        make_session=make_session,
        announcement=Announce(os.urandom(16), "boot", 1, "0", "run", False),
        reporter=reporter,
        random=random.random,
    )
    return ReportingAgent(name, spool, uplink, said, directory)


class _Memory:
    """A sink that remembers."""

    def __init__(self, said: list[Event]) -> None:
        self._said = said

    def write(self, event: Event) -> None:
        self._said.append(event)


_answers: set["asyncio.Task[None]"] = set()


def _obey(session: Session, order: Command) -> None:
    """Answer a command, which was not carried out by anybody."""
    task = asyncio.get_running_loop().create_task(session.answer_order(order, "done"))
    _answers.add(task)
    task.add_done_callback(_answers.discard)
