import hashlib
import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_server import samhain_database
from needfire_server.samhain_database import (
    DatabaseReader,
    DigestForm,
    Record,
    StoredDigest,
    is_usable_path,
)
from needfire_testkit.samhain import database, record, sha256_text

FIXTURES = Path(__file__).parents[1] / "samhain"
LINES_MAX = samhain_database._LINE_BYTES_MAX


def read(data: bytes) -> list[Record]:
    return list(DatabaseReader(io.BytesIO(data)))


class Trickle:
    """A file that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._step))


# ---- what the real program wrote -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["sha256", "sha1", "md5", "tiger192", "twice"])
def test_a_database_of_the_real_program_is_read_whole(name: str) -> None:
    reader = DatabaseReader(io.BytesIO((FIXTURES / f"{name}.db").read_bytes()))
    found = {each.path.removeprefix(b"/srv/site"): each for each in reader}
    assert sorted(found) == [
        b"",
        b"/absolute",
        b"/beside",
        b"/empty",
        b"/fifo",
        b"/hard",
        b"/log",
        b"/null",
        b"/page",
        b"/sub",
        b"/sub/above",
        b"/sub/deep",
        b"/sub/deep/x",
        b"/sub/we=ird\nname",
    ]
    page = found[b"/page"]
    assert (page.mark, page.mode, page.uid, page.gid, page.size) == (22, 0o100644, 33, 33, 6)
    assert (page.mtime_s, page.nlink) == (1_700_000_000, 2)
    assert page.inode == found[b"/hard"].inode
    # A relative link has its directory before it, and nothing is resolved.
    assert found[b"/beside"].text == b"/srv/site/page"
    assert found[b"/sub/above"].text == b"/srv/site/sub/../page"
    assert found[b"/absolute"].text == b"/srv/site/page"
    assert found[b"/null"].rdev == 0x103
    assert reader.has_second is (name == "twice")
    assert reader.header.startswith("#Host") is (name == "twice")


@pytest.mark.parametrize(
    ("name", "size"), [("sha256", 32), ("sha1", 20), ("md5", 16), ("tiger192", None)]
)
def test_its_digests_are_those_of_the_contents(name: str, size: int | None) -> None:
    found = {each.path: each.digest for each in read((FIXTURES / f"{name}.db").read_bytes())}
    digest = found[b"/srv/site/page"]
    assert digest.form is (DigestForm.SHA256 if name == "sha256" else DigestForm.HEX)
    if size is not None:
        assert digest.digest == hashlib.new(name, b"hello\n").digest().ljust(
            len(digest.digest), b"\0"
        )
    assert found[b"/srv/site/sub"].form is DigestForm.NONE


# ---- the layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [21, 22])
def test_both_marks_are_read_with_their_lengths(mark: int) -> None:
    data = database(
        record(b"/a", mark=mark, attributes=b"user::rw-"), record(b"/b", mark=mark, size=9)
    )
    first, second = read(data)
    assert (first.mark, first.path, first.attributes) == (mark, b"/a", b"user::rw-")
    assert (second.mark, second.path, second.size) == (mark, b"/b", 9)


def test_what_stands_before_the_start_is_passed_over() -> None:
    header = b"\n#Host web1 Version 2 Date [2015-01-02T03:04:05+0100]\n"
    for before in (b"", b"\xff\xd8 a picture [SOF] \n" * 40_000, header, b"x" * 262_140 + header):
        reader = DatabaseReader(io.BytesIO(database(record(b"/a"), before=before)))
        assert [each.path for each in reader] == [b"/a"]
        assert reader.header == (header.decode().strip() if before.endswith(header) else "")
    assert [each.path for each in read(database(record(b"/a"))[1:])] == [b"/a"]


@pytest.mark.parametrize(
    ("after", "has_second"),
    [
        (bytes(200) + b"-\n-\n", False),
        (bytes(208) + b"-\n-\n", False),
        (b"\n", False),
        (database(record(b"/b")), True),
        (b"\n#Host h Version 1 Date [x]\n" + database(record(b"/b")), True),
    ],
)
def test_each_known_end_is_an_end(after: bytes, has_second: bool) -> None:
    reader = DatabaseReader(io.BytesIO(database(record(b"/a"), after=after)))
    assert [each.path for each in reader] == [b"/a"]
    assert reader.has_second is has_second


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no Samhain database"),
        (b"rubbish" * 100_000, "no Samhain database"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\n\n" + database(record(b"/a")), "signed"),
        (database(record(b"/a"), b"\x01" * 300), "record 2, near byte 220, has the mark 257"),
        (database(record(b"/a", mark=20)), "has the mark 20"),
        (database(record(b"/a")[:150]), "is cut off"),
        (database(record(b"/a")[:-1]), "is cut off in the link"),
        (database(record(b"/a", attributes=b"x")[:-2]), "is cut off in the attributes"),
        (database(record(b"/" + b"a" * LINES_MAX)), f"more than {LINES_MAX} bytes in the path"),
    ],
)
def test_what_is_no_database_is_refused_with_the_place(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(data)


def test_the_longest_line_is_read() -> None:
    for length in (LINES_MAX - 1, LINES_MAX):
        (found,) = read(database(record(b"/a", text=b"x" * length)))
        assert len(found.text) == length


def test_a_start_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samhain_database, "_LEADING_BYTES_MAX", 300_000)
    with pytest.raises(FormatError, match="in the first 300000 bytes"):
        read(bytes(2_000_000))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (b"0" * 48, StoredDigest(DigestForm.NONE)),
        (b"", StoredDigest(DigestForm.NONE)),
        (b"AB" * 24, StoredDigest(DigestForm.HEX, b"\xab" * 24)),
        (sha256_text(b"\xfb\xff" * 16), StoredDigest(DigestForm.SHA256, b"\xfb\xff" * 16)),
        (b"AB" * 20, StoredDigest(DigestForm.UNKNOWN)),
        (b"\xff" * 48, StoredDigest(DigestForm.UNKNOWN)),
    ],
)
def test_digests_are_told_by_their_form(text: bytes, stored: StoredDigest) -> None:
    (found,) = read(database(record(b"/a", digest=text)))
    assert found.digest == stored


@pytest.mark.parametrize(
    ("path", "is_usable"),
    [
        (b"/", True),
        (b"/a", True),
        (b"/a/b\n=\xff", True),
        (b"/" + b"n" * 4_096, True),
        (b"/" + b"n" * 4_097, False),
        (b"/a/", False),
        (b"//a", False),
        (b"/a/./b", False),
        (b"/a/../b", False),
        (b"/a\0b", False),
        (b"K_system", False),
        (b"", False),
    ],
)
def test_only_paths_that_files_can_have_are_usable(path: bytes, is_usable: bool) -> None:
    assert is_usable_path(path) is is_usable


# ---- properties ----------------------------------------------------------------------------------

_TEXTS = st.binary(max_size=300)
_RECORDS = st.builds(
    lambda path, **values: (path, values),
    _TEXTS.map(lambda text: b"/" + text),
    mark=st.sampled_from([21, 22]),
    mode=st.integers(1, 2**32 - 1),
    device=st.integers(0, 2**64 - 1),
    rdev=st.integers(0, 2**64 - 1),
    nlink=st.integers(0, 2**32 - 1),
    inode=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**64 - 1),
    times_s=st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    text=_TEXTS,
    attributes=st.none() | _TEXTS,
)


@given(records=st.lists(_RECORDS, max_size=6), step=st.integers(1, 400), before=_TEXTS)
def test_every_record_comes_back_as_it_was(
    records: list[tuple[bytes, dict[str, object]]], step: int, before: bytes
) -> None:
    data = database(
        *(record(path, **values) for path, values in records),  # type: ignore[arg-type]
        before=before.replace(b"[SOF]", b"").replace(b"-----BEGIN", b""),
    )
    found = list(DatabaseReader(Trickle(data, step)))
    assert len(found) == len(records)
    for each, (path, values) in zip(found, records, strict=True):
        assert each.path == path
        for name in ("mark", "mode", "device", "rdev", "nlink", "inode", "size", "uid", "gid"):
            assert getattr(each, name) == values[name]
        assert (each.atime_s, each.mtime_s, each.ctime_s) == values["times_s"]
        assert each.text == values["text"]
        assert each.attributes == (values["attributes"] or b"")


@given(
    name=st.sampled_from(["sha256", "twice"]),
    at=st.integers(0, 3_000),
    junk=st.binary(max_size=40),
    cut=st.booleans(),
)
def test_damage_is_an_error_or_data_and_nothing_else(
    name: str, at: int, junk: bytes, cut: bool
) -> None:
    data = bytearray((FIXTURES / f"{name}.db").read_bytes())
    data[at : at + len(junk)] = junk
    try:
        found = read(bytes(data[:at] if cut else data))
    except FormatError:
        return
    assert len(found) <= 14


def test_records_are_read_one_by_one() -> None:
    rows = [record(b"/%d" % number, text=b"x" * 60_000) for number in range(50)]
    source = io.BytesIO(database(*rows))
    places = [source.tell() for _ in DatabaseReader(source)]
    assert all(later - earlier <= 600_000 for earlier, later in pairwise(places))
    assert places[0] < 600_000
