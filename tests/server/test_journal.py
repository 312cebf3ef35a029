"""What becomes of the server's own events while the store cannot take them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol.audit.record import parse_record
from needfire_protocol.errors import StorageError, StorageFullError
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server import journal
from needfire_server.config import ServerSettings
from needfire_server.event_classes import SWITCHABLE, ClassSettings
from needfire_server.journal import Journal
from needfire_server.logbook import STRANGER_BURST, Logbook
from needfire_server.storage.audit_base import Kept
from needfire_testkit.live_server import LiveServer, live_server
from needfire_testkit.server import until

FULL, LOCKED = StorageFullError("no space left on device"), StorageError("database is locked")


class ListedStore:
    """Keeps what it is given in a list, and fails as often as it is told to."""

    def __init__(self, *errors: StorageError) -> None:
        self.kept: list[Kept] = []
        self.errors = list(errors)

    async def record_all(self, items: list[Kept]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.kept += items

    def codes(self) -> list[str]:
        return [event.code for event, _ in self.kept if event is not None]


@contextmanager
def lone_journal(
    directory: Path, on_recorded: Callable[[], None] = lambda: None
) -> Iterator[Journal]:
    """A journal whose store is whatever the test gives to it."""
    settings = ServerSettings(log_severity=SeverityFilter.parse("*"))
    logbook = Logbook.from_settings(settings, str(directory), is_foreground=False)
    try:
        yield Journal(logbook, store_path="the store", on_recorded=on_recorded)
    finally:
        logbook.close()


def logged(directory: Path) -> list[str]:
    return (directory / "log").read_text().splitlines()


async def emptied(journal: Journal, store: ListedStore) -> None:
    """Let the journal store what waits."""
    task = asyncio.create_task(journal.store_waiting(store))  # type: ignore[arg-type]
    await journal.flush(15)
    task.cancel()
    assert journal.waiting == 0


@pytest.mark.parametrize("errors", [(FULL, FULL), (LOCKED, FULL, FULL), (LOCKED, FULL, LOCKED)])
def test_that_there_is_no_room_is_noticed_once_however_the_failure_began(
    tmp_path: Path, errors: tuple[StorageError, ...]
) -> None:
    with lone_journal(tmp_path) as journal:
        noticed: list[bool] = []
        journal.on_full = lambda: noticed.append(journal.has_no_room)
        for _ in range(2):
            for error in errors:
                journal.store_failed(error)
            journal.store_works()
            assert not journal.has_no_room
        assert noticed == [True, True]


def test_a_store_that_fails_otherwise_has_room(tmp_path: Path) -> None:
    with lone_journal(tmp_path) as journal:
        journal.on_full = lambda: pytest.fail("there is room")
        journal.store_failed(LOCKED)
        assert journal.is_store_failing
        assert not journal.has_no_room


async def test_what_was_suspended_stays_so_at_a_reload_and_is_resumed_when_there_is_room(
    tmp_path: Path,
) -> None:
    with lone_journal(tmp_path) as journal:
        journal.on_full = journal.suspend_classes
        journal.store_failed(FULL)
        journal.configure(ClassSettings(unpersisted=frozenset()))
        assert journal.classes == ClassSettings(unpersisted=frozenset(), is_suspended=True)
        journal.raise_event("PRIVILEGES_DROPPED", user="x", userid=1)
        store = ListedStore()
        await emptied(journal, store)
        assert "PRIVILEGES_DROPPED" not in store.codes(), "a class that can be switched off"
        assert "CLASSES_RESUMED" in store.codes()
        assert not journal.classes.is_suspended
        journal.raise_event("PRIVILEGES_DROPPED", user="x", userid=1)
        await emptied(journal, store)
        assert store.codes()[-1] == "PRIVILEGES_DROPPED"


async def test_what_was_suspended_is_resumed_only_when_the_store_works(tmp_path: Path) -> None:
    with lone_journal(tmp_path) as journal:
        journal.store_failed(FULL)
        journal.suspend_classes()
        journal.store_failed(LOCKED)
        assert journal.classes.is_suspended
        journal.store_works()
        assert not journal.classes.is_suspended


async def test_order_is_kept_over_failures_and_who_follows_is_told_after_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "sleep", _at_once)
    store = ListedStore(LOCKED, LOCKED)
    told: list[int] = []
    with lone_journal(tmp_path, lambda: told.append(len(store.kept))) as lone:
        for name in ("web1", "web2", "web3"):
            lone.raise_event("CLIENT_RETURNED", client=name)
        await emptied(lone, store)
        names = [
            event.fields["client"] for event, _ in store.kept if event and "client" in event.fields
        ]
        assert names == ["web1", "web2", "web3"]
        assert store.codes().count("STORE_FAILED") == 1
        assert store.codes()[-1] == "STORE_RECOVERED"
        assert told
        assert told[0] >= 3


_sleep = asyncio.sleep


async def _at_once(_seconds: float) -> None:
    await _sleep(0)


async def test_how_many_events_do_not_reach_the_store_before_the_end_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those that the writer has in its hands, and that the queue had no room for."""
    store = ListedStore(*[LOCKED] * 1_000)
    with lone_journal(tmp_path) as lone:
        lone.raise_event("CLIENT_RETURNED", client="web1")
        task = asyncio.create_task(lone.store_waiting(store))  # type: ignore[arg-type]
        await until(lambda: lone.is_store_failing, "the first attempt")
        lone.raise_event("CLIENT_RETURNED", client="web2")
        await lone.flush(0)
        task.cancel()
        assert "3 events did not reach the store" in caplog.text, "with STORE_FAILED"
        assert caplog.records[-1].levelname == "WARNING"
        assert len([line for line in logged(tmp_path) if "3 events were not stored" in line]) == 1
        lone.raise_event("CLIENT_RETURNED", client="web3")
    caplog.clear()
    with lone_journal(tmp_path) as lone:
        lone.raise_event("CLIENT_RETURNED", client="web1")
        await emptied(lone, ListedStore())
        await lone.flush(0)
        assert caplog.text == ""


