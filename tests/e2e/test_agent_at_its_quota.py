"""The agent's own session with the real server, where the server holds it back."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from needfire_client.address import ServerAddress
from needfire_client.link import Link, LinkTimes
from needfire_client.session import Session
from needfire_client.spool import NewReport, Spool
from needfire_protocol.connection import AgentConnection
from needfire_protocol.messages import Announce
from needfire_server import throttle as throttle_module
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, event_body, live_server


@asynccontextmanager
async def agent_session(server: LiveServer, spool: Spool) -> AsyncIterator[Session]:
    """A session as the uplink has one."""
    link = await Link.open(
        ServerAddress("127.0.0.1", server.port),
        AgentConnection.negotiate(NAME, PASSWORD, takeover=True, random_bytes=os.urandom),
        bind_address=None,
        times=LinkTimes(),
    )
    session = Session(
        link,
        spool,
        on_order=lambda _session, _order: None,
        on_delivered=lambda: None,
        clock_us=lambda: 1_000,
        heartbeat_s=3600,
    )
    await session.announce(Announce(b"i" * 16, "boot", 1, "0", "init", prior_exit_pending=False))
    running = asyncio.create_task(session.run())
    yield session
    session.stop()
    await running


async def test_proposals_of_too_many_bytes_arrive_later_and_whole_and_so_do_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_PROPOSAL_BYTES_PER_S", 2**21)
    baseline = tmp_path / "baseline"
    baseline.write_bytes(os.urandom(900_000))
    spool = Spool(
        tmp_path / "spool.sqlite",
        size_max_bytes=10_000_000,
        random_bytes=os.urandom,
        now_us=lambda: 1,
        on_set_aside=lambda _path, _reason: None,
    )
    async with live_server(tmp_path / "data", proposal_size_limit_bytes=2**20) as server:
        async with agent_session(server, spool) as session:
            await session.propose(baseline)
            spool.append([NewReport("WAKEUP", 1, event_body())])
            session.reports_waiting()
            proposal = await session.propose(baseline)
            await session.flush()
        held = await server.until_said("CLIENT_HELD_BACK")
        assert held.fields["what"] == "bytes of proposals"
        (kept,) = await server.runtime.store.proposals()
        assert (kept.id, kept.size_bytes) == (proposal.number, 900_000)
        assert len(await server.stored(code="WAKEUP")) == 1
    spool.close()
