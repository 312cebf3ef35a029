import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_client import baseline as baseline_module
from needfire_client.baseline import BASELINE_BYTES_MAX, BaselineReader, BaselineWriter
from needfire_protocol.baseline import FileEntry, encode_entries, key_of
from needfire_protocol.errors import FormatError, StorageError

ENTRY = FileEntry(0o100644, 0, 0, 5, 1, 2, 3, 4, 5, 1, 0, None, b"d" * 32, 0, "")
TREE = {
    b"/": [(b"etc", ENTRY)],
    b"/etc": [(b"a", ENTRY), (b"b", ENTRY._replace(size=6))],
    b"/etc/\xff": [(b"\n", ENTRY)],
    b"/etc-b": [(b"c", ENTRY)],
}


def write(path: Path) -> Path:
    with BaselineWriter(
        path, algorithm="sha256", host="host.example", configuration_sha256="0" * 64
    ) as writer:
        for directory, entries in TREE.items():
            writer.add(directory, entries)
        writer.finish(created_us=7)
    return path


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return write(tmp_path / "baseline")


def test_what_was_written_is_read_back(baseline: Path) -> None:
    with BaselineReader(baseline) as reader:
        assert (reader.meta.host, reader.meta.entries, reader.meta.created_us) == (
            "host.example",
            5,
            7,
        )
        assert reader.directory(b"/etc") == dict(TREE[b"/etc"])
        assert reader.directory(b"/etc/\xff") == dict(TREE[b"/etc/\xff"])
        assert reader.directory(b"/nowhere") == {}
        assert list(reader.iterate()) == [
            (key_of(path), encode_entries(entries)) for path, entries in TREE.items()
        ]
        first, end = key_of(b"/etc"), key_of(b"/etc") + b"\1"
        assert [key for key, _ in reader.iterate(first, end)] == [b"\0etc", b"\0etc\0\xff"]


@given(
    asked=st.lists(st.integers(-1, 40), max_size=30),
    is_sorted=st.booleans(),
    gap=st.integers(1, 6),
)
@settings(max_examples=60)
def test_rows_are_found_in_whatever_order_they_are_asked_for(
    tmp_path_factory: pytest.TempPathFactory, asked: list[int], is_sorted: bool, gap: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "baseline"
    facts = {"algorithm": "sha256", "host": "h", "configuration_sha256": ""}
    with BaselineWriter(path, **facts) as writer:
        for number in range(0, 40, gap):
            writer.add(b"/%03d" % number, [(b"a", ENTRY._replace(size=number))])
        writer.finish(created_us=7)
    names = [b"/%03d" % number for number in (sorted(asked) if is_sorted else asked)]
    with BaselineReader(path) as reader:
        rows = reader.in_order()
        assert [rows.find(name) for name in names] == [reader.row(name) for name in names]


@given(first=st.integers(0, 41), end=st.integers(0, 41))
@settings(max_examples=30)
def test_keys_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, first: int, end: int
) -> None:
    path = tmp_path_factory.mktemp("keys") / "baseline"
    facts = {"algorithm": "sha256", "host": "h", "configuration_sha256": ""}
    with BaselineWriter(path, **facts) as writer:
        for number in range(0, 40, 3):
            writer.add(b"/%03d" % number, [(b"a", ENTRY)])
        writer.finish(created_us=7)
    between = key_of(b"/%03d" % first), key_of(b"/%03d" % end)
    with BaselineReader(path) as reader:
        assert [*reader.keys(*between)] == [key for key, _ in reader.iterate(*between)]
        assert [*reader.keys()] == [key for key, _ in reader.iterate()]


def test_rows_in_order_are_found_without_a_search_for_each(tmp_path: Path) -> None:
    baseline = write(tmp_path / "baseline")
    with BaselineReader(baseline) as reader:
        rows, searches = reader.in_order(), list[bytes]()
        real = reader.unchecked

        def unchecked(first: bytes = b"", end: bytes = b"\x7f") -> Iterator[tuple[bytes, bytes]]:
            searches.append(first)
            return real(first, end)

        reader.unchecked = unchecked  # type: ignore[method-assign]
        for path in (*TREE, b"/f", b"/g"):
            rows.find(path)
        assert searches == [key_of(b"/")]
        assert rows.find(b"/etc") is not None
        assert searches == [key_of(b"/"), key_of(b"/etc")]


def test_a_baseline_is_for_its_owner_alone_and_leaves_nothing_beside_it(baseline: Path) -> None:
    assert stat.S_IMODE(baseline.stat().st_mode) == 0o600
    assert os.listdir(baseline.parent) == ["baseline"]


def test_a_baseline_that_is_not_finished_leaves_the_old_one_in_place(baseline: Path) -> None:
    before = baseline.read_bytes()
    with BaselineWriter(baseline, algorithm="sha256", host="", configuration_sha256="") as writer:
        writer.add(b"/x", [(b"a", ENTRY)])
    assert baseline.read_bytes() == before
    assert os.listdir(baseline.parent) == ["baseline"]


def test_a_reader_keeps_what_it_opened_while_a_new_baseline_takes_the_place(
    baseline: Path,
) -> None:
    with BaselineReader(baseline) as reader:
        write(baseline)
        assert reader.directory(b"/etc") == dict(TREE[b"/etc"])


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write(tmp_path / "nowhere" / "baseline")


