"""Clones are told from restarts, from restored machines, and from two agents on one host."""

from hypothesis import given
from hypothesis import strategies as st

from needfire_server.lineage import SETTLED_S, WINDOW_S, Lineage, Process

HERE = Process(b"a" * 16, "boot-1", "192.0.2.1")
THERE = Process(b"b" * 16, "boot-2", "192.0.2.2")
BESIDE = Process(b"c" * 16, "boot-1", "192.0.2.1")
S1, S2 = b"1" * 16, b"2" * 16


def come_back(lineage: Lineage, one: Process, other: Process) -> None:
    """One announces itself, then the other, then the first one again."""
    assert lineage.announced(one, 0.0) is None
    assert lineage.announced(other, 100.0) is None
    assert lineage.announced(one, 160.0) is None


def test_two_that_live_at_the_same_time_are_clones() -> None:
    lineage = Lineage()
    come_back(lineage, HERE, THERE)
    clone = lineage.spoke(THERE, opened_s=100.0, now_s=160.0 + SETTLED_S)
    assert clone is not None
    assert {clone.one, clone.other} == {HERE, THERE}


def test_what_may_have_waited_in_a_buffer_proves_nothing() -> None:
    lineage = Lineage()
    come_back(lineage, HERE, THERE)
    assert lineage.spoke(THERE, opened_s=100.0, now_s=159.9 + SETTLED_S) is None
    assert lineage.spoke(THERE, opened_s=100.0, now_s=160.0 + SETTLED_S) is not None


def test_a_machine_that_was_set_back_is_no_clone() -> None:
    """After the snapshot from boot 1 runs again, nothing of boot 2 ever speaks."""
    lineage = Lineage()
    come_back(lineage, HERE, THERE)
    for moment in range(170, 2_000, 60):
        assert lineage.spoke(HERE, opened_s=160.0, now_s=float(moment)) is None


def test_restarts_and_reboots_are_no_clones() -> None:
    lineage = Lineage()
    for number in range(20):
        process = Process(bytes([number]) * 16, f"boot-{number // 3}", "192.0.2.1")
        assert lineage.announced(process, 100.0 * number) is None
        assert lineage.spoke(process, 100.0 * number, 100.0 * number + 50) is None
        assert lineage.wrote(process, S1, 100.0 * number + 50) is None


def test_two_agents_on_one_host_are_no_clones() -> None:
    lineage = Lineage()
    come_back(lineage, HERE, BESIDE)
    assert lineage.spoke(BESIDE, opened_s=100.0, now_s=200.0) is None
    for turn in range(8):
        process, stream = ((HERE, S1), (BESIDE, S2))[turn % 2]
        assert lineage.announced(process, 300.0 + turn) is None
        assert lineage.wrote(process, stream, 300.0 + turn) is None


def test_a_turn_long_ago_proves_nothing() -> None:
    lineage = Lineage()
    come_back(lineage, HERE, THERE)
    assert lineage.spoke(THERE, opened_s=100.0, now_s=160.1 + WINDOW_S) is None
    assert lineage.spoke(THERE, opened_s=100.0, now_s=160.0 + WINDOW_S) is not None


def test_two_that_only_ever_announce_themselves_are_clones_in_the_sixth_turn() -> None:
    lineage = Lineage()
    turns = [lineage.announced((HERE, THERE)[turn % 2], 60.0 * turn) for turn in range(6)]
    assert [turn is not None for turn in turns] == [False] * 5 + [True]


def test_a_machine_that_was_copied_while_it_ran_shows_in_its_numberings() -> None:
    """The same process twice, with one key: after the first conflict each has its own stream."""
    lineage = Lineage()
    copy = Process(HERE.instance, HERE.boot_id, "192.0.2.9")
    assert lineage.wrote(HERE, S1, 1.0) is None
    assert lineage.wrote(copy, S2, 2.0) is None
    assert lineage.wrote(HERE, S1, 3.0) is None
    clone = lineage.wrote(copy, S2, 4.0)
    assert clone is not None
    assert {clone.one.address, clone.other.address} == {"192.0.2.1", "192.0.2.9"}


def test_a_machine_that_is_set_back_again_and_again_is_no_clone() -> None:
    lineage = Lineage()
    for number in range(10):
        assert lineage.wrote(HERE, S1, 2.0 * number) is None
        assert lineage.wrote(HERE, bytes([number + 10]) * 16, 2.0 * number + 1) is None


def test_a_copied_state_directory_shows_even_in_one_boot() -> None:
    lineage = Lineage()
    clones = [lineage.wrote((HERE, BESIDE)[turn % 2], S1, float(turn)) for turn in range(4)]
    assert [clone is not None for clone in clones] == [False, False, False, True]


def test_a_clone_is_told_once() -> None:
    lineage = Lineage()
    come_back(lineage, HERE, THERE)
    told = [lineage.spoke(THERE, 100.0, 180.0 + second) for second in range(50)]
    assert sum(clone is not None for clone in told) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 100)), max_size=40))
def test_one_agent_after_the_other_is_never_a_clone(steps: list[tuple[int, int]]) -> None:
    """Whatever one machine does, a process that has ended stays away."""
    lineage, now_s, number = Lineage(), 0.0, 0
    opened_s = 0.0
    for what, pause_s in steps:
        now_s += pause_s
        process = Process(number.to_bytes(16), f"boot-{number}", "192.0.2.1")
        if what == 0:
            number += 1
        elif what <= 2:
            opened_s = now_s
            assert lineage.announced(process, now_s) is None
        else:
            assert lineage.spoke(process, opened_s, now_s) is None
            assert lineage.wrote(process, process.instance, now_s) is None
