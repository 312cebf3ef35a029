"""What the disk refuses goes to the server from memory, and to the disk once it takes it again."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from needfire_client.backoff import Backoff
from needfire_client.memory_spool import MEMORY_MAX_BYTES, MEMORY_VITAL_BYTES, MemorySpool
from needfire_client.spool import (
    REPORT_OVERHEAD_BYTES,
    DiskRefusesError,
    NewReport,
    Spool,
    SpoolFullError,
    read_last_words,
)
from needfire_client.spools import Spools
from needfire_protocol.errors import StorageError

MANY = (1_000, 10_000_000)


def report(body: bytes = b"body", *, vital: bool = False) -> NewReport:
    return NewReport("POLICY_ADDED", 1_000, body, vital)


class Disk:
    """Opens a real spool, and can refuse as a full disk does."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "spool.sqlite"
        self.is_full = False
        self.refused: list[str] = []
        self.accepted: list[int] = []
        self.now_s = 0.0
        self.spool: FillableSpool | None = None

    def open(self) -> Spool:
        if self.is_full:
            raise DiskRefusesError("full")
        self.spool = FillableSpool(
            self.path,
            size_max_bytes=1_000_000,
            random_bytes=os.urandom,
            now_us=lambda: 5,
            on_set_aside=lambda _path, _reason: None,
        )
        self.spool.disk = self
        return self.spool

    def spools(self) -> Spools:
        return Spools(
            self.open,
            path=self.path,
            random_bytes=os.urandom,
            backoff=Backoff(lambda: 1.0),
            on_refused=self.refused.append,
            on_accepted=self.accepted.append,
            monotonic=lambda: self.now_s,
        )

    def free(self) -> None:
        """Make room, and let the next attempt be due."""
        self.is_full = False
        self.now_s += 100


class FillableSpool(Spool):
    """A spool whose transactions fail for as long as the disk is said to be full."""

    disk: Disk | None = None

    def _set_meta(self, name: str, value: bytes | int) -> None:
        self._refuse()
        super()._set_meta(name, value)

    def _delete(self, sequence: int) -> tuple[int, int]:
        self._refuse()
        return super()._delete(sequence)

    def _refuse(self) -> None:
        if self.disk is not None and self.disk.is_full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    if disk.spool is not None:
        disk.spool.close()


def bodies(spools: Spools, sent: dict[bytes, int] | None = None) -> list[bytes]:
    return [each.body for each in spools.next_batch(sent or {}, *MANY).reports]


def acknowledge_all(spools: Spools) -> list[bytes]:
    """Do what a session does until nothing waits; return the bodies in the order they went."""
    went: list[bytes] = []
    while (batch := spools.next_batch({}, *MANY)).reports:
        went += [each.body for each in batch.reports]
        spools.acknowledge(batch.stream, batch.reports[-1].sequence)
    return went