async def test_the_store_is_asked_for_nothing_while_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_GATHERING_S", 0)
    asked: list[int] = []

    class CountingStore(ListedStore):
        async def record_all(self, items: list[Kept]) -> None:
            asked.append(len(items))

    with lone_journal(tmp_path) as lone:
        task = asyncio.create_task(lone.store_waiting(CountingStore()))  # type: ignore[arg-type]
        for count in (2, 1):
            for _ in range(count):
                lone.raise_event("CLIENT_RETURNED", client="web1")
            await lone.flush(15)
            for _ in range(10):
                await _sleep(0)
        task.cancel()
    assert asked == [2, 1]


async def test_of_the_share_of_a_client_as_much_is_free_again_as_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_SHARE_MAX", 3)
    monkeypatch.setattr(journal, "_TOGETHER_MAX", 2)
    asked: list[int] = []

    class SlowStore(ListedStore):
        async def record_all(self, items: list[Kept]) -> None:
            asked.append(len(items))
            if len(asked) > 1:
                await asyncio.Event().wait()

    with lone_journal(tmp_path) as lone:
        for _ in range(3):
            lone.raise_event("CLIENT_RETURNED", client="web1")
        task = asyncio.create_task(lone.store_waiting(SlowStore()))  # type: ignore[arg-type]
        await until(lambda: len(asked) == 2, "the second write")
        for _ in range(3):
            lone.raise_event("CLIENT_RETURNED", client="web1")
        assert lone.waiting == 2, "with the one that is being stored"
        task.cancel()


async def test_events_that_cannot_wait_for_the_store_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_WAITING_MAX", 10)
    async with live_server(tmp_path) as live:
        store, raise_event = live.runtime.store, live.runtime.journal.raise_event
        may_go_on, record_all = asyncio.Event(), store.record_all

        async def stands_still(items: Any) -> None:
            await may_go_on.wait()
            await record_all(items)

        monkeypatch.setattr(store, "record_all", stands_still)
        for number in range(25):
            raise_event("CLIENT_RETURNED", client=f"web{number}")
        storing = asyncio.create_task(live.runtime.journal.store_waiting(store))
        may_go_on.set()
        assert (await live.until_said("EVENTS_NOT_STORED")).fields["count"] == 15
        await live.runtime.journal.flush(10)
        stored = [event.code for event in await live.stored()]
        assert stored.count("CLIENT_RETURNED") == 10
        assert stored[-1] == "EVENTS_NOT_STORED"
        lines = [line for _, line in store.audit.records_now(0, 100)]
        recorded = [parse_record(line).draft.code for line in lines]
        assert recorded.count("CLIENT_RETURNED") == 10
        assert recorded[-1] == "EVENTS_NOT_STORED"
        storing.cancel()


