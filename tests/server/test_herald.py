"""Everybody is told that acts and events cannot be put on record, without the store's help."""

import asyncio
import json
import os
import shutil
import sqlite3
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.admin.requests import Page
from needfire_server.admin.warnings import with_warnings
from needfire_server.audit import watch
from needfire_server.audit.watch import watch_audit_log
from needfire_server.herald import Herald
from needfire_server.outputs.engine import SentNow
from needfire_server.outputs.selection import Selection
from needfire_server.outputs.settings import MailSettings, OutputSettings, TargetKind
from needfire_server.terminals import logged_in_lines, tell_terminals
from needfire_server.trouble import Trouble, Troubles, Warned
from needfire_testkit.live_server import LiveServer, live_server
from needfire_testkit.output_doubles import settings_of
from needfire_testkit.server import until
from needfire_testkit.server_store import event
from needfire_testkit.sinks import Sink

ALERTS = Selection(SeverityFilter.at_least(Severity.ALERT))
BROKEN = (
    "CREATE TRIGGER broken BEFORE INSERT ON audit_records "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is on strike'); END"
)


def doctor(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "needfire.sqlite", isolation_level=None)) as store:
        store.execute(statement)


@dataclass
class Scene:
    """A server with its journal, outputs and herald at work."""

    live: LiveServer
    directory: Path
    walls: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def wall(self, text: str) -> int:
        self.walls.append(text)
        return 1

    def after(self, seconds: float) -> bool:
        """Let the herald's clock go on."""
        self.now_s += seconds
        return True

    @property
    def warning(self) -> str:
        warned = self.live.runtime.journal.warning
        return "" if warned is None else warned.text


@asynccontextmanager
async def scene(directory: Path, *outputs: OutputSettings, **settings: Any) -> AsyncIterator[Scene]:
    async with live_server(directory / "data", **settings) as live:
        runtime = live.runtime
        told = Scene(live, directory / "data")
        herald = Herald(
            runtime.journal.troubles,
            runtime.outputs,
            lambda: runtime.settings,
            tell=told.wall,
            clock_s=lambda: told.now_s,
        )
        await runtime.outputs.begin(outputs)
        work = [
            asyncio.create_task(herald.run()),
            asyncio.create_task(runtime.journal.store_waiting(runtime.store)),
            asyncio.create_task(runtime.outputs.run()),
            asyncio.create_task(watch_audit_log(runtime)),
        ]
        try:
            yield told
        finally:
            await runtime.outputs.stop()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)


def file_output(path: Path, **changes: Any) -> OutputSettings:
    given = {"name": path.name, "where": str(path), "selection": ALERTS} | changes
    return settings_of(kind=TargetKind.FILE, **given)


