import hashlib
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from needfire_protocol.baseline import (
    DIGEST_BYTES,
    INLINE_BYTES_MAX,
    SCHEMA,
    XATTRS_MAX,
    BaselineMeta,
    ContentDigest,
    FileEntry,
    Looked,
    RowWriter,
    State,
    check_key,
    check_schema,
    clamped,
    decode_entries,
    differ_in_access_times_only,
    digest_text,
    encode_entries,
    iterate_entries,
    key_of,
    parse_meta,
    path_of,
    subtree_end,
)
from needfire_protocol.codec import encode
from needfire_protocol.errors import FormatError
from needfire_protocol.rc import values

names = st.binary(min_size=1, max_size=6).filter(
    lambda name: not {0, 0x2F}.intersection(name) and name not in (b".", b"..")
)
paths = st.lists(names, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
entries = st.builds(
    FileEntry,
    mode=st.integers(0, 2**32 - 1),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**64 - 1),
    mtime_ns=st.integers(-(2**63), 2**63),
    ctime_ns=st.integers(-(2**63), 2**63),
    atime_ns=st.integers(-(2**63), 2**63),
    inode=st.integers(0, 2**64 - 1),
    device=st.integers(0, 2**64 - 1),
    nlink=st.integers(0, 2**32),
    rdev=st.integers(0, 2**64 - 1),
    link=st.none() | st.binary(max_size=20),
    digest=st.none() | st.binary(min_size=32, max_size=32),
    state=st.sampled_from([int(state) for state in State]),
    reason=st.text(max_size=10),
    birth_ns=st.none() | st.integers(-(2**63), 2**63),
    flags=st.none() | st.integers(0, 2**32 - 1),
    project=st.none() | st.integers(0, 2**32 - 1),
    looked=st.integers(0, int(Looked.EVERYTHING)),
    xattrs=st.dictionaries(
        st.binary(max_size=20), st.tuples(st.integers(0, 2**32), st.binary(max_size=20)), max_size=3
    ).map(lambda found: tuple((name, *found[name]) for name in sorted(found))),
)
ENTRY = FileEntry(0o100644, 0, 0, 5, 1, 2, 3, 4, 5, 1, 0, None, b"d" * 32, 0, "")
META = BaselineMeta(
    format=1,
    created_us=1,
    host="host.example",
    version="0.1.0",
    algorithm="sha256",
    configuration_sha256="",
    entries=3,
    content_sha256="0" * 64,
)


@given(st.dictionaries(names, entries, max_size=5))
def test_entries_come_back_as_they_were(found: dict[bytes, FileEntry]) -> None:
    assert decode_entries(encode_entries(sorted(found.items()))) == found


@given(st.dictionaries(names, entries, max_size=3))
def test_the_same_entries_always_give_the_same_bytes(found: dict[bytes, FileEntry]) -> None:
    packed = encode_entries(sorted(found.items()))
    assert encode_entries(sorted(decode_entries(packed).items())) == packed


@given(st.binary(max_size=200))
@example(b"")
@example(encode([]))
@example(encode({}))
def test_any_bytes_are_entries_or_a_format_error(data: bytes) -> None:
    try:
        found = decode_entries(data)
    except FormatError:
        with pytest.raises(FormatError):
            list(iterate_entries(data))
        return
    assert decode_entries(encode_entries(sorted(found.items()))) == found
    assert list(iterate_entries(data)) == list(found.items())


@given(
    st.dictionaries(names, entries, min_size=1, max_size=5),
    st.integers(0, 1000),
    st.integers(0, 255),
)
def test_a_damaged_row_is_the_same_one_by_one_and_as_a_whole(
    found: dict[bytes, FileEntry], place: int, value: int
) -> None:
    data = bytearray(encode_entries(sorted(found.items())))
    data[place % len(data)] = value
    try:
        whole = list(decode_entries(bytes(data)).items())
    except FormatError:
        with pytest.raises(FormatError):
            list(iterate_entries(bytes(data)))
        return
    assert list(iterate_entries(bytes(data))) == whole


@given(st.dictionaries(names, entries, max_size=8), st.integers(1, 4))
def test_a_row_that_is_made_piece_by_piece_has_the_same_bytes(
    found: dict[bytes, FileEntry], most: int
) -> None:
    every = sorted(found.items())
    writer = RowWriter()
    for first in range(0, len(every), most):
        writer.add(every[first : first + most])
    assert writer.row() == encode_entries(every)
    assert writer.count == len(every)


def test_an_object_of_format_1_is_one_of_which_less_is_known() -> None:
    packed = encode([[b"a", list(ENTRY[:15])]])
    assert decode_entries(packed) == {b"a": ENTRY}
    assert (ENTRY.birth_ns, ENTRY.flags, ENTRY.looked, ENTRY.xattrs) == (None, None, 0, ())


@pytest.mark.parametrize("format", [0, 4, True, "2", None])
def test_other_formats_are_refused(format: Any) -> None:
    rows = [(name, format if name == "format" else value) for name, value in META.rows()]
    with pytest.raises(FormatError, match="reads 1, 2, 3"):
        parse_meta(rows)


