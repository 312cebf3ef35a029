"""Which check is due now, of which groups of rules, and whether it has to read all files.

Pure: times come in as seconds of a clock that also runs while the host sleeps, the clock on the
wall and randomness as arguments.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from needfire_client.check_plans import Plan
from needfire_client.policy import Selection
from needfire_client.schedule import RECHECK_S, CheckSchedule

__all__ = ["CheckTimes"]


class CheckTimes:
    """The schedules of all plans. Everything is due at once at first.

    What is due at the same time becomes one check; and however many times have gone by while the
    host slept, one check makes up for them.

    Args:
        wall: says what the local clock shows now, without a zone.
    """

    def __init__(
        self,
        *,
        now_s: float,
        random: Callable[[], float],
        wall: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._random = random
        self._wall = wall
        self._schedules: dict[Plan, CheckSchedule] = {}
        self._requested_s: float | None = now_s
        self._full_s: dict[str, float] = {}
        """When the last check began that read all files, by group."""

    def set_plans(self, plans: Sequence[Plan], now_s: float) -> None:
        """Use these plans; those that there were already go on as they were."""
        self._schedules = {
            plan: self._schedules.get(plan) or self._schedule(plan, now_s) for plan in plans
        }
        known = {group for plan in plans for group in plan.groups}
        self._full_s = {group: at for group, at in self._full_s.items() if group in known}

    def request(self, now_s: float, within_s: float = 0.0) -> None:
        """Ask for a check of everything no later than ``within_s`` seconds from now."""
        due_s = now_s + within_s
        self._requested_s = due_s if self._requested_s is None else min(self._requested_s, due_s)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until it is worth asking again; 0 where a check is due."""
        waits = [schedule.wait_s(now_s) for schedule in self._schedules.values()]
        if self._requested_s is not None:
            waits.append(self._requested_s - now_s)
        return max(0.0, min(waits, default=RECHECK_S))

    def begin(self, now_s: float) -> Selection:
        """Return what is due, which begins now. There must be something."""
        is_all = self._requested_s is not None and self._requested_s <= now_s
        due = [
            plan for plan in self._schedules if is_all or self._schedules[plan].wait_s(now_s) <= 0
        ]
        groups = frozenset[str]().union(*(plan.groups for plan in due))
        every = frozenset[str]().union(*(plan.groups for plan in self._schedules))
        for plan, schedule in self._schedules.items():
            if plan.groups <= groups:
                schedule.started(now_s)
        if groups >= every:
            self._requested_s = None
        quick = frozenset(group for group in groups if self._may_be_quick(group, now_s))
        return Selection(None if groups >= every else groups, quick)

    def completed(self, selection: Selection, began_s: float) -> None:
        """A check has seen everything that was selected."""
        for plan in self._schedules:
            for group in plan.groups - selection.quick:
                if selection.has(group):
                    self._full_s[group] = began_s

    def _may_be_quick(self, group: str, now_s: float) -> bool:
        intervals_s = [
            interval_s
            for plan in self._schedules
            for name, interval_s in plan.full_intervals_s
            if name == group
        ]
        full_s = self._full_s.get(group)
        return full_s is not None and now_s - full_s < min(intervals_s)

    def _schedule(self, plan: Plan, now_s: float) -> CheckSchedule:
        return CheckSchedule(
            plan.interval_s or 0, plan.times, now_s=now_s, random=self._random, wall=self._wall
        )
