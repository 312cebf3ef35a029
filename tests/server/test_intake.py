"""Reports get to the store in turns: a flood of one agent makes no other one wait for all of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from needfire_protocol import event_batch
from needfire_protocol.errors import StorageError
from needfire_protocol.event_batch import UsualEvents
from needfire_protocol.messages import Acknowledge, Report, ReportBatch
from needfire_server import intake as intake_module
from needfire_server.intake import Intake, Taken
from needfire_server.states import ClientState
from needfire_server.storage.base import IncomingReport, IngestResult
from needfire_testkit.live_server import LiveServer, Peer, event_body, live_server

LARGE = event_body("POLICY_MODIFIED", policy="ReadOnly", change="C", path="/" + "x" * 2_000)
SMALL = event_body()


def batch(*bodies: bytes, first: int = 1) -> ReportBatch:
    reports = (Report(number, 1, body, bytes(32)) for number, body in enumerate(bodies, first))
    return ReportBatch(bytes(16), tuple(reports))


class SlowStore:
    """Commits what has come whenever it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Sequence[IncomingReport], asyncio.Future[None]]] = []
        self.commits: list[list[str]] = []

    async def ingest(
        self, client: str, stream: bytes, reports: Sequence[IncomingReport], **_: Any
    ) -> IngestResult:
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((client, reports, done))
        await done
        return IngestResult(tuple(each.event for each in reports if each.event), None, None)

    async def commit(self, error: Exception | None = None) -> None:
        """Wait until something is there and nothing more comes, then commit all of it."""
        async with asyncio.timeout(15):
            await self.until_idle()
        now, self.waiting = self.waiting, []
        self.commits.append([client for client, _, _ in now])
        for _, _, done in now:
            done.set_exception(error) if error else done.set_result(None)

    async def until_idle(self) -> None:
        """Wait until something is there and nothing more comes."""
        count = -1
        while not self.waiting or count != len(self.waiting):
            count = len(self.waiting)
            for _ in range(20):
                await asyncio.sleep(0)

    async def commit_until_done(self, tasks: Sequence[asyncio.Task[Taken]]) -> None:
        async with asyncio.timeout(15):
            while not all(task.done() for task in tasks):
                if self.waiting:
                    await self.commit()
                await asyncio.sleep(0)


def intake(store: SlowStore) -> Intake:
    return Intake(store, ClientState.initial, codes)  # type: ignore[arg-type]


def codes(usual: UsualEvents) -> list[str]:
    """Stand for the lines of the log."""
    return [event.code for event in usual.events]


async def settled(tasks: Sequence[asyncio.Task[Taken]]) -> None:
    async with asyncio.timeout(15):
        await asyncio.gather(*tasks)


async def test_a_quiet_agent_is_in_the_group_that_comes_next_whatever_a_flood_has_waiting() -> None:
    store = SlowStore()
    way = intake(store)
    flood = [asyncio.ensure_future(way.take("flood", batch(*[LARGE] * 100))) for _ in range(40)]
    await asyncio.sleep(0)
    quiet = [asyncio.ensure_future(way.take(f"quiet{each}", batch(SMALL))) for each in range(30)]
    for _ in range(2):
        await store.commit()
    await settled(quiet)
    assert not all(task.done() for task in flood)
    assert way.waiting
    await store.commit_until_done(flood)


async def decoded_in_each_turn(
    way: Intake, monkeypatch: pytest.MonkeyPatch, tasks: Sequence[asyncio.Task[Taken]]
) -> list[list[int]]:
    """Return the bytes of the batches that each turn of the loop decoded, as far as it decoded any."""
    turns: list[list[int]] = [[]]
    read = event_batch.unpack_usual_events

    def notes(bodies: Sequence[bytes], **about: Any) -> UsualEvents | None:
        turns[-1].append(sum(map(len, bodies)))
        return read(bodies, **about)

    monkeypatch.setattr(intake_module, "unpack_usual_events", notes)
    while way.waiting or not any(turns):
        await asyncio.sleep(0)
        turns.append([])
    assert not any(task.done() for task in tasks)
    return [turn for turn in turns if turn]


