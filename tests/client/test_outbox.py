"""Events get into the spool many at a time; when there is no room the scan waits, and EXIT does not."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needfire_client.outbox import QUEUE_MAX, SpoolOutbox, report_body
from needfire_client.spool import NewReport, Spool
from needfire_protocol.codec import decode
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, make_event, unpack_event
from needfire_protocol.limits import EVENT_DECODING, REPORT_BODY_BYTES_MAX


def event(code: str = "RULE_MATCHES_NOTHING", **fields: str) -> Event:
    return make_event(code, time_us=1_000, random_10_bytes=os.urandom(10), **fields)


def wait_for(condition: Callable[[], object], limit_s: float = 10) -> None:
    """Look until the condition holds; another thread works towards it."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        threading.Event().wait(0.002)


class Told:
    """What the outbox said."""

    def __init__(self) -> None:
        self.new = 0
        self.full: list[tuple[int, int]] = []
        self.failing: list[str] = []
        self.rooms = 0
        self.lost: list[int] = []

    def on_new(self) -> None:
        self.new += 1

    def on_room(self) -> None:
        self.rooms += 1

    def on_full(self, used: int, limit: int) -> None:
        self.full.append((used, limit))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(
        tmp_path / "spool.sqlite",
        size_max_bytes=100_000_000,
        random_bytes=os.urandom,
        now_us=lambda: 1,
        on_set_aside=lambda _path, _reason: None,
    )
    yield spool
    spool.close()


@pytest.fixture
def outbox(spool: Spool, told: Told) -> Iterator[SpoolOutbox]:
    outbox = SpoolOutbox(
        spool,
        on_new=told.on_new,
        on_full=told.on_full,
        on_room=told.on_room,
        on_failing=told.failing.append,
        on_lost=told.lost.append,
    )
    yield outbox
    outbox.close(5)


def codes(spool: Spool) -> list[str]:
    reports = spool.read_batch(0, 10_000, 100_000_000).reports
    return [unpack_event(decode(each.body, limits=EVENT_DECODING)).code for each in reports]


def test_what_was_put_is_on_disk_after_a_flush(
    spool: Spool, outbox: SpoolOutbox, told: Told
) -> None:
    for code in ("START", "CHECK_STARTED", "CHECK_COMPLETED"):
        outbox.put(event(code), is_vital=False, may_wait=True)
    assert outbox.flush(5)
    assert codes(spool) == ["START", "CHECK_STARTED", "CHECK_COMPLETED"]
    assert told.new >= 1


def test_many_events_share_a_transaction(spool: Spool, outbox: SpoolOutbox, told: Told) -> None:
    for _ in range(QUEUE_MAX):
        outbox.put(event(), is_vital=False, may_wait=True)
    assert outbox.flush(10)
    assert spool.waiting == QUEUE_MAX
    assert told.new < QUEUE_MAX / 5


def test_a_full_spool_holds_the_scan_up_and_room_lets_it_go_on(
    spool: Spool, outbox: SpoolOutbox, told: Told
) -> None:
    spool.set_size_max(0)
    total = QUEUE_MAX + 5
    done = threading.Event()

    def scan() -> None:
        for _ in range(total):
            outbox.put(event(), is_vital=False, may_wait=True)
        done.set()

    thread = threading.Thread(target=scan)
    thread.start()
    wait_for(lambda: told.full)
    assert not done.is_set()
    assert told.full == [(0, 0)], "it is said once, not at each attempt"
    spool.set_size_max(100_000_000)
    outbox.room_made()
    thread.join(10)
    assert done.is_set()
    assert outbox.flush(10)
    assert spool.waiting == total
    wait_for(lambda: told.rooms == 1)


def test_exit_gets_in_where_there_is_no_room(spool: Spool, outbox: SpoolOutbox, told: Told) -> None:
    spool.set_size_max(0)
    outbox.put(event(), is_vital=False, may_wait=True)
    wait_for(lambda: told.full)
    outbox.put(event("EXIT"), is_vital=True, may_wait=False)
    wait_for(lambda: spool.waiting)
    assert codes(spool) == ["EXIT"]
    assert len(told.full) == 1
    assert not told.rooms, "the reserved room is none for the rest"


