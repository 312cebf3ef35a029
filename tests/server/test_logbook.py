"""Where events are written: thresholds, formats, files, and what happens when a disk is full."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server import log_files
from needfire_server import logbook as logbook_module
from needfire_server.log_files import ClientFiles, Console, LogFile
from needfire_server.logbook import Logbook

TIME_US = 1_795_290_047_123_456


@dataclass(frozen=True, slots=True)
class _Settings:
    print_severity: SeverityFilter = SeverityFilter(Severity)  # noqa: RUF009
    log_severity: SeverityFilter = SeverityFilter.at_least(Severity.MARK)  # noqa: RUF009
    log_format: str = "classic"
    log_file: bytes | None = None
    use_separate_logs: bool = False
    strip_domain: bool = True


def _event(code: str, severity: Severity | None = None, **fields: FieldValue) -> Event:
    return make_event(code, time_us=TIME_US, random_10_bytes=bytes(10), severity=severity, **fields)


def _report(client: str = "web1.example.org", severity: Severity = Severity.DEBUG) -> Event:
    return _event("POLICY_MISSING", severity, path="/etc/x").received(client, TIME_US)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Book:
    """A logbook whose console is a pipe."""

    def __init__(self, directory: Path, settings: _Settings) -> None:
        self.directory = directory
        self.path = directory / "log"
        self.clock = _Clock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.logbook = Logbook(
            settings,
            str(self.path),
            console=Console(self._write),
            default_path=str(self.path),
            clock=self.clock,
            clock_us=lambda: TIME_US,
        )

    def console(self) -> str:
        try:
            return os.read(self._read, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def log(self, name: str = "log") -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        self.logbook.close()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[_Book]:
    book = _Book(tmp_path, _Settings())
    yield book
    book.close()


# ---- thresholds and formats ---------------------------------------------------------------


def test_the_servers_own_events_pass_both_thresholds(book: _Book) -> None:
    book.logbook.write(_event("NEW_CLIENT", client="web1", peer="192.0.2.1"))
    book.logbook.write(_event("SERVER_UP", address="0.0.0.0:49777"))

    assert book.console().count("\n") == 2
    assert re.fullmatch(r'<log sev="MARK" .* />\n', book.log())


def test_reports_of_clients_are_written_whatever_their_severity(book: _Book) -> None:
    book.logbook.configure(
        _Settings(print_severity=SeverityFilter(()), log_severity=SeverityFilter(()))
    )

    book.logbook.write_reports([_report()])

    assert '<log sev="RCVT"' in book.console()
    assert '<log sev="RCVT"' in book.log()


def test_the_domain_is_left_out_of_a_classic_line(book: _Book) -> None:
    book.logbook.write_reports([_report("web1.example.org")])

    assert 'remote_host="web1"' in book.log()


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1"])
def test_an_address_has_no_domain_to_leave_out(book: _Book, client: str) -> None:
    book.logbook.write_reports([_report(client)])

    assert f'remote_host="{client}"' in book.log()


def test_the_domains_of_a_relay_and_of_who_is_behind_it_are_left_out(book: _Book) -> None:
    book.logbook.write_reports([_report("hall.example.org/192.0.2.1")])
    book.logbook.write_reports([_report("hall.example.org/web1.example.org")])

    assert 'remote_host="hall/192.0.2.1"' in book.log()
    assert 'remote_host="hall/web1"' in book.log()


def test_the_domain_is_kept_if_that_is_wanted(book: _Book) -> None:
    book.logbook.configure(_Settings(strip_domain=False))
    book.logbook.write_reports([_report("web1.example.org")])

    assert 'remote_host="web1.example.org"' in book.log()


def test_json_lines_hold_the_whole_name(book: _Book) -> None:
    book.logbook.configure(_Settings(log_format="json"))
    book.logbook.write_reports([_report("web1.example.org")])

    assert json.loads(book.log())["client"] == "web1.example.org"


def test_the_text_form(book: _Book) -> None:
    book.logbook.configure(_Settings(log_format="text"))
    book.logbook.write(_event("SERVER_UP", address="0.0.0.0:1"))

    assert book.log().startswith("MARK   :  [")


def test_settings_take_effect_at_once(book: _Book) -> None:
    book.logbook.configure(_Settings(log_severity=SeverityFilter.at_least(Severity.ALERT)))
    book.logbook.write(_event("SERVER_UP", address="x"))

    assert book.log() == ""


# ---- one file for each client ----------------------------------------------------------------


def test_each_client_has_its_own_file(book: _Book) -> None:
    book.logbook.configure(_Settings(use_separate_logs=True))
    book.logbook.write_reports([_report("web1.example.org")])
    book.logbook.write_reports([_report("web2.example.org")])
    book.logbook.write(_event("SERVER_UP", address="x"))

    assert book.log("log.web1.example.org").count("\n") == 1
    assert book.log("log.web2.example.org").count("\n") == 1
    assert "Server up" in book.log()
    assert "RCVT" not in book.log()


@pytest.mark.parametrize("client", ["../../etc/x", ".hidden", "/b", "", "x" * 255])
def test_a_name_that_can_be_no_file_goes_to_the_main_log(book: _Book, client: str) -> None:
    book.logbook.configure(_Settings(use_separate_logs=True))
    book.logbook.write_reports([_report(client)])

    assert "RCVT" in book.log()
    assert os.listdir(book.directory) == ["log"]


def test_what_comes_through_a_relay_stands_in_the_file_of_the_relay(book: _Book) -> None:
    book.logbook.configure(_Settings(use_separate_logs=True))
    book.logbook.write_reports([_report("hall/web1")])

    assert "RCVT" in book.log("log.hall")
    assert os.listdir(book.directory) == ["log.hall"]


def test_the_number_of_open_files_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "CLIENT_FILES_OPEN_MAX", 3)
    files = ClientFiles(str(tmp_path / "log"))
    before = len(os.listdir("/proc/self/fd"))

    for round_ in range(2):
        for number in range(10):
            file = files.file_of(f"web{number}")
            assert file is not None
            assert file.write(f"line {round_}")

    assert len(os.listdir("/proc/self/fd")) - before == 3
    assert (tmp_path / "log.web0").read_text() == "line 0\nline 1\n"
    files.close()


# ---- the file itself -------------------------------------------------------------------------


def test_a_new_log_file_belongs_to_owner_and_group(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        LogFile(str(tmp_path / "log")).open()
    finally:
        os.umask(umask)

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_the_mode_of_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log").touch(mode=0o600)
    LogFile(str(tmp_path / "log")).open()

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "target")

    for target_exists in (False, True):
        if target_exists:
            (tmp_path / "target").touch()
        with pytest.raises(StorageError, match=r"the log file .* cannot be opened"):
            LogFile(str(tmp_path / "log")).open()


def test_a_fifo_in_its_place_does_not_stop_the_server(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)

    with pytest.raises(StorageError, match="not a regular file"):
        LogFile(str(tmp_path / "log")).open()
    os.close(reader)


def test_a_server_whose_log_cannot_be_opened_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Logbook.from_settings(_Settings(), str(tmp_path / "missing"), is_foreground=False)


def test_the_log_lies_where_the_settings_say(tmp_path: Path) -> None:
    settings = _Settings(log_file=os.fsencode(tmp_path / "elsewhere"))
    logbook = Logbook.from_settings(settings, str(tmp_path), is_foreground=False)
    logbook.write(_event("SERVER_UP", address="x"))
    logbook.close()

    assert os.listdir(tmp_path) == ["elsewhere"]


def test_a_rotated_file_is_let_go(book: _Book) -> None:
    book.logbook.write(_event("SERVER_UP", address="first"))
    book.path.rename(book.directory / "log.1")
    book.logbook.write(_event("SERVER_UP", address="second"))
    book.logbook.reopen()
    book.logbook.write(_event("SERVER_UP", address="third"))

    assert book.log("log.1").count("\n") == 2
    assert "third" in book.log()


def test_a_hostile_name_cannot_make_a_second_line(book: _Book) -> None:
    event = _event("POLICY_ADDED", path='/tmp/\n<log sev="ALRT" msg="EXIT" />')
    book.logbook.write_reports([event.received("web1", TIME_US)])

    assert book.log().count("\n") == 1
    assert '<log sev="ALRT"' not in book.log()


# ---- a disk that is full -----------------------------------------------------------------------


class _Disk:
    """Stands in for write(2): takes so many bytes and then says that the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._path = path
        self._real = os.write
        self.room: int | None = None
        monkeypatch.setattr(os, "write", self._write)

    def _write(self, handle: int, data: bytes) -> int:
        if self.room is None or os.readlink(f"/proc/self/fd/{handle}") != str(self._path):
            return self._real(handle, data)
        if self.room == 0:
            raise OSError(28, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        return self._real(handle, taken)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, book: _Book) -> _Disk:
    return _Disk(monkeypatch, book.path)


