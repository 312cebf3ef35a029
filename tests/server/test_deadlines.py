"""Whose patience ends: never early, and once."""

import asyncio

import pytest

from needfire_server.deadlines import STEP_S, Deadlines, step_of
from needfire_testkit.server import until


class Waiting:
    """Notes when it was told."""

    def __init__(self) -> None:
        self.told_s: list[float] = []

    def deadline_passed(self) -> None:
        self.told_s.append(asyncio.get_running_loop().time())


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_nobody_is_told_early_and_each_once() -> None:
    deadlines, began_s = Deadlines(), now_s()
    after_s = [0.0, STEP_S, 0.3 * STEP_S, 2.5 * STEP_S, 0.1 * STEP_S]
    waiting = [Waiting() for _ in after_s]
    for each, wait_s in zip(waiting, after_s, strict=True):
        step = deadlines.add(each, began_s + wait_s)
        assert step == step_of(began_s + wait_s)
    assert len(deadlines) == len(waiting)
    await until(lambda: all(each.told_s for each in waiting), "all to be told")
    for each, wait_s in zip(waiting, after_s, strict=True):
        (told_s,) = each.told_s
        assert told_s >= began_s + wait_s
    assert len(deadlines) == 0


async def test_an_earlier_deadline_is_kept_beside_a_later_one() -> None:
    deadlines, late, soon = Deadlines(), Waiting(), Waiting()
    deadlines.add(late, now_s() + 3_600)
    deadlines.add(soon, now_s())
    await until(lambda: bool(soon.told_s), "the earlier one to be told")
    assert not late.told_s
    assert len(deadlines) == 1
    deadlines.close()
    assert len(deadlines) == 0


async def test_who_was_taken_out_is_not_told() -> None:
    deadlines, out, told = Deadlines(), Waiting(), Waiting()
    step = deadlines.add(out, now_s())
    deadlines.add(told, now_s() + STEP_S)
    deadlines.remove(out, step)
    deadlines.remove(out, step + 1_000)
    await until(lambda: bool(told.told_s), "the other one to be told")
    assert not out.told_s


async def test_who_is_told_may_wait_again() -> None:
    deadlines = Deadlines()

    class Again(Waiting):
        def deadline_passed(self) -> None:
            super().deadline_passed()
            if len(self.told_s) < 2:
                deadlines.add(self, now_s())

    again = Again()
    deadlines.add(again, now_s())
    await until(lambda: len(again.told_s) == 2, "the second time")
    assert len(deadlines) == 0


async def test_one_that_fails_takes_no_others_along() -> None:
    deadlines, told = Deadlines(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))

    class Failing(Waiting):
        def deadline_passed(self) -> None:
            raise MemoryError

    waiting, later, at_s = Waiting(), Waiting(), now_s()
    deadlines.add(Failing(), at_s)
    deadlines.add(waiting, at_s)
    deadlines.add(later, at_s + STEP_S)
    await until(lambda: bool(waiting.told_s and later.told_s), "the others")
    assert "MemoryError" in repr(told)


async def test_where_all_of_it_fails_the_next_look_comes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines, later = Deadlines(), Waiting()
    asyncio.get_running_loop().set_exception_handler(lambda _, about: None)

    def fail(_patient: object) -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(deadlines, "_tell", fail)
    deadlines.add(Waiting(), now_s())
    deadlines.add(later, now_s() + STEP_S)
    await until(lambda: bool(later.told_s), "the other one to be told")


async def test_a_closed_one_tells_nobody() -> None:
    deadlines, waiting = Deadlines(), Waiting()
    deadlines.add(waiting, now_s())
    deadlines.close()
    other, told = Deadlines(), Waiting()
    other.add(told, now_s() + STEP_S)
    await until(lambda: bool(told.told_s), "time to pass")
    assert not waiting.told_s