def codes_in(path: Path) -> list[str]:
    return (
        [json.loads(line)["code"] for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


async def test_outputs_that_take_alerts_are_told_of_an_audit_log_that_cannot_be_written(
    tmp_path: Path,
) -> None:
    """Mail, web hook and file, while the store that outputs read cannot be written at all."""
    hook, mail = Sink("http", tmp_path / "hook"), Sink("smtp", tmp_path / "mail")
    await asyncio.gather(hook.start(), mail.start())
    outputs = (
        settings_of(
            name="hook",
            kind=TargetKind.WEBHOOK,
            where=f"http://127.0.0.1:{hook.port}/",
            key=b"a key of the webhook, 24+ bytes",
            selection=ALERTS,
        ),
        settings_of(
            name="mail",
            kind=TargetKind.SMTP,
            where=f"127.0.0.1:{mail.port}",
            address=("127.0.0.1", mail.port),
            mail=MailSettings(sender="a@example.org", recipients=("b@example.org",)),
            selection=ALERTS,
        ),
        file_output(tmp_path / "alerts"),
        file_output(tmp_path / "nobody", selection=Selection(SeverityFilter.parse("none"))),
    )
    try:
        async with scene(tmp_path, *outputs) as told:
            doctor(told.directory, BROKEN)
            with pytest.raises(StorageError, match="on strike") as failed:
                await told.live.runtime.audit.append(Draft("ADMIN_REQUEST", subject="root"))
            told.live.runtime.journal.store_failed(failed.value)
            wanted = {"AUDIT_LOG_FAILED", "STORE_FAILED"}
            await until(lambda: wanted <= set(codes_in(tmp_path / "alerts")), "the file")
            await until(lambda: len(hook.lines()) == 2, "the web hook")
            await until(lambda: len(mail.lines()) == 2, "the mails")
            mails = [
                message_from_string(json.loads(line)["content"], policy=policy.default)
                for line in mail.lines()
            ]
            subjects = {each["Subject"].partition(":")[0] for each in mails}
            assert subjects == {"[needfire] alert server"}
            # Both are said: what is broken, and what that means.
            assert "the audit log cannot be written: " in told.warning
            assert "events cannot be recorded: " in told.warning
            assert told.walls[-1] == told.warning
            assert not (tmp_path / "nobody").exists()
            assert "STORE_FAILED" not in [each.code for each in await told.live.stored()]
            doctor(told.directory, "DROP TRIGGER broken")
            await told.live.until_said("AUDIT_LOG_RECOVERED")
            await told.live.until_said("STORE_RECOVERED")
            assert told.warning == ""
    finally:
        hook.kill()
        mail.kill()


async def test_it_is_said_again_and_marked_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    alerts = tmp_path / "alerts"
    async with scene(tmp_path, file_output(alerts), warn_interval_s=60) as told:
        doctor(told.directory, BROKEN)
        told.live.runtime.journal.raise_event("SERVER_UP", address="a", backend="b")
        await until(lambda: len(codes_in(alerts)) == 2, "the first time")
        await until(lambda: told.walls, "the terminals")
        before = len(told.walls)
        await until(lambda: told.after(61) and len(codes_in(alerts)) >= 4, "the second time")
        await until(lambda: len(told.walls) > before, "the terminals again")
    lines = [json.loads(line) for line in alerts.read_text().splitlines()]
    marks = [line["fields"].get("resent", False) for line in lines]
    assert marks[:4] == [False, False, True, True]
    assert len({line["id"] for line in lines}) == 2


async def test_a_channel_that_is_away_is_tried_until_it_takes_it(tmp_path: Path) -> None:
    alerts = tmp_path / "later" / "alerts"
    async with scene(tmp_path, file_output(alerts)) as told:
        doctor(told.directory, BROKEN)
        told.live.runtime.journal.raise_event("SERVER_UP", address="a", backend="b")
        await told.live.until_said("STORE_FAILED")
        await until(lambda: told.walls, "the terminals")
        alerts.parent.mkdir()
        await until(lambda: told.after(11) and len(codes_in(alerts)) >= 2, "both")


async def test_a_key_that_cannot_be_read_is_told_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store works: so outputs get it from there, and again directly while it lasts."""
    monkeypatch.setattr(watch, "_AGAIN_S", 0.02)
    alerts = tmp_path / "alerts"
    async with scene(tmp_path, file_output(alerts), audit_checkpoint_interval_s=1) as told:
        await until(lambda: told.live.runtime.audit.shown is not None, "a checkpoint")
        audit = told.live.runtime.audit
        keys = told.directory / "audit"
        (key,) = keys.glob("*.key")
        shutil.move(key, tmp_path / "away")
        audit._load_key()  # What a start would find.
        await told.live.until_said("AUDIT_KEY_MISSING")
        assert "the audit log is not signed: " in told.warning
        assert "cannot be recorded" not in told.warning
        told.live.runtime.outputs.notify()
        await until(lambda: codes_in(alerts) == ["AUDIT_KEY_MISSING"], "the output")
        await until(lambda: told.after(901) and len(codes_in(alerts)) >= 2, "the second time")
        assert set(codes_in(alerts)) == {"AUDIT_KEY_MISSING"}
        shutil.move(tmp_path / "away", key)
        await told.live.until_said("AUDIT_LOG_SIGNED")
        assert told.warning == ""


async def test_a_checkpoint_that_cannot_be_kept_is_told_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_AGAIN_S", 0.02)
    async with scene(tmp_path, audit_checkpoint_interval_s=1) as told:
        kept = told.directory / "audit" / "checkpoint"
        await until(kept.exists, "a checkpoint")
        kept.unlink()
        kept.mkdir()
        told.live.runtime.journal.raise_event("SERVER_UP", address="a", backend="b")
        failed = await told.live.until_said("AUDIT_KEY_MISSING")
        assert "checkpoint" in str(failed.fields["reason"])
        kept.rmdir()
        await told.live.until_said("AUDIT_LOG_SIGNED")
        newest = await told.live.runtime.store.audit.last_checkpoint()
        assert newest is not None
        await until(lambda: kept.read_text() == newest.note, "the file")


async def test_who_follows_is_told_each_time_that_trouble_changes() -> None:
    store, log = Trouble.STORE, Trouble.RECORDS
    warnings = [
        Warned(frozenset({store}), "the store"),
        Warned(frozenset({store, log}), "the store; the audit log"),
        None,
    ]

    async def nothing() -> AsyncGenerator[Page, None]:
        await asyncio.Event().wait()
        yield []

    lines = with_warnings(nothing(), lambda: warnings[0])
    told = []
    async for (line,) in lines:
        told.append(line["notice"])
        if len(told) == 3:
            break
        warnings.pop(0)
    await lines.aclose()
    assert told == ["the store", "the store; the audit log", "events are recorded again"]


async def test_who_follows_is_not_told_of_each_reason_of_what_they_were_told_of() -> None:
    troubles = Troubles()
    troubles.begin(Trouble.STORE, "locked")
    looked = 0

    async def pages() -> AsyncGenerator[Page, None]:
        for number in range(10):
            yield [{"number": number}, {"number": -number}]

    def warning() -> Warned | None:
        nonlocal looked
        looked += 1
        troubles.begin(Trouble.STORE, "locked" if looked % 2 else "full")
        return troubles.warning

    lines = [line async for page in with_warnings(pages(), warning) for line in page]
    assert [line["item"]["number"] for line in lines if "item" in line] == [
        sign * number for number in range(10) for sign in (1, -1)
    ]
    assert [line for line in lines if "notice" in line] == [
        {"notice": "events cannot be recorded: locked"}
    ]
    assert looked > 10


@dataclass
class OneChannel:
    """An output that takes everything, and writes down what it was sent."""

    sent: list[tuple[str, bool]] = field(default_factory=list)

    def channels_for(self, _event: Event) -> list[str]:
        return ["siem"]

    async def send_now(self, _name: str, event: Event) -> SentNow:
        self.sent.append((event.code, event.fields.get("resent") is True))
        return SentNow("", is_certain=True, duration_ms=1)


@dataclass(frozen=True)
class Hourly:
    warn_interval_s: int = 3_600
    warn_terminals: bool = False


async def test_what_an_output_was_to_find_in_the_store_is_sent_at_once_when_the_store_fails() -> (
    None
):
    troubles, channel = Troubles(), OneChannel()
    herald = Herald(troubles, channel, Hourly, clock_s=lambda: 1_000.0)
    task = asyncio.create_task(herald.run())
    troubles.begin(Trouble.SIGNING, "no key")
    troubles.tell_with(Trouble.SIGNING, event("AUDIT_KEY_MISSING"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert channel.sent == [], "the output has it from the store"
    troubles.begin(Trouble.STORE, "locked")
    troubles.tell_with(Trouble.STORE, event("STORE_FAILED"))
    await until(lambda: len(channel.sent) == 2, "both")
    # Whether the first one has arrived nobody knows.
    assert sorted(channel.sent) == [("AUDIT_KEY_MISSING", True), ("STORE_FAILED", False)]
    async with asyncio.timeout(15):
        await herald.last_words(15)
    task.cancel()
    await asyncio.wait((task,))


async def test_terminals_are_written_on_at_a_new_kind_of_trouble_and_not_at_each_reason(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, warn_interval_s=60) as told:
        troubles = told.live.runtime.journal.troubles
        troubles.begin(Trouble.SIGNING, "no key")
        troubles.tell_with(Trouble.SIGNING, None)
        await until(lambda: len(told.walls) == 1, "the first one")
        for number in range(20):
            troubles.begin(Trouble.SIGNING, f"reason {number % 2}")
            troubles.tell_with(Trouble.SIGNING, None)
            for _ in range(20):
                await asyncio.sleep(0)
        troubles.begin(Trouble.RECORDS, "on strike")
        troubles.tell_with(Trouble.RECORDS, None)
        await until(lambda: len(told.walls) >= 2, "the other kind")
        assert len(told.walls) == 2
        assert told.walls[1].startswith("the audit log cannot be written: on strike; ")
        troubles.begin(Trouble.SIGNING, "reason 5")
        told.after(61)
        troubles.tell_with(Trouble.SIGNING, None)
        await until(lambda: len(told.walls) == 3, "once more, after the time")


# ---- terminals ---------------------------------------------------------------------


def utmp_record(line: str, kind: int = 7, size: int = 384) -> bytes:
    return struct.pack("hxxi32s", kind, 4711, line.encode()).ljust(size, b"\0")


@pytest.mark.parametrize("size", [384, 400])
def test_everybody_who_is_logged_in_reads_it_on_the_terminal(tmp_path: Path, size: int) -> None:
    main, terminal = os.openpty()
    try:
        line = os.ttyname(terminal).removeprefix("/dev/")
        utmp = tmp_path / "utmp"
        lines = [
            utmp_record("~", kind=2, size=size),
            *(utmp_record(each, size=size) for each in (line, line, "pts/9999999", "../etc/motd")),
            utmp_record(line, kind=8, size=size),
        ]
        utmp.write_bytes(b"".join(lines))
        assert tell_terminals("the audit log\x1b[2J is gone", utmp=str(utmp)) == 1
        read = os.read(main, 4_096).decode()
        assert "needfire-server on " in read
        assert "the audit log\\x1b[2J is gone" in read
        assert read.count("needfire-server") == 1
        assert "\x1b" not in read
    finally:
        os.close(main)
        os.close(terminal)


def test_a_terminal_that_is_none_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "pts").mkdir()
    (tmp_path / "pts" / "1").write_text("a file")
    (tmp_path / "pts" / "2").symlink_to("/dev/tty")
    utmp = tmp_path / "utmp"
    utmp.write_bytes(utmp_record("pts/1") + utmp_record("pts/2"))
    assert tell_terminals("x", utmp=str(utmp), devices=str(tmp_path)) == 0
    assert (tmp_path / "pts" / "1").read_text() == "a file"
    assert tell_terminals("x", utmp=str(tmp_path / "none")) == 0


@given(st.binary(max_size=2_000) | st.lists(st.binary(min_size=384, max_size=384)).map(b"".join))
def test_whatever_the_file_holds_only_names_of_terminals_come_of_it(data: bytes) -> None:
    for line in logged_in_lines(data):
        assert line.replace("pts/", "").isalnum()
