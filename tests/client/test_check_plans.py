"""Which groups are checked together, and when a check of which is due."""

# ruff: noqa: DTZ001 - the clock on the wall has no zone

from datetime import datetime
from typing import Any

import pytest

from needfire_client.check_plans import Plan, check_plans
from needfire_client.check_times import CheckTimes
from needfire_client.policy import Selection
from needfire_client.schedule import RECHECK_S
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.crontab import parse_crontab
from needfire_protocol.rc.policies import SCHEDULE_TWO
from needfire_testkit.scanner import dir_rule, settings_of

NIGHTLY, WEEKLY = parse_crontab("0 2 * * *"), parse_crontab("0 3 * * Sun")


def grouped(*groups: str, **others: Any) -> AgentSettings:
    return settings_of(*(dir_rule(b"/%d" % i, group=g) for i, g in enumerate(groups)), **others)


def plan(*groups: str, every_s: int | None = None, at: Any = (), full_s: int = 0) -> Plan:
    full = tuple((group, full_s) for group in sorted(groups))
    return Plan(frozenset(groups), every_s, at, full)


def test_without_groups_there_is_one_plan() -> None:
    assert check_plans(grouped("", "")) == [plan("", every_s=600)]
    assert check_plans(AgentSettings(check_schedules=(NIGHTLY,))) == [plan("", at=(NIGHTLY,))]


def test_the_second_schedule_is_for_everything_that_has_no_name() -> None:
    settings = grouped("", SCHEDULE_TWO, check_schedules_two=(WEEKLY,), full_check_interval_s=9)
    assert check_plans(settings) == [
        plan("", every_s=600, full_s=9),
        plan("", SCHEDULE_TWO, at=(WEEKLY,), full_s=9),
    ]


def test_a_group_with_times_is_checked_at_them_alone() -> None:
    settings = grouped(
        "",
        "web",
        "db",
        group_intervals=(("web", 60), ("web", 30), ("db", 5)),
        group_schedules=(("db", NIGHTLY), ("db", WEEKLY)),
        group_full_intervals=(("web", 3600),),
    )
    assert check_plans(settings) == [
        plan("", every_s=600),
        plan("db", at=(NIGHTLY, WEEKLY)),
        plan("web", every_s=30, full_s=3600),
    ]


@pytest.mark.parametrize("group", ["web", SCHEDULE_TWO])
def test_a_group_without_times_is_never_forgotten(group: str) -> None:
    assert check_plans(grouped(group)) == [plan("", group, every_s=600)]


def test_a_group_without_times_has_a_full_interval_of_its_own() -> None:
    settings = grouped("", "web", group_full_intervals=(("web", 60),), full_check_interval_s=90)
    [found] = check_plans(settings)
    assert found.full_intervals_s == (("", 90), ("web", 60))


def test_where_every_rule_is_in_a_timed_group_nothing_else_is_checked() -> None:
    settings = grouped("web", group_intervals=(("web", 30), ("none", 4)))
    assert check_plans(settings) == [plan("web", every_s=30)]


# ---- when ----------------------------------------------------------------------------------------

ALL = Selection()
A, B = plan("", every_s=100), plan("b", every_s=30, full_s=70)


def times(*plans: Plan, drawn: float = 0.0) -> CheckTimes:
    made = CheckTimes(now_s=0, random=lambda: drawn, wall=lambda: datetime(2026, 3, 1, 1, 59))
    made.set_plans(plans, 0)
    return made


def only(*groups: str, quick: tuple[str, ...] = ()) -> Selection:
    return Selection(frozenset(groups), frozenset(quick))


def test_everything_is_due_at_first_in_one_check() -> None:
    due = times(A, B)
    assert due.wait_s(0) == 0
    assert due.begin(0) == ALL
    assert due.wait_s(0) == 30


def test_each_group_comes_at_its_own_interval() -> None:
    due = times(A, B)
    due.begin(0)
    assert due.begin(30) == only("b")
    assert due.begin(60) == only("b")
    assert due.wait_s(60) == 30
    assert due.begin(100) == ALL


def test_many_missed_times_are_made_up_for_by_one_check() -> None:
    due = times(A, B)
    due.begin(0)
    assert due.begin(10_000) == ALL
    assert due.wait_s(10_000) == 30


def test_a_request_brings_a_check_of_everything_forward_and_never_back() -> None:
    due = times(A, B)
    due.begin(0)
    due.request(10, within_s=5)
    due.request(11, within_s=100)
    assert due.wait_s(12) == 3
    assert due.begin(15) == ALL
    assert due.wait_s(15) == 30


def test_a_check_of_some_rules_does_not_answer_a_request_for_all() -> None:
    due = times(A, B)
    due.begin(0)
    due.request(29, within_s=5)
    assert due.begin(30) == only("b")
    assert due.begin(34) == ALL


def test_quick_checks_follow_a_full_one_that_has_ended_until_its_interval_is_over() -> None:
    due = times(A, B)
    due.completed(due.begin(0), 0)
    for now_s in (30, 60):
        selection = due.begin(now_s)
        assert selection == only("b", quick=("b",))
        due.completed(selection, now_s)
    assert due.begin(90) == only("b")
    # That one was stopped.
    assert due.begin(120) == Selection(None)
    due.completed(ALL, 120)
    assert due.begin(189.9) == only("b", quick=("b",))


def test_the_second_schedule_takes_the_first_along(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [datetime(2026, 3, 1, 1, 0)]
    due = CheckTimes(now_s=0, random=lambda: 0.0, wall=lambda: now[0])
    due.set_plans([plan("", at=(NIGHTLY,)), plan("", SCHEDULE_TWO, at=(WEEKLY,))], 0)
    due.begin(0)
    assert due.wait_s(0) == RECHECK_S
    now[0] = datetime(2026, 3, 1, 2, 0)
    assert due.begin(1) == only("")
    assert due.wait_s(1) == RECHECK_S
    now[0] = datetime(2026, 3, 1, 3, 0)
    assert due.begin(2) == ALL
    # A night of absence over both.
    now[0] = datetime(2026, 3, 8, 4, 0)
    assert due.begin(3) == ALL
    assert due.wait_s(3) == RECHECK_S


def test_plans_that_stay_keep_their_times() -> None:
    due = times(A, B)
    due.completed(due.begin(0), 0)
    due.set_plans([B, plan("c", every_s=5)], 10)
    assert due.begin(10) == only("c")
    assert due.wait_s(10) == 5
    assert due.begin(30) == Selection(None, frozenset("b"))


def test_hosts_do_not_check_in_the_same_second() -> None:
    waits = set()
    for drawn in (0.0, 0.5, 0.999):
        due = times(A, drawn=drawn)
        due.begin(0)
        waits.add(round(due.wait_s(0)))
    assert waits == {100, 95, 90}
