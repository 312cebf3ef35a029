"""What a person did through the admin tool is stored, and on record, before they are told that it is done."""

import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.audit.record import Record, parse_record
from needfire_protocol.audit.verdict import Finding, Verdict
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import ConfigError, FormatError, StorageError
from needfire_protocol.event import Event, make_event
from needfire_protocol.srp import make_verifier
from needfire_server.admin.requests import AdminRefusedError, Arguments, Request
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.admin.verbs import VERBS
from needfire_server.audit.log import AuditLog
from needfire_server.config import ServerSettings
from needfire_server.datafiles import DataFiles
from needfire_server.event_classes import ClassSettings
from needfire_server.journal import Journal
from needfire_server.logbook import Logbook
from needfire_server.registry import Registry
from needfire_server.storage.base import ClientConnection, EventQuery
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.baselines import write_baseline
from needfire_testkit.server_store import NOW_US

RC = b"[ReadOnly]\nfile = /etc/hosts\n"
REFUSES = (
    "CREATE TRIGGER broken_{0} BEFORE INSERT ON {0} BEGIN SELECT RAISE(ABORT, 'no more {0}'); END"
)
VERIFIER = make_verifier("a good long password", os.urandom)


@dataclass
class Desk:
    """The admin side of a server of which nobody empties the queue of events."""

    directory: Path
    store: SqliteStore
    journal: Journal
    service: AdminService

    async def ask(self, verb: str, file: Path | None = None, /, **arguments: Any) -> Any:
        request = Request(verb, Arguments(arguments))
        if file is None:
            return (await self.service.handle(request, user="kim")).result
        with file.open("rb") as opened:
            return (await self.service.handle(request, user="kim", file=opened)).result

    async def register(self) -> None:
        salt, verifier = VERIFIER.salt.hex(), VERIFIER.verifier.hex()
        await self.ask("register", name="web1", salt=salt, verifier=verifier)

    async def stored(self) -> list[Event]:
        return [event for _, event in await self.store.query_events(EventQuery())]

    async def codes(self) -> list[str]:
        return [event.code for event in await self.stored()]

    def recorded(self, code: str) -> list[Record]:
        records = [parse_record(line) for _, line in self.store.audit.records_now(0, 1_000)]
        return [each for each in records if each.draft.code == code]

    async def remark(self) -> None:
        """Store an alarm of the server's own."""
        event = make_event(
            "OUTPUT_REMARK", time_us=NOW_US, random_10_bytes=os.urandom(10), output="x", reason="y"
        )
        await self.store.record(event)

    def break_table(self, name: str) -> None:
        path = self.directory / "needfire.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as store:
            store.execute(REFUSES.format(name))


@asynccontextmanager
async def desk(directory: Path) -> AsyncIterator[Desk]:
    store = SqliteStore.open(str(directory / "needfire.sqlite"))
    logbook = Logbook.from_settings(ServerSettings(), str(directory), is_foreground=False)
    journal = Journal(logbook, store_path=store.name, on_recorded=lambda: None)
    hooks = AdminHooks(
        on_command_queued=lambda _client: None,
        on_client_removed=lambda _client: None,
        record_event=journal.raise_event,
        kept_of=journal.kept_of,
        on_stored=journal.already_stored,
        store_later=journal.store_later,
        on_store_failed=journal.store_failed,
        connections=_nobody,
        states=dict,
    )
    audit = await AuditLog.open(store.audit, str(directory))
    service = AdminService(store, Registry((), []), DataFiles(str(directory)), hooks, audit)
    try:
        yield Desk(directory, store, journal, service)
    finally:
        logbook.close()
        store.close()


async def _nobody() -> dict[str, ClientConnection]:
    return {}


async def test_an_alarm_that_was_cleared_is_gone_from_the_list_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as server:
        await server.remark()
        assert len((await server.ask("alarms-list"))["alarms"]) == 1
        await server.ask("alarms-clear", code="OUTPUT_REMARK")
        assert (await server.ask("alarms-list"))["alarms"] == []
        [cleared] = server.recorded("ALARM_CLEARED")
        assert (cleared.draft.subject, cleared.draft.fields["alarm"]) == ("kim", "OUTPUT_REMARK")