@pytest.mark.parametrize("format", [1, 2, 3])
def test_all_formats_are_read(format: int) -> None:
    meta = replace(META, format=format)
    assert parse_meta(meta.rows()) == meta


@pytest.mark.parametrize(
    "found",
    [
        [[b"b", 1, b"v"], [b"a", 1, b"v"]],
        [[b"a", 1, b"v"], [b"a", 1, b"v"]],
        [[b"a" * 256, 1, b"v"]],
        [[b"a", 1, b"v" * (INLINE_BYTES_MAX + 1)]],
        [[b"a", -1, b"v"]],
        [[b"a", True, b"v"]],
        [["a", 1, b"v"]],
        [[b"a", 1]],
        [b"a"],
        [[b"%03d" % number, 1, b"v"] for number in range(XATTRS_MAX + 1)],
        {},
        None,
    ],
)
def test_extended_attributes_are_bounded_and_sorted(found: Any) -> None:
    with pytest.raises(FormatError):
        decode_entries(encode([[b"name", [*ENTRY[:-1], found]]]))


@pytest.mark.parametrize("position", range(len(FileEntry._fields)))
@pytest.mark.parametrize("value", ["text", -1, True, 1.5, [], 2**64 - 1, None, b"bytes"])
def test_a_wrong_part_of_an_entry_is_refused_or_harmless(position: int, value: Any) -> None:
    parts = list(ENTRY)
    parts[position] = value
    packed = encode([[b"name", parts]])
    try:
        (found,) = decode_entries(packed).values()
    except FormatError:
        return
    kinds = [type(part) for part in found]
    assert kinds[:11] == [int] * 11
    assert min(*found[:4], *found[7:11]) >= 0
    assert max(found.mode, found.uid, found.gid) < 2**32
    assert found.state in (0, 1, 2)


@pytest.mark.parametrize(
    "rows",
    [
        [[b"b", list(ENTRY)], [b"a", list(ENTRY)]],
        [[b"a", list(ENTRY)], [b"a", list(ENTRY)]],
        [[b"", list(ENTRY)]],
        [[b"..", list(ENTRY)]],
        [[b"a/b", list(ENTRY)]],
        [[b"a\0", list(ENTRY)]],
        [["a", list(ENTRY)]],
        [[b"a" * 4097, list(ENTRY)]],
        [[b"a", list(ENTRY)[:-1]]],
        [[b"a"]],
        [b"a"],
        7,
    ],
)
def test_names_must_be_sorted_names_of_a_directory(rows: Any) -> None:
    with pytest.raises(FormatError):
        decode_entries(encode(rows))


def test_numbers_beyond_64_bits_are_refused_until_they_are_clamped() -> None:
    entry = ENTRY._replace(mtime_ns=10**30, ctime_ns=-(10**30))
    with pytest.raises(FormatError):
        encode_entries([(b"a", entry)])
    kept = decode_entries(encode_entries([(b"a", clamped(entry))]))[b"a"]
    assert kept == ENTRY._replace(mtime_ns=2**64 - 1, ctime_ns=-(2**63))
    assert clamped(kept) == kept


@given(paths)
def test_a_key_gives_its_path_back_and_is_a_key(path: bytes) -> None:
    assert path_of(check_key(key_of(path))) == path


@given(st.lists(paths, max_size=8, unique=True))
def test_keys_sort_as_a_depth_first_walk_comes_by(found: list[bytes]) -> None:
    def parts(path: bytes) -> list[bytes]:
        return [part for part in path.split(b"/") if part]

    assert sorted(found, key=key_of) == sorted(found, key=parts)


@given(paths, paths)
def test_a_subtree_is_one_range_of_keys(above: bytes, path: bytes) -> None:
    is_inside = path == above or path.startswith(above.rstrip(b"/") + b"/")
    assert (key_of(above) <= key_of(path) < subtree_end(key_of(above))) == is_inside


@pytest.mark.parametrize(
    "key", [b"etc", b"\0etc\0", b"\0\0", b"\0.", b"\0a\0..", b"\0a/b", "text", None, 7]
)
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises(FormatError):
        check_key(key)


@given(st.lists(st.sampled_from([b"\0", b".", b"..", b"a", b".a", b"/"]), max_size=6))
def test_a_key_is_what_the_names_between_its_nuls_make_it(parts: list[bytes]) -> None:
    key = b"".join(parts)
    names = key.split(b"\0")[1:]
    is_path = key[:1] == b"\0" and b"/" not in key and not {b"", b".", b".."} & {*names}
    if is_path or key in (b"", b"\0"):
        assert check_key(key) == key
    else:
        with pytest.raises(FormatError):
            check_key(key)


@pytest.mark.parametrize("row_bytes", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 2**20])
def test_the_digest_is_over_lengths_keys_and_rows(row_bytes: int) -> None:
    digest, plain = ContentDigest(), hashlib.sha256()
    for key, row in ((b"", bytes(row_bytes)), (b"\0etc", b"row")):
        digest.add(key, row)
        plain.update(len(key).to_bytes(8, "big") + key + len(row).to_bytes(8, "big") + row)
    assert digest.hexdigest() == plain.hexdigest()


