"""Questions about one key each, asked together."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from needfire_protocol.errors import StorageError
from needfire_server.storage.gathered_reads import GatheredReads


class Database:
    """Answers where it is let, with how often it had been asked by then."""

    def __init__(self, *, is_quick: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.is_quick = is_quick
        self.damaged: set[str] = set()
        self._questions: list[asyncio.Future[Mapping[str, str | StorageError]]] = []

    def ask(self, keys: Sequence[str]) -> asyncio.Future[Mapping[str, str | StorageError]]:
        self.asked.append(list(keys))
        self._questions.append(asyncio.get_running_loop().create_future())
        if self.is_quick:
            self.answer()
        return self._questions[-1]

    def answer(self) -> None:
        number = len(self.asked)
        self._questions[-1].set_result(
            {
                key: StorageError(f"{key} is damaged") if key in self.damaged else f"{key} {number}"
                for key in self.asked[-1]
            }
        )

    def fail(self, error: BaseException) -> None:
        self._questions[-1].set_exception(error)

    def give_up(self) -> None:
        self._questions[-1].cancel()


async def under_way(reads: GatheredReads[str, str], *keys: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.ensure_future(reads.get(key)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_is_asked_meanwhile_is_asked_together_and_anew() -> None:
    database = Database()
    reads = GatheredReads(database.ask)
    first = await under_way(reads, "web1")
    # web1 again: what the first question will say of it may be older than this one.
    later = await under_way(reads, "web2", "web1", "web3", "web1")
    database.answer()
    assert await first[0] == "web1 1"
    database.answer()
    assert await asyncio.gather(*later) == ["web2 2", "web1 2", "web3 2", "web1 2"]
    assert database.asked == [["web1"], ["web2", "web1", "web3"]]
    database.is_quick = True
    assert await reads.get("web1") == "web1 3"


async def test_no_question_is_about_more_than_it_may_be() -> None:
    database = Database()
    reads = GatheredReads(database.ask)
    first = await under_way(reads, "web")
    names = [f"web{number}" for number in range(150)]
    tasks = await under_way(reads, *names)
    database.answer()
    database.is_quick = True
    answers = await asyncio.gather(*first, *tasks)
    assert [answer.split()[0] for answer in answers] == ["web", *names]
    assert [len(asked) for asked in database.asked] == [1, 64, 64, 22]


async def test_a_damaged_row_is_only_its_own_trouble() -> None:
    database = Database()
    database.damaged = {"web2"}
    reads = GatheredReads(database.ask)
    await under_way(reads, "web0")
    tasks = await under_way(reads, "web1", "web2", "web3")
    database.answer()
    database.is_quick = True
    said = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in said] == ["web1 2", "web2 is damaged", "web3 2"]
    assert isinstance(said[1], StorageError)


async def test_where_the_database_is_gone_all_hear_it_and_the_next_question_is_asked() -> None:
    database = Database()
    reads = GatheredReads(database.ask)
    before = await under_way(reads, "web0")
    failing = await under_way(reads, "web1", "web1", "web3")
    database.answer()
    assert await before[0] == "web0 1"
    later = await under_way(reads, "web2")
    database.fail(StorageError("gone"))
    for task in failing:
        with pytest.raises(StorageError, match="gone"):
            await task
    database.answer()
    assert await later[0] == "web2 3"


async def test_where_nothing_can_be_asked_nobody_waits() -> None:
    database = Database()

    def closed(keys: Sequence[str]) -> asyncio.Future[Mapping[str, str | StorageError]]:
        if database.asked:
            raise StorageError("closed")
        return database.ask(keys)

    reads = GatheredReads(closed)
    first = await under_way(reads, "web1")
    later = await under_way(reads, *(f"web{number}" for number in range(100)))
    database.answer()
    assert await first[0] == "web1 1"
    for task in later:
        with pytest.raises(StorageError, match="closed"):
            await task
    with pytest.raises(StorageError, match="closed"):
        await reads.get("web1")


async def test_who_goes_away_takes_no_answer_from_others() -> None:
    database = Database()
    reads = GatheredReads(database.ask)
    before = await under_way(reads, "web1")
    gone, stays = await under_way(reads, "web1", "web1")
    database.answer()
    assert await before[0] == "web1 1"
    gone.cancel()
    database.answer()
    assert await stays == "web1 2"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_question_that_was_cancelled_leaves_nobody_waiting() -> None:
    database = Database()
    reads = GatheredReads(database.ask)
    first = await under_way(reads, "web1")
    later = await under_way(reads, "web2")
    database.give_up()
    with pytest.raises(asyncio.CancelledError):
        await first[0]
    database.answer()
    assert await later[0] == "web2 2"
