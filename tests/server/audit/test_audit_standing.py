"""What is kept beside the store outlives a forged log, and a finding outlives the process."""

import asyncio
import shutil
from pathlib import Path

import pytest

from needfire_protocol.audit.verdict import Finding, Verdict
from needfire_protocol.errors import StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_server.admin.audit_check import check_store, read_keys
from needfire_server.admin.offline import OfflineStore
from needfire_server.audit.keys import AuditFiles
from needfire_server.audit.standing import Standing
from needfire_testkit.admin_server import run_admin
from needfire_testkit.audit_store import doctor, drafts, grown, opened
from needfire_testkit.forged_log import rewrite_history


async def put_back(tmp_path: Path) -> tuple[Path, str]:
    """Grow a log and put an older copy of its store back.

    Return its directory, and the checkpoint beside the store, which nobody put back.
    """
    data = tmp_path / "data"
    await grown(data, 2)
    shutil.copy(data / "needfire.sqlite", tmp_path / "backup")
    await grown(data, 2)
    kept = (data / "audit" / "checkpoint").read_text()
    shutil.copy(tmp_path / "backup", data / "needfire.sqlite")
    return data, kept


async def started(directory: Path) -> Finding | None:
    """Do what a start of the server does with the log; return what it tells."""
    async with opened(directory) as (_store, log):
        await log.check_all()
        told = log.finding or log.standing
        await log.append(*drafts(2))
        await log.checkpoint()
    return told


def verified(directory: Path) -> Finding | None:
    return check_store(str(directory), read_keys(None, str(directory)), None).finding


def evidence(directory: Path) -> list[str]:
    paths = sorted((directory / "audit").glob("evidence-*.checkpoint"))
    return [path.read_text() for path in paths]


@pytest.mark.parametrize(
    ("last_checkpoint", "verdict"), [(0, Verdict.CHANGED), (1, Verdict.CHANGED)]
)
async def test_a_whole_history_made_anew_is_told_until_somebody_accepts_it(
    tmp_path: Path, last_checkpoint: int, verdict: Verdict
) -> None:
    data = tmp_path / "data"
    await grown(data, 3)
    kept = (data / "audit" / "checkpoint").read_text()
    rewrite_history(
        data / "needfire.sqlite",
        b'"subject":"root"',
        b'"subject":"eve"',
        last_checkpoint=last_checkpoint,
    )
    assert verified(data) is not None
    for _ in range(3):
        told = await started(data)
        assert told is not None
        assert told.verdict is verdict
        found = verified(data)
        assert found is not None
        assert evidence(data) == [kept]
    assert (data / "audit" / "checkpoint").read_text() != kept


@pytest.mark.parametrize("last_checkpoint", [0, 1])
async def test_checkpoints_that_are_deleted_are_missed(
    tmp_path: Path, last_checkpoint: int
) -> None:
    """All records are there: the server would sign them again, and nobody could tell when."""
    data = tmp_path / "data"
    await grown(data, 3)
    kept = (data / "audit" / "checkpoint").read_text()
    doctor(data, f"DELETE FROM audit_checkpoints WHERE number > {last_checkpoint}")
    for _ in range(4):
        found = verified(data)
        assert found is not None
        assert found.verdict is Verdict.MISSING_CHECKPOINT
        told = await started(data)
        assert told is not None
        assert told.verdict is Verdict.MISSING_CHECKPOINT
    assert evidence(data) == [kept]


async def test_a_store_that_was_put_back_is_told_at_each_start(tmp_path: Path) -> None:
    data, kept = await put_back(tmp_path)
    for _ in range(3):
        told = await started(data)
        assert told is not None
        assert told.verdict is Verdict.CUT_OFF
        # Beyond what it had: then the records are others.
        await grown(data, 3)
        assert verified(data) is not None
    assert evidence(data) == [kept]


