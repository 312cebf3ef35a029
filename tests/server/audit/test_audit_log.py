"""The server's audit log on a real store: it survives what happens, and notices what is done to it."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from needfire_protocol.audit.merkle import is_consistent, is_included, leaf_hash
from needfire_protocol.audit.note import parse_checkpoint, parse_note, public_key_of
from needfire_protocol.audit.record import Draft, Moment, encode_record, parse_record
from needfire_protocol.audit.verify import Finding, Verdict, verify
from needfire_protocol.errors import StorageError
from needfire_server.admin.audit_check import check_store, read_keys
from needfire_server.audit.drafts import draft_of_event
from needfire_server.audit.log import AuditLog
from needfire_server.audit.stored import check_stored
from needfire_server.storage.audit_base import AuditHead, AuditWriteError, StoredCheckpoint
from needfire_server.storage.engine import Transaction
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.postgres import PostgresServer
from needfire_testkit.server_store import NOW_US, STREAM, event, incoming, verifier
from needfire_testkit.stores import StorePlace


@asynccontextmanager
async def opened(
    where: StorePlace | Path, directory: Path | None = None
) -> AsyncIterator[tuple[DatabaseStore, AuditLog]]:
    """Open a store and its log; on PostgreSQL a second server has a directory of its own."""
    place = StorePlace(where) if isinstance(where, Path) else where
    store = place.open(directory=directory)
    try:
        yield store, await AuditLog.open(store.audit, str(directory or place.directory))
    finally:
        store.close()


def drafts(count: int, word: str = "act") -> list[Draft]:
    return [
        Draft("CLIENT_REGISTERED", subject="root", fields={"what": f"{word} {number}"})
        for number in range(count)
    ]


def doctor(directory: Path, *statements: str) -> None:
    """Do what somebody with the rights of the server's user can do to its store."""
    connection = sqlite3.connect(directory / "needfire.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def doctored(before: str, after: str, number: int) -> str:
    return (
        "UPDATE audit_records SET record = "
        f"CAST(replace(CAST(record AS TEXT), '{before}', '{after}') AS BLOB) WHERE number = {number}"
    )


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
    async with opened(place) as (_store, log):
        await log.append(*drafts(3))
        await log.checkpoint()
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


def test_a_log_is_whole_wherever_its_process_is_killed(tmp_path: Path) -> None:
    """Each sixth of the steps; the program takes 1 instead of 6 for all of them."""
    command = [sys.executable, "-m", "needfire_testkit.audit_killer", str(tmp_path), "6"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        command, env=environment, timeout=250, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# ---- what is done to the store -------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["NULL", "'x'"])
async def test_a_key_that_somebody_puts_into_the_store_takes_nothing_over(
    tmp_path: Path, signature: str
) -> None:
    """Believed, it would make the server delete the private key that it has, and sign no more."""
    data = tmp_path / "data"
    async with opened(data) as (_store, log):
        other = public_key_of(log.public_keys()[0].name, Ed25519PrivateKey.generate())
        await log.append(*drafts(3))
        await log.checkpoint()
        (private,) = (data / "audit").glob("*.key")
        public = (data / "audit" / "public-keys").read_text()
        doctor(data, f"INSERT INTO audit_keys VALUES (2, '{other}', {signature})")
        await log.append(*drafts(3))
        with pytest.raises(StorageError, match="audit_keys"):
            await log.checkpoint()
        found = await log.check_recent()
        assert found is not None
        assert found.verdict is Verdict.WRONG_KEY
    with pytest.raises(StorageError, match="audit_keys"):
        async with opened(data):
            pass
    assert check_store(str(data), read_keys(None, str(data)), None).finding is not None
    assert private.exists()
    assert (data / "audit" / "public-keys").read_text() == public
    doctor(data, "DELETE FROM audit_keys WHERE number = 2")
    async with opened(data) as (_store, log):
        made = await log.checkpoint()
        assert made is not None
        assert (made.size, log.key_trouble) == (7, None)


async def test_a_checkpoint_that_only_says_to_cover_more_does_not_stop_the_signing(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with opened(data) as (_store, log):
        await log.checkpoint()
        await log.append(*drafts(3))
        doctor(data, "UPDATE audit_checkpoints SET size = 4")
        made = await log.checkpoint()
        assert made is not None
        assert (made.number, made.size) == (2, 4)
        assert await log.check_recent() is not None


async def test_a_rotation_that_was_killed_before_its_checkpoint_is_no_forgery(
    place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(place) as (_store, log):
        await log.checkpoint()
        monkeypatch.setattr(log, "checkpoint", _nothing)
        new = await log.rotate("root")
    async with opened(place) as (_store, log):
        result = await log.check_all()
        assert result is not None
        assert result.finding is None
        made = await log.checkpoint()
        assert made is not None
        assert new.verifies(parse_note(made.note))


async def test_a_start_notices_what_was_changed_in_the_store(tmp_path: Path) -> None:
    await _grow(tmp_path, 400)
    tampering = {
        doctored("act 77", "act 78", 78): (Verdict.CHANGED, 78),
        "DELETE FROM audit_records WHERE number = 100": (Verdict.REMOVED, 100),
        "DELETE FROM audit_records WHERE number >= 300": (Verdict.CUT_OFF, 300),
        "DELETE FROM audit_checkpoints WHERE number = 1": (Verdict.MISSING_CHECKPOINT, 0),
    }
    for number, (statement, (verdict, record)) in enumerate(tampering.items()):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "data", copy)
        doctor(copy, statement)
        async with opened(copy) as (_store, log):
            result = await log.check_all()
            assert result is not None
            assert result.finding is not None
            assert (result.finding.verdict, result.finding.first) == (verdict, record)
            assert log.finding == result.finding


async def test_a_start_notices_an_older_copy_of_the_store(tmp_path: Path) -> None:
    """Consistent in itself; the checkpoint beside the store tells."""
    await _grow(tmp_path, 100)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    await _grow(tmp_path, 100)
    shutil.copy(tmp_path / "backup" / "needfire.sqlite", tmp_path / "data" / "needfire.sqlite")
    async with opened(tmp_path / "data") as (_store, log):
        result = await log.check_all()
        assert result is not None
        assert result.finding is not None
        assert result.finding.verdict is Verdict.CUT_OFF


async def test_a_start_notices_another_log_in_the_place_of_the_log(tmp_path: Path) -> None:
    await _grow(tmp_path, 10)
    (tmp_path / "data" / "needfire.sqlite").unlink()
    async with opened(tmp_path / "data") as (_store, log):
        assert log.finding is not None
        assert log.finding.verdict is Verdict.WRONG_KEY


@pytest.mark.parametrize(
    ("statement", "verdict", "record"),
    [
        (
            doctored('act 5"', 'act 6"', 6),
            Verdict.CHANGED,
            6,
        ),
        ("DELETE FROM audit_records WHERE number = 4000", Verdict.REMOVED, 4_000),
        ("DELETE FROM audit_records WHERE number >= 4998", Verdict.REMOVED, 4_998),
        (
            doctored("act 4998", "act 4999", 4_999),
            Verdict.CHANGED,
            4_999,
        ),
    ],
)
async def test_a_running_server_notices_what_is_changed_under_it(
    tmp_path: Path, statement: str, verdict: Verdict, record: int
) -> None:
    tmp_path.joinpath("data").mkdir()
    async with opened(tmp_path / "data") as (_store, log):
        await log.append(*drafts(5_000))
        assert await log.check_recent() is None
        await log.checkpoint()
        doctor(tmp_path / "data", statement)
        await log.append(*drafts(1))
        finding = await log.check_recent()
        assert finding is not None
        assert finding.verdict is verdict
        assert finding.first <= record <= finding.last
        # It does not vouch for what it knows to be wrong.
        assert await log.consistency(2, 5_000) == ()


async def plant(store: DatabaseStore, rows: list[tuple[int, bytes]]) -> None:
    """Put records into the table only, as somebody with the rights of the server's user can."""

    def work(transaction: Transaction) -> None:
        transaction.insert_many("audit_records", ("number", "record"), rows)

    await asyncio.to_thread(store.write_now, work)


async def checked(store: DatabaseStore, log: AuditLog) -> Finding | None:
    """What ``audit verify --store`` says."""
    keys = log.public_keys()
    last, head = await store.audit.last_checkpoint(), await store.audit.head()
    assert last is not None
    return check_stored(store.audit, keys, keys, last, head, None).finding


@pytest.mark.parametrize("number", [-7, 21, 22, 5_000])
@pytest.mark.parametrize("is_linked", [False, True])
async def test_a_record_that_is_planted_outside_of_the_log_is_inserted(
    place: StorePlace, number: int, is_linked: bool
) -> None:
    async with opened(place) as (store, log):
        await log.append(*drafts(20))
        await log.checkpoint()
        assert await log.check_recent() is None
        head = await store.audit.head()
        line = encode_record(number, head.previous, Moment(NOW_US, 1), drafts(1, "forged")[0])
        if not is_linked:
            line = store.audit.records_now(3, 1)[0][1]
        await plant(store, [(number, line)])
        # The running server, and a check of the store from outside, alike.
        for result in (
            await log.check_recent(),
            await checked(store, log),
        ):
            assert result is not None
            assert (result.verdict, result.first, result.last) == (
                Verdict.INSERTED,
                number,
                number,
            )
            assert "has written 21 records" in result.text


async def test_a_record_in_the_place_of_the_next_one_is_told_in_words(place: StorePlace) -> None:
    async with opened(place) as (store, log):
        await log.append(*drafts(3))
        await log.checkpoint()
        await plant(store, [(4, b"planted")])
        for _ in range(2):
            with pytest.raises(
                AuditWriteError, match=r"record 4, and there is a record .* did not write"
            ):
                await log.append(*drafts(2))
        finding = await log.check_recent()
        assert finding is not None
        assert (finding.verdict, finding.first) == (Verdict.INSERTED, 4)
        await asyncio.to_thread(
            store.write_now, lambda it: it.run("DELETE FROM audit_records WHERE number = ?", [(4,)])
        )
        await log.append(*drafts(2))
        assert await log.check_again() is None
        assert log.finding is None


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM audit_head", "says 0 records, and 4 are signed"),
        (
            "UPDATE audit_head SET frontier = zeroblob(length(frontier))",
            "is not that of its records",
        ),
    ],
)
async def test_a_state_that_is_not_that_of_the_records_is_changed(
    tmp_path: Path, statement: str, words: str
) -> None:
    async with opened(tmp_path) as (store, log):
        await log.append(*drafts(3))
        await log.checkpoint()
        doctor(tmp_path, statement)
        finding = await checked(store, log)
        assert finding is not None
        assert (finding.verdict, words in finding.text) == (Verdict.CHANGED, True)


async def test_a_server_vouches_for_its_log_again_once_the_store_is_mended(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    async with opened(directory) as (_store, log):
        await log.append(*drafts(5_000))
        await log.checkpoint()
        assert await log.check_recent() is None
        for before, after, number in (("act 7", "act X", 8), ("act 4998", "act X", 4_999)):
            doctor(directory, doctored(f'{before}"', f'{after}"', number))
            assert await log.check_recent() is not None
            assert await log.check_again() is not None
            assert await log.consistency(2, 5_000) == ()
            await log.append(*drafts(1))
            await log.checkpoint()
            doctor(directory, doctored(f'{after}"', f'{before}"', number))
            assert await log.check_again() is None
            assert await log.consistency(2, 5_000) != ()
            assert await log.check_recent() is None


@pytest.mark.parametrize(
    "statement",
    [doctored('act 20"', 'act X"', 21), "DELETE FROM audit_records WHERE number = 21"],
)
async def test_a_proof_that_a_changed_store_spoils_is_not_shown(
    tmp_path: Path, statement: str
) -> None:
    """Nobody has noticed yet: the next check comes with the next checkpoint."""
    async with opened(tmp_path) as (_store, log):
        for _ in range(2):
            await log.append(*drafts(21))
            await log.checkpoint()
        assert await log.consistency(22, 43) != ()
        doctor(tmp_path, statement)
        assert await log.consistency(22, 43) == ()


async def test_another_log_in_the_place_of_the_log_is_mended_by_nothing(tmp_path: Path) -> None:
    await _grow(tmp_path, 10)
    (tmp_path / "data" / "needfire.sqlite").unlink()
    async with opened(tmp_path / "data") as (_store, log):
        await log.checkpoint()
        assert await log.check_again() == log.finding
        assert log.finding is not None


async def test_a_history_that_is_made_anew_under_a_running_server_is_noticed(
    tmp_path: Path,
) -> None:
    """Somebody has the private key too, and writes a whole other log with right signatures."""
    directory = tmp_path / "data"
    await _grow(tmp_path, 50)
    forged = tmp_path / "forged"
    shutil.copytree(directory, forged)
    doctor(forged, *(f"DELETE FROM {each}" for each in _TABLES))
    async with opened(directory) as (_store, log):
        assert await log.check_recent() is None
        await _forge(forged, log)
        doctor(
            directory,
            *(f"DELETE FROM {each}" for each in _TABLES),
            f"ATTACH '{forged / 'needfire.sqlite'}' AS forged",
            *(f"INSERT INTO {each} SELECT * FROM forged.{each}" for each in _TABLES),
        )
        finding = await log.check_recent()
        assert finding is not None
        assert finding.verdict is Verdict.CHANGED
        # By its signatures it is right; it is not what was read before.
        assert await log.check_again() is not None


_TABLES = ("audit_records", "audit_head", "audit_nodes", "audit_checkpoints")


async def _forge(directory: Path, log: AuditLog) -> None:
    from needfire_protocol.audit.record import KEY_MADE

    store = SqliteStore.open(str(directory / "needfire.sqlite"))
    key = str(log.public_keys()[0])
    await store.audit.append([Draft(KEY_MADE, fields={"key": key}), *drafts(80, "forged")])
    forger = await AuditLog.open(store.audit, str(directory))
    await forger.checkpoint()
    result = await forger.check_all()
    assert result is not None
    store.close()


async def _grow(tmp_path: Path, count: int) -> None:
    tmp_path.joinpath("data").mkdir(exist_ok=True)
    async with opened(tmp_path / "data") as (_store, log):
        for _ in range(2):
            await log.append(*drafts(count // 2))
            await log.checkpoint()


# ---- several servers ---------------------------------------------------------------------------


@pytest.fixture
def shared(postgres: PostgresServer, tmp_path: Path) -> StorePlace:
    """A database in which no log was begun."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir(mode=0o700)
    return StorePlace(tmp_path, postgres, postgres.emptied_database())


async def test_servers_that_share_a_database_continue_one_log(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with (
        opened(shared, tmp_path / "first") as (store, first),
        opened(shared, tmp_path / "second") as (other_store, second),
    ):
        # One of them has the key: the other records, and shows what is signed.
        assert (first.key_trouble is None, second.key_trouble is None) == (True, False)
        items = [(event("SERVER_UP"), draft) for draft in drafts(60)]
        await asyncio.gather(
            *(each.record_all([item]) for item in items for each in (store, other_store))
        )
        made = await first.checkpoint()
        assert made is not None
        assert made.size == 1 + 120
        assert await second.checkpoint() == made
        assert second.shown is not None
        assert second.shown.checkpoint == made
        for log in (first, second):
            result = await log.check_all()
            assert result is not None
            assert (result.finding, result.records) == (None, 121)


async def test_servers_that_all_have_the_key_sign_in_turns(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with opened(shared, tmp_path / "first"):
        pass
    shutil.copytree(tmp_path / "first" / "audit", tmp_path / "second" / "audit")
    async with (
        opened(shared, tmp_path / "first") as (_, first),
        opened(shared, tmp_path / "second") as (_, second),
    ):
        for log in (first, second) * 3:
            await log.append(*drafts(2))
            await asyncio.gather(first.checkpoint(), second.checkpoint())
        closing = await first.checkpoint()
        assert closing is not None
        assert closing.size == 13
        assert closing == await second.checkpoint()
        assert verify(first.lines(closing), first.public_keys()).finding is None
        assert second.finding is None


async def test_a_key_that_another_server_changed_is_followed(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with (
        opened(shared, tmp_path / "first") as (_, first),
        opened(shared, tmp_path / "second") as (_, second),
    ):
        new = await first.rotate("root")
        made = await second.checkpoint()
        assert second.public_keys()[-1] == new
        assert second.shown is not None
        assert (second.shown.checkpoint, second.shown.key) == (made, str(new))


async def test_what_a_key_signs_behind_its_handover_is_not_kept(
    shared: StorePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second server looks which key is the latest, and then the first one changes it."""
    async with opened(shared, tmp_path / "first"):
        pass
    shutil.copytree(tmp_path / "first" / "audit", tmp_path / "second" / "audit")
    async with (
        opened(shared, tmp_path / "first") as (_, first),
        opened(shared, tmp_path / "second") as (store, second),
    ):
        head = store.audit.head

        async def rotated_head() -> AuditHead:
            monkeypatch.setattr(first, "checkpoint", _nothing)
            await first.rotate("root")
            return await head()

        with monkeypatch.context() as patched:
            patched.setattr(store.audit, "head", rotated_head)
            await second.checkpoint()
        monkeypatch.undo()
        await second.checkpoint()
        assert "No such file" in str(second.key_trouble)
        await first.checkpoint()
        for log in (first, second):
            result = await log.check_all()
            assert result is not None
            assert result.finding is None


async def _nothing() -> None:
    return None


async def test_a_server_shows_at_once_what_another_one_signed_if_it_is_told_to_look(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with (
        opened(shared, tmp_path / "first") as (_, first),
        opened(shared, tmp_path / "second") as (store, second),
    ):
        await first.rotate("root")
        looks = Counter[str]()
        ask = store.audit.last_checkpoint

        async def counted() -> StoredCheckpoint | None:
            looks["asked"] += 1
            return await ask()

        store.audit.last_checkpoint = counted  # type: ignore[method-assign]
        await asyncio.gather(*(second.catch_up() for _ in range(50)))
        assert second.shown == first.shown
        assert looks["asked"] <= 2


async def test_servers_that_begin_at_the_same_time_make_one_key(
    shared: StorePlace, tmp_path: Path
) -> None:
    places = [tmp_path / "first", tmp_path / "second"]
    stores = [shared.open(directory=each) for each in places]
    logs = await asyncio.gather(
        *(AuditLog.open(s.audit, str(d)) for s, d in zip(stores, places, strict=True))
    )
    assert logs[0].public_keys() == logs[1].public_keys()
    assert [log.key_trouble is None for log in logs].count(True) == 1
    assert len(list(tmp_path.glob("*/audit/*.key"))) == 1
    for store in stores:
        store.close()


async def test_what_is_changed_in_postgresql_under_a_running_server_is_noticed(
    shared: StorePlace, tmp_path: Path
) -> None:
    async with opened(shared, tmp_path / "first") as (_store, log):
        await log.append(*drafts(50))
        await log.checkpoint()
        assert await log.check_recent() is None
        shared.run("DELETE FROM audit_records WHERE number = 20")
        finding = await log.check_recent()
        assert finding is not None
        assert (finding.verdict, finding.first) == (Verdict.REMOVED, 20)


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