def test_the_digest_depends_on_where_a_row_ends() -> None:
    one, other = ContentDigest(), ContentDigest()
    one.add(b"ab", b"c")
    other.add(b"a", b"bc")
    assert one.hexdigest() != other.hexdigest()


def test_meta_comes_back_from_its_rows_as_text_and_as_bytes() -> None:
    rows = META.rows()
    raw = [
        (name.encode(), value.encode() if isinstance(value, str) else value) for name, value in rows
    ]
    assert parse_meta(rows) == parse_meta(raw) == META


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("format", 4, "has format 4"),
        ("format", "1", "has format '1'"),
        ("algorithm", "crc32", "digests of 'crc32'"),
        ("entries", -1, "not a count"),
        ("created_us", "soon", "not a count"),
        ("content_sha256", "00", "not a SHA-256"),
        ("host", b"\xff", "not UTF-8"),
        ("host", 7, "not a short text"),
        ("host", "h" * 1025, "not a short text"),
    ],
)
def test_meta_with_a_wrong_value_is_refused(name: str, value: object, told: str) -> None:
    rows = [(key, value if key == name else kept) for key, kept in META.rows()]
    with pytest.raises(FormatError, match=told):
        parse_meta(rows)


def test_meta_with_too_little_or_too_much_is_refused() -> None:
    with pytest.raises(FormatError, match="does not say its content_sha256"):
        parse_meta(META.rows()[:-1])
    with pytest.raises(FormatError, match="unexpected row"):
        parse_meta([*META.rows(), ("more", 1)])
    with pytest.raises(FormatError, match="unexpected row"):
        parse_meta([*META.rows(), META.rows()[0]])


def test_sqlite_keeps_the_schema_exactly_as_it_is_written_here() -> None:
    connection = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        connection.execute(statement)
    check_schema(connection.execute("SELECT type, name, sql FROM sqlite_schema"))
    connection.execute("CREATE VIEW more AS SELECT 1")
    with pytest.raises(FormatError, match="its tables differ"):
        check_schema(connection.execute("SELECT type, name, sql FROM sqlite_schema"))
    connection.close()


def test_every_digest_that_a_configuration_may_name_can_stand_in_a_baseline() -> None:
    for algorithm, length in DIGEST_BYTES.items():
        if algorithm != "blake3":
            assert hashlib.new(algorithm).digest_size == length
        assert values.DIGEST.parse(algorithm.encode()) == algorithm


def test_a_digest_is_shown_with_its_algorithm() -> None:
    assert digest_text(b"\x01\xff", "sha256") == "sha256:01ff"
    assert digest_text(None, "sha256") == ""


@given(found=st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), entries), data=st.data())
def test_rows_that_differ_in_access_times_only_are_told_from_others(
    found: dict[bytes, FileEntry], data: st.DataObject
) -> None:
    before = sorted(found.items())
    after = [
        (name, data.draw(st.sampled_from([entry, entry._replace(atime_ns=entry.atime_ns ^ 1)])))
        for name, entry in before
    ]
    old, new = encode_entries(before), encode_entries(after)
    assert differ_in_access_times_only(old, new)
    for index, (name, entry) in enumerate(after):
        field = data.draw(st.sampled_from(["mode", "uid", "mtime_ns", "ctime_ns", "inode", "link"]))
        value = getattr(entry, field)
        changes: dict[str, Any] = {field: b"?" if field == "link" else value ^ 1}
        other = entry._replace(**changes)
        changed = [*after[:index], (name, other), *after[index + 1 :]]
        if other != entry:
            assert not differ_in_access_times_only(old, encode_entries(changed))


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_damaged_rows_are_compared_without_an_error(old: bytes, new: bytes) -> None:
    assert differ_in_access_times_only(old, new) in (True, False)


@given(found=st.dictionaries(names, entries, max_size=2), data=st.data())
def test_a_row_with_damage_outside_of_its_access_times_is_different(
    found: dict[bytes, FileEntry], data: st.DataObject
) -> None:
    new = encode_entries(sorted(found.items()))
    damaged = bytearray(new)
    damaged[data.draw(st.integers(0, 3 + int.from_bytes(new[:4], "big")))] ^= 1
    assert not differ_in_access_times_only(bytes(damaged), new)


@given(st.dictionaries(names, entries, min_size=1, max_size=3))
def test_a_row_of_an_old_format_means_the_same_and_differs_in_its_bytes(
    found: dict[bytes, FileEntry],
) -> None:
    new = encode_entries(sorted(found.items()))
    old = encode([[name, entry] for name, entry in sorted(found.items())])
    assert decode_entries(old) == decode_entries(new) == found
    assert not differ_in_access_times_only(old, new)


@pytest.mark.parametrize("times", [[], [1, 2], [None], ["1"], [1.5], [True], {}, 1, b"x"])
def test_every_entry_has_one_access_time(times: Any) -> None:
    rows = encode([[b"a", ENTRY[:6] + ENTRY[7:]]])
    with pytest.raises(FormatError):
        decode_entries(len(rows).to_bytes(4, "big") + rows + encode(times))