async def test_an_older_log_is_not_signed_over_before_it_is_told(tmp_path: Path) -> None:
    """A verb that signs at once, on the store itself, has looked at no record."""
    data, kept = await put_back(tmp_path)
    async with opened(data) as (_store, log):
        await log.append(*drafts(100))
        await log.checkpoint()
        assert log.finding is not None
    assert evidence(data) == [kept]
    told = await started(data)
    assert told is not None


async def test_what_was_accepted_is_told_no_more_and_its_evidence_stays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await grown(data, 3)
    doctor(data, "DELETE FROM audit_checkpoints")
    assert await started(data) is not None
    async with opened(data) as (_store, log):
        ended = log.accept()
        assert ended is not None
        assert (ended.verdict, log.accept()) == (Verdict.MISSING_CHECKPOINT, None)
    assert verified(data) is None
    assert await started(data) is None
    assert len(evidence(data)) == 1


async def test_accepting_is_on_record_with_who_did_it_and_why(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await grown(data, 3)
    doctor(data, "DELETE FROM audit_checkpoints")
    await started(data)
    done = await run_admin("audit", "accept", "--note", "restored\nby ann", directory=data)
    assert done.status == ExitStatus.DONE, done.err
    assert done.out.startswith("accepted: missing checkpoint: record 0: ")
    assert "found at" in done.out
    # It has ended: nobody is told how to end it.
    assert "audit accept" not in done.out
    assert await asyncio.to_thread(_recorded, data) == [
        ("restored\\x0aby ann", "missing checkpoint")
    ]
    done = await run_admin("audit", "accept", directory=data)
    assert done.status == ExitStatus.REFUSED
    assert "audit verify --store" in done.err


def _recorded(data: Path) -> list[tuple[str, str]]:
    with OfflineStore(str(data)) as store:
        items = list(store.stream("audit-show", {"code": "AUDIT_FINDING_ACCEPTED"}))
    fields = [item["record"]["fields"] for item in items]
    return [(each["note"], each["verdict"]) for each in fields]


async def test_a_store_of_its_own_in_the_place_of_the_log_is_told_at_each_start(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    (data / "needfire.sqlite").unlink()
    for _ in range(2):
        told = await started(data)
        assert told is not None
        assert told.verdict is Verdict.WRONG_KEY
    assert len(list((data / "audit").glob("evidence-*.public-keys"))) == 1
    assert len(evidence(data)) == 1


@pytest.mark.parametrize("change", ["size - 1", "size + 1"])
async def test_a_head_that_does_not_fit_the_records_is_told(tmp_path: Path, change: str) -> None:
    """Where the tree of the other size has as many parts, nothing else is wrong with it."""
    data = tmp_path / "data"
    size = 22 if change == "size - 1" else 21
    data.mkdir()
    async with opened(data) as (_store, log):
        await log.append(*drafts(size - 1))
    doctor(data, f"UPDATE audit_head SET size = {change}")
    async with opened(data) as (_store, log):
        await log.check_all()
        assert log.finding is not None
        assert log.finding.verdict in (Verdict.INSERTED, Verdict.CHANGED)


async def test_a_crash_between_the_store_and_the_file_is_no_finding(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    older = (data / "audit" / "checkpoint").read_text()
    await grown(data, 1)
    (data / "audit" / "checkpoint").write_text(older)
    assert verified(data) is None
    assert await started(data) is None
    assert evidence(data) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5_000, b'{"verdict":"changed"}', b"\xff"])
async def test_a_damaged_finding_is_a_finding(tmp_path: Path, content: bytes) -> None:
    data = tmp_path / "data"
    await grown(data, 1)
    (data / "audit" / "finding").write_bytes(content)
    told = await started(data)
    assert told is not None
    assert "audit accept" in told.text


def test_evidence_is_bounded_and_the_earliest_stays(tmp_path: Path) -> None:
    files = AuditFiles(str(tmp_path))
    for number in (*range(20), 0, 5):
        files.keep_evidence("checkpoint", f"note {number}")
    assert len(evidence(tmp_path)) == 16
    assert (tmp_path / "audit" / "evidence-1.checkpoint").read_text() == "note 0"


async def test_what_cannot_be_kept_is_known_to_the_process_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    kept = (data / "audit" / "checkpoint").read_text()
    doctor(data, "DELETE FROM audit_checkpoints")

    def full(*_: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(AuditFiles, "keep_evidence", full)
    async with opened(data) as (_store, log):
        with pytest.raises(StorageError, match="no room"):
            await log.check_all()
        assert log.finding is not None
        await log.append(*drafts(1))
        with pytest.raises(StorageError, match="no room"):
            await log.checkpoint()
    assert (data / "audit" / "checkpoint").read_text() == kept


@pytest.mark.parametrize("step", ["keep_evidence", "keep_finding"])
async def test_what_could_not_be_kept_is_kept_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    doctor(data, "DELETE FROM audit_checkpoints")

    def full(*_: object) -> None:
        raise StorageError("no room")

    async with opened(data) as (_store, log):
        with monkeypatch.context() as patch:
            patch.setattr(AuditFiles, step, full)
            with pytest.raises(StorageError, match="no room"):
                await log.check_all()
            with pytest.raises(StorageError, match="no room"):
                await log.check_again()
        assert not (data / "audit" / "finding").exists()
        assert await log.check_again() is not None
        assert (data / "audit" / "finding").exists()
        assert len(evidence(data)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_keys SET key = 'rubbish'",
        "INSERT INTO audit_keys SELECT 2, 'rubbish', NULL",
    ],
)
async def test_a_key_in_the_store_that_is_none_is_told_by_its_number(
    tmp_path: Path, statement: str
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    public = (data / "audit" / "public-keys").read_text()
    doctor(data, statement)
    found = verified(data)
    assert found is not None
    assert found.verdict is Verdict.WRONG_KEY
    with pytest.raises(
        StorageError, match=r"of the audit log in the store .*: key [12] is damaged"
    ):
        await started(data)
    assert (data / "audit" / "public-keys").read_text() == public


@pytest.mark.parametrize("note", ["rubbish", "needfire.audit/x"])
async def test_a_checkpoint_that_is_none_keeps_no_server_from_starting(
    tmp_path: Path, note: str
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    doctor(data, f"UPDATE audit_checkpoints SET note = '{note}' WHERE number = 2")
    assert verified(data) is not None
    told = await started(data)
    assert told is not None
    assert told.verdict is Verdict.CHANGED


@pytest.mark.parametrize(
    "record", ["Infinity", "9" * 300, "18446744073709551616", "-1", "true", "1.5", "null"]
)
async def test_a_number_that_no_event_can_hold_is_no_number_of_a_record(
    tmp_path: Path, record: str
) -> None:
    """It would stand before everything that the server has to say of itself, and for ever."""
    kept = '{"verdict":"changed","record":%s,"record_last":1,"reason":"x","time":"%s"}'
    await grown(tmp_path, 1)
    path = tmp_path / "audit" / "finding"
    path.write_text(kept % (record, "2026-11-21T19:40:47.123456Z"))
    found = Standing(AuditFiles(str(tmp_path))).finding
    assert found is not None
    assert (found.verdict, found.first) == (Verdict.CHANGED, 0)
    assert "cannot be read" in found.text


def test_what_was_found_is_told_in_printable_words(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "finding").write_text(
        '{"verdict":"changed","record":1,"record_last":1,"reason":"\\u001b[2J\\n\\ud800",'
        '"time":"2026-11-21T19:40:47.123456Z"}'
    )
    found = Standing(AuditFiles(str(tmp_path))).finding
    assert found is not None
    assert found.first == 1
    assert found.text.isprintable()


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 10**19 - 1])
async def test_a_kept_checkpoint_with_any_number_stops_no_server(
    tmp_path: Path, number: int
) -> None:
    data = tmp_path / "data"
    await grown(data, 2)
    path = data / "audit" / "checkpoint"
    kept = path.read_text()
    path.write_text(kept.replace("\ncheckpoint 2\n", f"\ncheckpoint {number}\n"))
    await started(data)
    assert "\ncheckpoint 3\n" in path.read_text()