def test_a_full_disk_costs_lines_and_they_are_counted(book: _Book, disk: _Disk) -> None:
    book.logbook.write(_event("SERVER_UP", address="before"))
    disk.room = 0
    for number in range(5):
        book.logbook.write(_event("SERVER_UP", address=f"lost{number}"))
    told = book.console()
    disk.room = None
    book.logbook.write(_event("SERVER_UP", address="after"))

    assert told.count("Log file not writable: No space left on device") == 1
    lines = book.log().splitlines()
    assert len(lines) == 3
    assert "Log file writable again, 5 lines were lost" in lines[1]
    assert "after" in lines[2]
    assert book.console().count("Log file writable again") == 1


def test_that_it_cannot_be_written_is_for_the_store_as_well(book: _Book, disk: _Disk) -> None:
    """It is an alarm that holds. Of a disk that fails and recovers all the time a few are stored."""
    stored: list[Event] = []
    book.logbook.to_store = stored.append
    for _ in range(50):
        for room in (0, None):
            disk.room = room
            book.logbook.write(_event("SERVER_UP", address="x"))

    assert [event.code for event in stored] == ["LOG_FAILED", "LOG_RECOVERED"] * 10
    assert book.console().count("Log file not writable") == 50


@pytest.mark.parametrize("room", [1, 20, 60])
def test_half_a_line_does_not_spoil_the_next_one(book: _Book, disk: _Disk, room: int) -> None:
    book.logbook.write(_event("SERVER_UP", address="before"))
    disk.room = room
    book.logbook.write(_event("SERVER_UP", address="torn"))
    disk.room = None
    book.logbook.write(_event("SERVER_UP", address="after"))

    lines = book.log().splitlines()
    assert len(lines) == 4
    assert "1 lines were lost" in lines[2]
    assert lines[3].startswith("<log ")
    assert lines[3].endswith("/>")


