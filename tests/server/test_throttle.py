"""A client that asks for too much waits, is told of, and loses nothing."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from needfire_protocol.connection_events import Refused
from needfire_protocol.messages import (
    RELAYED_REPORT,
    Acknowledge,
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRequest,
    Heartbeat,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    RefusalCode,
    Report,
    ReportBatch,
)
from needfire_server import agent_session as agent_session_module
from needfire_server import throttle as throttle_module
from needfire_server.config import ServerSettings
from needfire_server.datafiles import ProposalFile
from needfire_server.quota import QUIET_S, Allowance
from needfire_server.storage import store as store_module
from needfire_server.throttle import BURST_S, ODDITY_REPORTS, WAIT_S_MAX, Throttle
from needfire_server.turnstile import Rank
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, event_body, live_server


class Clock:
    """Time that only passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Said:
    """What a journal was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def raise_event(self, code: str, **fields: object) -> None:
        self.events.append((code, fields))


def batch(count: int, *, first: int = 1, step: int = 1, stream: bytes = bytes(16)) -> ReportBatch:
    numbers = range(first, first + count * step, step)
    return ReportBatch(stream, tuple(Report(each, 1, b"b", bytes(32)) for each in numbers))


class Bench:
    """A throttle whose waits are looked at instead of waited for."""

    def __init__(self, rate: int = 1) -> None:
        self.clock, self.said = Clock(), Said()
        settings = ServerSettings(
            agent_report_rate=rate,
            agent_byte_rate=0,
            relay_clients=("hall",),
            proposal_size_limit_bytes=1000,
        )
        self.throttle = Throttle(
            self.said,  # type: ignore[arg-type]
            lambda: settings,
            steady_s=self.clock,
            sleep=self.clock.sleep,
        )

    async def waited_s(self, wanted: ReportBatch, client: str = "web1") -> float:
        """Return how long a batch has to wait, and let that time pass."""
        began_s = self.clock.now_s
        await self.throttle.before_reports(client, wanted, lambda: True)
        return self.clock.now_s - began_s


async def test_nobody_waits_within_the_burst_and_who_is_beyond_it_does() -> None:
    bench = Bench()
    assert await bench.waited_s(batch(BURST_S)) == 0
    assert await bench.waited_s(batch(5, first=200)) == 0
    assert await bench.waited_s(batch(1, first=300), "web2") == 0
    assert await bench.waited_s(batch(1, first=300)) == pytest.approx(5)


async def test_no_wait_is_longer_than_a_silence_that_would_be_reported() -> None:
    bench = Bench()
    await bench.waited_s(batch(500))
    assert await bench.waited_s(batch(1, first=501)) == pytest.approx(WAIT_S_MAX)


async def test_a_wait_ends_where_nobody_wants_the_batch_any_more() -> None:
    bench = Bench()
    await bench.waited_s(batch(500))
    looks = iter([True, True, False])
    began_s = bench.clock.now_s
    await bench.throttle.before_reports("web1", batch(1, first=501), lambda: next(looks))
    assert bench.clock.now_s - began_s == pytest.approx(2)


async def test_what_is_odd_counts_as_many_reports() -> None:
    bench = Bench(rate=10)
    await bench.waited_s(batch(10))
    bench.throttle.odd("web1", 9)
    assert 9 * ODDITY_REPORTS + 10 < 10 * BURST_S
    assert await bench.waited_s(batch(1, first=30)) == 0
    bench.throttle.odd("web1", 1)
    assert await bench.waited_s(batch(1, first=40)) > 0


@pytest.mark.parametrize(
    "numbers",
    [[2, 4, 6, 8], [2], [9, 4, 6], [9, 7], [9, 5]],
    ids=["jumps", "a start behind one", "in a gap", "at its upper end", "in its middle"],
)
async def test_each_gap_that_a_client_leaves_counts_as_many_reports(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, numbers: list[int]
) -> None:
    """It is a row that does not expire. One number in the middle of a gap makes two of it."""
    charged: list[int] = []
    monkeypatch.setattr(
        server.runtime.throttle, "odd", lambda _client, count: charged.append(count)
    )
    peer = await server.log_in()
    for number in numbers:
        await peer.send(peer.batch(number, event_body()))
        assert isinstance(await peer.next_message(), Acknowledge)
    gaps = sum(
        (number not in numbers) and (number + 1 in numbers) for number in range(1, max(numbers))
    )
    assert sum(charged) == gaps


async def test_a_relay_may_deliver_for_many_and_its_numbers_need_not_follow_on_each_other() -> None:
    bench = Bench()
    numbers = range(1, 2 * BURST_S, 2)
    relayed = ReportBatch(
        bytes(16), tuple(Report(each, RELAYED_REPORT, b"b", bytes(32)) for each in numbers)
    )
    for _ in range(100):
        assert await bench.waited_s(relayed, "hall") == 0
    assert await bench.waited_s(batch(1), "hall") == 0
    assert await bench.waited_s(batch(1), "hall") > 0


async def test_new_streams_are_limited_even_where_reports_are_not() -> None:
    bench = Bench(rate=0)
    waits = [await bench.waited_s(batch(1, stream=bytes([each] * 16))) for each in range(35)]
    assert not any(waits[:33])
    assert all(waits[33:])
    assert not await bench.waited_s(batch(1, first=2, stream=bytes([34] * 16)))


async def test_begin_and_end_are_told_once() -> None:
    bench = Bench()
    await bench.waited_s(batch(BURST_S + 3))
    await bench.waited_s(batch(2, first=200))
    await bench.waited_s(batch(2, first=300))
    (begun,) = bench.said.events
    assert begun[0] == "CLIENT_HELD_BACK"
    assert begun[1]["client"] == "web1"
    bench.throttle.sweep()
    assert bench.throttle.held == 1
    bench.clock.now_s += 60
    bench.throttle.sweep()
    bench.throttle.sweep()
    code, fields = bench.said.events[-1]
    assert (len(bench.said.events), code) == (2, "CLIENT_HELD_BACK_ENDED")
    assert fields["reports"] == 4
    assert fields["waited_s"] == 5
    assert bench.throttle.held == 0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def test_an_agent_beyond_its_quota_is_answered_later_and_all_of_it_is_stored(
    server: LiveServer,
) -> None:
    server.configure(agent_report_rate=1)
    peer = await server.log_in()
    await peer.send(peer.batch(1, *[event_body() for _ in range(101)]))
    await peer.send(peer.batch(102, event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 101)
    assert await peer.next_message() == Acknowledge(peer.stream, 102)
    held = await server.until_said("CLIENT_HELD_BACK")
    assert held.fields["what"] == "reports"
    assert len(await server.stored(code="WAKEUP")) == 102
    assert "CLIENT_HELD_BACK_ENDED" not in server.codes()


async def test_a_refused_proposal_whose_pieces_are_on_their_way_costs_no_connection(
    server: LiveServer,
) -> None:
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    digest = hashlib.sha256(b"x").digest()
    pieces = [ProposalChunk(b"x" * 50)] * 3
    await peer.send(ProposalBegin(150, bytes(32)), *pieces, ProposalEnd())
    assert isinstance(await peer.next_message(), ProposalRefused)
    # An agent that hears of it sends no end.
    await peer.send(ProposalBegin(150, bytes(32)), *pieces)
    assert isinstance(await peer.next_message(), ProposalRefused)
    await peer.send(ProposalBegin(1, digest), ProposalChunk(b"x"), ProposalEnd())
    assert isinstance(await peer.next_message(), ProposalAccepted)
    assert "PROTOCOL_ERROR" not in server.codes()


async def test_a_refused_proposal_that_goes_on_for_ever_ends_the_connection(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_session_module, "_UNWANTED_BYTES_MAX", 100)
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    await peer.send(ProposalBegin(150, bytes(32)), *[ProposalChunk(b"x" * 50)] * 3)
    await server.until_said("PROTOCOL_ERROR")
    assert await peer.until_closed() != b""


async def test_more_proposals_than_anybody_needs_are_refused_with_the_time_to_wait(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    digest = hashlib.sha256(b"x").digest()
    answers = []
    for _ in range(7):
        await peer.send(ProposalBegin(1, digest), ProposalChunk(b"x"), ProposalEnd())
        answers.append(await peer.next_message())
    last = answers[-1]
    assert isinstance(last, ProposalRefused)
    assert [type(each) for each in answers] == [ProposalAccepted] * 6 + [ProposalRefused]
    assert "try again in" in last.reason


async def test_proposals_that_are_refused_for_their_number_are_told_once(
    server: LiveServer,
) -> None:
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    for _ in range(20):
        await peer.send(ProposalBegin(150, bytes(32)))
        assert isinstance(await peer.next_message(), ProposalRefused)
    assert server.codes().count("PROPOSAL_REFUSED") == 6
    held = await server.until_said("CLIENT_HELD_BACK")
    assert (server.codes().count("CLIENT_HELD_BACK"), held.fields["what"]) == (1, "proposals")
    server.runtime.throttle.sweep()
    assert "CLIENT_HELD_BACK_ENDED" not in server.codes()


async def test_beginnings_of_proposals_are_small_messages_as_others(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_MESSAGES", Allowance(burst=2, per_s=0.001))
    monkeypatch.setattr(throttle_module, "WAIT_S_MAX", 0.01)
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    await peer.send(*[ProposalBegin(150, bytes(32))] * 4)
    for _ in range(4):
        assert isinstance(await peer.next_message(), ProposalRefused)
    held = await server.until_said("CLIENT_HELD_BACK")
    assert held.fields["what"] == "messages beside reports"


@pytest.mark.parametrize("limit", [2**20, 10], ids=["taken", "refused"])
async def test_small_pieces_of_a_proposal_are_small_messages_as_others(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Millions of them would fit into one proposal."""
    monkeypatch.setattr(throttle_module, "_MESSAGES", Allowance(burst=2, per_s=0.001))
    monkeypatch.setattr(throttle_module, "WAIT_S_MAX", 0.01)
    server.configure(proposal_size_limit_bytes=limit)
    content = bytes(16 * 1024)
    pieces = [content[:1], content[1:2], content[2:]]
    peer = await server.log_in()
    begin = ProposalBegin(len(content), hashlib.sha256(content).digest())
    await peer.send(begin, *map(ProposalChunk, pieces), ProposalEnd())
    expected = ProposalAccepted if limit > 10 else ProposalRefused
    assert isinstance(await peer.next_message(), expected)
    held = await server.until_said("CLIENT_HELD_BACK")
    assert held.fields["what"] == "messages beside reports"


