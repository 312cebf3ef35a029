import hashlib
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner

from needfire_client.baseline import BaselineReader
from needfire_protocol.baseline import State
from needfire_protocol.errors import FormatError, StorageError
from needfire_server.admin.cli import cli
from needfire_server.baseline_files import validate_baseline
from needfire_server.baseline_import import ImportedBaseline, import_samhain_database
from needfire_testkit.samhain import database, record, sha256_text

FIXTURES = Path(__file__).parents[1] / "samhain"
CONTENTS = hashlib.sha256(b"hello\n").digest()


def imported(tmp_path: Path, data: bytes, host: str | None = "web1") -> ImportedBaseline:
    return import_samhain_database(
        io.BytesIO(data), tmp_path / "baseline", host=host, modified_us=77
    )


def notes_of(tmp_path: Path, *records: bytes) -> str:
    return "\n".join(imported(tmp_path, database(*records)).notes)


@pytest.mark.parametrize("name", ["sha256", "sha1", "md5", "tiger192", "twice"])
def test_a_database_of_the_real_program_becomes_a_baseline_that_both_sides_read(
    tmp_path: Path, name: str
) -> None:
    result = imported(tmp_path, (FIXTURES / f"{name}.db").read_bytes())
    meta = validate_baseline(str(tmp_path / "baseline"))
    assert meta == result.meta
    assert (meta.entries, meta.host, result.marks) == (14, "web1", (22,))
    reader = BaselineReader(tmp_path / "baseline")
    page = reader.directory(b"/srv/site")[b"page"]
    assert (page.state, page.uid, page.mtime_ns) == (State.IMPORTED, 33, 1_700_000_000 * 10**9)
    algorithm = {"twice": "sha256", "tiger192": "TIGER192"}.get(name, name)
    assert result.algorithm == algorithm
    if name == "tiger192":
        assert (meta.algorithm, page.digest) == ("sha256", None)
        assert any("TIGER192" in note for note in result.notes)
    else:
        assert meta.algorithm == algorithm
        assert page.digest == hashlib.new(algorithm, b"hello\n").digest()
    assert reader.directory(b"/srv/site/sub")[b"above"].link == b"/srv/site/sub/../page"
    assert reader.directory(b"/srv/site")[b"null"].rdev == os.makedev(1, 3)
    assert reader.directory(b"/srv")[b"site"].mode == 0o40755


def test_host_and_time_are_those_of_the_database_where_it_has_them(tmp_path: Path) -> None:
    header = b"\n#Host db7.example.org Version 3 Date [2015-01-02T03:04:05+0100]\n"
    meta = imported(tmp_path, database(record(b"/a"), before=header), None).meta
    assert (meta.host, meta.created_us) == ("db7.example.org", 1_420_164_245_000_000)
    meta = imported(tmp_path, database(record(b"/a"), before=header), "web1").meta
    assert meta.host == "web1"
    for before in (b"", b"\n#Host h Version 1 Date [2015-99-99T03:04:05+0100]\n"):
        assert imported(tmp_path, database(record(b"/a"), before=before)).meta.created_us == 77
    assert imported(tmp_path, database(record(b"/a")), None).meta.host == ""


def test_records_in_any_order_become_sorted_rows(tmp_path: Path) -> None:
    paths = [b"/b", b"/a/z", b"/", b"/a-b/c", b"/a", b"/a/b/c", b"/a/b"]
    imported(tmp_path, database(*(record(path) for path in paths)))
    reader = BaselineReader(tmp_path / "baseline")
    found = {
        key.replace(b"\0", b"/"): reader.directory(key.replace(b"\0", b"/"))
        for key, _ in reader.iterate()
    }
    assert {key: list(entries) for key, entries in found.items()} == {
        b"": [b"/"],
        b"/": [b"a", b"b"],
        b"/a": [b"b", b"z"],
        b"/a/b": [b"c"],
        b"/a-b": [b"c"],
    }


def test_of_two_records_with_one_path_the_last_counts(tmp_path: Path) -> None:
    notes = notes_of(tmp_path, record(b"/a", size=1), record(b"/b"), record(b"/a", size=2))
    assert "1 objects stand there twice" in notes
    assert BaselineReader(tmp_path / "baseline").directory(b"/")[b"a"].size == 2