def test_a_directory_that_is_gone_does_not_stop_the_server(book: _Book) -> None:
    book.logbook.configure(_Settings(log_file=os.fsencode(book.directory / "gone" / "log")))
    book.logbook.write(_event("SERVER_UP", address="lost"))
    (book.directory / "gone").mkdir()
    book.logbook.write(_event("SERVER_UP", address="after"))

    assert "1 lines were lost" in book.log("gone/log")


# ---- the console ---------------------------------------------------------------------------


def test_a_reader_that_sleeps_does_not_stop_the_server(book: _Book) -> None:
    line = "x" * 1000
    console = Console(book._write)
    for _ in range(200):
        console.write(line)
    while book.console():
        pass

    console.write("awake again")

    assert book.console().splitlines()[-1] == "awake again"


def test_a_reader_that_is_gone_does_not_stop_the_server() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    Console(writer).write("nobody hears this")
    os.close(writer)
    Console(writer).write("nor this")


def test_without_a_console_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logbook = Logbook.from_settings(_Settings(), str(tmp_path), is_foreground=False)
    logbook.write(_event("SERVER_UP", address="x"))
    logbook.close()

    assert capfd.readouterr() == ("", "")


def test_in_the_foreground_standard_error_is_the_console(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", os.fdopen(2, "w", closefd=False, encoding="utf-8"))
    logbook = Logbook.from_settings(_Settings(), str(tmp_path), is_foreground=True)
    logbook.write(_event("SERVER_UP", address="x"))
    logbook.close()

    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)


# ---- strangers -------------------------------------------------------------------------------


def _attempt(peer: str) -> Event:
    return _event("NOT_IN_CLIENT_LIST", client="ghost", peer=peer)


def test_one_address_cannot_fill_the_log(book: _Book) -> None:
    written = [book.logbook.write(_attempt(f"192.0.2.1:{port}")) for port in range(500)]

    assert sum(written) == logbook_module.STRANGER_BURST
    assert book.log().count("\n") == logbook_module.STRANGER_BURST
    assert book.logbook.write(_attempt("192.0.2.2")), "others are not affected"


def test_what_takes_a_password_to_cause_is_never_left_out(book: _Book) -> None:
    for port in range(logbook_module.STRANGER_BURST + 1):
        told = _event("RESTART_WITHOUT_EXIT", client="web1", peer=f"192.0.2.1:{port}")
        assert book.logbook.write(told)


def test_what_was_left_out_is_said(book: _Book) -> None:
    for _ in range(logbook_module.STRANGER_BURST + 7):
        book.logbook.write(_attempt("[2001:db8::1]:5000"))
    book.clock.now += logbook_module.SUPPRESSED_INTERVAL_S
    book.console()
    book.logbook.write(_event("SERVER_UP", address="x"))

    assert "7 messages suppressed" in book.console()
    assert 'peer="20010db800000000/64"' not in book.log()


def test_what_was_left_out_is_said_at_the_end_at_the_latest(book: _Book) -> None:
    for _ in range(logbook_module.STRANGER_BURST + 1):
        book.logbook.write(_attempt("192.0.2.1"))
    book.logbook.close()

    assert "1 messages suppressed" in book.console()


def test_reports_and_events_without_a_peer_are_never_left_out(book: _Book) -> None:
    for _ in range(logbook_module.STRANGER_BURST + 50):
        assert book.logbook.write(_event("CLIENT_REGISTERED", client="web1", user="root"))
        book.logbook.write_reports([replace(_report(), fields={"peer": "192.0.2.1"})])

    assert book.log().count("RCVT") == logbook_module.STRANGER_BURST + 50