def test_a_disk_that_is_full_at_the_start_is_told_and_memory_takes_the_reports(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    assert disk.refused == ["full"]
    spools.append([report(b"a"), report(b"b")])
    assert (spools.waiting, spools.in_memory, spools.is_on_disk) == (2, 2, False)
    assert acknowledge_all(spools) == [b"a", b"b"]
    assert spools.waiting == 0


def test_a_file_that_no_time_mends_is_an_error_at_the_start(disk: Disk) -> None:
    disk.path.mkdir()
    with pytest.raises(StorageError, match="directory"):
        disk.spools()
    assert disk.refused == []


def test_what_was_never_sent_moves_to_the_disk_as_soon_as_there_is_room(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    spools.append([report(b"a")])
    assert bodies(spools) == [b"a"]
    spools.append([report(b"b"), report(b"c")])
    disk.free()
    assert spools.mend()
    assert (disk.accepted, spools.in_memory, spools.waiting) == ([2], 1, 3)
    assert acknowledge_all(spools) == [b"a", b"b", b"c"]


def test_attempts_are_paced_and_each_refusal_waits_longer(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    waits = []
    for _ in range(3):
        assert not spools.mend(), "it is not time yet"
        wait_s = spools.mend_in_s()
        assert wait_s is not None
        waits.append(wait_s)
        disk.now_s += wait_s
        assert not spools.mend()
    assert waits == [1.0, 2.0, 4.0]
    assert disk.refused == ["full"], "it is told once"


def test_a_disk_that_fills_keeps_the_order_and_the_numberings_apart(disk: Disk) -> None:
    spools = disk.spools()
    spools.append([report(b"a")])
    disk.is_full = True
    spools.append([report(b"b")])
    assert "No space" in disk.refused[0] or "full" in disk.refused[0]
    first = spools.next_batch({}, *MANY)
    assert [each.body for each in first.reports] == [b"a"]
    assert not bodies(spools, {first.stream: 1}), "memory waits for the file's acknowledgement"
    spools.acknowledge(first.stream, 1)
    second = spools.next_batch({}, *MANY)
    assert [each.body for each in second.reports] == [b"b"]
    assert second.stream != first.stream
    disk.free()
    assert spools.mend()
    spools.append([report(b"c")])
    assert bodies(spools) == [b"b"], "the file waits for memory's acknowledgement"
    spools.acknowledge(second.stream, 1)
    assert bodies(spools) == [b"c"]


@pytest.mark.parametrize("refused", ["rename", "open"])
def test_a_file_that_is_damaged_on_a_full_disk_is_replaced_once_there_is_room(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    spools = disk.spools()
    spools.append([report(b"a")])
    assert disk.spool is not None

    def damaged(_reports: object) -> None:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    def refuse(path: object, *given: Any, **named: Any) -> Any:
        if str(path).startswith(str(disk.path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken(path, *given, **named)

    with monkeypatch.context() as full:
        taken = getattr(os, refused)
        full.setattr(os, refused, refuse)
        full.setattr(disk.spool, "_insert", damaged)
        spools.append([report(b"b")])
        assert (spools.is_on_disk, spools.in_memory, len(disk.refused)) == (False, 1, 1)
        disk.free()
        assert not spools.mend()
    disk.free()
    assert spools.mend()
    assert (spools.is_on_disk, spools.in_memory, disk.accepted) == (True, 0, [1])
    spools.append([report(b"c")])
    assert bodies(spools) == [b"b", b"c"]
    [aside] = disk.path.parent.glob("*.damaged-5")
    assert b"POLICY_ADDED" in aside.read_bytes()


def test_each_trouble_has_a_stream_of_its_own(disk: Disk) -> None:
    streams = []
    spools = disk.spools()
    for _ in range(2):
        disk.is_full = True
        spools.append([report()])
        batch = spools.next_batch({}, *MANY)
        streams.append(batch.stream)
        spools.acknowledge(batch.stream, 1)
        disk.free()
        assert spools.mend()
    assert len(set(streams)) == 2


def test_an_acknowledgement_that_the_disk_cannot_note_counts_all_the_same(disk: Disk) -> None:
    spools = disk.spools()
    spools.append([report(b"a"), report(b"b"), report(b"c")])
    stream = spools.next_batch({}, *MANY).stream
    disk.is_full = True
    spools.acknowledge(stream, 2)
    assert (spools.waiting, bodies(spools)) == (1, [b"c"])
    spools.acknowledge(stream, 3)
    assert (spools.waiting, bodies(spools)) == (0, [])
    disk.free()
    assert spools.mend()
    assert disk.spool is not None
    assert disk.spool.waiting == 0


def test_closing_tells_how_many_are_lost_with_the_process(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    spools.append([report(), report()])
    assert spools.close() == 2


def test_closing_writes_to_the_disk_what_now_has_room(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    spools.append([report(b"a")])
    disk.is_full = False
    assert spools.close() == 0
    again = disk.spools()
    assert bodies(again) == [b"a"]


def test_another_limit_holds_for_a_file_that_opens_later(disk: Disk) -> None:
    disk.is_full = True
    spools = disk.spools()
    spools.set_size_max(0)
    disk.free()
    assert spools.mend()
    with pytest.raises(SpoolFullError):
        spools.append([report()])
    assert spools.in_memory == 0, "a limit is no trouble of the disk"


@pytest.mark.parametrize(("vital", "room"), [(False, 0), (True, MEMORY_VITAL_BYTES)])
def test_memory_is_bounded_to_the_last_byte(vital: bool, room: int) -> None:
    size = MEMORY_MAX_BYTES + room - REPORT_OVERHEAD_BYTES
    for length, fits in ((size - 1, True), (size, True), (size + 1, False)):
        memory = MemorySpool(b"s" * 16)
        if fits:
            memory.append([report(b"x" * length, vital=vital)])
            assert memory.acknowledge(1) == 0, "what was never offered cannot be acknowledged"
            memory.read_batch(0, *MANY)
            assert memory.acknowledge(1) == 1
            assert memory.bytes_used == 0
        else:
            with pytest.raises(SpoolFullError):
                memory.append([report(b"x" * length, vital=vital)])
            assert memory.waiting == 0


def test_memory_numbers_batches_as_the_file_does() -> None:
    memory = MemorySpool(b"s" * 16)
    memory.append([report(b"12345678")] * 5)

    def sequences(after: int, count_max: int, bytes_max: int) -> list[int]:
        return [each.sequence for each in memory.read_batch(after, count_max, bytes_max).reports]

    assert sequences(0, 2, 10_000) == [1, 2]
    assert sequences(2, 9, 2 * (8 + REPORT_OVERHEAD_BYTES)) == [3, 4]
    assert sequences(2, 9, 1) == [3], "at least one"
    assert memory.acknowledge(3) == 3
    assert sequences(0, 9, 10_000) == [4, 5]
    assert sequences(4, 9, 10_000) == [5]
    assert sequences(9, 9, 10_000) == []
    assert memory.never_offered() == []


def test_the_last_words_of_a_clean_end_can_be_read_without_a_journal(disk: Disk) -> None:
    spool = disk.open()
    spool.append([NewReport("EXIT", 9, b"x")])
    spool.close()
    disk.path.parent.chmod(0o500)
    try:
        assert read_last_words(disk.path).code == "EXIT"
    finally:
        disk.path.parent.chmod(0o700)
    disk.is_full = True
    assert disk.spools().last_words().code == "EXIT"