def test_what_cannot_be_carried_over_is_said(tmp_path: Path) -> None:
    notes = notes_of(
        tmp_path,
        record(b"/a", flags=0x80010, attributes=b"user::rw-", digest=sha256_text(CONTENTS)),
        record(b"/b", flags=0x80000, text=b"eJwLy)(?", digest=b"AB" * 24),
        record(b"/c", digest=b"what is this"),
        record(b"/l", mode=0o120777, text=b"/target"),
        record(b"K_kernel", text=b"00ff"),
        record(b"/../up"),
    )
    for words in (
        "1 objects have flags",
        "1 objects have an ACL",
        "1 objects have their contents stored",
        "1 records of Samhain's modules",
        "1 records have paths that no file can have",
        "1 digests are of another algorithm",
        "1 digests have an unknown form",
        "the digests it is sha256",
        "times are whole seconds",
    ):
        assert words in notes
    found = BaselineReader(tmp_path / "baseline").directory(b"/")
    assert sorted(found) == [b"a", b"b", b"c", b"l"]
    assert [entry.digest for entry in found.values()] == [CONTENTS, None, None, None]


def test_numbers_at_their_limits_are_kept_in_64_bits(tmp_path: Path) -> None:
    imported(
        tmp_path,
        database(
            record(b"/a", size=2**64 - 1, device=2**64 - 1, times_s=(-(2**63), 2**63 - 1, 0)),
            record(b"/b", mode=0o20600, rdev=2**64 - 1),
        ),
    )
    validate_baseline(str(tmp_path / "baseline"))


@pytest.mark.parametrize("data", [database(), database(record(b"K_kernel")), b"", b"x" * 1_000])
def test_no_object_is_no_success_and_nothing_is_written(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "baseline").write_bytes(b"old")
    with pytest.raises(FormatError):
        imported(tmp_path, data)
    assert [each.name for each in tmp_path.iterdir()] == ["baseline"]
    assert (tmp_path / "baseline").read_bytes() == b"old"


def test_a_database_that_is_damaged_in_its_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="record 2"):
        imported(tmp_path, database(record(b"/a"), b"\x01" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        imported(tmp_path / "none", database(record(b"/a")))


def test_the_baseline_is_for_its_owner_alone(tmp_path: Path) -> None:
    imported(tmp_path, database(record(b"/a")))
    assert (tmp_path / "baseline").stat().st_mode & 0o777 == 0o600


class Endless:
    """A database of many objects that is never in memory as a whole."""

    def __init__(self, count: int) -> None:
        self._records = iter(record(b"/d%d/f%d" % (n % 50, n)) for n in range(count))
        self._rest = b"\n[SOF]\n"

    def read(self, size: int, /) -> bytes:
        while len(self._rest) < size and (more := next(self._records, None)) is not None:
            self._rest += more
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        source = Endless(count)
        import_samhain_database(source, tmp_path / "baseline", host="h", modified_us=0)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # One directory is in memory at a time: a fiftieth of all here.
    assert peak(6_000) < peak(1_000) + 1_000_000


# ---- the verb ------------------------------------------------------------------------------------


def test_the_verb_writes_a_file_and_tells_what_is_lacking(tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = CliRunner().invoke(
        cli, ["baseline", "import", str(FIXTURES / "twice.db"), "--output", str(output)]
    )
    assert result.exit_code == 0, result.stderr
    assert "14 objects of 127.0.0.1 imported (mark 22)" in result.stderr
    assert "a second database was appended" in result.stderr
    assert validate_baseline(str(output)).entries == 14


def test_the_verb_writes_to_standard_output_for_baseline_put(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("needfire-admin"),
            *("baseline", "import", FIXTURES / "sha256.db", "--host", "web1"),
        ],
        capture_output=True,
        check=True,
    )
    (tmp_path / "copy").write_bytes(done.stdout)
    assert validate_baseline(str(tmp_path / "copy")).host == "web1"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["no/such/file"], 8, "No such file"),
        ([str(Path(__file__))], 2, "no Samhain database"),
        ([str(FIXTURES / "md5.db"), "--host", "../x"], 2, "../x"),
    ],
)
def test_the_verb_ends_with_a_status_and_a_sentence(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("needfire-admin"), "baseline", "import", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
