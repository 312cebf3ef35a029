"""Which files are taken for baselines: only those that hold exactly what one must."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from needfire_protocol.baseline import encode_entries
from needfire_protocol.errors import FormatError
from needfire_server import baseline_files as baseline_files_module
from needfire_server.baseline_files import baseline_rows, read_baseline_meta, validate_baseline
from needfire_testkit.baselines import FILE, write_baseline


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a ?#% baseline"


def test_a_baseline_says_what_it_is(path: Path) -> None:
    write_baseline(path)
    meta = validate_baseline(str(path))
    assert meta == read_baseline_meta(str(path))
    assert (meta.host, meta.entries, meta.algorithm) == ("web1.example.org", 4, "sha256")


def test_looking_at_it_changes_nothing_and_leaves_nothing(path: Path) -> None:
    write_baseline(path, statements=("PRAGMA journal_mode = WAL",))
    before = path.read_bytes()
    validate_baseline(str(path))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"\0", b"SQLite format 3", b"SQLite format 3\0" * 512])
def test_another_file_is_no_baseline(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError):
        validate_baseline(str(path))
    with pytest.raises(FormatError):
        read_baseline_meta(str(path))


def test_a_file_that_is_gone_is_no_baseline(path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        validate_baseline(str(path))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (x)",
        "CREATE INDEX i ON directories (length(entries))",
        "CREATE VIRTUAL TABLE f USING fts5 (x)",
        "DROP TABLE directories",
        "PRAGMA application_id = 1",
    ],
)
def test_another_schema_is_refused_before_a_row_is_read(path: Path, statement: str) -> None:
    write_baseline(path, statements=(statement,))
    with pytest.raises(FormatError):
        read_baseline_meta(str(path))
    with pytest.raises(FormatError):
        validate_baseline(str(path))


@pytest.mark.parametrize(
    "meta",
    [
        {"format": 4},
        {"host": None},
        {"more": "x"},
        {"algorithm": "crc32"},
        {"entries": "4"},
        {"created_us": -1},
        {"content_sha256": "0"},
        {"host": "x" * 2_000},
    ],
)
def test_what_it_says_about_itself_must_have_its_form(path: Path, meta: dict[str, Any]) -> None:
    write_baseline(path, **meta)
    with pytest.raises(FormatError):
        read_baseline_meta(str(path))


@pytest.mark.parametrize("meta", [{"entries": 5}, {"content_sha256": "0" * 64}])
def test_what_it_says_about_its_rows_must_be_true(path: Path, meta: dict[str, Any]) -> None:
    write_baseline(path, **meta)
    read_baseline_meta(str(path))
    with pytest.raises(FormatError):
        validate_baseline(str(path))


@pytest.mark.parametrize(
    "rows",
    [
        {b"\0etc\0..": encode_entries([(b"a", FILE)] * 1)},
        {b"relative": encode_entries([(b"a", FILE)])},
        {b"\0etc": b"\xc1"},
        {b"\0etc": encode_entries([(b"b", FILE), (b"a", FILE)])},
        {b"\0etc": encode_entries([(b"..", FILE)])},
    ],
)
def test_a_row_that_agents_could_not_use_is_refused(path: Path, rows: dict[bytes, bytes]) -> None:
    write_baseline(path, rows=rows)
    with pytest.raises(FormatError):
        validate_baseline(str(path))


def test_a_number_in_place_of_bytes_is_refused(path: Path) -> None:
    write_baseline(path, statements=("UPDATE directories SET entries = 5",))
    with pytest.raises(FormatError):
        validate_baseline(str(path))


@pytest.mark.parametrize("seed", [1, 622604840, 2626493248])
def test_no_damage_is_anything_but_a_format_error(path: Path, seed: int) -> None:
    """Goal: any byte of the file may be wrong; the answer is a refusal or the true contents."""
    write_baseline(path)
    true, whole = validate_baseline(str(path)), path.read_bytes()
    chance = random.Random(seed)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(
            damaged[: chance.choice([len(damaged)] * 3 + [chance.randrange(1, 9_000)])]
        )
        try:
            found = validate_baseline(str(path))
        except FormatError:
            refused += 1
        else:
            assert found.content_sha256 == true.content_sha256
    assert refused > 20


def test_a_file_that_takes_for_ever_to_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "baseline"
    write_baseline(path)
    monkeypatch.setattr(baseline_files_module, "_CHECK_LIMIT_S", -1.0)
    monkeypatch.setattr(baseline_files_module, "_STEPS_BETWEEN_LOOKS", 1)
    with pytest.raises(FormatError, match="interrupted"):
        validate_baseline(str(path))


def test_a_reader_may_take_any_time_between_two_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {b"\0d%03d" % number: encode_entries([(b"f", FILE)]) for number in range(500)}
    write_baseline(path, rows=rows, format=3, entries=500)
    now_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    monkeypatch.setattr(baseline_files_module, "time", clock)
    monkeypatch.setattr(baseline_files_module, "_STEPS_BETWEEN_LOOKS", 1)
    with baseline_rows(str(path)) as found:
        for key, _ in found:
            assert key in rows
            now_s += 1_000.0


def test_what_sqlite_itself_takes_too_long_for_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_baseline(path)
    monkeypatch.setattr(baseline_files_module, "_CHECK_LIMIT_S", -1.0)
    monkeypatch.setattr(baseline_files_module, "_STEPS_BETWEEN_LOOKS", 1)
    with pytest.raises(FormatError, match="interrupted"), baseline_rows(str(path)):
        pass
