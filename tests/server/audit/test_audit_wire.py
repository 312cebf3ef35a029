"""What an agent is told of the audit log over the wire, and what of its acts is on record."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.audit.merkle import is_consistent
from needfire_protocol.audit.note import PublicKey, parse_checkpoint, parse_note
from needfire_protocol.audit.record import Draft, Record, parse_record
from needfire_protocol.audit.verdict import Finding, Verdict, Verification
from needfire_protocol.errors import StorageError
from needfire_protocol.keys import sign_report
from needfire_protocol.messages import (
    EVENT_REPORT,
    FEATURE_AUDIT,
    Acknowledge,
    AuditCheckpoint,
    AuditProof,
    AuditProofRequest,
    Heartbeat,
    Report,
    ReportBatch,
)
from needfire_protocol.severity import Severity
from needfire_server.audit.log import AuditLog
from needfire_server.audit.watch import watch_audit_log
from needfire_testkit.live_server import NAME, PASSWORD, LiveServer, Peer, event_body, live_server

STREAM = bytes(16)
BEAT = Heartbeat(1, 0, None)


async def logged_in(live: LiveServer, *, features: int = FEATURE_AUDIT) -> Peer:
    peer = await live.connect()
    peer.features = features
    await peer.negotiate(NAME, PASSWORD)
    await peer.announce()
    return peer


def batch(peer: Peer, first: int, *bodies: bytes) -> ReportBatch:
    reports = [
        Report(
            number, EVENT_REPORT, body, sign_report(peer.keys, STREAM, number, EVENT_REPORT, body)
        )
        for number, body in enumerate(bodies, first)
    ]
    return ReportBatch(STREAM, tuple(reports))


def records(live: LiveServer) -> list[Record]:
    rows = live.runtime.store.audit.records_now(0, 1_000)
    return [parse_record(line) for _, line in rows]


def told(live: LiveServer, code: str) -> list[dict[str, Any]]:
    return [dict(each.draft.fields) for each in records(live) if each.draft.code == code]


async def test_every_batch_that_brings_something_is_on_record_with_its_digest(
    tmp_path: Path,
) -> None:
    async with live_server(tmp_path) as live:
        peer = await logged_in(live)
        bodies = [event_body(), event_body(), event_body()]
        await peer.send(batch(peer, 1, *bodies))
        assert await peer.next_message() == Acknowledge(STREAM, 3)
        (first,) = told(live, "REPORTS_RECEIVED")
        framed = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
        assert first["sha256"] == hashlib.sha256(framed).hexdigest()
        assert (first["first"], first["last"], first["count"], first["accepted"]) == (1, 3, 3, 3)
        await peer.send(batch(peer, 3, bodies[2]))
        await peer.next_message()
        # The same again, as often as it likes, leaves nothing.
        assert told(live, "REPORTS_RECEIVED") == [first]
        await peer.send(batch(peer, 4, b"no event"))
        await peer.next_message()
        assert [each["accepted"] for each in told(live, "REPORTS_RECEIVED")] == [3, 0]


async def test_an_agent_is_shown_each_checkpoint_once_and_gets_its_proof(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        await live.runtime.audit.checkpoint()
        peer = await logged_in(live)
        await peer.send(BEAT, batch(peer, 1, event_body()))
        shown = await peer.next_message()
        assert isinstance(shown, AuditCheckpoint)
        assert PublicKey.parse(shown.key.decode()).verifies(parse_note(shown.note.decode()))
        old = parse_checkpoint(parse_note(shown.note.decode()))
        assert isinstance(await peer.next_message(), Acknowledge)
        await live.runtime.audit.checkpoint()
        await peer.send(BEAT)
        shown = await peer.next_message()
        assert isinstance(shown, AuditCheckpoint)
        new = parse_checkpoint(parse_note(shown.note.decode()))
        await peer.send(AuditProofRequest(old.size, new.size))
        proof = await peer.next_message()
        assert isinstance(proof, AuditProof)
        assert is_consistent(old.size, old.root, new.size, new.root, proof.hashes)


async def test_an_agent_that_does_not_know_of_it_is_shown_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        await live.runtime.audit.checkpoint()
        peer = await logged_in(live, features=0)
        await peer.send(BEAT, batch(peer, 1, event_body()))
        assert isinstance(await peer.next_message(), Acknowledge)


@pytest.mark.parametrize(("old", "new"), [(1, 1), (2, 1), (1, 1_000)])
async def test_a_proof_that_no_checkpoint_calls_for_is_refused(
    tmp_path: Path, old: int, new: int
) -> None:
    async with live_server(tmp_path) as live:
        await live.runtime.audit.checkpoint()
        peer = await logged_in(live)
        await peer.send(BEAT)
        await peer.next_message()
        await peer.send(AuditProofRequest(old, new))
        await peer.next_event()
        assert "PROTOCOL_ERROR" in [event.code for event in live.said]


async def test_a_key_that_is_missing_and_a_store_that_was_changed_are_told(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        live.runtime.audit.key_trouble = "x.key: No such file or directory"
        await live.runtime.audit.checkpoint()
        connection = sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)
        connection.execute("UPDATE audit_records SET record = X'00' WHERE number = 0")
        connection.close()
        watching = asyncio.get_running_loop().create_task(watch_audit_log(live.runtime))
        try:
            async with asyncio.timeout(20):
                while "AUDIT_LOG_TAMPERED" not in [event.code for event in live.said]:
                    await asyncio.sleep(0.01)
        finally:
            watching.cancel()
        tampered = next(event for event in live.said if event.code == "AUDIT_LOG_TAMPERED")
        assert (tampered.fields["verdict"], tampered.fields["record"]) == ("changed", 0)
        assert "AUDIT_KEY_MISSING" in [event.code for event in live.said]


async def test_a_planted_record_and_its_end_are_told(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        live.runtime.settings = replace(live.runtime.settings, audit_checkpoint_interval_s=0)
        await live.runtime.audit.checkpoint()
        size = (await live.runtime.store.audit.head()).size
        with closing(sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)) as store:
            store.execute(
                "INSERT INTO audit_records SELECT ?, record FROM audit_records WHERE number = 0",
                (size,),
            )
            running = asyncio.get_running_loop()
            tasks = [
                running.create_task(watch_audit_log(live.runtime)),
                running.create_task(live.runtime.journal.store_waiting(live.runtime.store)),
            ]
            try:
                tampered = await live.until_said("AUDIT_LOG_TAMPERED")
                assert tampered.fields["verdict"] == "inserted"
                assert (tampered.fields["record"], tampered.severity) == (size, Severity.CRIT)
                failed = await live.until_said("AUDIT_LOG_FAILED")
                assert "somebody put it there" in str(failed.fields["reason"])
                assert "somebody put it there" in str(live.runtime.journal.warning)
                store.execute("DELETE FROM audit_records WHERE number = ?", (size,))
                assert (await live.until_said("AUDIT_LOG_INTACT")).fields["record"] == size
                await live.until_said("AUDIT_LOG_RECOVERED")
            finally:
                for task in tasks:
                    task.cancel()
        assert live.codes().count("AUDIT_LOG_TAMPERED") == 1


@pytest.mark.parametrize(
    ("forged", "verdict", "mended"),
    [
        (
            "INSERT INTO audit_checkpoints SELECT 4711, 3, 'rubbish'",
            "changed",
            "DELETE FROM audit_checkpoints WHERE number >= 4711",
        ),
        (
            "INSERT INTO audit_checkpoints SELECT 9223372036854775807, 1, note FROM audit_checkpoints LIMIT 1",
            "inserted",
            "DELETE FROM audit_checkpoints WHERE number > 4711",
        ),
        (
            "INSERT INTO audit_keys SELECT 2, 'rubbish', 'x'",
            "wrong key",
            "DELETE FROM audit_keys WHERE number = 2",
        ),
        (
            "UPDATE audit_keys SET number = number + 1, key = key || ' '",
            "wrong key",
            "UPDATE audit_keys SET number = number - 1, key = trim(key)",
        ),
        (
            "DELETE FROM audit_keys",
            "wrong key",
            None,
        ),
    ],
)
async def test_what_is_no_key_or_no_checkpoint_is_told_and_ends_no_server(
    tmp_path: Path, forged: str, verdict: str, mended: str | None
) -> None:
    async with live_server(tmp_path) as live:
        audit = live.runtime.audit
        live.configure(audit_checkpoint_interval_s=0)
        await audit.checkpoint()
        await audit.append(Draft("CLIENT_REGISTERED"))
        with closing(sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)) as store:
            running = asyncio.get_running_loop()
            tasks = [
                running.create_task(watch_audit_log(live.runtime)),
                running.create_task(live.runtime.journal.store_waiting(live.runtime.store)),
            ]
            try:
                # The whole log was read, and what is new is signed.
                await _until(lambda: audit.shown is not None and audit.shown.checkpoint.number > 1)
                store.execute(forged)
                tampered = await live.until_said("AUDIT_LOG_TAMPERED")
                assert tampered.fields["verdict"] == verdict
                if mended is not None:
                    store.execute(mended)
                    await live.until_said("AUDIT_LOG_INTACT")
                assert not any(task.done() for task in tasks)
            finally:
                for task in tasks:
                    task.cancel()


async def test_a_log_that_could_not_be_read_at_the_start_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_server(tmp_path) as live:
        audit = live.runtime.audit
        live.configure(audit_checkpoint_interval_s=0)
        await audit.checkpoint()
        checks = [StorageError("the disk is away")]
        check_all = AuditLog.check_all

        async def unlucky(self: AuditLog) -> Verification | None:
            if checks:
                raise checks.pop()
            return await check_all(self)

        monkeypatch.setattr(AuditLog, "check_all", unlucky)
        with closing(sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)) as store:
            # A chain that fits, so that only its signatures tell.
            store.execute("UPDATE audit_checkpoints SET note = replace(note, 'time 2', 'time 1')")
        watching = asyncio.get_running_loop().create_task(watch_audit_log(live.runtime))
        try:
            await live.until_said("AUDIT_LOG_TAMPERED")
        finally:
            watching.cancel()


async def test_what_a_person_accepted_is_not_called_intact(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        audit = live.runtime.audit
        live.configure(audit_checkpoint_interval_s=0)
        await audit.checkpoint()
        rounds = 0

        async def finds_it_once() -> Finding | None:
            nonlocal rounds
            rounds += 1
            if rounds == 1:
                # As where another log was put in place: nothing mends that but a person's word.
                audit._is_another = True
                audit.finding = Finding(Verdict.WRONG_KEY, 0, 0, 0, "another log")
                audit._standing.note(audit.finding, 1)
            return audit.finding

        audit.check_recent = finds_it_once  # type: ignore[method-assign]
        watching = asyncio.get_running_loop().create_task(watch_audit_log(live.runtime))
        try:
            await live.until_said("AUDIT_LOG_TAMPERED")
            assert audit.accept() is not None
            await _until(lambda: rounds > 2)
            assert "AUDIT_LOG_INTACT" not in live.codes()
            rounds = 0
            await live.until_said("AUDIT_LOG_TAMPERED", 2)
        finally:
            watching.cancel()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_server_without_the_key_says_when_no_other_one_signs_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_server(tmp_path) as live:
        audit = live.runtime.audit
        await audit.checkpoint()
        await audit.append(Draft("CLIENT_REGISTERED"))
        (key_file,) = tmp_path.glob("audit/*.key")
        key_file.unlink()
        audit._load_key()
        monkeypatch.setattr(type(live.runtime.store), "is_shared", True)
        live.runtime.settings = replace(live.runtime.settings, audit_checkpoint_interval_s=0)
        watching = asyncio.get_running_loop().create_task(watch_audit_log(live.runtime))
        try:
            async with asyncio.timeout(20):
                while len(told_missing(live)) < 2:
                    await asyncio.sleep(0.01)
        finally:
            watching.cancel()
        assert told_missing(live)[:2] == [Severity.ERR, Severity.ALERT]


def told_missing(live: LiveServer) -> list[Severity]:
    return [event.severity for event in live.said if event.code == "AUDIT_KEY_MISSING"]