async def test_small_batches_need_no_turn_of_the_loop_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fills the turns of the loop, strangers for example, must not say how fast reports come in."""
    store = SlowStore()
    way = intake(store)
    tasks = [asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(100)]
    turns = await decoded_in_each_turn(way, monkeypatch, tasks)
    assert sum(map(len, turns)) == 100
    # Nor has one turn all of them: each costs more than its few bytes.
    assert 1 < len(turns) <= 3
    await store.commit_until_done(tasks)


async def test_a_turn_of_the_loop_decodes_a_bounded_portion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SlowStore()
    way = intake(store)
    many = [LARGE] * 10
    tasks = [asyncio.ensure_future(way.take(f"web{each}", batch(*many))) for each in range(20)]
    turns = await decoded_in_each_turn(way, monkeypatch, tasks)
    assert sum(map(len, turns)) == 20
    portion = intake_module._TURN_BYTES
    assert all(sum(turn[:-1]) < portion for turn in turns), "a batch more than it had room for"
    await store.commit_until_done(tasks)


async def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    store = SlowStore()
    way = intake(store)
    first = asyncio.ensure_future(way.take("web0", batch(SMALL)))
    while not store.waiting:
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(1, 9)]
    await asyncio.sleep(0)
    await store.commit()
    await store.commit()
    await settled([first, *others])
    assert store.commits == [["web0"], [f"web{each}" for each in range(1, 9)]]


async def told_in_each_turn(tasks: Sequence[asyncio.Task[Taken]]) -> list[list[int]]:
    """Return who was told in each turn of the loop, from the first one that tells until all are."""
    turns: list[list[int]] = []
    known: set[int] = set()
    async with asyncio.timeout(15):
        while len(known) < len(tasks):
            done = [number for number, task in enumerate(tasks) if task.done()]
            turns.append([number for number in done if number not in known])
            known.update(done)
            await asyncio.sleep(0)
    return [turn for turn in turns if turn]


@pytest.mark.parametrize("more", [-1, 0, 1, 150])
async def test_a_group_is_told_in_its_order_and_a_bounded_portion_in_each_turn(more: int) -> None:
    store, portion = SlowStore(), intake_module._TOLD_IN_A_TURN
    way = intake(store)
    count = portion + more
    tasks = [asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(count)]
    await store.commit()
    turns = await told_in_each_turn(tasks)
    assert [len(turn) for turn in turns[:-1]] == [portion] * (len(turns) - 1)
    assert len(turns) == -(-count // portion)
    assert [number for turn in turns for number in turn] == list(range(count))
    assert len(store.commits) == 1


async def test_the_next_group_reaches_the_store_before_anybody_is_told_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the store had nothing to do while a hundred sessions were served."""
    store, count = SlowStore(), 4 * intake_module._TOLD_IN_A_TURN
    monkeypatch.setattr(intake_module, "_GROUP_BATCHES_MAX", count)
    way = intake(store)
    tasks = [
        asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(3 * count)
    ]
    async with asyncio.timeout(15):
        while way.waiting > count or len(store.waiting) < count:
            await asyncio.sleep(0)
        done, store.waiting = store.waiting, []
        for _, _, each in done:
            each.set_result(None)
        while not store.waiting:
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        # That one more is ready by now holds nobody up: the store is busy.
        while way.waiting or not all(task.done() for task in tasks[:count]):
            await asyncio.sleep(0)
    assert not any(task.done() for task in tasks[count:])
    await store.commit()
    await store.commit()
    told = await told_in_each_turn(tasks)
    assert sorted(number for turn in told for number in turn) == list(range(3 * count))


