"""A client's connection on the real listener: admission, state 7, reports, files, goodbye."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.connection_events import Established, Refused
from needfire_protocol.errors import StorageError
from needfire_protocol.messages import (
    Acknowledge,
    Command,
    CommandResult,
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRefused,
    FileRequest,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    RefusalCode,
    ReportBatch,
    SessionExpired,
)
from needfire_protocol.srp import make_verifier
from needfire_server.clock import now_us
from needfire_server.datafiles import ProposalFile
from needfire_server.familiar import SOURCES_OF_ONE_MAX
from needfire_server.logbook import STRANGER_BURST
from needfire_server.states import ClientStatus
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, Peer, event_body, live_server

HEARTBEAT = Heartbeat(time_us=1, spool_reports=0, spool_oldest_us=None)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def refusal(peer: Peer) -> Refused:
    event = await peer.next_event()
    assert isinstance(event, Refused), event
    return event


async def test_a_report_is_acknowledged_when_it_is_stored(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(peer.batch(1, event_body(), event_body("START", program="x")))
    assert await peer.next_message() == Acknowledge(peer.stream, 2)
    stored = await server.stored(client=NAME)
    assert [event.code for event in stored] == ["WAKEUP", "START"]
    assert stored[0].client == NAME
    assert stored[0].received_us is not None
    assert server.runtime.fleet.state(NAME).status is ClientStatus.STARTED


async def test_a_report_that_comes_twice_is_stored_once_and_acknowledged_twice(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    batch = peer.batch(1, event_body())
    await peer.send(batch, batch)
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    assert len(await server.stored(client=NAME)) == 1


async def test_missing_sequence_numbers_are_an_alarm(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(peer.batch(1, event_body()), peer.batch(5, event_body()))
    event = await server.until_said("SEQUENCE_GAP")
    assert (event.fields["last"], event.fields["next"]) == (1, 5)
    assert event.fields["client"] == NAME


async def test_a_report_that_is_no_event_is_kept_and_does_not_block_the_next(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    await peer.send(peer.batch(1, b"\xc1 nonsense", event_body()))
    assert await peer.next_message() == Acknowledge(peer.stream, 2)
    event = await server.until_said("REPORT_UNUSABLE")
    assert event.fields["sequence"] == 1
    assert [stored.code for stored in await server.stored(client=NAME)] == ["WAKEUP"]


async def test_a_report_of_an_unknown_type_is_kept_and_acknowledged(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(ReportBatch(peer.stream, (peer.report(1, event_body(), type_=77),)))
    assert await peer.next_message() == Acknowledge(peer.stream, 1)
    assert "type 77" in str((await server.until_said("REPORT_UNUSABLE")).fields["reason"])


async def test_nothing_is_acknowledged_while_the_store_fails(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await server.log_in()

    async def fail(*_arguments: Any, **_options: Any) -> None:
        raise StorageError("database or disk is full")

    monkeypatch.setattr(server.runtime.store, "ingest", fail)
    await peer.send(peer.batch(1, event_body()))
    refused = await refusal(peer)
    assert refused.code is RefusalCode.BUSY
    assert "disk is full" not in refused.detail, "a peer is not told what our disk is like"
    assert "full" in str((await server.until_said("STORE_FAILED")).fields["reason"])
    again = await server.log_in(takeover=False)
    await again.send(again.batch(1, event_body()))
    await refusal(again)
    assert server.codes().count("STORE_FAILED") == 1, "said once until it works again"
    monkeypatch.undo()
    third = await server.log_in(takeover=False)
    await third.send(third.batch(1, event_body()))
    assert isinstance(await third.next_message(), Acknowledge)
    await server.until_said("STORE_RECOVERED")


async def test_a_wrong_signature_ends_the_connection(server: LiveServer) -> None:
    peer = await server.log_in()
    good = peer.report(1, event_body())
    forged = type(good)(good.sequence, good.type, good.body, bytes(32))
    await peer.send(ReportBatch(peer.stream, (forged,)))
    await server.until_said("MSG_SIGNATURE_MISMATCH")
    assert (await refusal(peer)).code is RefusalCode.PROTOCOL
    assert not await server.stored(client=NAME, code="WAKEUP")
    assert server.runtime.fleet.state(NAME).status is ClientStatus.FAILED


async def test_a_superseded_session_is_told_so_with_proof_at_its_next_message(
    server: LiveServer,
) -> None:
    first = await server.log_in(instance=b"1" * 16)
    second = await server.log_in(instance=b"2" * 16)
    await server.until_said("RESTART_WITHOUT_EXIT")
    await first.send(HEARTBEAT)
    refused = await refusal(first)
    assert refused.code is RefusalCode.SESSION_SUPERSEDED
    assert refused.authenticated
    assert (await server.until_said("SIGNATURE_MISMATCH")).fields["client"] == NAME
    await second.send(second.batch(1, event_body()))
    assert isinstance(await second.next_message(), Acknowledge)


async def test_a_superseded_session_cannot_be_resumed(server: LiveServer) -> None:
    first = await server.log_in(instance=b"1" * 16)
    await first.close()
    await server.log_in(instance=b"2" * 16)
    again = await server.connect()
    (event,) = await again.resume(first.keys)
    assert isinstance(event, Refused)
    assert event.code is RefusalCode.SESSION_SUPERSEDED
    assert event.authenticated
    await server.until_said("SIGNATURE_MISMATCH")


async def test_without_takeover_a_session_in_use_stays_in_use(server: LiveServer) -> None:
    holder = await server.log_in(instance=b"1" * 16)
    polite = await server.connect()
    await polite.negotiate(NAME, PASSWORD, takeover=False)
    with pytest.raises(AssertionError, match="SESSION_IN_USE"):
        await polite.announce(instance=b"2" * 16)
    await holder.send(Goodbye("exit"))
    assert await holder.next_message() == GoodbyeAccepted()
    await server.log_in(instance=b"2" * 16, takeover=False)
    assert "RESTART_WITHOUT_EXIT" not in server.codes()


async def test_the_same_process_renegotiates_without_takeover(server: LiveServer) -> None:
    await server.log_in(instance=b"1" * 16)
    await server.log_in(instance=b"1" * 16, takeover=False)
    assert "SESSION_IN_USE" not in server.codes()
    assert "RESTART_WITHOUT_EXIT" not in server.codes()


async def test_a_session_is_resumed_with_its_key_by_its_own_process_only(
    server: LiveServer,
) -> None:
    first = await server.log_in(instance=b"1" * 16)
    keys = first.keys
    await first.close()
    again = await server.connect()
    (event,) = await again.resume(keys)
    assert isinstance(event, Established)
    assert event.resumed
    await again.announce(instance=b"1" * 16)
    await server.until_said("CLIENT_RESUMED")
    thief = await server.connect()
    await thief.resume(keys)
    with pytest.raises(AssertionError, match="SESSION_SUPERSEDED"):
        await thief.announce(instance=b"2" * 16)


async def test_a_session_that_nobody_knows_is_refused_without_proof(server: LiveServer) -> None:
    first = await server.log_in()
    server.runtime.sessions.drop_client(NAME)
    again = await server.connect()
    (event,) = await again.resume(first.keys)
    assert isinstance(event, Refused)
    assert event.code is RefusalCode.SESSION_UNKNOWN
    assert not event.authenticated


async def test_an_expired_key_must_be_renegotiated(server: LiveServer) -> None:
    server.configure(session_key_lifetime_s=0)
    peer = await server.log_in()
    await peer.send(peer.batch(1, event_body()))
    assert await peer.next_message() == SessionExpired()
    await server.until_said("FORCE_AUTHENTICATION")
    assert not await server.stored(client=NAME, code="WAKEUP")
    again = await server.connect()
    (event,) = await again.resume(peer.keys)
    assert isinstance(event, Refused)


async def test_an_expired_session_that_is_brought_again_and_again_counts_for_its_address(
    server: LiveServer,
) -> None:
    """Its identifier is no secret, and each event of it is a record that never expires."""
    server.configure(session_key_lifetime_s=0)
    agent = await server.log_in()
    before = server.runtime.journal.waiting
    for _ in range(STRANGER_BURST + 20):
        again = await server.connect()
        await again.resume(agent.keys)
        await again.close()
    assert server.codes().count("FORCE_AUTHENTICATION") == STRANGER_BURST + 20
    assert 0 < server.runtime.journal.waiting - before < STRANGER_BURST


async def test_a_client_must_announce_itself_first_and_once(server: LiveServer) -> None:
    silent = await server.connect()
    await silent.negotiate(NAME, PASSWORD)
    await silent.send(HEARTBEAT)
    assert (await refusal(silent)).code is RefusalCode.PROTOCOL
    twice = await server.log_in()
    with pytest.raises(AssertionError, match="PROTOCOL"):
        await twice.announce()


async def test_a_goodbye_ends_the_session_and_says_how(server: LiveServer) -> None:
    for reason, status in (("suspend", ClientStatus.SUSPENDED), ("exit", ClientStatus.EXITED)):
        peer = await server.log_in(instance=os.urandom(16))
        await peer.send(Goodbye(reason))
        assert await peer.next_message() == GoodbyeAccepted()
        assert server.runtime.fleet.state(NAME).status is status
        assert (await server.runtime.store.load_client_states())[NAME].status is status
        again = await server.connect()
        assert isinstance((await again.resume(peer.keys))[0], Refused)
    assert "RESTART_WITHOUT_EXIT" not in server.codes()


async def test_an_exit_that_is_still_on_its_way_is_not_state_8(server: LiveServer) -> None:
    peer = await server.log_in(instance=b"1" * 16)
    await peer.close()
    peer = await server.log_in(instance=b"2" * 16, prior_exit_pending=True)
    said = await server.until_said("PRIOR_EXIT_CLAIMED")
    assert said.fields["client"] == NAME
    assert said.fields["last"]
    exit_ = event_body("EXIT", program="needfire-agent", status="Terminated")
    await peer.send(Heartbeat(0, 3, 0), peer.batch(1, event_body(), exit_, event_body("START")))
    while not isinstance(await peer.next_message(), Acknowledge):
        pass
    await peer.send(Heartbeat(0, 0, None), peer.batch(4, event_body("START")))
    while not isinstance(await peer.next_message(), Acknowledge):
        pass
    assert not {"RESTART_WITHOUT_EXIT", "PRIOR_EXIT_NOT_SHOWN"} & {*server.codes()}


async def test_the_start_of_the_process_before_may_come_with_its_end(server: LiveServer) -> None:
    """It was admitted, and lost the server before it had delivered its first report."""
    await (await server.log_in(instance=b"1" * 16)).close()
    exit_ = event_body("EXIT", program="needfire-agent", status="Terminated")
    before = event_body("START"), exit_
    peer = await server.log_in(instance=b"2" * 16, prior_exit_pending=True, started_us=now_us())
    await peer.send(peer.batch(1, *before, event_body("START")))
    assert isinstance(await peer.next_message(), Acknowledge)
    assert "PRIOR_EXIT_NOT_SHOWN" not in server.codes()


@pytest.mark.parametrize("how", ["its own start came first", "nothing waits in its spool"])
async def test_an_exit_that_an_agent_only_speaks_of_is_told_as_its_word(
    server: LiveServer, how: str
) -> None:
    """Else whoever kills an agent and starts it again would be silent with one bit."""
    await (await server.log_in(instance=b"1" * 16)).close()
    peer = await server.log_in(instance=b"2" * 16, prior_exit_pending=True)
    await server.until_said("PRIOR_EXIT_CLAIMED")
    exit_ = event_body("EXIT", program="needfire-agent", status="Terminated")
    if how.startswith("its own"):
        await peer.send(peer.batch(1, event_body("START"), exit_))
    else:
        await peer.send(Heartbeat(0, 0, None))
    told = await server.until_said("PRIOR_EXIT_NOT_SHOWN")
    assert (told.fields["client"], told.fields["reason"]) == (NAME, how)
    # Once, whatever comes of it.
    await peer.send(Heartbeat(0, 0, None), peer.batch(3, event_body("START")))
    while not isinstance(await peer.next_message(), Acknowledge):
        pass
    assert server.codes().count("PRIOR_EXIT_NOT_SHOWN") == 1


async def test_where_the_server_knows_of_the_end_nobody_needs_to_claim_it(
    server: LiveServer,
) -> None:
    first = await server.log_in(instance=b"1" * 16)
    await first.send(Goodbye("exit"))
    assert await first.next_message() == GoodbyeAccepted()
    for _ in range(2):
        # The second time it is the same process, which says the same for as long as it lives.
        peer = await server.log_in(instance=b"2" * 16, prior_exit_pending=True)
        await peer.send(Heartbeat(0, 0, None), peer.batch(1, event_body("START")))
        assert isinstance(await peer.next_message(), Acknowledge)
        await peer.close()
    assert not {"PRIOR_EXIT_CLAIMED", "PRIOR_EXIT_NOT_SHOWN"} & {*server.codes()}


async def test_a_file_arrives_whole_with_its_digest(server: LiveServer) -> None:
    content = os.urandom(200_001)
    (server.directory / f"file.{NAME}").write_bytes(content)
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.BASELINE))
    begin = await peer.next_message()
    digest = hashlib.sha256(content).digest()
    assert begin == FileBegin(FileKind.BASELINE, len(content), digest)
    received = b""
    while isinstance(message := await peer.next_message(), FileChunk):
        received += message.data
    assert message == FileEnd()
    assert received == content
    await server.until_said("FILE_TRANSFER_COMPLETED")


async def test_a_missing_file_is_refused_and_its_first_place_named(server: LiveServer) -> None:
    peer = await server.log_in()
    await peer.send(FileRequest(FileKind.CONFIGURATION))
    assert await peer.next_message() == FileRefused(FileKind.CONFIGURATION)
    event = await server.until_said("FILE_NOT_ACCESSIBLE")
    assert event.fields["path"] == str(server.directory / f"rc.{NAME}")


async def test_a_proposal_is_kept_beside_what_is_approved(server: LiveServer) -> None:
    peer = await server.log_in()
    content = os.urandom(70_000)
    digest = hashlib.sha256(content).digest()
    await peer.send(
        ProposalBegin(len(content), digest),
        ProposalChunk(content[:60_000]),
        ProposalChunk(content[60_000:]),
        ProposalEnd(),
    )
    accepted = await peer.next_message()
    assert isinstance(accepted, ProposalAccepted)
    proposal = await server.runtime.store.proposal(accepted.proposal_id)
    assert proposal is not None
    assert Path(proposal.path).read_bytes() == content
    assert not (server.directory / f"file.{NAME}").exists()


@pytest.mark.parametrize("fault", ["wrong digest", "too short"])
async def test_a_proposal_that_is_not_as_announced_leaves_no_trace(
    fault: str, server: LiveServer
) -> None:
    peer = await server.log_in()
    digest = bytes(32) if fault == "wrong digest" else hashlib.sha256(b"x" * 9).digest()
    await peer.send(ProposalBegin(10, digest), ProposalChunk(b"x" * 9), ProposalEnd())
    assert isinstance(await peer.next_message(), ProposalRefused)
    await server.until_said("PROPOSAL_REFUSED")
    assert not list((server.directory / "proposals").glob("*"))


async def test_a_proposal_with_more_bytes_than_announced_ends_the_connection(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    await peer.send(ProposalBegin(10, bytes(32)), ProposalChunk(b"x" * 11))
    assert (await refusal(peer)).code is RefusalCode.PROTOCOL
    await peer.until_closed()
    assert not list((server.directory / "proposals").glob("*"))


async def test_a_proposal_that_the_disk_does_not_take_leaves_no_trace(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(_file: ProposalFile, _data: bytes) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(ProposalFile, "write", is_full)
    peer = await server.log_in()
    await peer.send(ProposalBegin(10, bytes(32)), ProposalChunk(b"x" * 10))
    refused = await peer.next_message()
    assert isinstance(refused, ProposalRefused)
    assert "no space left" in refused.reason
    assert not list((server.directory / "proposals").glob("*"))


async def test_a_proposal_beyond_the_limit_is_refused_before_a_byte_is_written(
    server: LiveServer,
) -> None:
    server.configure(proposal_size_limit_bytes=100)
    peer = await server.log_in()
    await peer.send(ProposalBegin(101, bytes(32)))
    refused = await peer.next_message()
    assert isinstance(refused, ProposalRefused)
    assert "101" in refused.reason
    assert "100" in refused.reason


async def test_a_piece_without_a_beginning_is_a_protocol_error(server: LiveServer) -> None:
    for message in (ProposalChunk(b"x"), ProposalEnd()):
        peer = await server.log_in()
        await peer.send(message)
        assert (await refusal(peer)).code is RefusalCode.PROTOCOL


async def test_commands_are_sent_at_once_and_only_their_client_acknowledges_them(
    server: LiveServer,
) -> None:
    store = server.runtime.store
    foreign = await store.queue_command("other", "stop", "root", 1)
    peer = await server.log_in()
    number = await store.queue_command(NAME, "scan", "root", 1)
    await server.until_connected()
    server.listener.wake(NAME)
    assert await peer.next_message() == Command(number, "scan")
    await peer.send(CommandResult(foreign, "done", ""), CommandResult(number, "done", ""))
    event = await server.until_said("COMMAND_ACKNOWLEDGED")
    assert event.fields["command_id"] == number
    assert [command.id for command in await store.pending_commands("other", 1)] == [foreign]
    assert not await store.pending_commands(NAME, 1)


async def test_a_silent_connection_is_closed_after_its_limit(server: LiveServer) -> None:
    server.configure(connection_timeout_s=0.05)
    peer = await server.log_in()
    await server.until_said("CONNECTION_TIMEOUT")
    await peer.until_closed()


async def test_an_old_connection_of_the_same_process_is_closed_when_it_comes_back(
    server: LiveServer,
) -> None:
    first = await server.log_in(instance=b"1" * 16)
    again = await server.connect()
    await again.resume(first.keys)
    await again.announce(instance=b"1" * 16)
    await first.until_closed()
    await again.send(again.batch(1, event_body()))
    assert isinstance(await again.next_message(), Acknowledge)


async def test_a_removed_client_loses_its_connection_and_its_session(server: LiveServer) -> None:
    peer = await server.log_in()
    await server.until_connected()
    server.runtime.sessions.drop_client(NAME)
    server.listener.drop(NAME)
    await peer.until_closed()
    again = await server.connect()
    assert isinstance((await again.resume(peer.keys))[0], Refused)


async def test_a_removed_client_has_no_addresses_of_its_own_any_more(server: LiveServer) -> None:
    familiar = server.runtime.familiar
    for number in range(SOURCES_OF_ONE_MAX + 1):
        familiar.logged_in(f"192.0.2.{number}", NAME, 0.0)
    server.listener.drop(NAME)
    familiar.logged_in("192.0.2.99", NAME, 0.0)
    assert familiar.spend("192.0.2.99", 0.0)


async def test_a_message_after_the_handshake_in_the_same_bytes_is_not_lost(
    server: LiveServer,
) -> None:
    """The announcement may arrive in one piece with the end of a resumption's handshake."""
    first = await server.log_in(instance=b"1" * 16)
    keys = first.keys
    await first.close()
    for _ in range(3):
        again = await server.connect()
        (event,) = await again.resume(keys)
        assert isinstance(event, Established)
        await again.announce(instance=b"1" * 16)
        await again.close()