def test_a_baseline_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        BaselineReader(tmp_path / "baseline")


def test_a_path_with_signs_of_a_uri_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=rwc&b#c %41\udcff"
    with BaselineReader(write(path)) as reader:
        assert reader.meta.entries == 5


def altered(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE directories SET entries = x'90' WHERE key = x'00657463'", "match their digest"),
        ("DELETE FROM directories WHERE key = x'00657463'", "match their digest"),
        ("INSERT INTO directories VALUES (x'007a', x'90')", "match their digest"),
        ("INSERT INTO directories VALUES (x'7a', x'90')", "is not the key"),
        ("INSERT INTO directories VALUES ('text', x'90')", "does not hold byte strings"),
        ("UPDATE directories SET entries = 'text'", "does not hold byte strings"),
        (
            "UPDATE meta SET value = 4 WHERE name = 'format'",
            "has format 4; this version reads 1, 2, 3",
        ),
        ("UPDATE meta SET value = '2' WHERE name = 'format'", "has format"),
        ("DELETE FROM meta WHERE name = 'host'", "does not say its host"),
        ("UPDATE meta SET value = x'ff' WHERE name = 'host'", "not UTF-8"),
        ("UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'host'", "not UTF-8"),
        ("CREATE VIEW more AS SELECT 1", "its tables differ"),
        ("CREATE TABLE more(x)", "its tables differ"),
        ("CREATE INDEX more ON directories(length(entries))", "its tables differ"),
        (
            "CREATE TRIGGER more AFTER INSERT ON meta BEGIN DELETE FROM meta; END",
            "its tables differ",
        ),
        ("DROP TABLE meta", "its tables differ"),
        ("PRAGMA application_id = 1", "not a baseline"),
    ],
)
def test_a_baseline_that_somebody_altered_is_refused(
    baseline: Path, statement: str, told: str
) -> None:
    with pytest.raises(FormatError, match=told):
        BaselineReader(altered(baseline, statement))


def test_a_row_that_is_too_large_is_refused_before_it_is_read(
    baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(len(encode_entries(entries)) for entries in TREE.values())
    monkeypatch.setattr("needfire_client.baseline.ENTRIES_BYTES_MAX", 2_000)
    BaselineReader(baseline).close()
    altered(baseline, "UPDATE directories SET entries = zeroblob(2001)")
    with pytest.raises(FormatError, match="too big"):
        BaselineReader(baseline)
    assert largest < 2_000


def test_entries_that_are_none_are_refused_when_they_are_met(tmp_path: Path) -> None:
    path = tmp_path / "baseline"
    with BaselineWriter(path, algorithm="sha256", host="", configuration_sha256="") as writer:
        writer.add_packed(b"\0etc", b"rubbish", 1)
        writer.finish(created_us=1)
    with BaselineReader(path) as reader, pytest.raises(FormatError):
        reader.directory(b"/etc")


@pytest.mark.parametrize("contents", [b"", b"rubbish" * 100, b"SQLite format 3\0" + bytes(4096)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "baseline"
    path.write_bytes(contents)
    with pytest.raises(FormatError):
        BaselineReader(path)


def test_a_fifo_in_the_place_of_a_baseline_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "baseline")
    with pytest.raises(FormatError, match="not a regular file"):
        BaselineReader(tmp_path / "baseline")


def test_a_file_that_is_too_large_is_refused_before_it_is_opened(baseline: Path) -> None:
    os.truncate(baseline, BASELINE_BYTES_MAX + 1)
    with pytest.raises(FormatError, match="a baseline has at most"):
        BaselineReader(baseline)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write(tmp_path_factory.mktemp("damage") / "baseline")
    contents = bytearray(path.read_bytes())
    used = [at for at, byte in enumerate(contents) if byte]
    for _ in range(data.draw(st.integers(1, 3))):
        contents[data.draw(st.sampled_from(used))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(contents), len(contents) // 2, 100]))
    path.write_bytes(bytes(contents[:cut]))
    try:
        with BaselineReader(path) as reader:
            found = {path: reader.directory(path) for path in TREE}
    except (FormatError, StorageError):
        return
    # What the digest does not cover (header, free space, the values of meta) may well differ.
    assert found == {path: dict(entries) for path, entries in TREE.items()}


@pytest.mark.parametrize("fails", ["execute", "fsync", "rename"])
def test_a_disk_that_refuses_leaves_no_half_baseline(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    before = baseline.read_bytes()

    def refuse(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    places: dict[str, Callable[[], None]] = {
        "execute": lambda: monkeypatch.setattr("needfire_client.baseline._connect_new", refuse),
        "fsync": lambda: monkeypatch.setattr("os.fsync", refuse),
        "rename": lambda: monkeypatch.setattr("os.replace", refuse),
    }
    places[fails]()
    with pytest.raises(StorageError, match="No space left on device"):
        write(baseline)
    assert baseline.read_bytes() == before
    assert os.listdir(baseline.parent) == ["baseline"]


def test_a_file_that_takes_for_ever_to_verify_is_given_up(
    baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_module, "_VERIFY_LIMIT_S", -1.0)
    monkeypatch.setattr(baseline_module, "_STEPS_BETWEEN_LOOKS", 1)
    with pytest.raises((FormatError, StorageError), match="interrupted"):
        BaselineReader(baseline)