def test_vital_events_that_wait_behind_others_get_in_at_once(
    spool: Spool, outbox: SpoolOutbox
) -> None:
    spool.set_size_max(0)
    outbox.put(event(), is_vital=False, may_wait=False)
    outbox.put(event("SUSPEND"), is_vital=True, may_wait=False)
    wait_for(lambda: codes(spool) == ["SUSPEND"])


def test_after_room_was_made_a_full_spool_is_news_again(
    spool: Spool, outbox: SpoolOutbox, told: Told
) -> None:
    for _ in range(2):
        spool.set_size_max(spool.bytes_used)
        outbox.put(event(), is_vital=False, may_wait=True)
        wait_for(lambda: told.full)
        spool.set_size_max(100_000_000)
        outbox.room_made()
        assert outbox.flush(5)
        assert len(told.full) == 1
        told.full.clear()


def test_who_must_not_wait_never_does(spool: Spool, outbox: SpoolOutbox) -> None:
    spool.set_size_max(0)
    for _ in range(5 * QUEUE_MAX):
        outbox.put(event(), is_vital=False, may_wait=False)
    outbox.put(event("EXIT"), is_vital=True, may_wait=False)
    wait_for(lambda: codes(spool) == ["EXIT"])


def test_how_many_were_refused_is_told_once_there_is_room(
    spool: Spool, outbox: SpoolOutbox, told: Told
) -> None:
    spool.set_size_max(0)
    for _ in range(4 * QUEUE_MAX + 3):
        outbox.put(event(), is_vital=False, may_wait=False)
    wait_for(lambda: told.full)
    assert told.lost == []
    spool.set_size_max(100_000_000)
    outbox.room_made()
    wait_for(lambda: told.lost)
    assert told.lost == [3]
    assert outbox.close(5) == 0


def test_what_is_left_at_the_end_is_counted(spool: Spool, outbox: SpoolOutbox) -> None:
    spool.set_size_max(0)
    for _ in range(3):
        outbox.put(event(), is_vital=False, may_wait=False)
    assert outbox.close(5) == 3


def test_a_disk_that_fails_is_told_once_and_nothing_is_lost(
    spool: Spool, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = spool.append
    attempts = 0

    def failing(reports: list[NewReport]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 3:
            raise StorageError("disk I/O error")
        append(reports)

    monkeypatch.setattr(spool, "append", failing)
    outbox = SpoolOutbox(
        spool,
        on_new=told.on_new,
        on_full=told.on_full,
        on_room=told.on_room,
        on_failing=told.failing.append,
        on_lost=told.lost.append,
    )
    outbox.put(event("START"), is_vital=True, may_wait=False)
    for number in (1, 2, 3):
        wait_for(lambda number=number: attempts >= number)  # type: ignore[misc]
        outbox.room_made()
    assert outbox.flush(10)
    outbox.close(5)
    assert told.failing == ["disk I/O error"]
    assert codes(spool) == ["START"]


def test_closing_lets_everybody_go(spool: Spool, outbox: SpoolOutbox, told: Told) -> None:
    spool.set_size_max(0)

    def scan() -> None:
        for _ in range(QUEUE_MAX + 5):
            outbox.put(event(), is_vital=False, may_wait=True)

    thread = threading.Thread(target=scan)
    thread.start()
    wait_for(lambda: told.full)
    outbox.close(5)
    thread.join(5)
    assert not thread.is_alive()


def test_a_monstrous_event_is_cut_until_it_fits() -> None:
    monster = event("POLICY_ADDED", **{f"field{n}": "\u00e9" * 19_000 for n in range(10)})
    body = report_body(monster)
    assert len(body) <= REPORT_BODY_BYTES_MAX
    unpacked = unpack_event(decode(body, limits=EVENT_DECODING))
    assert unpacked.code == "POLICY_ADDED"
    assert unpacked.id == monster.id