async def test_pieces_of_the_usual_size_are_not_counted_as_messages(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_MESSAGES", Allowance(burst=2, per_s=0.001))
    pieces = [bytes(16 * 1024)] * 20
    peer = await server.log_in()
    begin = ProposalBegin(20 * 16 * 1024, hashlib.sha256(b"".join(pieces)).digest())
    await peer.send(begin, *map(ProposalChunk, pieces), ProposalEnd())
    assert isinstance(await peer.next_message(), ProposalAccepted)
    assert "CLIENT_HELD_BACK" not in server.codes()


async def test_bytes_of_proposals_beyond_the_largest_one_come_as_slowly_as_the_quota_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throttle_module, "_PROPOSAL_BYTES_PER_S", 10)
    bench = Bench()
    waits = []
    for client in ["web1"] * 13 + ["web2"]:
        began_s = bench.clock.now_s
        await bench.throttle.before_piece(client, 100, lambda: True)
        waits.append(bench.clock.now_s - began_s)
    # The piece that goes beyond is taken; the next one waits until it is worked off.
    assert waits == pytest.approx([0] * 11 + [10] * 2 + [0])
    assert [(code, said["what"], said["limit"]) for code, said in bench.said.events] == [
        ("CLIENT_HELD_BACK", "bytes of proposals", "10 a second, 1000 at once")
    ]