async def test_each_act_is_stored_and_recorded_when_its_reply_comes(tmp_path: Path) -> None:
    rc = tmp_path / "rc"
    rc.write_bytes(RC)
    async with desk(tmp_path) as server:
        await server.register()
        await server.ask("send", name="web1", verb="scan")
        await server.ask("cancel", name="web1")
        await server.ask("config-put", rc, name="web1")
        await server.ask("clients-remove", name="web1")
        codes = [
            "CLIENT_REGISTERED",
            "COMMAND_QUEUED",
            "COMMAND_CANCELLED",
            "CONFIGURATION_PUT",
            "CLIENT_REMOVED",
        ]
        assert await server.codes() == codes
        assert server.journal.waiting == 0
        for event in await server.stored():
            [record] = server.recorded(event.code)
            assert record.draft.is_success
            assert record.draft.subject == event.fields["user"] == "kim"
            assert record.draft.request == event.fields["request"]
            assert record.draft.client == event.fields["client"] == "web1"


async def test_an_act_whose_event_cannot_be_stored_is_not_done(tmp_path: Path) -> None:
    async with desk(tmp_path) as server:
        await server.remark()
        server.break_table("events")
        with pytest.raises(StorageError, match="no more events"):
            await server.register()
        assert await server.store.client_record("web1") is None
        assert server.recorded("CLIENT_REGISTERED") == []
        with pytest.raises(StorageError, match="no more events"):
            await server.ask("alarms-clear", code="OUTPUT_REMARK")
        assert len((await server.ask("alarms-list"))["alarms"]) == 1
        assert server.journal.is_store_failing


async def test_who_put_a_file_is_told_that_it_is_in_place_and_that_no_record_could_be_stored(
    tmp_path: Path,
) -> None:
    rc = tmp_path / "rc"
    rc.write_bytes(RC)
    async with desk(tmp_path) as server:
        await server.register()
        server.break_table("events")
        told = r"(.*) is in place, but no record of it could be stored: .*no more events"
        with pytest.raises(StorageError, match=told) as failed:
            await server.ask("config-put", rc, name="web1")
        assert Path(str(failed.value).partition(" is in place")[0]).read_bytes() == RC
        assert server.journal.waiting == 2, "the act, and that the store fails"


async def test_a_finding_is_accepted_with_its_event_and_record_or_that_is_told(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as server:
        audit = server.service._subject.audit
        found = Finding(Verdict.CHANGED, 4, 4, 0, "a record")
        audit._standing.note(found, NOW_US)
        await server.ask("audit-accept", note="a disk that fails")
        assert (await server.codes())[-1:] == ["AUDIT_FINDING_ACCEPTED"]
        [record] = server.recorded("AUDIT_FINDING_ACCEPTED")
        assert (record.draft.subject, record.draft.fields["note"]) == ("kim", "a disk that fails")
        audit._standing.note(found, NOW_US)
        server.break_table("events")
        with pytest.raises(
            StorageError, match=r"is accepted .*, but no record of it could be stored"
        ):
            await server.ask("audit-accept")
        assert server.journal.waiting == 2, "the act, and that the store fails"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ""),
        ("a disk\nthat fails\x1b[2J", r"a disk\x0athat fails\x1b[2J"),
        ("x" * 511, "x" * 511),
        ("x" * 512, "x" * 512),
    ],
)
def test_a_note_is_printable_and_empty_where_nothing_is_said(given: str | None, kept: str) -> None:
    assert Arguments({} if given is None else {"note": given}).note() == kept


def test_a_note_is_bounded_and_has_to_be_text() -> None:
    assert len(Arguments({"note": "x" * 513}).note()) == 512
    with pytest.raises(FormatError, match="note must be text"):
        Arguments({"note": 1}).note()


