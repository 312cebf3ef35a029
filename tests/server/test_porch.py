"""Strangers wait in the order in which they came, so many of them and no more."""

import pytest

from needfire_server.porch import Porch


@pytest.mark.parametrize("count", [19, 20, 21])
def test_it_has_so_many_places(count: int) -> None:
    porch: Porch[int] = Porch(20)
    taken = [porch.wait(f"192.0.2.{number}", number) for number in range(count)]
    assert sum(taken) == len(porch) == min(count, 20)
    assert [porch.take()[1] for _ in range(len(porch))] == list(range(min(count, 20)))


@pytest.mark.parametrize("count", [4, 5, 6])
def test_one_source_has_a_quarter_of_them_and_gets_them_back(count: int) -> None:
    porch: Porch[int] = Porch(20)
    taken = [porch.wait("192.0.2.1", number) for number in range(count)]
    assert sum(taken) == min(count, 5)
    assert porch.wait("192.0.2.2", 99)
    assert porch.take() == ("192.0.2.1", 0)
    assert porch.wait("192.0.2.1", 100)


def test_it_remembers_no_source_of_which_nobody_waits() -> None:
    porch: Porch[int] = Porch(20)
    for number in range(4):
        porch.wait(f"192.0.2.{number % 2}", number)
    while porch:
        porch.take()
    assert porch._of == {}
