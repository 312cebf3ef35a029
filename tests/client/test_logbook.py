"""Lines on the console and in the log file."""

import io
import json
import os
import threading
from pathlib import Path

import pytest

from needfire_client.logbook import FORMATS, ConsoleSink, FileSink, Logbook
from needfire_client.reporter import VITAL_CODES, Reporter
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.event import Event, make_event
from needfire_protocol.severity import Severity, SeverityFilter

EVERYTHING = SeverityFilter(Severity)


def event(code: str = "SESSION_KEY_NEGOTIATION_FAILED", **fields: str) -> Event:
    return make_event(code, time_us=1_000_000, random_10_bytes=bytes(10), **fields)


def test_every_form_has_the_words_and_is_one_line() -> None:
    hostile = event("WEIRD_FILENAME", path="a\nb\x1b[31m\u202e")
    for name, form in FORMATS.items():
        line = form(hostile)
        assert "Weird filename" in line, name
        assert line.isprintable(), name
    assert json.loads(FORMATS["json"](hostile))["code"] == "WEIRD_FILENAME"


def test_the_console_writes_what_is_selected_and_everything_when_it_is_verbose() -> None:
    stream = io.StringIO()
    sink = ConsoleSink(FORMATS["classic"], SeverityFilter.at_least(Severity.ERR), others=stream)
    sink.write(event("SESSION_RESUMED", server="s"))
    assert stream.getvalue() == ""
    sink.write(event())
    assert stream.getvalue().count("\n") == 1
    assert sink.toggle_verbosity()
    sink.write(event("SESSION_RESUMED", server="s"))
    assert "Session resumed" in stream.getvalue()
    assert not sink.toggle_verbosity()
    sink.write(event("SESSION_RESUMED", server="s"))
    assert stream.getvalue().count("\n") == 2


def test_findings_go_where_the_results_go() -> None:
    others, findings = io.StringIO(), io.StringIO()
    sink = ConsoleSink(FORMATS["classic"], EVERYTHING, others=others, findings=findings)
    sink.write(event("POLICY_ADDED", path="/x"))
    sink.write(event())
    assert "POLICY ADDED" in findings.getvalue()
    assert "POLICY ADDED" not in others.getvalue()
    assert "negotiation failed" in others.getvalue()


def test_a_closed_or_broken_console_stops_nothing() -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        ConsoleSink(FORMATS["text"], EVERYTHING, others=stream).write(event())


def test_the_file_is_private_appended_to_and_follows_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = FileSink(path, FORMATS["classic"], EVERYTHING, on_trouble=pytest.fail)
    sink.write(event())
    sink.write(event())
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(tmp_path / "log.1")
    sink.write(event())
    assert len(path.read_text().splitlines()) == 1
    assert len((tmp_path / "log.1").read_text().splitlines()) == 2


def test_a_file_that_cannot_be_written_is_told_once_and_tried_again(tmp_path: Path) -> None:
    told: list[str] = []
    directory = tmp_path / "later"
    sink = FileSink(directory / "log", FORMATS["text"], EVERYTHING, on_trouble=told.append)
    sink.write(event())
    sink.write(event())
    assert len(told) == 1
    directory.mkdir()
    sink.write(event())
    assert (directory / "log").exists()
    (directory / "log").unlink()
    directory.rmdir()
    sink.write(event())
    assert len(told) == 2


def test_a_log_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "log").symlink_to(tmp_path / "shadow")
    FileSink(tmp_path / "log", FORMATS["text"], EVERYTHING, on_trouble=told.append).write(event())
    assert told
    assert not (tmp_path / "shadow").exists()


class Outbox:
    """Remembers what is for the server."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def put(self, event: Event, *, is_vital: bool, may_wait: bool) -> None:
        assert is_vital == (event.code in VITAL_CODES)
        assert not may_wait
        self.codes.append(event.code)


def exported(severities: SeverityFilter) -> set[str]:
    """Every code that goes to the server under an ExportSeverity."""
    outbox = Outbox()
    reporter = Reporter(Logbook(), clock_us=lambda: 1, random_bytes=os.urandom)
    reporter.export_to(outbox)
    reporter.select_export(severities)
    for code, entry in CATALOGUE.items():
        reporter.report(code, **dict.fromkeys(entry.msg_fields(), "x"))
    return set(outbox.codes)


def test_starts_and_stops_go_to_the_server_whatever_the_filter_says() -> None:
    assert exported(SeverityFilter([])) == VITAL_CODES & CATALOGUE.keys() == VITAL_CODES


def test_what_concerns_the_connection_stays_here() -> None:
    codes = exported(EVERYTHING)
    assert "CONNECTION_REFUSED" not in codes
    assert "SESSION_KEY_NEGOTIATION_FAILED" not in codes
    assert {"POLICY_MODIFIED", "CONFIGURATION_NOTICE", "RULE_MATCHES_NOTHING"} <= codes


def test_the_filter_selects_by_severity() -> None:
    codes = exported(SeverityFilter.at_least(Severity.CRIT))
    assert "POLICY_MODIFIED" in codes
    assert "RULE_MATCHES_NOTHING" not in codes


def test_without_a_server_nothing_is_spooled_and_everything_is_logged() -> None:
    stream = io.StringIO()
    logbook = Logbook(ConsoleSink(FORMATS["text"], EVERYTHING, others=stream))
    reporter = Reporter(logbook, clock_us=lambda: 1, random_bytes=os.urandom)
    reporter.report("START", program="x")
    reporter.report_here("EXIT", program="x", status="y")
    assert len(stream.getvalue().splitlines()) == 2


def test_events_can_be_made_from_many_threads_and_ids_differ() -> None:
    stream = io.StringIO()
    logbook = Logbook(ConsoleSink(FORMATS["json"], EVERYTHING, others=stream))
    reporter = Reporter(logbook, clock_us=lambda: 1, random_bytes=os.urandom)

    def report() -> None:
        for _ in range(50):
            reporter.report("TIMESTAMP")

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [json.loads(line)["id"] for line in stream.getvalue().splitlines()]
    assert len(set(ids)) == 200
