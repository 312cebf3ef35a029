"""The server notices what somebody does to its audit log behind its back."""

import asyncio
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from needfire_protocol.audit.note import public_key_of
from needfire_protocol.audit.record import Draft, Moment, encode_record
from needfire_protocol.audit.verdict import Finding, Verdict
from needfire_protocol.errors import StorageError
from needfire_server.admin.audit_check import check_store, read_keys
from needfire_server.audit.log import AuditLog
from needfire_server.audit.stored import check_stored
from needfire_server.storage.audit_base import AuditWriteError
from needfire_server.storage.engine import Transaction
from needfire_server.storage.sqlite import SqliteStore
from needfire_server.storage.store import DatabaseStore
from needfire_testkit.audit_store import doctor, doctored, drafts, grown, opened, signed
from needfire_testkit.server_store import NOW_US
from needfire_testkit.stores import StorePlace


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


async def test_a_start_notices_what_was_changed_in_the_store(tmp_path: Path) -> None:
    await grown(tmp_path / "data", 2, 200)
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
    await grown(tmp_path / "data", 2, 50)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    await grown(tmp_path / "data", 2, 50)
    shutil.copy(tmp_path / "backup" / "needfire.sqlite", tmp_path / "data" / "needfire.sqlite")
    async with opened(tmp_path / "data") as (_store, log):
        result = await log.check_all()
        assert result is not None
        assert result.finding is not None
        assert result.finding.verdict is Verdict.CUT_OFF


async def test_a_start_notices_another_log_in_the_place_of_the_log(tmp_path: Path) -> None:
    await grown(tmp_path / "data", 2, 5)
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
    async with signed(place, 20) as (store, log):
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
    async with signed(place, 3) as (store, log):
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
    async with signed(tmp_path, 3) as (store, log):
        doctor(tmp_path, statement)
        finding = await checked(store, log)
        assert finding is not None
        assert (finding.verdict, words in finding.text) == (Verdict.CHANGED, True)


async def test_a_server_vouches_for_its_log_again_once_the_store_is_mended(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    async with signed(directory, 5_000) as (_store, log):
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
    await grown(tmp_path / "data", 2, 5)
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
    await grown(tmp_path / "data", 2, 25)
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
