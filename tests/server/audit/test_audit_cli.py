"""The audit verbs of the admin tool, as processes, with and without a server."""

import asyncio
import json
import re
import sqlite3
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from needfire_client.witness import Witness
from needfire_protocol.audit.note import PublicKey, parse_checkpoint, parse_note
from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import AuditCheckpoint
from needfire_server.admin.audit_check import check_file, read_anchor, read_keys
from needfire_server.admin.offline import OfflineStore
from needfire_server.audit.log import AuditLog
from needfire_server.storage.opening import how_to_open
from needfire_testkit.admin_server import AdminServer, Ended, run_admin
from needfire_testkit.audit_logs import grown_log
from needfire_testkit.server_store import verifier
from needfire_testkit.stores import StorePlace

DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"

KEY = str(PublicKey("needfire.audit/x", bytes(32)))


async def exported(directory: Path, out: Path) -> str:
    """Register some clients, export the log; return its public keys."""
    return await asyncio.to_thread(_exported, directory, out)


def _exported(directory: Path, out: Path) -> str:
    """Do what the program does where no server runs, without a process for each verb."""
    made = verifier()
    with OfflineStore(str(directory)) as store:
        for number in range(3):
            values = {"salt": made.salt.hex(), "verifier": made.verifier.hex()}
            store.call("register", {"name": f"web{number}", **values})
        lines = [item["line"] for item in store.stream("audit-export", {})]
        out.write_text("".join(f"{line}\n" for line in lines))
        return "\n".join(store.call("audit-keys", {}).result["keys"])


async def verified(*arguments: str | Path) -> Ended:
    return await run_admin("audit", "verify", *arguments)


