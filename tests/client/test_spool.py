"""Reports wait on disk until they are acknowledged: in order, without gaps, through every crash."""

import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needfire_client import spool as spool_module
from needfire_client.spool import (
    REPORT_OVERHEAD_BYTES,
    VITAL_RESERVE_BYTES,
    DiskRefusesError,
    LastWords,
    NewReport,
    Spool,
    SpoolFullError,
    read_last_words,
)
from needfire_protocol.errors import StorageError

MANY = 500
LARGE = 1_000_000

Opener = Callable[..., Spool]


@pytest.fixture
def set_aside() -> list[tuple[Path, str]]:
    """The damaged files that were told."""
    return []


@pytest.fixture
def opened(tmp_path: Path, set_aside: list[tuple[Path, str]]) -> Iterator[Opener]:
    """Open the spool of this test; all are closed at its end."""
    spools: list[Spool] = []

    def open_spool(size_max_bytes: int = 100_000_000, path: Path | None = None) -> Spool:
        spool = Spool(
            path or tmp_path / "spool.sqlite",
            size_max_bytes=size_max_bytes,
            random_bytes=os.urandom,
            now_us=lambda: 1_700_000_000_000_000,
            on_set_aside=lambda aside, reason: set_aside.append((aside, reason)),
        )
        spools.append(spool)
        return spool

    yield open_spool
    for spool in spools:
        spool.close()


def report(body: bytes = b"body", code: str = "POLICY_ADDED", *, vital: bool = False) -> NewReport:
    return NewReport(code, 1_000, body, vital)


def sequences(spool: Spool, after: int = 0) -> list[int]:
    return [each.sequence for each in spool.read_batch(after, MANY, LARGE).reports]


def test_reports_are_numbered_from_one_without_gaps(opened: Opener) -> None:
    spool = opened()
    spool.append([report(b"a"), report(b"b")])
    spool.append([report(b"c")])
    batch = spool.read_batch(0, MANY, LARGE)
    assert [(each.sequence, each.body) for each in batch.reports] == [
        (1, b"a"),
        (2, b"b"),
        (3, b"c"),
    ]
    assert batch.stream == spool.stream
    assert len(spool.stream) == 16


def test_what_was_appended_is_there_after_a_restart(opened: Opener) -> None:
    spool = opened()
    spool.append([report(b"a"), report(b"b")])
    stream = spool.stream
    spool.close()
    again = opened()
    assert again.stream == stream
    assert (again.waiting, again.last_sequence) == (2, 2)
    assert sequences(again) == [1, 2]


def test_an_acknowledgement_is_cumulative_and_deletes(opened: Opener) -> None:
    spool = opened()
    spool.append([report() for _ in range(5)])
    assert spool.acknowledge(spool.stream, 3) == 3
    assert sequences(spool) == [4, 5]
    assert spool.acknowledge(spool.stream, 3) == 0
    assert spool.acknowledge(spool.stream, 5) == 2
    assert (spool.waiting, spool.bytes_used) == (0, 0)


def test_numbers_go_on_after_everything_was_acknowledged_and_after_a_restart(
    opened: Opener,
) -> None:
    spool = opened()
    spool.append([report(), report()])
    spool.acknowledge(spool.stream, 2)
    spool.close()
    again = opened()
    again.append([report()])
    assert sequences(again) == [3]


def test_an_acknowledgement_of_another_stream_deletes_nothing(opened: Opener) -> None:
    spool = opened()
    spool.append([report()])
    assert spool.acknowledge(bytes(16), 1) == 0
    assert spool.waiting == 1


def test_a_file_older_than_what_the_server_has_begins_a_new_stream(opened: Opener) -> None:
    """A restored snapshot would give numbers that the server has seen; it would drop them."""
    spool = opened()
    spool.append([report(b"gone"), report(b"a"), report(b"b")])
    spool.acknowledge(spool.stream, 1)
    before = spool.stream
    assert spool.acknowledge(before, 4) == 0
    assert spool.stream != before
    batch = spool.read_batch(0, MANY, LARGE)
    assert [(each.sequence, each.body) for each in batch.reports] == [(1, b"a"), (2, b"b")]
    spool.append([report(b"c")])
    assert sequences(spool) == [1, 2, 3]
    assert spool.acknowledge(before, 3) == 0
    stream = spool.stream
    spool.close()
    assert (again := opened()).stream == stream
    assert sequences(again) == [1, 2, 3]


