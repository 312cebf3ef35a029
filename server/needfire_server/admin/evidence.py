"""What the events of some days prove: who was checked, what changed, who accepted it, what was not seen.

The weekly evidence that file comparisons took place and were looked at (PCI DSS 4.0, 11.5.2). Pure:
events in their JSON form come in, one after another; memory is bounded by the number of clients
and of different paths, of which only so many are kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.event import parse_time

__all__ = [
    "CLASSES",
    "EVERY_CLIENT",
    "PATHS_MAX",
    "Accepted",
    "Change",
    "ClientEvidence",
    "Evidence",
    "Gap",
    "GroupEvidence",
]

CLASSES: Final = ("integrity", "alarm", "system", "provisioning")
"""The classes of events that say anything here."""
EVERY_CLIENT: Final = ""
"""Whose evidence a file is that was put in place for all clients."""
PATHS_MAX: Final = 50_000
"""Different changed paths that are listed, of all clients together; the rest is counted."""
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
        "TIME_EXCEEDED",
        "RESTART_WITHOUT_EXIT",
        "SEQUENCE_GAP",
        "SPOOL_FULL",
        "SPOOL_DAMAGED",
        "CHECK_SAW_NOTHING",
        "NOTHING_TO_CHECK",
        "SUSPEND",
    }
)


@dataclass(slots=True)
class Change:
    """What happened to one path, however often.

    Attributes:
        kind: added, modified or missing, as it was reported last.
        who: program and user of the last change, where watching knew them.
    """

    kind: str
    severity: str
    times: int
    first_us: int
    last_us: int
    who: str | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A time or a part of a host about which nothing is known."""

    time_us: int
    code: str
    text: str
    scope: str | None
    since: str | None
    until: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that somebody put in place: from then on it says what is right."""

    time_us: int
    what: str
    user: str
    digest: str


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
        longest_without_check_us: between two of them, or from the beginning or to the end.
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
    changes: dict[str, Change] = field(default_factory=dict)
    changes_not_listed: int = 0
    gaps: list[Gap] = field(default_factory=list)
    gaps_not_listed: int = 0
    accepted: list[Accepted] = field(default_factory=list)
    accepted_not_listed: int = 0


class Evidence:
    """Gathers events of a span of time; each class of events must come in order of arrival."""

    def __init__(self, since_us: int, until_us: int) -> None:
        self.since_us = since_us
        self.until_us = until_us
        self.clients: dict[str, ClientEvidence] = {}
        self._paths = 0

    def add_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take events in their JSON form; what says nothing here is passed over.

        Raises:
            FormatError: one is no event.
        """
        for event in events:
            try:
                self._add(event)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"an event of the server is not as expected: {error}") from None

    def finish(self, names: Iterable[str]) -> None:
        """Name every client that should have been heard of, and close the span of each."""
        for name in names:
            self._of(name)
        for name, client in self.clients.items():
            if name != EVERY_CLIENT:
                self._measure(client, self.until_us)
                for group in client.groups.values():
                    _measure_group(group, self.until_us)

    def _add(self, event: Mapping[str, Any]) -> None:
        code, fields = event["code"], event["fields"]
        name = event["client"] or fields.get("client") or EVERY_CLIENT
        time_us = parse_time(event["time"])
        if code in _CHANGES and name:
            self._add_change(self._of(name), event, time_us)
        elif code == "CHECK_COMPLETED" and name and fields.get("mode") != "init":
            if fields.get("groups"):
                self._add_group_check(self._of(name), fields, time_us)
            else:
                self._add_check(self._of(name), fields, time_us)
        elif code in _PUT:
            self._add_accepted(
                self._of(name),
                Accepted(time_us, _PUT[code], str(fields["user"]), str(fields["hash"])),
            )
        elif code in _GAPS and name:
            self._add_gap(self._of(name), event, time_us)

    def _of(self, name: str) -> ClientEvidence:
        return self.clients.setdefault(name, ClientEvidence())

    def _add_change(self, client: ClientEvidence, event: Mapping[str, Any], time_us: int) -> None:
        fields = event["fields"]
        kind, who = _CHANGES[event["code"]], _who(fields)
        known = client.changes.get(fields["path"])
        if known is not None:
            known.kind, known.severity, known.who = kind, event["severity"], who or known.who
            known.times, known.last_us = known.times + 1, time_us
        elif self._paths >= PATHS_MAX:
            client.changes_not_listed += 1
        else:
            self._paths += 1
            client.changes[fields["path"]] = Change(
                kind, event["severity"], 1, time_us, time_us, who
            )

    def _add_check(self, client: ClientEvidence, fields: Mapping[str, Any], time_us: int) -> None:
        self._measure(client, time_us)
        client.checks += 1
        client.quick_checks += bool(fields.get("quick_groups"))
        client.first_check_us = time_us if client.first_check_us is None else client.first_check_us
        client.last_check_us = time_us
        client.files = int(fields.get("files") or 0)
        client.unseen = int(fields.get("skipped") or 0)
        for group in client.groups.values():
            _note_group_check(group, time_us)

    def _add_group_check(
        self, client: ClientEvidence, fields: Mapping[str, Any], time_us: int
    ) -> None:
        quick = str(fields.get("quick_groups") or "").split()
        for name in str(fields["groups"]).split():
            if name not in client.groups and len(client.groups) >= _GROUPS_MAX:
                client.groups_not_listed += 1
                continue
            before_us = self.since_us if client.last_check_us is None else client.last_check_us
            group = client.groups.setdefault(name, GroupEvidence(before_us))
            _note_group_check(group, time_us)
            group.checks += 1
            group.quick_checks += name in quick

    def _measure(self, client: ClientEvidence, time_us: int) -> None:
        last_us = self.since_us if client.last_check_us is None else client.last_check_us
        client.longest_without_check_us = max(client.longest_without_check_us, time_us - last_us)

    def _add_accepted(self, client: ClientEvidence, accepted: Accepted) -> None:
        if len(client.accepted) < _LISTED_MAX:
            client.accepted.append(accepted)
        else:
            client.accepted_not_listed += 1

    def _add_gap(self, client: ClientEvidence, event: Mapping[str, Any], time_us: int) -> None:
        fields = event["fields"]
        gap = Gap(
            time_us,
            event["code"],
            event["msg"],
            fields.get("scope") or fields.get("path"),
            fields.get("from") or fields.get("since") or fields.get("last"),
            fields.get("to"),
        )
        if len(client.gaps) < _LISTED_MAX:
            client.gaps.append(gap)
        else:
            client.gaps_not_listed += 1


def _measure_group(group: GroupEvidence, time_us: int) -> None:
    without_us = time_us - group.last_check_us
    group.longest_without_check_us = max(group.longest_without_check_us, without_us)


def _note_group_check(group: GroupEvidence, time_us: int) -> None:
    _measure_group(group, time_us)
    group.last_check_us = time_us


def _who(fields: Mapping[str, Any]) -> str | None:
    program, user = fields.get("who_program"), fields.get("who_user")
    if program is None and user is None:
        return None
    return " ".join(str(part) for part in (program, user and f"({user})") if part)
