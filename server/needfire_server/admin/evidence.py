"""What the events of some days prove: who was checked, what changed, who accepted it, what was not seen.

The weekly evidence that file comparisons took place and were looked at (PCI DSS 4.0, 11.5.2). Pure:
events in their JSON form come in, one after another; memory is bounded by the number of clients
and of different paths, of which only so many are kept.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.counted import counted
from needfire_protocol.errors import FormatError
from needfire_protocol.event import format_time, parse_time
from needfire_server.admin.absences import (
    MARKS,
    Absence,
    Host,
    Mark,
    Marks,
    absent_now,
    latest,
    mark_of,
)
from needfire_server.admin.acceptance import Accepted, accepted_by, accepted_of

__all__ = [
    "CHANGES_MAX",
    "CHANGES_OF_CLIENT_MAX",
    "CLASSES",
    "EVERY_CLIENT",
    "Accepted",
    "Change",
    "ClientEvidence",
    "Evidence",
    "Gap",
    "GroupEvidence",
    "Host",
]

CLASSES: Final = ("integrity", "alarm", "system", "provisioning")
"""The classes of events that say anything here."""
EVERY_CLIENT: Final = ""
"""Whose evidence a file is that was put in place for all clients."""
CHANGES_MAX: Final = 100_000
"""Different changes that are listed, of all clients together; the rest is counted."""
CHANGES_OF_CLIENT_MAX: Final = 10_000
"""Of one client: what it makes up must not push what others report out of the list."""
_CHANGES_OF_PATH_MAX: Final = 10
"""Different changes of one path that are listed, the newest among them: a file that changes all the
time must not take the room of others."""
_DETAILS_MAX: Final = 12
_VALUE_MAX: Final = 100
"""Characters of a value that is shown of a change."""
_HEARD_LATE_US: Final = 60_000_000
"""A connection may end a little after the goodbye on it."""
_LISTED_MAX: Final = 2_000
"""Gaps, and acceptances, that are listed for each client."""
_GROUPS_MAX: Final = 256
"""Groups of rules that are listed for each client; others are only counted."""

_CHANGES: Final = {
    "POLICY_MODIFIED": "modified",
    "POLICY_ADDED": "added",
    "POLICY_MISSING": "missing",
}
_PUT: Final = {"BASELINE_PUT": "baseline", "CONFIGURATION_PUT": "configuration"}
_GAPS: Final = frozenset(
    {
        "COVERAGE_GAP",
        "REALTIME_SILENT",
        "SCAN_STANDS_STILL",
        "RESTART_WITHOUT_EXIT",
        "PRIOR_EXIT_NOT_SHOWN",
        "SEQUENCE_GAP",
        "SPOOL_FULL",
        "SPOOL_DAMAGED",
        "CHECK_SAW_NOTHING",
        "NOTHING_TO_CHECK",
    }
)
_ABSENCES: Final[Mapping[str, str]] = {
    "EXIT": "The agent was stopped (EXIT)",
    "NEVER_SEEN": "Registered, and never heard",
    "NOT_HEARD": "The agent is not connected and was not heard",
    "SUSPEND": "The agent was suspended (SUSPEND)",
}


@dataclass(slots=True)
class Change:
    """One difference of one path, however often it was reported.

    A path that is changed again, into something else, has another one.

    Attributes:
        kind: added, modified or missing.
        what: the ten letters of what differs; empty for added and missing.
        details: values that differ, ``name old -> new``, the first ones.
        reports: how often it was reported: also again after a restart, and by ``update``.
        first_us, last_us: when the server was told of it.
        who: program and user, where watching knew them.
        accepted: the baseline that took it in; None: it is not accepted.
        is_named: that one names the path; else only the time says so.
    """

    kind: str
    severity: str
    what: str
    details: tuple[str, ...]
    first_us: int
    last_us: int
    who: str | None
    state: bytes
    reports: int = 1
    accepted: Accepted | None = None
    is_named: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """A time or a part of a host about which nothing is known.

    Attributes:
        is_open: it lasts; ``until`` is None then.
    """

    time_us: int
    code: str
    text: str
    scope: str | None
    since: str | None
    until: str | None
    is_open: bool = False


@dataclass(slots=True)
class GroupEvidence:
    """What is known of one group of rules that is checked by itself at times.

    Attributes:
        checks: receipts of checks of this group and not of all.
        quick_checks: those of them that read only files of which an attribute had changed.
        last_check_us: of any check that it was part of, one of all rules too; as below.
    """

    last_check_us: int
    checks: int = 0
    quick_checks: int = 0
    longest_without_check_us: int = 0


@dataclass(slots=True)
class ClientEvidence:
    """What is known of one client. A check of some groups of rules is none of all rules.

    Attributes:
        checks: receipts of checks of all rules that saw files, and compared them.
        quick_checks: those of them that read only files of which an attribute had changed.
        longest_without_check_us: between two of them, or from the beginning (for a client that was
            registered later: from then) or to the end.
        files: objects that the last of them looked at.
        unseen: files that the last of them could not read or found changing all the time.
        groups: of those groups of rules that were checked by themselves; ``-``: rules of none.
    """

    checks: int = 0
    quick_checks: int = 0
    first_check_us: int | None = None
    last_check_us: int | None = None
    longest_without_check_us: int = 0
    files: int = 0
    unseen: int = 0
    groups: dict[str, GroupEvidence] = field(default_factory=dict)
    groups_not_listed: int = 0
    changes: dict[str, list[Change]] = field(default_factory=dict)
    changes_not_listed: int = 0
    gaps: list[Gap] = field(default_factory=list)
    gaps_not_listed: int = 0
    accepted: list[Accepted] = field(default_factory=list)
    accepted_not_listed: int = 0
    changes_listed: int = 0
    malformed: int = 0
    """Its reports that lack what such a report says: they prove nothing."""

    @property
    def all_changes(self) -> int:
        """Different changes, the listed ones and the others."""
        return sum(map(len, self.changes.values())) + self.changes_not_listed

    @property
    def all_gaps(self) -> int:
        """The listed ones and the others."""
        return len(self.gaps) + self.gaps_not_listed

    @property
    def unaccepted(self) -> int:
        """Listed changes that no baseline took in."""
        return sum(change.accepted is None for each in self.changes.values() for change in each)

    def is_checked_every(self, interval_us: int) -> bool:
        """True where there was a check of all rules, and never a longer time without one."""
        return self.checks > 0 and self.longest_without_check_us <= interval_us


class Evidence:
    """Gathers events of a span of time; each class of events must come in order of arrival.

    Args:
        until_us: the end of the span; what was accepted later still counts.
        is_now: that is the present, so what the server says of the hosts now holds at the end.
        hosts: who should have been heard of.
        only: evidence of this client alone.
    """

    def __init__(
        self,
        since_us: int,
        until_us: int,
        hosts: Mapping[str, Host] | None = None,
        *,
        is_now: bool = True,
        only: str | None = None,
    ) -> None:
        self.since_us = since_us
        self.until_us = until_us
        self.is_now = is_now
        self.clients: dict[str, ClientEvidence] = {}
        self._hosts = hosts or {}
        self._only = only
        self._listed = 0
        self._heard_us: dict[str, int] = {}
        self._marks: defaultdict[str, Marks] = defaultdict(Marks)
        self._puts: defaultdict[str, list[Accepted]] = defaultdict(list)

    def add_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take events in their JSON form; what says nothing here is passed over.

        A client may report what it likes: what is not as expected is counted as a gap of its own,
        so that no client keeps the others' evidence from anybody.

        Raises:
            FormatError: one of the server's own is no event.
        """
        for event in events:
            try:
                self._add(event)
            except (KeyError, TypeError, ValueError) as error:
                client = event.get("client")
                if not isinstance(client, str):
                    raise FormatError(
                        f"an event of the server is not as expected: {error}"
                    ) from None
                self._of(client).malformed += 1

    def add_before(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take what came before the span: which absences had begun then.

        Raises:
            FormatError: one is no event.
        """
        try:
            found = latest(
                each
                for event in events
                if (each := mark_of(event, _arrived_us(event))) is not None
                and self._is_wanted(each[0])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"an event of the server is not as expected: {error}") from None
        for (name, _), mark in found.items():
            self._add_mark(name, mark)

    def finish(self) -> None:
        """Name every client that should have been heard of, and close the span of each."""
        for name, host in self._hosts.items():
            if (host.registered_us or 0) <= self.until_us or name in self._heard_us:
                self._of(name)
        for name, client in self.clients.items():
            if name != EVERY_CLIENT:
                self._measure(name, client, self.until_us)
                for group in client.groups.values():
                    _measure_group(group, self.until_us)
                self._add_absences(name, client)
                self._accept(name, client)
                if client.malformed:
                    self._add_gap(client, _gap_of_malformed(client.malformed, self.until_us))
            client.accepted.sort(key=lambda put: put.time_us)
            client.gaps.sort(key=lambda gap: gap.time_us)

    def _add(self, event: Mapping[str, Any]) -> None:
        code, fields = event["code"], event["fields"]
        name = event["client"] or fields.get("client") or EVERY_CLIENT
        time_us, arrived_us = parse_time(event["time"]), _arrived_us(event)
        if code in _PUT:
            # Only the server's own word: else an agent accepts its changes in anybody's name.
            if event["client"] is None and (name == EVERY_CLIENT or self._is_wanted(name)):
                self._add_put(name, accepted_of(_PUT[code], fields, time_us))
            return
        if not self._is_wanted(name) or min(time_us, arrived_us) >= self.until_us:
            return
        if event["client"]:
            self._heard_us[name] = min(arrived_us, self._heard_us.get(name, arrived_us))
        if code in _CHANGES and event["client"]:
            self._add_change(self._of(name), event, arrived_us)
        elif code == "CHECK_COMPLETED" and event["client"] and fields.get("mode") != "init":
            if fields.get("groups"):
                self._add_group_check(name, fields, time_us)
            else:
                self._add_check(name, fields, time_us)
        elif code in _GAPS and name:
            self._add_gap(self._of(name), _gap_of(event, time_us))
        if code in MARKS and (found := mark_of(event, arrived_us)) is not None:
            self._add_mark(*found)

    def _is_wanted(self, name: str) -> bool:
        return self._only is None or name == self._only

    def _of(self, name: str) -> ClientEvidence:
        return self.clients.setdefault(name, ClientEvidence())

    def _begin_us(self, name: str) -> int:
        """Return from when on a client can have been checked.

        The registration of one that was heard before it is not its first: it has a new password.
        """
        host = self._hosts.get(name)
        if host is None or host.registered_us is None:
            return self.since_us
        if self._heard_us.get(name, host.registered_us) < host.registered_us:
            return self.since_us
        return min(max(self.since_us, host.registered_us), self.until_us)

    def _add_mark(self, name: str, mark: Mark) -> None:
        if mark.us < self.until_us:
            self._marks[name].add(mark)
            self._heard_us[name] = min(mark.us, self._heard_us.get(name, mark.us))

    def _add_absences(self, name: str, client: ClientEvidence) -> None:
        absences = list(self._marks[name].absences()) if name in self._marks else []
        host = self._hosts.get(name)
        # That nobody ever heard of it holds for the past as well.
        if host is not None and (self.is_now or host.seen_us is None):
            told = absences.pop() if absences and absences[-1].until_us is None else None
            is_known = host.seen_us is not None or name not in self._heard_us
            now = absent_now(host, self.until_us) if is_known else told
            if now is not None:
                absences.append(told if told is not None and _is_same(told, now) else now)
        for absence in absences:
            if absence.until_us is None or absence.until_us >= self.since_us:
                self._add_gap(client, _gap_of_absence(absence))

    def _accept(self, name: str, client: ClientEvidence) -> None:
        puts = [*self._puts.get(name, ()), *self._puts.get(EVERY_CLIENT, ())]
        puts.sort(key=lambda put: put.time_us)
        for path, changes in client.changes.items() if puts else ():
            for change in changes:
                found = accepted_by(path, change.first_us, change.last_us, puts)
                if found is not None:
                    change.accepted, change.is_named = found

    def _add_change(
        self, client: ClientEvidence, event: Mapping[str, Any], arrived_us: int
    ) -> None:
        change = _change_of(event, arrived_us)
        path = _text_of(event["fields"], "path")
        known = client.changes.get(path, [])
        if known and known[-1].state == change.state:
            last = known[-1]
            last.reports, last.last_us = last.reports + 1, arrived_us
            last.severity, last.who = change.severity, change.who or last.who
        elif len(known) >= _CHANGES_OF_PATH_MAX:
            # The state that it is in now says more than one in between.
            known[-1] = change
            client.changes_not_listed += 1
        elif self._listed >= CHANGES_MAX or client.changes_listed >= CHANGES_OF_CLIENT_MAX:
            client.changes_not_listed += 1
        else:
            self._listed += 1
            client.changes_listed += 1
            client.changes.setdefault(path, []).append(change)

    def _add_check(self, name: str, fields: Mapping[str, Any], time_us: int) -> None:
        files, unseen = int(fields.get("files") or 0), int(fields.get("skipped") or 0)
        client = self._of(name)
        self._measure(name, client, time_us)
        client.checks += 1
        client.quick_checks += bool(fields.get("quick_groups"))
        client.first_check_us = time_us if client.first_check_us is None else client.first_check_us
        client.last_check_us = time_us
        client.files, client.unseen = files, unseen
        for group in client.groups.values():
            _note_group_check(group, time_us)

    def _add_group_check(self, name: str, fields: Mapping[str, Any], time_us: int) -> None:
        client = self._of(name)
        quick = str(fields.get("quick_groups") or "").split()
        for group_name in str(fields["groups"]).split():
            if group_name not in client.groups and len(client.groups) >= _GROUPS_MAX:
                client.groups_not_listed += 1
                continue
            before_us = client.last_check_us
            if before_us is None:
                before_us = self._begin_us(name)
            group = client.groups.setdefault(group_name, GroupEvidence(before_us))
            _note_group_check(group, time_us)
            group.checks += 1
            group.quick_checks += group_name in quick

    def _measure(self, name: str, client: ClientEvidence, time_us: int) -> None:
        last_us = self._begin_us(name) if client.last_check_us is None else client.last_check_us
        client.longest_without_check_us = max(client.longest_without_check_us, time_us - last_us)

    def _add_put(self, name: str, accepted: Accepted) -> None:
        # Also what was put after the span: it may accept what changed within.
        if len(self._puts[name]) < _LISTED_MAX:
            self._puts[name].append(accepted)
        if accepted.time_us >= self.until_us:
            return
        if name == EVERY_CLIENT and self._only is not None:
            return
        client = self._of(name)
        if len(client.accepted) < _LISTED_MAX:
            client.accepted.append(accepted)
        else:
            client.accepted_not_listed += 1

    def _add_gap(self, client: ClientEvidence, gap: Gap) -> None:
        if len(client.gaps) < _LISTED_MAX:
            client.gaps.append(gap)
        elif gap.is_open:
            # What holds now is the last that may be left out.
            client.gaps[-1] = gap
            client.gaps_not_listed += 1
        else:
            client.gaps_not_listed += 1


def _measure_group(group: GroupEvidence, time_us: int) -> None:
    without_us = time_us - group.last_check_us
    group.longest_without_check_us = max(group.longest_without_check_us, without_us)


def _note_group_check(group: GroupEvidence, time_us: int) -> None:
    _measure_group(group, time_us)
    group.last_check_us = time_us


def _is_same(told: Absence, now: Absence) -> bool:
    """True where what was told is why the client is absent now: it was not heard after it."""
    return now.from_us <= told.us + _HEARD_LATE_US


def _arrived_us(event: Mapping[str, Any]) -> int:
    """Return when the server had an event, by its own clock: that of a host may be wrong."""
    return parse_time(event.get("received") or event["time"])


def _gap_of(event: Mapping[str, Any], time_us: int) -> Gap:
    fields = event["fields"]
    return Gap(
        time_us,
        event["code"],
        event["msg"],
        _some_text(fields, "scope", "path"),
        _some_text(fields, "from", "since", "last"),
        _some_text(fields, "to"),
    )


def _gap_of_malformed(count: int, until_us: int) -> Gap:
    reports = counted(count, "report")
    text = f"{reports} of this client lack what such a report says, and count as nothing here"
    return Gap(until_us, "REPORTS_MALFORMED", text, None, None, None)


def _text_of(fields: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := fields[name], str):
        raise TypeError(f"{name} is no text")
    return value


def _some_text(fields: Mapping[str, Any], *names: str) -> str | None:
    return next((str(fields[name]) for name in names if fields.get(name)), None)


def _gap_of_absence(absence: Absence) -> Gap:
    text = _ABSENCES.get(absence.code)
    until_us = absence.until_us
    return Gap(
        absence.us,
        absence.code,
        CATALOGUE[absence.code].msg if text is None else text,
        "/",
        format_time(absence.from_us) if absence.from_us else None,
        None if until_us is None else format_time(until_us),
        until_us is None,
    )


def _change_of(event: Mapping[str, Any], arrived_us: int) -> Change:
    fields, kind = event["fields"], _CHANGES[event["code"]]
    return Change(
        kind,
        event["severity"],
        str(fields.get("change") or "") if kind == "modified" else "",
        _details(fields) if kind == "modified" else (),
        arrived_us,
        arrived_us,
        _who(fields),
        _state(kind, fields),
    )


def _state(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Return what tells a difference from another one of the same path: what the object is now."""
    now = sorted((name, str(value)) for name, value in fields.items() if name.endswith("_new"))
    letters = str(fields.get("change") or "")
    return hashlib.sha256(repr((kind, letters, now)).encode()).digest()[:16]


def _details(fields: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for name, new in fields.items():
        stem, _, when = name.rpartition("_")
        old = fields.get(f"{stem}_old")
        if when == "new" and old != new:
            found.append(f"{stem} {_short(old)} -> {_short(new)}")
    return (*found[:_DETAILS_MAX], "…") if len(found) > _DETAILS_MAX else tuple(found)


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _VALUE_MAX else text[: _VALUE_MAX - 1] + "…"


def _who(fields: Mapping[str, Any]) -> str | None:
    program, user = fields.get("who_program"), fields.get("who_user")
    if program is None and user is None:
        return None
    return " ".join(str(part) for part in (program, user and f"({user})") if part)