async def test_a_piece_that_nobody_wants_any_more_is_not_waited_for() -> None:
    bench = Bench()
    await bench.throttle.before_piece("web1", 10**9, lambda: True)
    began_s = bench.clock.now_s
    await bench.throttle.before_piece("web1", 1, lambda: False)
    assert bench.clock.now_s == began_s


async def test_a_large_limit_is_told_to_the_last_byte() -> None:
    bench = Bench()
    await bench.throttle.before_chunk("web1", 4 * 2**30 + 1)
    assert not bench.said.events
    await bench.throttle.before_chunk("web1", 1)
    [(_, said)] = bench.said.events
    assert said["limit"] == "4194304 a second, 4294967296 at once"


@pytest.mark.parametrize("wish", ["bytes of proposals", "requests for files"])
async def test_who_was_superseded_while_it_was_held_back_gets_nothing_any_more(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setattr(throttle_module, "_PROPOSAL_BYTES_PER_S", 1)
    monkeypatch.setattr(throttle_module, "_FILES", Allowance(burst=1, per_s=0.001))
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    if wish == "requests for files":
        await peer.send(*[FileRequest(FileKind.BASELINE)] * 3)
    else:
        await peer.send(ProposalBegin(2**20, bytes(32)), *[ProposalChunk(bytes(65_536))] * 2)
    assert (await server.until_said("CLIENT_HELD_BACK")).fields["what"] == wish
    await server.log_in()
    await server.until_said("SIGNATURE_MISMATCH")


async def test_a_proposal_beyond_the_bytes_of_a_client_comes_later_and_whole(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_PROPOSAL_BYTES_PER_S", 2**22)
    server.configure(proposal_size_limit_bytes=2**20)
    content = os.urandom(2**20)
    begin = ProposalBegin(len(content), hashlib.sha256(content).digest())
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    peer = await server.log_in()
    for _ in range(2):
        await peer.send(begin, *map(ProposalChunk, pieces), ProposalEnd())
        assert isinstance(await peer.next_message(), ProposalAccepted)
    assert (await server.until_said("CLIENT_HELD_BACK")).fields["what"] == "bytes of proposals"
    await peer.send(peer.batch(1, event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 1)


async def test_what_comes_of_a_refused_proposal_counts_as_well(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_PROPOSAL_BYTES_PER_S", 2**22)
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    await peer.send(ProposalBegin(2**20, bytes(32)), *[ProposalChunk(bytes(65_536))] * 4)
    assert isinstance(await peer.next_message(), ProposalRefused)
    assert (await server.until_said("CLIENT_HELD_BACK")).fields["what"] == "bytes of proposals"


async def test_bytes_of_files_beyond_a_quota_are_sent_slowly_and_all_of_them(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowance = Allowance(burst=100_000, per_s=2**20)
    monkeypatch.setattr(throttle_module, "_FILE_BYTES", allowance)
    content = os.urandom(300_000)
    (server.directory / "file.localhost").write_bytes(content)
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.BASELINE))
    messages = [await peer.next_message() for _ in range(1 + 5 + 1)]
    assert b"".join(m.data for m in messages if isinstance(m, FileChunk)) == content
    assert isinstance(messages[-1], FileEnd)
    assert (await server.until_said("CLIENT_HELD_BACK")).fields["what"] == "bytes of files"


async def test_what_a_proposal_leaves_is_not_removed_by_the_event_loop(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GiB takes a third of a second, in which nobody has an answer."""
    threads: list[threading.Thread] = []
    discard, unlink = ProposalFile.discard, store_module._unlink

    def noted_discard(file: ProposalFile) -> None:
        threads.append(threading.current_thread())
        discard(file)

    def noted_unlink(path: str) -> None:
        threads.append(threading.current_thread())
        unlink(path)

    monkeypatch.setattr(ProposalFile, "discard", noted_discard)
    monkeypatch.setattr(store_module, "_unlink", noted_unlink)
    digest = hashlib.sha256(b"x").digest()
    peer = await server.log_in()
    await peer.send(ProposalBegin(1, bytes(32)), ProposalChunk(b"x"), ProposalEnd())
    assert isinstance(await peer.next_message(), ProposalRefused)
    for _ in range(2):
        await peer.send(ProposalBegin(1, digest), ProposalChunk(b"x"), ProposalEnd())
        assert isinstance(await peer.next_message(), ProposalAccepted)
    await peer.send(ProposalBegin(2, digest), ProposalChunk(b"x"), peer.batch(1, event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    await peer.close()
    await server.until_said("CONNECTION_CLOSED")
    async with asyncio.timeout(10):
        while len(threads) < 3:
            await asyncio.sleep(0.005)
    assert threading.main_thread() not in threads
    assert len(list((server.directory / "proposals").iterdir())) == 1


async def test_reports_are_acknowledged_while_a_large_file_is_on_its_way(
    server: LiveServer,
) -> None:
    content = os.urandom(8 * 1024 * 1024)
    (server.directory / "file.localhost").write_bytes(content)
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.BASELINE), peer.batch(1, event_body()))
    received, order = b"", []
    while True:
        message = await peer.next_message()
        order.append(type(message))
        if isinstance(message, FileChunk):
            received += message.data
        elif isinstance(message, FileEnd):
            break
    assert received == content
    assert FileBegin in order
    assert Acknowledge in order, "it came before the end of the file"


async def test_a_second_file_waits_for_the_first(server: LiveServer) -> None:
    (server.directory / "file.localhost").write_bytes(os.urandom(300_000))
    (server.directory / "rc.localhost").write_bytes(b"[ReadOnly]\n")
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.BASELINE), FileRequest(FileKind.CONFIGURATION))
    kinds = [type(await peer.next_message()) for _ in range(5 + 2 + 3)]
    assert kinds == [FileBegin, *[FileChunk] * 5, FileEnd, FileBegin, FileChunk, FileEnd]


async def test_more_small_messages_than_any_agent_has_are_looked_at_slowly() -> None:
    bench = Bench()
    began_s = bench.clock.now_s
    for _ in range(120):
        await bench.throttle.before_message("web1", lambda: True)
    assert bench.clock.now_s == began_s
    for _ in range(40):
        await bench.throttle.before_message("web1", lambda: True)
    assert bench.clock.now_s - began_s == pytest.approx(10, abs=0.5)
    assert [code for code, _ in bench.said.events] == ["CLIENT_HELD_BACK"]
    # Others notice nothing.
    now_s = bench.clock.now_s
    await bench.throttle.before_message("web2", lambda: True)
    assert bench.clock.now_s == now_s


async def test_heartbeats_as_fast_as_they_can_be_sent_are_not_all_looked_at(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    await peer.send(*[Heartbeat(0, 0, None)] * 200)
    held = await server.until_said("CLIENT_HELD_BACK")
    assert held.fields["what"] == "messages beside reports"


def test_more_log_ins_than_any_agent_needs_are_refused_and_told_once() -> None:
    bench = Bench()
    answers = []
    for _ in range(100):
        answers.append(bench.throttle.may_log_in("web1"))
        if answers[-1]:
            bench.throttle.logged_in("web1")
    assert answers == [True] * 61 + [False] * 39
    assert [fields["what"] for _, fields in bench.said.events] == ["log-ins"]
    assert bench.throttle.may_log_in("web2")
    bench.clock.now_s += 6
    assert bench.throttle.may_log_in("web1")


def test_who_is_refused_waits_for_nothing_and_is_no_more_held_back_soon() -> None:
    bench = Bench()
    for _ in range(100):
        bench.throttle.logged_in("web1")
    assert not bench.throttle.may_log_in("web1")
    bench.clock.now_s += QUIET_S
    bench.throttle.sweep()
    code, said = bench.said.events[-1]
    assert (code, said["waited_s"]) == ("CLIENT_HELD_BACK_ENDED", 0)


def test_resumptions_have_a_quota_of_their_own() -> None:
    bench = Bench()
    for _ in range(100):
        bench.throttle.logged_in("web1")
    assert not bench.throttle.may_log_in("web1")
    answers = [bench.throttle.may_resume("web1") for _ in range(100)]
    assert answers == [True] * 61 + [False] * 39


@pytest.mark.parametrize("is_name_from_accept", [False, True], ids=["claimed", "from accept"])
async def test_a_client_that_logs_in_all_the_time_is_turned_away(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, *, is_name_from_accept: bool
) -> None:
    async def name_from_address(_address: str) -> str:
        return NAME

    monkeypatch.setattr(server.runtime.names, "name_from_address", name_from_address)
    server.configure(set_client_from_accept=is_name_from_accept)
    monkeypatch.setattr(throttle_module, "_LOG_INS", Allowance(burst=1, per_s=0.001))
    for _ in range(2):
        await (await server.log_in()).close()
    calculated = count_calculations(server, monkeypatch)
    for _ in range(3):
        assert await outcome_of_log_in(server) is RefusalCode.BUSY
    assert await outcome_of_log_in(server, name=NAME.upper()) is RefusalCode.BUSY
    assert server.runtime.metrics.handshakes["too_often"] == 4
    assert not calculated, "it is turned away before anything is calculated for it"
    await server.until_said("CLIENT_HELD_BACK")
    assert server.codes().count("CLIENT_HELD_BACK") == 1
    assert server.codes().count("NEW_CLIENT") <= 2


async def test_who_proves_the_secret_and_says_nothing_then_has_logged_in_all_the_same(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_LOG_INS", Allowance(burst=1, per_s=0.001))
    for _ in range(2):
        assert await outcome_of_log_in(server) is None
    assert await outcome_of_log_in(server) is RefusalCode.BUSY


async def test_who_has_only_the_name_of_a_client_uses_up_nothing_of_its_log_ins(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_LOG_INS", Allowance(burst=1, per_s=0.001))
    for _ in range(5):
        assert await outcome_of_log_in(server, "guessed") is RefusalCode.AUTHENTICATION_FAILED
    await server.log_in()
    assert "CLIENT_HELD_BACK" not in server.codes()


async def test_a_session_is_resumed_although_its_client_has_logged_in_too_often(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_LOG_INS", Allowance(burst=1, per_s=0.001))
    agent = await server.log_in()
    await agent.close()
    # Somebody has the secret, and logs in without saying anything.
    outcomes = [await outcome_of_log_in(server) for _ in range(3)]
    assert outcomes[-1] is RefusalCode.BUSY
    for _ in range(2):
        again = await server.connect()
        await again.resume(agent.keys)
        await again.announce()
        await again.send(Heartbeat(0, 0, None))
        await again.close()
    once_more = await server.connect()
    await once_more.resume(agent.keys)
    with pytest.raises(AssertionError, match="too many resumptions"):
        await once_more.announce()


async def test_who_resumes_uses_up_no_log_ins(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "_LOG_INS", Allowance(burst=2, per_s=0.001))
    agent = await server.log_in()
    await agent.close()
    for _ in range(2):
        again = await server.connect()
        await again.resume(agent.keys)
        await again.announce()
        await again.close()
    assert await outcome_of_log_in(server) is None


def count_calculations(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    """Return the ranks of what is calculated from now on."""
    ranks: list[Rank] = []
    run = server.runtime._turnstile.run

    async def noted(work: Callable[[], object], rank: Rank) -> object:
        ranks.append(rank)
        return await run(work, rank)

    monkeypatch.setattr(server.runtime._turnstile, "run", noted)
    return ranks


async def outcome_of_log_in(
    server: LiveServer, password: str = PASSWORD, name: str = NAME
) -> RefusalCode | None:
    """Log in without an announcement; return why it was refused, if it was."""
    peer = await server.connect()
    last = (await peer.negotiate(name, password))[-1]
    return last.code if isinstance(last, Refused) else None