@pytest.mark.parametrize("is_suspended", [False, True])
async def test_a_class_that_is_switched_off_is_on_record_all_the_same(
    tmp_path: Path, is_suspended: bool
) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE), frozenset(SWITCHABLE), is_suspended)
        refusals = ("AUTHZ_FAIL", "SESSION_KEY_MISMATCH", "NOT_IN_CLIENT_LIST")
        who = {"user": "eve", "resource": "audit", "operation": "show", "role": "Auditors"}
        for code in refusals:
            speaker.raise_event(code, client="web1", peer="192.0.2.1:5000", **who)
        with storing(live):
            await speaker.flush(10)
        assert tuple(recorded(live)[-len(refusals) :]) == refusals
        # Out of the log and of the store.
        assert "192.0.2.1" not in (tmp_path / "log").read_text()
        assert not set(refusals) & {event.code for event in await live.stored()}


async def test_what_only_the_audit_log_takes_is_recorded_as_if_it_were_an_event(
    tmp_path: Path,
) -> None:
    """Each resumption of a fleet is one of these, and its event would be for nobody."""
    about = {"client": "web1", "peer": "192.0.2.1:5000", "reason": "odd \x1b[2J" + "y" * 30_000}
    kept = list[Kept]()
    for wanted in ("notice", "*"):
        directory = tmp_path / wanted.replace("*", "all")
        directory.mkdir()
        settings = ServerSettings(log_severity=SeverityFilter.parse(wanted))
        logbook = Logbook.from_settings(settings, str(directory), is_foreground=False)
        journal = Journal(logbook, store_path="the store", on_recorded=lambda: None)
        event = journal.raise_event("CLIENT_RESUMED", **about)
        assert (event is None) == (wanted == "notice")
        store = ListedStore()
        assert journal._shares == {"web1": 1}
        await emptied(journal, store)
        assert not journal._shares
        logbook.close()
        kept += store.kept
        assert bool(logged(directory)) == (wanted == "*")
    (nothing, draft), (_, same) = kept
    assert nothing is None
    assert draft is not None
    assert draft == same
    assert (draft.code, draft.is_success, draft.client) == ("CLIENT_RESUMED", True, "web1")
    assert str(draft.fields["reason"]).startswith("odd \\x1b")


async def test_what_nobody_takes_is_nowhere_and_what_the_store_takes_is_there(
    tmp_path: Path,
) -> None:
    settings = ServerSettings(log_severity=SeverityFilter.parse("none"))
    logbook = Logbook.from_settings(settings, str(tmp_path), is_foreground=False)
    journal, store = (
        Journal(logbook, store_path="the store", on_recorded=lambda: None),
        ListedStore(),
    )
    assert journal.raise_event("NEW_CONNECTION", peer="192.0.2.1:5000") is None
    assert journal.waiting == 0
    # A severity other than the catalogue's decides of this one whether it tells of a success.
    journal.raise_event("CLIENT_RESUMED", Severity.ERR, client="web1")
    assert journal.raise_event("CLIENT_RETURNED", client="web1") is not None
    await emptied(journal, store)
    (_, resumed), (returned, _) = store.kept
    assert resumed is not None
    assert not resumed.is_success
    assert returned is not None
    assert returned.code == "CLIENT_RETURNED"
    logbook.close()


async def test_what_is_switched_off_and_not_recorded_is_nothing(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE))
        assert speaker.raise_event("NEW_CONNECTION", peer="192.0.2.1:5000") is None