def test_a_batch_is_bounded_by_count_and_by_bytes_but_never_empty(opened: Opener) -> None:
    spool = opened()
    spool.append([report(b"x" * 100) for _ in range(10)])
    each = 100 + REPORT_OVERHEAD_BYTES
    for bytes_max, expected in ((3 * each - 1, 2), (3 * each, 3), (3 * each + 1, 3), (1, 1)):
        assert len(spool.read_batch(0, MANY, bytes_max).reports) == expected
    for count_max in (1, 2, 10):
        assert len(spool.read_batch(0, count_max, LARGE).reports) == count_max
    assert sequences(spool, after=7) == [8, 9, 10]
    assert sequences(spool, after=10) == []


def test_the_size_limit_holds_at_the_last_byte(opened: Opener) -> None:
    size = 100 + REPORT_OVERHEAD_BYTES
    spool = opened(size_max_bytes=2 * size)
    spool.append([report(b"x" * 100)])
    with pytest.raises(SpoolFullError):
        spool.append([report(b"x" * 101)])
    spool.append([report(b"x" * 100)])
    with pytest.raises(SpoolFullError) as caught:
        spool.append([report(b"")])
    assert (caught.value.bytes_used, caught.value.size_max_bytes) == (2 * size, 2 * size)
    assert sequences(spool) == [1, 2]
    spool.acknowledge(spool.stream, 1)
    spool.append([report(b"x" * 100)])


def test_a_batch_that_does_not_fit_is_not_written_in_part(opened: Opener) -> None:
    spool = opened(size_max_bytes=300)
    with pytest.raises(SpoolFullError):
        spool.append([report(b"x" * 100) for _ in range(3)])
    assert spool.waiting == 0
    spool.append([report(b"x" * 100)])
    assert sequences(spool) == [1]


def test_starts_and_stops_have_reserved_room(opened: Opener) -> None:
    spool = opened(size_max_bytes=0)
    with pytest.raises(SpoolFullError):
        spool.append([report()])
    with pytest.raises(SpoolFullError):
        spool.append([report(), report(vital=True)])
    spool.append([report(b"x" * (VITAL_RESERVE_BYTES - REPORT_OVERHEAD_BYTES), vital=True)])
    with pytest.raises(SpoolFullError):
        spool.append([report(b"", vital=True)])


def test_a_larger_limit_counts_at_once(opened: Opener) -> None:
    spool = opened(size_max_bytes=0)
    spool.set_size_max(1_000)
    spool.append([report()])


def test_the_last_code_tells_of_a_clean_end(opened: Opener) -> None:
    spool = opened()
    assert spool.last_words().code is None
    assert spool.oldest_us() is None
    spool.append([NewReport("START", 5, b"x"), NewReport("EXIT", 9, b"x")])
    assert spool.last_words().code == "EXIT"
    assert spool.oldest_us() == 5


