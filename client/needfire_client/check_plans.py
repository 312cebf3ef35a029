"""Which groups of rules are checked together, and at which times. Pure.

    rules of no group     SetFilecheckTime, or FileCheckScheduleOne
    %SCHEDULE_TWO         FileCheckScheduleTwo, together with the rules of no group
    %GROUP NAME           GroupInterval or GroupSchedule of the name

A group without times of its own is checked with the rules of no group: no rule is ever forgotten
because of how a file is written.
"""

from collections.abc import Mapping, Set

from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.crontab import Crontab
from needfire_protocol.rc.policies import SCHEDULE_TWO

__all__ = ["Plan", "check_plans"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Rules that are checked together, and when."""

    groups: frozenset[str]
    interval_s: int | None
    """None: at the times alone."""
    times: tuple[Crontab, ...]
    """Local times; empty: at the interval."""
    full_intervals_s: tuple[tuple[str, int], ...]
    """For each group: in which time one check at least reads all files; 0: every one does."""


def check_plans(settings: AgentSettings) -> list[Plan]:
    """Return the plans of a configuration: each group is in one at least, and there is one."""
    names = {rule.group for rule in settings.rules} - {""}
    intervals = dict(settings.group_intervals)
    times: dict[str, tuple[Crontab, ...]] = {}
    for name, crontab in settings.group_schedules:
        times[name] = (*times.get(name, ()), crontab)
    timed = {name for name in names if name in intervals or name in times}
    has_two = bool(settings.check_schedules_two)
    rest = (names - timed - ({SCHEDULE_TWO} if has_two else set())) | {""}
    full = dict.fromkeys(rest | {SCHEDULE_TWO}, settings.full_check_interval_s)
    full.update(settings.group_full_intervals)
    plans = []
    if rest != {""} or not timed or any(not rule.group for rule in settings.rules):
        interval_s = None if settings.check_schedules else settings.file_check_interval_s
        plans.append(_plan(rest, interval_s, settings.check_schedules, full))
    if has_two:
        plans.append(_plan(rest | {SCHEDULE_TWO}, None, settings.check_schedules_two, full))
    for name in sorted(timed):
        interval_s = None if name in times else intervals[name]
        plans.append(_plan({name}, interval_s, times.get(name, ()), full))
    return plans


def _plan(
    groups: Set[str], interval_s: int | None, times: tuple[Crontab, ...], full: Mapping[str, int]
) -> Plan:
    full_intervals_s = tuple((name, full.get(name, 0)) for name in sorted(groups))
    return Plan(frozenset(groups), interval_s, times, full_intervals_s)