async def test_a_stranger_fills_no_audit_log_with_what_is_switched_off(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        speaker = live.runtime.journal
        speaker.classes = ClassSettings(frozenset(SWITCHABLE))
        for number in range(STRANGER_BURST + 20):
            speaker.raise_event("SESSION_KEY_MISMATCH", client="web1", peer=f"192.0.2.1:{number}")
        with storing(live):
            await speaker.flush(10)
        count = recorded(live).count("SESSION_KEY_MISMATCH")
        # A slow machine may refill one or the other meanwhile.
        assert STRANGER_BURST <= count < STRANGER_BURST + 20


@contextmanager
def storing(live: LiveServer) -> Iterator[None]:
    """Let the server's journal store what waits, meanwhile."""
    task = asyncio.create_task(live.runtime.journal.store_waiting(live.runtime.store))
    try:
        yield
    finally:
        task.cancel()


def recorded(live: LiveServer) -> list[str]:
    lines = [line for _, line in live.runtime.store.audit.records_now(0, 1_000)]
    return [parse_record(line).draft.code for line in lines]


async def test_what_is_said_of_one_client_does_not_displace_what_is_said_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_SHARE_MAX", 3)
    async with live_server(tmp_path) as live:
        raise_event = live.runtime.journal.raise_event
        for number in range(10):
            raise_event("CLOCK_MOVED", client="web1", seconds=number)
        raise_event("CLOCK_MOVED", client="web2", seconds=1)
        raise_event("SERVER_CLOCK_MOVED", seconds=1)
        with storing(live):
            assert (await live.until_said("EVENTS_NOT_STORED")).fields["count"] == 7
            # There is room again once they are stored.
            raise_event("CLOCK_MOVED", client="web1", seconds=99)
            await live.runtime.journal.flush(10)
            stored = [(each.code, each.fields.get("client")) for each in await live.stored()]
            assert stored.count(("CLOCK_MOVED", "web1")) == 4
            assert ("CLOCK_MOVED", "web2") in stored
            assert ("SERVER_CLOCK_MOVED", None) in stored


async def test_alarms_about_the_server_have_room_when_nothing_else_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so has the one that says how many events were lost: it is no more lost itself."""
    monkeypatch.setattr(journal, "_WAITING_MAX", 4)
    monkeypatch.setattr(journal, "_RESERVED", 2)
    async with live_server(tmp_path) as live:
        raise_event = live.runtime.journal.raise_event
        for number in range(6):
            raise_event("CLIENT_RETURNED", client=f"web{number}")
        for number in range(3):
            raise_event("ADMIN_REFUSED", uid=number)
        for number in range(3):
            raise_event("SERVER_CLOCK_MOVED", seconds=number)
        assert live.runtime.journal.waiting == 4 + 2 + 2
        with storing(live):
            assert (await live.until_said("EVENTS_NOT_STORED")).fields["count"] == 2 + 1 + 1
            await live.runtime.journal.flush(10)
            stored = [event.code for event in await live.stored()]
            assert stored.count("SERVER_CLOCK_MOVED") == 2
            assert stored.count("EVENTS_NOT_STORED") == 1


async def test_what_was_lost_is_counted_until_somebody_could_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_WAITING_MAX", 2)
    monkeypatch.setattr(journal, "_RESERVED", 0)
    async with live_server(tmp_path) as live:
        own = live.runtime.journal
        for number in range(5):
            own.raise_event("CLIENT_RETURNED", client=f"web{number}")
        own._tell_lost()
        assert "EVENTS_NOT_STORED" not in live.codes()
        with storing(live):
            assert (await live.until_said("EVENTS_NOT_STORED")).fields["count"] == 3


async def test_what_was_left_out_of_the_log_is_stored_in_a_bounded_number_of_events(
    tmp_path: Path,
) -> None:
    """Who only reads the store, or an output, is not to take silence for peace."""
    with lone_journal(tmp_path) as journal:
        journal._logbook._clock = lambda: 0.0
        for host in range(5):
            for _ in range(STRANGER_BURST + 1 + host):
                journal.raise_event("NEW_CONNECTION", peer=f"192.0.2.{host}:1")
        journal._logbook.tell_suppressed()
        assert journal._logbook._collect_at > 0
        journal._logbook._collect_at = 0.0
        journal._logbook.tell_suppressed()
        store = ListedStore()
        await emptied(journal, store)
    stored = [event.fields for event, _ in store.kept if event and event.code == "LOG_SUPPRESSED"]
    assert [(each["peer"], each["count"]) for each in stored] == [
        *(("192.0.2.4", 5), ("192.0.2.3", 4), ("192.0.2.2", 3)),
        ("others", 3),
    ]
    assert sum("messages suppressed" in line for line in logged(tmp_path)) == 5


async def test_a_flush_waits_for_what_is_on_its_way_to_the_disk(tmp_path: Path) -> None:
    class SlowStore(ListedStore):
        may_end = asyncio.Event()

        async def record_all(self, items: list[Kept]) -> None:
            await self.may_end.wait()
            await super().record_all(items)

    with lone_journal(tmp_path) as journal:
        store = SlowStore()
        task = asyncio.create_task(journal.store_waiting(store))  # type: ignore[arg-type]
        journal.raise_event("CLIENT_RETURNED", client="web1")
        await until(lambda: journal._storing, "the write")
        flushing = asyncio.create_task(journal.flush(15))
        for _ in range(5):
            await asyncio.sleep(0)
        assert journal.waiting == 0
        assert not flushing.done()
        store.may_end.set()
        await flushing
        task.cancel()
    assert store.codes() == ["CLIENT_RETURNED"]


async def test_no_name_is_kept_of_whom_nothing_waits(tmp_path: Path) -> None:
    """They are names of strangers, too."""
    with lone_journal(tmp_path) as journal:
        for number in (1, 1, 2, 3):
            journal.raise_event("NOT_IN_CLIENT_LIST", client=f"web{number}", peer="192.0.2.1:1")
        assert journal._shares == {"web1": 2, "web2": 1, "web3": 1}
        await emptied(journal, ListedStore())
        assert journal._shares == {}