async def test_a_client_that_was_registered_anew_meanwhile_is_not_admitted(
    server: LiveServer,
) -> None:
    waiting = await server.connect()
    await waiting.negotiate(NAME, PASSWORD)
    await server.runtime.store.register(
        NAME, make_verifier("another password altogether", os.urandom), now_us=1, user="test"
    )
    record = await server.runtime.store.client_record(NAME)
    assert record is not None
    server.runtime.registry.put(record)
    with pytest.raises(AssertionError, match="SESSION_SUPERSEDED"):
        await waiting.announce()


async def test_a_stranger_s_wrong_password_changes_nothing_that_is_known_of_a_client(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    await peer.send(Goodbye("exit"))
    await peer.next_message()
    before = server.runtime.fleet.state(NAME)
    stranger = await server.connect()
    await stranger.negotiate(NAME, "a wrong password")
    await server.until_said("SESSION_KEY_MISMATCH")
    assert server.runtime.fleet.state(NAME) == before


async def test_a_secret_alone_does_not_use_up_the_connections(server: LiveServer) -> None:
    peers = [await server.connect() for _ in range(9)]
    for peer in peers:
        await peer.negotiate(NAME, PASSWORD)
    await server.until_said("TOO_MANY_CONNECTIONS")
    await peers[0].until_closed()
    await peers[8].announce()


async def test_who_takes_its_own_session_again_and_again_does_not_use_up_the_connections(
    server: LiveServer,
) -> None:
    """Each process that is superseded is told so when it speaks. One that never ends a message does
    not speak, and the bytes that it drips keep its connection from being idle."""
    peers = [await server.log_in(instance=bytes([number]) * 16) for number in range(9)]
    for peer in peers[:4]:
        await peer.until_closed()
    await server.until_said("CONNECTION_CLOSED", 4)
    reasons = {e.fields["reason"] for e in server.said if e.code == "CONNECTION_CLOSED"}
    assert reasons == {"its session was taken long ago"}
    for peer in peers[4:8]:
        await peer.send(Heartbeat(1, 0, None))
        outcome = await peer.next_event()
        assert isinstance(outcome, Refused)
        assert outcome.code is RefusalCode.SESSION_SUPERSEDED
    await peers[8].send(peers[8].batch(1, event_body()))
    assert isinstance(await peers[8].next_message(), Acknowledge)
    # Nothing is left of those that have ended.
    async with asyncio.timeout(15):
        while server.listener._superseded:
            await asyncio.sleep(0.005)


async def test_nonsense_behind_a_request_ends_the_connection_without_a_bug(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    peer.agent.send(FileRequest(FileKind.BASELINE))
    peer.writer.write(peer.agent.data_to_send() + bytes([0x20, 0, 0, 0, 32]) + bytes(32))
    await peer.until_closed()
    await server.until_said("PROTOCOL_ERROR")
    assert "SERVER_INTERNAL_ERROR" not in server.codes()
