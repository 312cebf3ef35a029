"""The agent's connection against a real server on loopback: every state, and nothing lost."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from needfire_client.address import ServerAddress
from needfire_client.backoff import Backoff
from needfire_client.dialer import Dialer
from needfire_client.failures import CommandError
from needfire_client.link import Link, LinkError, LinkTimes
from needfire_client.logbook import Logbook
from needfire_client.outbox import report_body
from needfire_client.reporter import Reporter
from needfire_client.session import FileRefusedError, ProposalRefusedError, Session
from needfire_client.spool import NewReport, Spool, SpoolBatch
from needfire_client.troubles import exit_status_of
from needfire_client.uplink import Uplink
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, make_event
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import Announce, Command, FileKind, RefusalCode
from needfire_testkit.pairs import NAME, PASSWORD
from needfire_testkit.server import running_server, until


@dataclass
class Lines:
    """A sink that remembers."""

    events: list[Event] = field(default_factory=list)

    def write(self, event: Event) -> None:
        self.events.append(event)

    @property
    def messages(self) -> list[str]:
        return [event.msg for event in self.events]

    def count(self, code: str) -> int:
        return sum(event.code == code for event in self.events)


@dataclass
class Agent:
    """The connecting half of an agent."""

    uplink: Uplink
    spool: Spool
    lines: Lines
    orders: list[tuple[Session, Command]]
    delivered: int = 0

    def append(self, *codes: str) -> None:
        """Put events into the spool, as the outbox does."""
        events = [make_event(c, time_us=1, random_10_bytes=os.urandom(10)) for c in codes]
        self.spool.append([NewReport(e.code, e.time_us, report_body(e)) for e in events])
        self.uplink.reports_waiting()


@asynccontextmanager
async def running_agent(
    path: Path,
    *servers: ServerAddress,
    password: str = PASSWORD,
    name: str = NAME,
    times: LinkTimes | None = None,
    prior_exit_pending: bool = False,
    heartbeat_s: float = 3600,
) -> AsyncIterator[Agent]:
    """An agent whose waits are short, and drawn at their upper bound."""
    lines = Lines()
    reporter = Reporter(Logbook(lines), clock_us=lambda: 1_000, random_bytes=os.urandom)
    spool = Spool(
        path / "spool.sqlite",
        size_max_bytes=10_000_000,
        random_bytes=os.urandom,
        now_us=lambda: 1,
        on_set_aside=lambda _path, _reason: None,
    )
    orders: list[tuple[Session, Command]] = []

    def make_session(link: Link) -> Session:
        return Session(
            link,
            spool,
            on_order=lambda session, order: orders.append((session, order)),
            on_delivered=lambda: None,
            clock_us=lambda: 1_000,
            heartbeat_s=heartbeat_s,
        )

    uplink = Uplink(
        Dialer(
            servers,
            name=name,
            load_password=lambda: password,
            random_bytes=os.urandom,
            times=times,
        ),
        spool,
        make_session=make_session,
        announcement=Announce(os.urandom(16), "boot", 1_000, "0.1.0", "run", prior_exit_pending),
        reporter=reporter,
        random=lambda: 0.0,
        backoff=Backoff(lambda: 1.0, first_s=0.02, most_s=0.05, least_s=0.01),
        taken_over_backoff=Backoff(lambda: 1.0, first_s=0.1, most_s=0.2, least_s=0.1),
    )
    agent = Agent(uplink, spool, lines, orders)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(uplink.run())
        try:
            yield agent
        finally:
            task.cancel()
    spool.close()


def leftovers(path: Path) -> list[str]:
    """Names of half-written files."""
    return [each.name for each in path.glob(".*")]


async def test_reports_arrive_in_order_and_leave_the_spool(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        agent.append("START", "CHECK_STARTED")
        agent.append("CHECK_COMPLETED")
        await until(lambda: not agent.spool.waiting, "the acknowledgement")
        assert server.codes() == ["START", "CHECK_STARTED", "CHECK_COMPLETED"]
        assert server.negotiations == [True]
        assert agent.lines.messages == ["Session key negotiated"]


async def test_thousands_of_reports_arrive_once_each(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        for _ in range(10):
            agent.append(*["RULE_MATCHES_NOTHING"] * 700)
        await until(lambda: not agent.spool.waiting, "the acknowledgements")
        assert [sequence for _, sequence in sorted(server.reports)] == list(range(1, 7_001))
        assert set(server.copies.values()) == {1}


async def test_reports_wait_while_the_server_is_away(tmp_path: Path) -> None:
    async with running_server() as server:
        await server.stop()
        async with running_agent(tmp_path, server.address) as agent:
            agent.append("START")
            await until(lambda: agent.lines.count("SERVICE_FAILURE"), "the failure")
            await server.start()
            await until(lambda: not agent.spool.waiting, "the delivery")
            assert server.codes() == ["START"]
            assert agent.lines.messages[-2:] == [
                "Session key negotiated",
                "Connection reestablished",
            ]


async def test_state_1_a_server_that_is_down_is_connection_refused(tmp_path: Path) -> None:
    async with running_server() as server:
        await server.stop()
        async with running_agent(tmp_path, server.address) as agent:
            with pytest.raises(LinkError) as caught:
                await agent.uplink.first()
            assert exit_status_of(caught.value) is ExitStatus.UNREACHABLE
            await until(lambda: agent.lines.count("SERVICE_FAILURE"), "the failure")
            assert agent.lines.messages == ["Connection refused", "Service failure"]
            first, second = agent.lines.events
            assert first.fields == {
                "server": str(server.address),
                "reason": "Connection refused",
            }
            assert (second.fields["service"], second.fields["obj"]) == (
                "log server",
                str(server.address),
            )


async def test_a_name_that_does_not_resolve_is_state_1_as_well(tmp_path: Path) -> None:
    async with running_agent(tmp_path, ServerAddress("loghost.invalid", 1)) as agent:
        with pytest.raises(LinkError):
            await agent.uplink.first()
        assert agent.lines.messages[0] == "Connection refused"
        assert agent.lines.events[0].fields["reason"] != "Connection refused"


async def test_the_same_failure_is_said_once(tmp_path: Path) -> None:
    async with (
        running_server(resets_at_once=True) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        await until(lambda: server.connections > 5, "more attempts")
        assert agent.lines.messages == [
            "Connection error: Connection reset by peer",
            "Session key negotiation failed",
            "Service failure",
        ]
        server.resets_at_once = False
        server.is_mute = False
        await until(lambda: agent.uplink.session, "a session")
        server.resets_at_once = True
        server.drop()
        server.forget_sessions()
        await until(lambda: agent.lines.count("SESSION_KEY_NEGOTIATION_FAILED") == 2, "it again")


async def test_state_2_a_reset_before_the_first_byte(tmp_path: Path) -> None:
    async with (
        running_server(resets_at_once=True) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        with pytest.raises(LinkError) as caught:
            await agent.uplink.first()
        assert exit_status_of(caught.value) is ExitStatus.AUTHENTICATION
        assert agent.lines.messages[:2] == [
            "Connection error: Connection reset by peer",
            "Session key negotiation failed",
        ]


@pytest.mark.parametrize(
    ("name", "password"), [(NAME, "the wrong password"), ("stranger.example.org", PASSWORD)]
)
async def test_states_3_and_4_look_alike(tmp_path: Path, name: str, password: str) -> None:
    async with (
        running_server() as server,
        running_agent(tmp_path, server.address, name=name, password=password) as agent,
    ):
        agent.append("START")
        with pytest.raises(LinkError) as caught:
            await agent.uplink.first()
        assert exit_status_of(caught.value) is ExitStatus.AUTHENTICATION
        assert agent.lines.messages[:1] == ["Session key negotiation failed"]
        assert agent.lines.count("CONNECTION_ERROR") == 0
        assert agent.spool.waiting == 1


async def test_a_password_that_is_corrected_on_the_server_is_tried_again(tmp_path: Path) -> None:
    async with (
        running_server() as server,
        running_agent(tmp_path, server.address, password="a new password") as agent,
    ):
        agent.append("START")
        await until(lambda: server.failed_logins > 1, "attempts")
        server.verifiers[NAME] = "a new password"
        await until(lambda: not agent.spool.waiting, "the delivery")


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    times = LinkTimes(connect_s=5, handshake_s=0.05)
    async with (
        running_server(is_mute=True) as server,
        running_agent(tmp_path, server.address, times=times) as agent,
    ):
        with pytest.raises(LinkError):
            await agent.uplink.first()
        assert agent.lines.messages[:2] == [
            "Connection error: Connection timed out",
            "Session key negotiation failed",
        ]


async def test_something_else_on_the_port_is_a_connection_error(tmp_path: Path) -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(speak_http, "127.0.0.1", 0)
    address = ServerAddress("127.0.0.1", web.sockets[0].getsockname()[1])
    async with running_agent(tmp_path, address) as agent:
        with pytest.raises(LinkError):
            await agent.uplink.first()
        assert agent.lines.messages[0].startswith("Connection error: ")
        assert agent.lines.messages[1] == "Session key negotiation failed"
    web.close()


async def test_a_dropped_connection_is_resumed_without_a_new_log_in(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        server.drop(reset=True)
        agent.append("START")
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert (len(server.negotiations), server.resumptions) == (1, 1)
        assert len({each.instance for each in server.announcements}) == 1
        assert "Session resumed" in agent.lines.messages


async def test_a_server_that_lost_its_sessions_gets_a_new_one_without_takeover(
    tmp_path: Path,
) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        await server.stop()
        server.forget_sessions()
        agent.append("START")
        await server.start()
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert server.negotiations == [True, False]


async def test_unacknowledged_reports_are_sent_again_signed_with_the_new_key(
    tmp_path: Path,
) -> None:
    async with (
        running_server(acknowledges=False) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        agent.append("START", "CHECK_STARTED")
        await until(lambda: len(server.reports) == 2, "the first copy")
        server.acknowledges = True
        server.forget_sessions()
        server.drop()
        await until(lambda: not agent.spool.waiting, "the acknowledgement")
        assert set(server.copies.values()) == {2}
        assert server.bad_signatures == 0
        assert len(server.negotiations) == 2


async def test_a_key_that_expires_is_renewed_and_nothing_but_a_notice_is_said(
    tmp_path: Path,
) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        await server.expire()
        agent.append("START")
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert server.negotiations == [True, False]
        assert agent.lines.messages == [
            "Session key negotiated",
            "Session key expired, negotiating anew",
            "Session key negotiated",
        ]


async def test_a_key_is_renewed_before_the_server_has_to_ask(tmp_path: Path) -> None:
    async with (
        running_server(lifetime_s=2) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        await until(lambda: len(server.negotiations) == 2, "the renewal")
        assert agent.lines.count("SESSION_KEY_EXPIRED") == 1
        assert agent.lines.count("SERVICE_FAILURE") == 0


async def test_state_7_the_session_is_not_stolen_back(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        await server.supersede()
        agent.append("START")
        await until(lambda: len(server.negotiations) >= 4, "several polite questions")
        assert server.negotiations[1:] == [False] * (len(server.negotiations) - 1)
        assert agent.lines.messages == ["Session key negotiated", "Invalid connection state"]
        assert agent.spool.waiting == 1
        # The other agent is done: the reports that waited are delivered.
        server.is_held_by_another = False
        await until(lambda: not agent.spool.waiting, "the delivery")


async def test_state_7_found_out_when_resuming(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        server.superseded |= server.sessions.keys()
        server.is_held_by_another = True
        server.drop()
        await until(lambda: agent.lines.count("INVALID_CONNECTION_STATE"), "state 7")
        assert agent.uplink.failure is not None
        assert exit_status_of(agent.uplink.failure) is ExitStatus.TAKEN_OVER


async def test_a_forged_refusal_does_not_silence_an_agent(tmp_path: Path) -> None:
    """Anyone on the way can write a plain refusal; only one with proof may count as state 7."""
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        server.forges = RefusalCode.SESSION_SUPERSEDED
        server.drop()
        agent.append("START")
        connections = server.connections
        await until(lambda: server.connections > connections + 3, "attempts")
        server.forges = None
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert agent.lines.count("INVALID_CONNECTION_STATE") == 0
        assert server.resumptions == 1, "its key was never given up"


async def test_a_refusal_for_another_reason_is_named(tmp_path: Path) -> None:
    async with (
        running_server(refuses_with=RefusalCode.ACCESS) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        with pytest.raises(LinkError) as caught:
            await agent.uplink.first()
        assert exit_status_of(caught.value) is ExitStatus.REFUSED
        assert "Refused by the server: as the test wants it" in agent.lines.messages


async def test_a_password_that_cannot_be_read_for_a_while_stops_nothing(tmp_path: Path) -> None:
    def unreadable() -> str:
        raise CommandError(ExitStatus.LOCAL, "the password cannot be read")

    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        dialer = agent.uplink.dialer
        readable, dialer.load_password = dialer.load_password, unreadable
        server.forget_sessions()
        server.drop()
        agent.append("START")
        await until(lambda: agent.lines.count("LOCAL_STORAGE_FAILED"), "the complaint")
        dialer.load_password = readable
        await until(lambda: not agent.spool.waiting, "the delivery")


async def test_a_spool_that_cannot_be_read_for_a_while_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()

        def failing(*_given: object) -> SpoolBatch:
            raise StorageError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(agent.spool, "read_batch", failing)
            agent.append("START")
            await until(lambda: agent.lines.count("LOCAL_STORAGE_FAILED"), "the complaint")
        await until(lambda: not agent.spool.waiting, "the delivery")


async def test_the_backup_is_used_while_the_primary_is_away_and_both_troubles_are_told(
    tmp_path: Path,
) -> None:
    async with running_server() as primary, running_server() as backup:
        await primary.stop()
        async with running_agent(tmp_path, primary.address, backup.address) as agent:
            agent.append("START")
            await until(lambda: not agent.spool.waiting, "the delivery")
            assert backup.codes() == ["START"]
            assert agent.lines.messages == ["Connection refused", "Session key negotiated"]
            # When the backup goes, the primary is asked first again.
            await primary.start()
            await backup.stop()
            agent.append("EXIT")
            await until(lambda: not agent.spool.waiting, "the delivery")
            assert primary.codes() == ["EXIT"]


async def test_a_primary_that_logs_in_and_then_serves_nobody_is_left_for_the_backup(
    tmp_path: Path,
) -> None:
    async with (
        running_server(refuses_with=RefusalCode.BUSY) as primary,
        running_server() as backup,
        running_agent(tmp_path, primary.address, backup.address) as agent,
    ):
        agent.append("START")
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert backup.codes() == ["START"]
        assert primary.negotiations == [True]


async def test_a_primary_that_drops_whom_it_welcomed_is_left_for_the_backup(
    tmp_path: Path,
) -> None:
    async with (
        running_server(acknowledges=False) as primary,
        running_server() as backup,
        running_agent(tmp_path, primary.address, backup.address) as agent,
    ):
        agent.append("START")
        await until(lambda: primary.reports, "the report")
        primary.peers[-1].cut()
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert backup.codes() == ["START"]


async def test_a_file_is_fetched_whole_and_private(tmp_path: Path) -> None:
    data = os.urandom(700_001)
    async with (
        running_server(files={FileKind.BASELINE: data}) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()
        download = await session.fetch(FileKind.BASELINE, tmp_path / "baseline")
        assert (tmp_path / "baseline").read_bytes() == data
        assert download.size_bytes == len(data)
        assert (tmp_path / "baseline").stat().st_mode & 0o777 == 0o600
        assert leftovers(tmp_path) == []


async def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    async with (
        running_server(files={FileKind.CONFIGURATION: b""}) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()
        await session.fetch(FileKind.CONFIGURATION, tmp_path / "rc")
        assert (tmp_path / "rc").read_bytes() == b""


async def test_state_6_a_file_that_the_server_does_not_have(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        session = await agent.uplink.first()
        with pytest.raises(FileRefusedError):
            await session.fetch(FileKind.CONFIGURATION, tmp_path / "rc")
        assert not (tmp_path / "rc").exists()
        assert not session.is_over, "the session goes on"


async def test_a_file_that_is_not_what_was_announced_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "rc").write_text("the one before")
    files = {FileKind.CONFIGURATION: b"[ReadOnly]\ndir=/etc\n"}
    async with (
        running_server(files=files, corrupts_files=True) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()
        with pytest.raises(FileRefusedError, match="not the one"):
            await session.fetch(FileKind.CONFIGURATION, tmp_path / "rc")
    assert (tmp_path / "rc").read_text() == "the one before"
    assert leftovers(tmp_path) == []


async def test_reports_go_on_while_a_file_is_fetched(tmp_path: Path) -> None:
    async with (
        running_server(files={FileKind.BASELINE: os.urandom(3_000_000)}) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(session.fetch(FileKind.BASELINE, tmp_path / "baseline"))
            agent.append(*["RULE_MATCHES_NOTHING"] * 2_000)
            await until(lambda: not agent.spool.waiting, "the delivery")
        assert (tmp_path / "baseline").stat().st_size == 3_000_000


async def test_a_connection_that_breaks_ends_a_fetch(tmp_path: Path) -> None:
    async with (
        running_server(is_slow_with_files=True) as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()

        async def fetch() -> LinkError | None:
            try:
                await session.fetch(FileKind.BASELINE, tmp_path / "baseline")
            except LinkError as error:
                return error
            return None

        async with asyncio.TaskGroup() as tasks:
            fetching = tasks.create_task(fetch())
            await until(lambda: server.file_requests, "the request")
            server.drop(reset=True)
        assert fetching.result() is not None


async def test_a_proposal_is_delivered_whole(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "new").write_bytes(data)
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        session = await agent.uplink.first()
        proposal = await session.propose(tmp_path / "new")
        assert (proposal.number, proposal.size_bytes) == (1, len(data))
        assert server.proposals == [data]


async def test_a_proposal_that_is_refused_says_why(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"x")
    async with (
        running_server(proposal_refusal="not a baseline") as server,
        running_agent(tmp_path, server.address) as agent,
    ):
        session = await agent.uplink.first()
        with pytest.raises(ProposalRefusedError, match="not a baseline"):
            await session.propose(tmp_path / "new")


async def test_a_command_arrives_and_its_result_goes_back(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        await until(lambda: server.peers and server.peers[0].is_welcomed, "the welcome")
        await server.order(7, "scan")
        await until(lambda: agent.orders, "the command")
        [(session, order)] = agent.orders
        await session.answer_order(order, "done", "all of it")
        await until(lambda: server.results, "the result")
        assert (server.results[0].command_id, server.results[0].outcome) == (7, "done")


async def test_goodbye_delivers_first_and_is_confirmed(tmp_path: Path) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        agent.append("EXIT")
        assert await agent.uplink.goodbye("exit", 10)
        assert server.codes() == ["EXIT"]
        assert server.goodbyes == ["exit"]


async def test_goodbye_to_a_server_that_is_away_is_given_up_at_once(tmp_path: Path) -> None:
    async with running_server() as server:
        await server.stop()
        async with running_agent(tmp_path, server.address) as agent:
            agent.append("EXIT")
            with pytest.raises(LinkError):
                await agent.uplink.first()
            async with asyncio.timeout(3):
                assert not await agent.uplink.goodbye("exit", 60)
            assert agent.spool.waiting == 1


async def test_suspended_it_stays_away_and_awake_it_takes_its_session_again(
    tmp_path: Path,
) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        await agent.uplink.first()
        assert await agent.uplink.suspend(10)
        await until(lambda: not server.peers, "the end of the connection")
        assert server.goodbyes == ["suspend"]
        agent.append("CHECK_STARTED")
        connections = server.connections
        agent.uplink.wake()
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert server.connections == connections + 1
        assert server.negotiations == [True, True]
        assert agent.lines.count("SERVICE_FAILURE") == 0


async def test_heartbeats_tell_what_waits(tmp_path: Path) -> None:
    async with (
        running_server(acknowledges=False) as server,
        running_agent(tmp_path, server.address, heartbeat_s=0.01) as agent,
    ):
        agent.append("START")
        await until(lambda: len(server.heartbeats) > 2, "heartbeats")
        assert server.heartbeats[-1].spool_reports == 1
        assert server.heartbeats[-1].spool_oldest_us == 1


async def test_what_the_process_before_left_is_delivered_and_announced(tmp_path: Path) -> None:
    async with (
        running_server() as server,
        running_agent(tmp_path, server.address, prior_exit_pending=True) as agent,
    ):
        agent.append("EXIT")
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert server.announcements[0].prior_exit_pending


async def test_no_report_is_lost_or_doubled_in_the_store_through_many_breaks(
    tmp_path: Path,
) -> None:
    async with running_server() as server, running_agent(tmp_path, server.address) as agent:
        for round_ in range(12):
            agent.append(*["RULE_MATCHES_NOTHING"] * 300)
            await until(lambda: server.peers, "a connection")
            server.drop(reset=round_ % 2 == 0)
            if round_ % 3 == 0:
                server.forget_sessions()
        await until(lambda: not agent.spool.waiting, "the delivery")
        assert [sequence for _, sequence in sorted(server.reports)] == list(range(1, 3_601))
        assert server.bad_signatures == 0