async def test_who_is_on_disk_is_told_before_a_large_group_is_decoded_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SlowStore()
    way = intake(store)
    monkeypatch.setattr(intake_module, "_GROUP_BATCHES_MAX", 20)
    tasks = [asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(21)]
    await store.until_idle()
    assert (len(store.waiting), way.waiting) == (20, 0), "one is ready for the next group"
    flood = [asyncio.ensure_future(way.take("flood", batch(*[LARGE] * 100))) for _ in range(8)]
    await store.commit()
    await settled(tasks[:20])
    assert not store.waiting, "the rest of the group is not decoded yet"
    await store.commit_until_done([*tasks, *flood])


async def test_a_failed_commit_is_told_to_each_of_a_large_group_and_no_other() -> None:
    store, count = SlowStore(), 2 * intake_module._TOLD_IN_A_TURN + 1
    way = intake(store)
    tasks = [asyncio.ensure_future(way.take(f"web{each}", batch(SMALL))) for each in range(count)]
    async with asyncio.timeout(15):
        while len(store.waiting) < count:
            await asyncio.sleep(0)
    later = asyncio.ensure_future(way.take("web1", batch(SMALL, first=2)))
    gone = tasks[intake_module._TOLD_IN_A_TURN + 3]
    await store.commit(StorageError("database or disk is full"))
    gone.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(tasks.index(gone)), asyncio.CancelledError | StorageError)
    assert [type(each) for each in results] == [StorageError] * (count - 1)
    await store.commit()
    assert [each.sequence for each in (await later).reports] == [2]


async def test_a_commit_that_fails_is_told_to_its_group_and_the_next_one_goes_on() -> None:
    store = SlowStore()
    way = intake(store)
    first = asyncio.ensure_future(way.take("web1", batch(SMALL)))
    await store.commit(StorageError("database or disk is full"))
    with pytest.raises(StorageError, match="full"):
        await first
    second = asyncio.ensure_future(way.take("web1", batch(SMALL)))
    await store.commit()
    assert len((await second).reports) == 1