async def test_a_log_is_exported_and_verified_without_a_server(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "audit.log"
    data.mkdir(mode=0o700)
    await exported(data, log)
    done = await run_admin("audit", "export", log, directory=data)
    assert done.status == ExitStatus.DONE, done.err
    key = (await run_admin("audit", "keys", directory=data)).out.strip()
    done = await verified("--key", key, log)
    assert (done.status, done.err.count("signed up to record")) == (ExitStatus.DONE, 1)
    assert done.out.startswith("intact: ")
    codes = [json.loads(line).get("code") for line in log.read_text().splitlines()]
    assert codes.count("CLIENT_REGISTERED") == 3
    # Each request is on record before what it did.
    assert codes.index("ADMIN_REQUEST") < codes.index("CLIENT_REGISTERED")


async def test_a_changed_record_is_named(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "audit.log"
    data.mkdir(mode=0o700)
    key = await exported(data, log)
    text = log.read_text()
    number = next(json.loads(line)["n"] for line in text.splitlines() if '"client":"web1"' in line)
    log.write_text(text.replace('"client":"web1"', '"client":"web9"', 1))
    done = await verified("--key", key, log)
    assert done.status == ExitStatus.DIFFERENCES
    assert done.out.startswith(f"changed: record {number}: ")
    as_json = json.loads((await verified("--json", "--key", key, log)).out)
    assert (as_json["verdict"], as_json["record"]) == ("changed", number)


async def test_the_store_is_verified_beside_a_running_server(tmp_path: Path) -> None:
    async with AdminServer.running(tmp_path):
        done = await run_admin("register", "web1", directory=tmp_path)
        assert done.status == ExitStatus.DONE, done.err
        await run_admin("audit", "export", tmp_path / "audit.log", directory=tmp_path)
        done = await run_admin("audit", "verify", "--store", directory=tmp_path)
        assert (done.status, done.out[:7]) == (ExitStatus.DONE, "intact:"), done.err
        connection = sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)
        connection.execute("DELETE FROM audit_records WHERE number = 1")
        connection.close()
        done = await run_admin("audit", "verify", "--store", directory=tmp_path)
        assert done.status == ExitStatus.DIFFERENCES
        assert done.out.startswith("removed: record 1: ")


@pytest.mark.parametrize("number", ["size", "5000"])
async def test_a_record_that_is_planted_behind_the_log_is_found(
    tmp_path: Path, number: str
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    await exported(data, tmp_path / "audit.log")
    with closing(sqlite3.connect(data / "needfire.sqlite", isolation_level=None)) as store:
        (size,) = store.execute("SELECT size FROM audit_head").fetchone()
        place = size if number == "size" else int(number)
        store.execute(
            "INSERT INTO audit_records SELECT ?, record FROM audit_records WHERE number = 3",
            (place,),
        )
    done = await run_admin("audit", "verify", "--store", directory=data)
    assert done.status == ExitStatus.DIFFERENCES
    assert done.out.startswith(f"inserted: record {place}: the server has written {size} records")


async def test_a_checkpoint_that_was_kept_finds_an_older_export(tmp_path: Path) -> None:
    data, old, new = tmp_path / "data", tmp_path / "old.log", tmp_path / "new.log"
    data.mkdir(mode=0o700)
    await exported(data, old)
    key = await exported(data, new)
    kept = tmp_path / "kept"
    kept.write_text(json.loads(new.read_text().splitlines()[0])["checkpoint"])
    assert (await verified("--key", key, old)).status == ExitStatus.DONE
    done = await verified("--key", key, "--checkpoint", kept, old)
    assert done.status == ExitStatus.DIFFERENCES
    assert done.out.startswith("cut off: ")
    assert (await verified("--key", key, "--checkpoint", kept, new)).status == ExitStatus.DONE


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_a_note_is_a_checkpoint_whatever_number_of_newlines_ends_it(
    tmp_path: Path, ending: str
) -> None:
    log = grown_log(9)
    kept = tmp_path / "kept"
    kept.write_text(log.notes[-1].rstrip("\n") + ending)
    assert parse_checkpoint(read_anchor(str(kept))).size == 9


def test_what_an_agent_writes_as_evidence_holds_the_checkpoint_of_before(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "audit-checkpoint", lambda *_, **__: None)
    log, other = grown_log(9), grown_log(7, hand_over_at=3)
    for each in (log, other):
        witness.hear(AuditCheckpoint(each.notes[-1].encode(), str(each.key).encode(), ()))
    (evidence,) = (tmp_path / "audit-evidence").iterdir()
    assert read_anchor(str(evidence)) == parse_note(log.notes[-1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "not the evidence of an agent"),
        ("{", "neither a note nor the evidence"),
        ('{"kept": null}', "had kept none"),
        ('{"kept": "text"}', "an empty line, and signatures"),
        ("x" * 40_000, "more than 32768 bytes"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_the_reason(
    tmp_path: Path, text: str, words: str
) -> None:
    kept = tmp_path / "kept"
    kept.write_text(text)
    with pytest.raises(FormatError, match=words):
        read_anchor(str(kept))


async def test_a_new_key_is_made_and_both_verify(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "audit.log"
    data.mkdir(mode=0o700)
    old = await exported(data, log)
    new = (await run_admin("audit", "rotate", directory=data)).out.strip()
    assert (await exported(data, log)).splitlines() == [old, new]
    for key in (old, new, data / "audit" / "public-keys"):
        assert (await verified("--key", key, log)).status == ExitStatus.DONE
    shown = await run_admin("audit", "show", "--code", "AUDIT_KEY_HANDED_OVER", directory=data)
    assert len(shown.out.splitlines()) == 1
    shown = await run_admin("events", "--code", "AUDIT_KEY_HANDED_OVER", directory=data)
    (event,) = map(json.loads, shown.out.splitlines())
    assert (event["fields"]["key"], event["fields"]["request"] is None) == (new, False)


async def test_records_are_shown_by_code_client_and_request(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    await exported(data, tmp_path / "audit.log")
    done = await run_admin("clients", "remove", "web7", directory=data)
    assert done.status == ExitStatus.REFUSED
    shown = await run_admin("audit", "show", "--json", "--client", "web7", directory=data)
    asked, failed = map(json.loads, shown.out.splitlines())
    assert (asked["code"], failed["code"]) == ("ADMIN_REQUEST", "ADMIN_REQUEST_FAILED")
    assert (asked["request"], failed["outcome"]) == (failed["request"], "failure")
    assert (asked["outcome"], asked["fields"]["arguments"]) == ("asked", '{"name":"web7"}')
    by_outcome = await run_admin(
        "audit", "show", "--json", "--outcome", "success", "--client", "web7", directory=data
    )
    assert by_outcome.out == ""
    by_request = await run_admin(
        "audit", "show", "--json", "--request", asked["request"], directory=data
    )
    assert by_request.out == shown.out


async def test_the_documented_program_checks_a_proof(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    key = await exported(data, tmp_path / "audit.log")
    program = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    done = await run_admin("audit", "prove", "4", directory=data)
    assert done.status == ExitStatus.DONE, done.err
    proof = json.loads(done.out)
    assert await _checked(program, tmp_path, proof, key) == (0, proof["record"])
    forged = {**proof, "record": proof["record"].replace("success", "failure")}
    assert (await _checked(program, tmp_path, forged, key))[0] != 0
    proofs, keys = await asyncio.to_thread(_proofs_after_rotations, data)
    assert keys[0] == key
    assert (await _checked(program, tmp_path, proof, keys[1]))[0] != 0
    # Whoever noted any key checks what the newest one signed; and nobody else's.
    for each in keys:
        assert await _checked(program, tmp_path, proofs[-1], each) == (0, proof["record"])
    stranger = str(PublicKey(PublicKey.parse(key).name, bytes(range(32))))
    assert (await _checked(program, tmp_path, proofs[-1], stranger))[0] != 0
    gap = {**proofs[-1], "handovers": proofs[-1]["handovers"][1:]}
    assert (await _checked(program, tmp_path, gap, key))[0] != 0
    swapped = proofs[-1]["handovers"][0].replace(keys[1], keys[2])
    lied = {**proofs[-1], "handovers": [swapped]}
    assert (await _checked(program, tmp_path, lied, key))[0] != 0


def _proofs_after_rotations(data: Path) -> tuple[list[dict[str, Any]], list[str]]:
    proofs = []
    with OfflineStore(str(data)) as store:
        for _ in range(2):
            store.call("audit-rotate", {})
            proofs.append(dict(store.call("audit-prove", {"number": 4}).result))
        keys = store.call("audit-keys", {}).result["keys"]
    assert [len(each["handovers"]) for each in proofs] == [1, 2]
    return proofs, keys


async def test_a_doctored_log_is_neither_proved_nor_exported_without_a_word(
    tmp_path: Path,
) -> None:
    data, log = tmp_path / "data", tmp_path / "audit.log"
    data.mkdir(mode=0o700)
    await exported(data, log)
    whole = log.read_text().count("\n")
    with closing(sqlite3.connect(data / "needfire.sqlite", isolation_level=None)) as store:
        store.execute(
            "UPDATE audit_records SET record = "
            "CAST(replace(CAST(record AS TEXT), 'web', 'ftp') AS BLOB) WHERE number = 4"
        )
    done = await run_admin("audit", "prove", "4", directory=data)
    assert (done.status, done.out) == (ExitStatus.REFUSED, "")
    assert "nothing proves record 4" in done.err
    assert "changed: record 4" in done.err
    done = await run_admin("audit", "export", log, directory=data)
    assert done.status == ExitStatus.DIFFERENCES
    assert "does not verify: changed: record 4" in done.err
    # All of it is written: it is evidence too.
    assert log.read_text().count("\n") > whole


async def test_a_record_that_is_not_there_any_more_has_no_proof(tmp_path: Path) -> None:
    store = StorePlace(tmp_path).open()
    log = await AuditLog.open(store.audit, str(tmp_path))
    await log.append(*[Draft("CLIENT_REMOVED")] * 40)
    await log.checkpoint()
    whole = await log.inclusion(20)
    assert whole is not None
    assert whole.holds
    with closing(sqlite3.connect(tmp_path / "needfire.sqlite", isolation_level=None)) as database:
        database.execute("DELETE FROM audit_records WHERE number = 40")
        database.execute("UPDATE audit_records SET record = X'00' WHERE number = 20")
    for number in (20, 40):
        found = await log.inclusion(number)
        assert found is not None
        assert not found.holds
    store.close()


async def _checked(program: str, directory: Path, proof: object, key: str) -> tuple[int, str]:
    path = directory / "proof.json"
    path.write_text(json.dumps(proof))
    process = await create_subprocess_exec(
        sys.executable, "-c", program, path, key, stdout=PIPE, stderr=PIPE
    )
    out, _err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().strip()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("/nonexistent",), ExitStatus.LOCAL),
        ((), ExitStatus.USAGE),
        (("--store", "/dev/null"), ExitStatus.USAGE),
        (("--key", "a+b+c", "/dev/null"), ExitStatus.USAGE),
        (("--key", "/dev/null", "/dev/null"), ExitStatus.USAGE),
        (("--checkpoint", "/dev/null", "/dev/null"), ExitStatus.LOCAL),
    ],
)
async def test_wrong_usage_ends_with_its_status(
    tmp_path: Path, arguments: tuple[str, ...], status: ExitStatus
) -> None:
    done = await run_admin("audit", "verify", *arguments, directory=tmp_path)
    assert (done.status, "Traceback" in done.err) == (status, False), done.err


@pytest.mark.parametrize("data", [b"root:x:0:0:root:/root:/bin/bash\n" * 40, b"\xff" * 900_000])
def test_what_is_no_audit_log_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(FormatError, match="/given is no audit log"):
        check_file(BytesIO(data), "/given", (PublicKey.parse(KEY),), None)


def test_a_log_without_its_header_is_still_a_log() -> None:
    log = grown_log(30)
    for lines in (log.export()[1:], [b"junk\n", *log.export()[1:]], []):
        finding = check_file(BytesIO(b"".join(lines)), "/given", (log.key,), None).finding
        assert finding is not None


def test_who_cannot_read_the_store_is_told_how_to_check_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: str, *_: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    # Tests may run as root, whom nothing is forbidden.
    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(
        StorageError, match=re.escape("audit export - | needfire-admin audit verify")
    ):
        read_keys(None, str(tmp_path))


async def test_there_is_no_proof_of_what_is_not_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    await exported(data, tmp_path / "audit.log")
    done = await run_admin("audit", "prove", "100000", directory=data)
    assert (done.status, "no signed record 100000" in done.err) == (ExitStatus.REFUSED, True)


async def test_the_store_is_verified_in_either_database(place: StorePlace) -> None:
    directory = str(place.directory)
    store = how_to_open(directory, place.url or None, None)()
    log = await AuditLog.open(store.audit, directory)
    await log.append(Draft("CLIENT_REMOVED"), Draft("CLIENT_REMOVED"))
    await log.checkpoint()
    done = await run_admin("audit", "verify", "--store", directory=place.directory)
    assert (done.status, done.out) == (ExitStatus.DONE, "intact: 3 records, 1 checkpoint\n"), done
    await store.audit.append([Draft("CLIENT_REMOVED")])
    store.close()
    done = await run_admin("audit", "verify", "--store", directory=place.directory)
    assert "behind the last checkpoint, not signed yet: 1 record\n" in done.err


async def test_where_no_store_is_nothing_is_verified_or_made(tmp_path: Path) -> None:
    done = await run_admin("audit", "verify", "--store", "--key", KEY, directory=tmp_path)
    assert done.status == ExitStatus.LOCAL
    assert f"{tmp_path / 'needfire.sqlite'}: No such file or directory" in done.err
    assert list(tmp_path.iterdir()) == []
