"""The server's audit log on a real store: it survives what happens."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from needfire_protocol.audit.merkle import is_consistent, is_included, leaf_hash
from needfire_protocol.audit.note import parse_checkpoint, parse_note
from needfire_protocol.audit.record import Draft, parse_record
from needfire_protocol.audit.verify import verify
from needfire_protocol.errors import StorageError
from needfire_server.audit.drafts import draft_of_event
from needfire_server.storage.engine import Transaction
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.audit_store import doctor, drafts, nothing, opened, signed
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, verifier
from needfire_testkit.stores import StorePlace


async def test_a_new_log_begins_with_its_key_which_only_its_owner_can_read(
    place: StorePlace,
) -> None:
    async with opened(place) as (store, log):
        (number, line), *_ = store.audit.records_now(0, 10)
        record = parse_record(line)
        assert (number, record.draft.code) == (0, "AUDIT_KEY_MADE")
        assert record.draft.fields["key"] == str(log.public_keys()[0])
    files = {
        each.name: stat.S_IMODE(each.stat().st_mode)
        for each in (place.directory / "audit").iterdir()
    }
    (private,) = [name for name in files if name.endswith(".key")]
    assert files[private] == 0o600
    assert stat.S_IMODE((place.directory / "audit").stat().st_mode) == 0o700
    assert (place.directory / "audit" / "public-keys").read_text() == f"{log.public_keys()[0]}\n"


@pytest.mark.parametrize(
    ("code", "is_success"),
    [("AUTHZ_FAIL", False), ("ADMIN_REFUSED", False), ("START", True), ("STORE_FAILED", False)],
)
def test_the_record_of_an_event_says_how_it_ended(code: str, is_success: bool) -> None:
    draft = draft_of_event(event(code, user="eve"))
    assert draft is not None
    assert (draft.code, draft.subject, draft.is_success) == (code, "eve", is_success)


async def test_a_log_goes_on_after_opening_again(place: StorePlace) -> None:
    for round_ in range(3):
        async with opened(place) as (_store, log):
            await log.append(*drafts(5, f"round {round_}"))
            made = await log.checkpoint()
            assert made is not None
            assert (made.number, made.size) == (round_ + 1, 1 + 5 * (round_ + 1))
            result = await log.check_all()
            assert result is not None
            assert (result.finding, result.unsigned) == (None, 0)


async def test_nothing_new_needs_no_new_checkpoint(place: StorePlace) -> None:
    async with opened(place) as (_store, log):
        first = await log.checkpoint()
        assert await log.checkpoint() == first
        await log.append(*drafts(1))
        assert await log.checkpoint() != first


async def test_an_exported_log_is_verified_with_the_public_key_alone(place: StorePlace) -> None:
    async with opened(place) as (_store, log):
        closing = None
        for _ in range(4):
            await log.append(*drafts(700))
            closing = await log.checkpoint()
        assert closing is not None
        result = verify(log.lines(closing), log.public_keys())
        assert (result.finding, result.records, result.checkpoints) == (None, 2_801, 4)


async def test_every_write_and_its_record_are_one(place: StorePlace) -> None:
    """What is recorded was done, and what was not done is not recorded."""
    async with opened(place) as (store, _log):
        await store.register(
            "web1",
            verifier(),
            now_us=NOW_US,
            user="root",
            audit=lambda replaced: Draft("CLIENT_REGISTERED", fields={"replaced": replaced}),
        )
        lines = [line for _, line in store.audit.records_now(0, 10)]
        assert parse_record(lines[-1]).draft.fields == {"replaced": False}
        with pytest.raises(RuntimeError, match="no record"):
            await store.register("web2", verifier(), now_us=NOW_US, user="root", audit=_no_record)
        assert [each.name for each in await store.clients()] == ["web1"]
        with pytest.raises(ValueError, match="stream's identifier"):
            await _refused_ingest(store)
        assert [line for _, line in store.audit.records_now(0, 10)] == lines


async def test_what_fails_after_its_record_was_noted_leaves_none(place: StorePlace) -> None:
    def work(transaction: Transaction) -> None:
        transaction.drafts.append(Draft("CLIENT_REMOVED"))
        raise RuntimeError("changed my mind")

    async with opened(place) as (store, log):
        failing = asyncio.to_thread(store.write_now, work)
        results = await asyncio.gather(failing, log.append(*drafts(2)), return_exceptions=True)
        assert [type(each) for each in results] == [RuntimeError, type(None)]
        lines = [line for _, line in store.audit.records_now(0, 10)]
        codes = [parse_record(line).draft.code for line in lines]
        assert codes == ["AUDIT_KEY_MADE", "CLIENT_REGISTERED", "CLIENT_REGISTERED"]


def _no_record(_result: object) -> Draft:
    raise RuntimeError("no record")


async def _refused_ingest(store: DatabaseStore) -> None:
    from needfire_protocol.errors import FormatError

    try:
        await store.ingest(
            "web1",
            b"short",
            [incoming(1)],
            received_us=1,
            audit=lambda _: Draft("REPORTS_RECEIVED"),
        )
    except FormatError as error:
        raise ValueError(str(error)) from None


async def test_many_writers_at_once_make_one_chain(place: StorePlace) -> None:
    async with opened(place) as (store, log):
        batches = [
            store.ingest(
                "web1",
                STREAM,
                [incoming(number)],
                received_us=NOW_US,
                audit=lambda result: Draft(
                    "REPORTS_RECEIVED", fields={"new": len(result.accepted)}
                ),
            )
            for number in range(1, 200)
        ]
        await asyncio.gather(*batches, *(log.append(*drafts(3)) for _ in range(50)))
        await log.checkpoint()
        result = await log.check_all()
        assert result is not None
        assert (result.finding, result.records) == (None, 1 + 199 + 150)


async def test_proofs_of_the_store_hold(place: StorePlace) -> None:
    async with opened(place) as (_store, log):
        sizes = []
        for count in (1, 16, 100, 300, 700):
            await log.append(*drafts(count))
            made = await log.checkpoint()
            assert made is not None
            sizes.append(parse_checkpoint(parse_note(made.note)))
        for old in sizes:
            for new in sizes:
                if old.size < new.size:
                    proof = await log.consistency(old.size, new.size)
                    assert is_consistent(old.size, old.root, new.size, new.root, proof)
        last = sizes[-1]
        for number in (0, 1, 15, 16, 255, 256, 1_000, last.size - 1):
            found = await log.inclusion(number)
            assert found is not None
            leaf = leaf_hash(found.line)
            assert is_included(leaf, number, last.size, last.root, found.proof)
        assert await log.inclusion(last.size) is None


# ---- keys --------------------------------------------------------------------------------------


async def test_a_new_key_takes_over_and_the_old_private_one_goes(place: StorePlace) -> None:
    async with signed(place, 3) as (_store, log):
        old = log.public_keys()[0]
        new = await log.rotate("root")
        await log.append(*drafts(3))
        closing = await log.checkpoint()
        assert closing is not None
        assert log.shown is not None
        assert (log.shown.key, len(log.shown.handovers)) == (str(new), 1)
        for key in (old, new):
            assert verify(log.lines(closing), [key]).finding is None
    assert [each.name for each in (place.directory / "audit").glob("*.key")] == [
        f"{new.key_id.hex()}.key"
    ]
    assert (place.directory / "audit" / "public-keys").read_text() == f"{old}\n{new}\n"
    async with opened(place) as (_store, log):
        assert log.key_trouble is None


async def test_without_its_key_a_log_records_on_and_signs_later(place: StorePlace) -> None:
    async with opened(place) as (_store, log):
        before = await log.checkpoint()
    (path,) = (place.directory / "audit").glob("*.key")
    kept = path.rename(place.directory / "elsewhere")
    async with opened(place) as (_store, log):
        assert log.key_trouble is not None
        assert path.name in log.key_trouble
        await log.append(*drafts(2))
        assert await log.checkpoint() == before
        with pytest.raises(StorageError, match=path.name):
            await log.rotate("root")
    kept.rename(path)
    path.chmod(0o644)
    async with opened(place) as (_store, log):
        assert "can be read by others" in str(log.key_trouble)
    path.chmod(0o600)
    async with opened(place) as (_store, log):
        made = await log.checkpoint()
        assert made is not None
        assert made.size == 3
        result = await log.check_all()
        assert result is not None
        assert result.finding is None


async def test_a_rotation_that_was_killed_before_its_record_changes_nothing(
    place: StorePlace,
) -> None:
    async with opened(place) as (_store, log):
        log._files.make_key(log.public_keys()[0].name, os.urandom)
    async with opened(place) as (_store, log):
        assert log.key_trouble is None
        assert await log.checkpoint() is not None


async def test_a_rotation_that_was_killed_before_its_checkpoint_is_no_forgery(
    place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(place) as (_store, log):
        await log.checkpoint()
        monkeypatch.setattr(log, "checkpoint", nothing)
        new = await log.rotate("root")
    async with opened(place) as (_store, log):
        result = await log.check_all()
        assert result is not None
        assert result.finding is None
        made = await log.checkpoint()
        assert made is not None
        assert new.verifies(parse_note(made.note))


def test_a_log_is_whole_wherever_its_process_is_killed(tmp_path: Path) -> None:
    """Each sixth of the steps; the program takes 1 instead of 6 for all of them."""
    command = [sys.executable, "-m", "needfire_testkit.audit_killer", str(tmp_path), "6"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        command, env=environment, timeout=250, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# ---- what happens to it ------------------------------------------------------------------------


async def test_on_a_full_disk_neither_the_write_nor_its_record_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, log):
        doctor(
            tmp_path,
            "CREATE TRIGGER full BEFORE UPDATE ON audit_head "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        )
        for number in (1, 2):
            with pytest.raises(StorageError, match="full"):
                await store.ingest(
                    "web1",
                    STREAM,
                    [incoming(number)],
                    received_us=NOW_US,
                    audit=lambda _: Draft("REPORTS_RECEIVED"),
                )
        assert (await store.audit.head()).size == len(store.audit.records_now(0, 10)) == 1
        assert await store.last_rowid() == 0
        doctor(tmp_path, "DROP TRIGGER full")
        await log.append(*drafts(2))
        await log.checkpoint()
        result = await log.check_all()
        assert result is not None
        assert (result.finding, result.records) == (None, 3)


async def test_a_checkpoint_that_the_disk_refuses_is_made_the_next_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_store, log):
        doctor(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON audit_checkpoints "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
        )
        with pytest.raises(StorageError, match="full"):
            await log.checkpoint()
        assert log.shown is None
        doctor(tmp_path, "DROP TRIGGER full")
        made = await log.checkpoint()
        assert made is not None
        assert (made.number, made.size) == (1, 1)


async def test_a_clock_that_jumps_either_way_breaks_nothing(
    place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([NOW_US, NOW_US + 10**15, NOW_US - 10**15, 0, NOW_US, 1, NOW_US, NOW_US, 5, 7])
    monkeypatch.setattr("needfire_server.clock.now_us", lambda: next(times))
    async with opened(place) as (_store, log):
        for _ in range(3):
            await log.append(*drafts(1))
            await log.checkpoint()
        result = await log.check_all()
        assert result is not None
        assert (result.finding, result.checkpoints) == (None, 3)


async def test_a_state_of_the_log_that_cannot_be_is_told_and_not_written_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_store, log):
        doctor(tmp_path, "UPDATE audit_head SET frontier = X'00'")
        with pytest.raises(StorageError, match="damaged"):
            await log.append(*drafts(1))
        doctor(tmp_path, "DELETE FROM audit_head")
        with pytest.raises(StorageError, match="audit_records"):
            await log.append(*drafts(1))