async def test_who_gives_up_before_the_turn_is_not_stored() -> None:
    store = SlowStore()
    way = intake(store)
    first = asyncio.ensure_future(way.take("web1", batch(*[LARGE] * 400)))
    gone = [asyncio.ensure_future(way.take("web1", batch(*[LARGE] * 400))) for _ in range(6)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await store.commit()
    await settled([first])
    last = asyncio.ensure_future(way.take("web2", batch(SMALL)))
    await store.commit_until_done([last])
    assert sum(commit.count("web1") for commit in store.commits) < 7


async def test_lines_of_the_log_come_with_a_batch_that_is_usual_and_new() -> None:
    store = SlowStore()
    way = intake(store)
    usual, odd = [SMALL, event_body("START"), SMALL], [SMALL, b"\xc0", event_body("START")]
    tasks = [asyncio.ensure_future(way.take("web1", batch(*each))) for each in (usual, odd)]
    await store.commit_until_done(tasks)
    assert tasks[0].result().lines == ["WAKEUP", "START", "WAKEUP"]
    assert tasks[1].result().lines is None
    read = [[each.event for each in task.result().reports] for task in tasks]
    assert [[each and each.code for each in events] for events in read] == [
        ["WAKEUP", "START", "WAKEUP"],
        ["WAKEUP", None, "START"],
    ]


async def test_each_report_stands_in_the_log_once_whatever_is_sent_again(
    server: LiveServer,
) -> None:
    peer = await server.log_in()
    paths = [f"/etc/{name}" for name in "abcd"]
    bodies = [event_body("POLICY_ADDED", path=path) for path in paths]
    for count in (2, 4, 4):
        await peer.send(peer.batch(1, *bodies[:count]))
        assert await peer.next_message() == Acknowledge(peer.stream, count)
    lines = (server.directory / "log").read_text().splitlines()
    assert [
        line.partition(' path="')[2].partition('"')[0] for line in lines if "RCVT" in line
    ] == paths
    stored = [each for each in await server.stored() if each.code == "POLICY_ADDED"]
    assert [event.fields["path"] for event in stored] == paths


class _BugError(Exception):
    """What no agent should be able to bring out."""


async def test_a_batch_that_breaks_our_own_code_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = event_batch.unpack_usual_events

    def breaks(bodies: Sequence[bytes], *, client: str, received_us: int) -> UsualEvents | None:
        if client == "web1":
            raise _BugError
        return read(bodies, client=client, received_us=received_us)

    monkeypatch.setattr(intake_module, "unpack_usual_events", breaks)
    store = SlowStore()
    way = intake(store)
    names = ("web0", "web1", "web2", "web1")
    tasks = [asyncio.ensure_future(way.take(name, batch(SMALL))) for name in names]
    async with asyncio.timeout(15):
        await store.commit_until_done(tasks)
    assert [type(task.exception()) for task in tasks] == [
        type(None),
        _BugError,
        type(None),
        _BugError,
    ]
    again = asyncio.ensure_future(way.take("web3", batch(SMALL)))
    await store.commit_until_done([again])
    assert len(again.result().reports) == 1


async def test_after_a_turn_that_ended_in_a_bug_the_next_batch_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SlowStore()
    way = intake(store)
    with monkeypatch.context() as broken:

        async def fails(_committing: object) -> list[Any]:
            raise _BugError

        broken.setattr(way, "_next_group", fails)
        lost = asyncio.ensure_future(way.take("web1", batch(SMALL)))
        await asyncio.sleep(0)
        work = way._work
        assert work is not None
        with pytest.raises(_BugError):
            await work
    task = asyncio.ensure_future(way.take("web2", batch(SMALL)))
    await store.commit_until_done([task, lost])


async def test_the_connection_whose_batch_breaks_our_own_code_ends_and_says_why(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> UsualEvents:
        raise _BugError("a bug")

    peer = await server.log_in()
    with monkeypatch.context() as broken:
        broken.setattr(intake_module, "unpack_usual_events", breaks)
        await peer.send(peer.batch(1, SMALL))
        await peer.until_closed()
    told = await server.until_said("SERVER_INTERNAL_ERROR")
    assert "_BugError" in str(told.fields)
    again = await server.log_in()
    await again.send(again.batch(1, SMALL))
    assert await again.next_message() == Acknowledge(again.stream, 1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


async def flooding(peer: Peer, acknowledged: list[int]) -> None:
    """Send batches for ever, four of them on their way."""
    first, on_their_way = 1, 0
    while True:
        while on_their_way < 4:
            await peer.send(peer.batch(first, *[LARGE] * 100))
            first += 100
            on_their_way += 1
        message = await peer.next_message()
        assert isinstance(message, Acknowledge)
        acknowledged.append(message.sequence)
        on_their_way -= 1


async def test_quiet_agents_are_answered_within_two_batches_of_a_flood(server: LiveServer) -> None:
    registry, store = server.runtime.registry, server.runtime.store
    server.configure(agent_report_rate=0, agent_byte_rate=0)
    (record,) = await store.clients()
    names = ["localhost", *(f"quiet{number}" for number in range(4))]
    for name in names[1:]:
        registry.put(replace(record, name=name))
    flood, *quiet = [await server.log_in(name=name) for name in names]
    acknowledged: list[int] = []
    task = asyncio.ensure_future(flooding(flood, acknowledged))
    try:
        while not acknowledged:
            await asyncio.sleep(0)
        for sequence in range(1, 11):
            before = len(acknowledged)
            await asyncio.gather(*(peer.send(peer.batch(sequence, SMALL)) for peer in quiet))
            for peer in quiet:
                assert await peer.next_message() == Acknowledge(peer.stream, sequence)
            # One may be under way to the disk, one behind it, and one in the sockets.
            assert len(acknowledged) - before <= 4
    finally:
        task.cancel()
        await asyncio.wait((task,))