async def test_an_act_is_on_record_also_where_nobody_wants_events_of_its_class(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as server:
        server.journal.configure(ClassSettings(disabled=frozenset({EventClass.ADMINISTRATION})))
        await server.register()
        assert await server.codes() == []
        assert len(server.recorded("CLIENT_REGISTERED")) == 1


# ---- requests that fail, and requests that cannot be put on record ------------------------------


class _GoneError(OSError):
    """What the system says of a directory."""


def _fails(*_: object, **__: object) -> Any:
    raise _GoneError(5, "Input/output error")


async def test_whatever_makes_a_request_fail_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as server:
        monkeypatch.setattr(DataFiles, "list_files", _fails)
        with pytest.raises(_GoneError):
            await server.ask("files-list")
        monkeypatch.setattr(DataFiles, "list_files", {}.__getitem__)
        with pytest.raises(KeyError):
            await server.ask("files-list")
        failed = [each.draft for each in server.recorded("ADMIN_REQUEST_FAILED")]
        assert [each.fields["reason"] for each in failed] == [
            "[Errno 5] Input/output error",
            "internal error: KeyError",
        ]
        assert not any(each.is_success for each in failed)


async def test_what_stands_in_a_wrong_file_is_on_no_record(tmp_path: Path) -> None:
    """Who gave the wrong file may have given one of passwords, and a record is for ever."""
    rc = tmp_path / "rc"
    rc.write_bytes(b"root:hunter2\n[Misc]\nSetLoopTime=hunter2\n")
    async with desk(tmp_path) as server:
        await server.register()
        with pytest.raises(ConfigError, match="hunter2"):
            await server.ask("config-put", rc, name="web1")
        [failed] = server.recorded("ADMIN_REQUEST_FAILED")
        assert failed.draft.fields["reason"] == "2 errors in the configuration, in lines 1, 3"


async def test_an_answer_that_fails_on_the_way_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as server:
        await server.remark()
        for error in (None, StorageError("the disk is gone"), _GoneError(5, "Input/output error")):
            reply = await server.service.handle(Request("events", Arguments({})), user="kim")
            assert reply.pages is not None
            with monkeypatch.context() as broken:
                if error is None:
                    assert [len(page) async for page in reply.pages] == [1]
                    continue
                broken.setattr(server.store, "search_events", _raises(error))
                with pytest.raises(type(error)):
                    [page async for page in reply.pages]
        reasons = [each.draft.fields["reason"] for each in server.recorded("ADMIN_REQUEST_FAILED")]
        assert reasons == ["the disk is gone", "[Errno 5] Input/output error"]


def _raises(error: Exception) -> Any:
    async def fails(*_: object) -> Any:
        raise error

    return fails


async def test_nothing_is_changed_of_which_no_record_can_be_written(tmp_path: Path) -> None:
    rc = tmp_path / "rc"
    rc.write_bytes(RC)
    async with desk(tmp_path) as server:
        await server.register()
        server.break_table("audit_records")
        with pytest.raises(StorageError, match="no more audit_records"):
            await server.ask("config-put", rc, name="web1")
        assert list(tmp_path.glob("rc.*")) == []
        assert await server.codes() == ["CLIENT_REGISTERED"]


async def test_what_is_only_read_is_answered_also_without_a_record(tmp_path: Path) -> None:
    async with desk(tmp_path) as server:
        server.break_table("audit_records")
        reading = {name for name, row in VERBS.items() if row.is_reading}
        for verb in sorted(reading - {"health"}):
            with suppress(FormatError, AdminRefusedError):
                await server.ask(verb)
        assert (await server.ask("files-list"))["files"] == []
        for verb in sorted(name for name, row in VERBS.items() if not row.is_reading):
            with pytest.raises(StorageError, match="no more audit_records"):
                await server.ask(verb)


async def test_a_proposal_that_is_in_place_and_cannot_be_taken_off_the_list_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_baseline(tmp_path / "offered")
    data = (tmp_path / "offered").read_bytes()
    async with desk(tmp_path) as server:
        await server.register()
        file = DataFiles(str(tmp_path)).new_proposal("web1")
        file.write(data)
        number = await server.store.add_proposal(
            "web1", file.keep(), len(data), hashlib.sha256(data).digest(), NOW_US
        )
        monkeypatch.setattr(server.store, "remove_proposal", _raises(StorageError("locked")))
        put = await server.ask("baseline-put", name="web1", proposal=number)
        assert put["notices"] == [
            f"proposal {number} is in place, and still stands in the list: locked"
        ]
        assert (tmp_path / "file.web1").read_bytes() == data
        assert "BASELINE_PUT" in await server.codes()
        assert server.recorded("ADMIN_REQUEST_FAILED") == []