def test_only_the_owner_can_read_it(opened: Opener, tmp_path: Path) -> None:
    loose = tmp_path / "loose.sqlite"
    loose.touch(0o644)
    os.chmod(loose, 0o644)
    for spool in (opened(), opened(path=loose)):
        spool.append([report()])
        for path in spool.path.parent.glob(spool.path.name + "*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_link_in_its_place_is_not_followed(opened: Opener, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    link = tmp_path / "link.sqlite"
    link.symlink_to(target)
    with pytest.raises(StorageError):
        opened(path=link)
    assert target.read_text() == "precious"


def test_something_else_in_its_place_is_an_error(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo", "no/such/directory"):
        with pytest.raises(StorageError):
            opened(path=tmp_path / name)


def test_a_pipe_in_its_place_is_not_waited_for(opened: Opener, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="is not a regular file"):
        opened(path=tmp_path / "fifo")


def sqlite_error(code: int | None) -> sqlite3.Error:
    """Return what the library raises; without a code it is the module's own."""
    error = sqlite3.OperationalError("it says why")
    if code is not None:
        error.sqlite_errorcode = code
    return error


def refusing(error: Exception) -> Callable[..., Any]:
    """Return a step that fails."""

    def refuse(*_given: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize(
    ("code", "may_pass"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CANTOPEN, True),
        (sqlite3.SQLITE_READONLY, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_PERM, False),
        (None, False),
    ],
)
def test_a_file_that_cannot_be_used_now_is_another_error_than_one_that_no_time_mends(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, code: int | None, may_pass: bool
) -> None:
    spool = opened()
    spool.append([report()])
    with monkeypatch.context() as refused:
        refused.setattr(spool, "_insert", refusing(sqlite_error(code)))
        with pytest.raises(StorageError, match=r"spool\.sqlite: it says why") as told:
            spool.append([report()])
    assert isinstance(told.value, DiskRefusesError) == may_pass
    assert (spool.waiting, spool.last_sequence) == (1, 1)
    spool.append([report()])
    assert sequences(spool) == [1, 2]


@pytest.mark.parametrize(
    ("number", "may_pass"),
    [
        *((number, True) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)),
        (errno.EACCES, False),
    ],
)
@pytest.mark.parametrize("step", ["made", "set aside", "made in its place"])
def test_a_disk_that_refuses_a_file_is_told_from_one_where_no_file_can_be(
    opened: Opener,
    set_aside: list[tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    may_pass: bool,
) -> None:
    spool = opened()
    spool.append([report()])
    refuse = refusing(OSError(number, os.strerror(number)))
    if step == "set aside":
        monkeypatch.setattr(os, "rename", refuse)
    else:
        monkeypatch.setattr(spool_module, "_make_private_file", refuse)
    monkeypatch.setattr(spool, "_insert", refusing(sqlite_error(sqlite3.SQLITE_CORRUPT)))
    refused = opened if step == "made" else partial(spool.append, [report()])
    with pytest.raises(StorageError, match=os.strerror(number)) as told:
        refused()
    assert isinstance(told.value, DiskRefusesError) == may_pass
    # Of the old file it is told although there is no new one.
    assert len(set_aside) == (step == "made in its place")


def test_what_was_in_a_damaged_file_neither_waits_any_more_nor_takes_room(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"b" * 1_000
    spool = opened(size_max_bytes=len(body) + REPORT_OVERHEAD_BYTES)
    spool.append([report(body)])
    with pytest.raises(SpoolFullError):
        spool.append([report(body)])
    with monkeypatch.context() as refused:
        refused.setattr(spool, "_select", refusing(sqlite_error(sqlite3.SQLITE_CORRUPT)))
        refused.setattr(os, "rename", refusing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(DiskRefusesError):
            spool.read_batch(0, MANY, LARGE)
        assert (spool.waiting, spool.bytes_used) == (0, 0)
        # It is not full: it takes nothing at all, and memory is to keep the report.
        with pytest.raises(DiskRefusesError):
            spool.append([report(body)])
    spool.append([report(body)])
    assert (spool.waiting, sequences(spool)) == (1, [1])


def test_a_new_file_that_is_damaged_at_once_is_not_replaced_for_ever(
    opened: Opener,
    tmp_path: Path,
    set_aside: list[tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"this is no database" * 100)
    monkeypatch.setattr(Spool, "_load", refusing(sqlite_error(sqlite3.SQLITE_CORRUPT)))
    with pytest.raises(StorageError, match="a new spool is damaged at once: it says why"):
        opened()
    assert len(set_aside) == 1


@pytest.mark.parametrize(
    ("state", "is_full"),
    [
        (SimpleNamespace(f_bavail=0, f_favail=9, f_files=9), True),
        (SimpleNamespace(f_bavail=9, f_favail=0, f_files=9), True),
        (SimpleNamespace(f_bavail=9, f_favail=0, f_files=0), False),
        (SimpleNamespace(f_bavail=9, f_favail=9, f_files=9), False),
        (None, False),
    ],
)
def test_a_full_disk_is_called_that_whatever_it_is_refused_as(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, state: Any, is_full: bool
) -> None:
    def statvfs(_path: Path) -> Any:
        if state is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return state

    spool = opened()
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(spool, "_insert", refusing(sqlite_error(sqlite3.SQLITE_IOERR)))
    with pytest.raises(DiskRefusesError) as refused:
        spool.append([report()])
    assert ("No space left on device" in str(refused.value)) == is_full
    monkeypatch.setattr(spool, "_insert", refusing(sqlite_error(sqlite3.SQLITE_BUSY)))
    with pytest.raises(StorageError, match="it says why"):
        spool.append([report()])


def test_what_is_asked_of_a_closed_spool_is_an_error_of_storage(opened: Opener) -> None:
    spool = opened()
    spool.close()
    with pytest.raises(StorageError, match="closed database"):
        spool.append([report()])


def test_a_newer_format_is_refused_and_left_alone(opened: Opener, tmp_path: Path) -> None:
    opened().close()
    path = tmp_path / "spool.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=2")
    database.close()
    with pytest.raises(StorageError, match="newer version") as told:
        opened()
    assert path.exists()
    # Whoever keeps the error keeps what raised it, but no file.
    assert told.tb is not None
    fds = Path("/proc/self/fd")
    assert not [each for each in os.listdir(fds) if _target(fds / each).startswith(str(path))]


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


DAMAGES = {
    "garbage": lambda path: path.write_bytes(os.urandom(50_000)),
    "text": lambda path: path.write_bytes(b"this is no database" * 100),
    "header": lambda path: path.write_bytes(b"\0" * 100 + path.read_bytes()[100:]),
    "pages": lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:6000]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_set_aside_and_a_new_stream_begins(
    damage: Callable[[Path], object],
    opened: Opener,
    tmp_path: Path,
    set_aside: list[tuple[Path, str]],
) -> None:
    spool = opened()
    spool.append([report(b"x" * 3000) for _ in range(20)])
    before = spool.stream
    spool.close()
    damage(tmp_path / "spool.sqlite")
    again = opened()
    assert again.stream != before
    assert again.waiting == 0
    again.append([report()])
    assert sequences(again) == [1]
    [(aside, reason)] = set_aside
    assert aside.exists()
    assert "damaged" in aside.name
    assert reason


def test_reports_that_somebody_removed_are_noticed(
    opened: Opener, tmp_path: Path, set_aside: list[tuple[Path, str]]
) -> None:
    for statement in (
        "DELETE FROM reports WHERE sequence = 2",
        "DELETE FROM reports WHERE sequence = 3",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE name = 'stream'",
    ):
        set_aside.clear()
        spool = opened()
        spool.append([report(), report(), report()])
        spool.close()
        with sqlite3.connect(tmp_path / "spool.sqlite") as database:
            database.execute(statement)
        database.close()
        opened().close()
        assert len(set_aside) == 1, statement
        (tmp_path / "spool.sqlite").unlink()


def test_another_database_is_set_aside_whole(
    opened: Opener, tmp_path: Path, set_aside: list[tuple[Path, str]]
) -> None:
    with sqlite3.connect(tmp_path / "spool.sqlite") as database:
        database.execute("CREATE TABLE mine(x)")
    database.close()
    opened()
    assert "not a spool" in set_aside[0][1]


def test_damage_while_it_runs_does_not_stop_the_agent(
    opened: Opener, tmp_path: Path, set_aside: list[tuple[Path, str]]
) -> None:
    spool = opened()
    spool.append([report(b"x" * 3000) for _ in range(50)])
    before = spool.stream
    with sqlite3.connect(tmp_path / "spool.sqlite") as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    path = tmp_path / "spool.sqlite"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data[:4096] + b"\xff" * (len(data) - 4096))
    spool.read_batch(0, MANY, LARGE)
    spool.append([report(b"after")])
    assert len(set_aside) == 1
    assert spool.stream != before
    assert spool.read_batch(0, MANY, LARGE).reports[-1].body == b"after"


def test_the_file_shrinks_again_after_an_outage(opened: Opener, tmp_path: Path) -> None:
    spool = opened()
    spool.append([report(b"x" * 10_000) for _ in range(300)])
    spool.acknowledge(spool.stream, 300)
    spool.append([report()])
    spool.close()
    assert (tmp_path / "spool.sqlite").stat().st_size < 200_000


WRITER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from needfire_client.spool import NewReport, Spool

    spool = Spool(Path(sys.argv[1]), size_max_bytes=10**9, random_bytes=os.urandom,
                  now_us=lambda: 1, on_set_aside=lambda *told: os._exit(3))
    number = spool.last_sequence
    while True:
        spool.append([NewReport("X", 1, str(number + 1 + n).encode()) for n in range(7)])
        number += 7
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        if number % 5 == 0:
            spool.acknowledge(spool.stream, number - 20)
    """
)


def test_kill_9_at_any_moment_loses_nothing_that_append_returned_for(
    opened: Opener, tmp_path: Path, set_aside: list[tuple[Path, str]]
) -> None:
    path = tmp_path / "spool.sqlite"
    stream = None
    for lines in (1, 2, 7, 23, 60):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            promised = 0
            for _ in range(lines):
                promised = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split("\n")
            promised = max([promised, *(int(line) for line in rest[:-1])])
            assert writer.wait() == -signal.SIGKILL
        spool = opened()
        assert spool.last_sequence >= promised
        assert spool.last_sequence % 7 == 0, "a transaction is whole or not there"
        after = 0
        while batch := spool.read_batch(after, MANY, LARGE).reports:
            for each in batch:
                assert each.body == str(each.sequence).encode()
                assert after in (0, each.sequence - 1)
                after = each.sequence
        assert after == spool.last_sequence
        assert stream in (None, spool.stream)
        stream = spool.stream
        spool.close()
    assert set_aside == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 5)),
            st.tuples(st.just("acknowledge"), st.integers(0, 30)),
            st.tuples(st.just("reopen"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_the_spool_behaves_as_a_list_with_a_base(
    opened: Opener, tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path / f"{os.urandom(8).hex()}.sqlite"
    spool = opened(path=path)
    last, waiting = 0, list[int]()
    for step, number in steps:
        if step == "append":
            spool.append([report(b"%d" % (last + n + 1)) for n in range(number)])
            waiting += range(last + 1, last + number + 1)
            last += number
        elif step == "acknowledge":
            number = min(number, last)
            removed = spool.acknowledge(spool.stream, number)
            assert removed == len([each for each in waiting if each <= number])
            waiting = [each for each in waiting if each > number]
        else:
            spool.close()
            spool = opened(path=path)
        assert (spool.last_sequence, spool.waiting) == (last, len(waiting))
        size = sum(len(str(each)) + REPORT_OVERHEAD_BYTES for each in waiting)
        assert spool.bytes_used == size
    batch = spool.read_batch(0, MANY, LARGE)
    assert [(each.sequence, int(each.body)) for each in batch.reports] == [(n, n) for n in waiting]


def test_last_words_are_read_beside_their_owner_and_no_file_is_too_odd(
    opened: Opener, tmp_path: Path
) -> None:
    spool = opened()
    spool.append([NewReport("EXIT", 9, b"x"), NewReport("CONNECTION_REFUSED", 10, b"x")])
    words = read_last_words(spool.path)
    assert (words.code, words.time_us, words.welcomed_us) == ("EXIT", 9, 0)
    spool.note_welcome()
    assert read_last_words(spool.path) == spool.last_words()
    assert spool.last_words().welcomed_us > 0
    spool.close()
    with sqlite3.connect(spool.path) as database:
        database.execute("UPDATE meta SET value = 'x' WHERE name = 'welcomed_us'")
    database.close()
    assert read_last_words(spool.path) == LastWords(None, 0, 0)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"rubbish" * 1000)
    for odd in (damaged, tmp_path, tmp_path / "missing"):
        assert read_last_words(odd).code is None
    assert not (tmp_path / "missing").exists()
