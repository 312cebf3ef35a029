"""Buffers of fanotify events: decoded as the kernel writes them, refused when lengths lie."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.fanotify_events import (
    ENTRY,
    HANDLE_BYTES_MAX,
    NEW_NAME,
    OLD_NAME,
    DirectoryEntry,
    RawEvent,
    entries,
    merged,
    split,
)
from needfire_protocol.errors import FormatError

FSID = b"fsidfsid"


def record(kind: int, handle: bytes, name: bytes) -> bytes:
    body = FSID + struct.pack("=Ii", len(handle), 1) + handle + name + b"\0"
    body += b"\0" * (-(len(body) + 4) % 4)
    return struct.pack("=BBH", kind, 0, len(body) + 4) + body


def event(mask: int, pid: int, *records: bytes) -> bytes:
    body = b"".join(records)
    return struct.pack("=IBBHQii", 24 + len(body), 3, 0, 24, mask, -1, pid) + body


names = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 0x2F} & set(name))
handles = st.binary(max_size=HANDLE_BYTES_MAX)
named = st.tuples(st.sampled_from([ENTRY, OLD_NAME, NEW_NAME]), handles, names)
events = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**31 - 1), st.lists(named, max_size=3)
)


def decoded(data: bytes) -> list[tuple[int, int, list[DirectoryEntry]]]:
    return [(each.mask, each.pid, list(entries(each))) for each in split(data)]


@given(st.lists(events, max_size=5))
def test_what_was_written_is_read(
    written: list[tuple[int, int, list[tuple[int, bytes, bytes]]]],
) -> None:
    data = b"".join(event(mask, pid, *(record(*each) for each in rs)) for mask, pid, rs in written)
    assert decoded(data) == [
        (
            mask,
            pid,
            [
                DirectoryEntry(kind, FSID + struct.pack("=Ii", len(handle), 1) + handle, name)
                for kind, handle, name in records
            ],
        )
        for mask, pid, records in written
    ]


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with suppress(FormatError):
        assert len(decoded(data)) <= len(data) // 24


@given(events, st.data())
def test_a_changed_byte_never_does_worse_than_a_refusal(
    written: tuple[int, int, list[tuple[int, bytes, bytes]]], draw: st.DataObject
) -> None:
    mask, pid, records = written
    data = bytearray(event(mask, pid, *(record(*each) for each in records)))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] = draw.draw(st.integers(0, 255))
    with suppress(FormatError):
        for _, _, found in decoded(bytes(data)):
            assert all(len(each.directory) <= 16 + HANDLE_BYTES_MAX for each in found)


@pytest.mark.parametrize("length", [0, 1, 23, 25, 2**32 - 1])
def test_an_event_whose_length_is_not_its_own_is_refused(length: int) -> None:
    data = struct.pack("=IBBHQii", length, 3, 0, 24, 2, -1, 1)
    with pytest.raises(FormatError):
        list(split(data))


@pytest.mark.parametrize(("version", "fixed"), [(2, 24), (3, 23), (3, 28)])
def test_another_version_is_refused(version: int, fixed: int) -> None:
    with pytest.raises(FormatError):
        list(split(struct.pack("=IBBHQii", 24, version, 0, fixed, 2, -1, 1)))


@pytest.mark.parametrize("length", [0, 3, 200])
def test_a_record_whose_length_is_not_its_own_is_refused(length: int) -> None:
    body = struct.pack("=i", 1) + struct.pack("=BBH", ENTRY, 0, length)
    with pytest.raises(FormatError):
        list(entries(RawEvent(2, 1, body)))


@pytest.mark.parametrize("size", [HANDLE_BYTES_MAX + 1, 2**32 - 1])
def test_a_handle_that_is_longer_than_its_record_or_the_kernels_bound_is_refused(size: int) -> None:
    body = FSID + struct.pack("=Ii", size, 1) + b"h" * 200
    body = struct.pack("=BBH", ENTRY, 0, len(body) + 4) + body
    with pytest.raises(FormatError):
        list(entries(RawEvent(2, 1, struct.pack("=i", 1) + body)))


def test_records_of_other_kinds_are_passed_over_and_no_name_means_the_directory() -> None:
    other = struct.pack("=BBHi", 4, 0, 8, -1)
    (found,) = split(event(2, 7, other, record(ENTRY, b"h", b"")))
    assert [each.name for each in entries(found)] == [b"."]


def test_a_name_with_a_slash_is_refused() -> None:
    (found,) = split(event(2, 7, record(ENTRY, b"h", b"../etc")))
    with pytest.raises(FormatError):
        list(entries(found))


few_events = st.lists(
    st.tuples(st.sampled_from([0x2, 0x8, 0x100, 0x1000]), st.integers(1, 2), st.sampled_from(b"ab"))
)


@given(few_events)
def test_merging_keeps_what_happened_and_never_crosses_what_stands_apart(
    written: list[tuple[int, int, int]],
) -> None:
    """The runs between events apart are computed here one by one."""
    data = b"".join(event(mask, pid, record(ENTRY, b"h", bytes([n]))) for mask, pid, n in written)
    runs: list[dict[tuple[int, int], int]] = [{}]
    for mask, pid, name in written:
        if mask == 0x1000:
            runs += [{(pid, name): mask}, {}]
        else:
            runs[-1][pid, name] = runs[-1].get((pid, name), 0) | mask
    wanted = [(mask, pid, name) for run in runs for (pid, name), mask in run.items()]
    found, number = merged(data, 0x1000)
    assert number == len(written)
    assert [(each.mask, each.pid, ord(next(entries(each)).name)) for each in found] == wanted
