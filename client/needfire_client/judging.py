"""Which findings an object deserves that are no differences: unreadable, unstable, badly named."""

import os
import stat
from typing import TYPE_CHECKING

from needfire_client.attributes import ATTEMPTS_MAX
from needfire_client.paths import join
from needfire_client.policy import Decision, Place, Ruleset
from needfire_client.record import DirectoryRecord, Finding
from needfire_protocol.baseline import FileEntry, State
from needfire_protocol.escape import escape_bytes, is_weird
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import Policy, RuleKind
from needfire_protocol.rc.values import DEPTH_MAX
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    # The processes of a scan make no events, and need not load the catalogue.
    from needfire_protocol.event import FieldValue

__all__ = ["Judge", "Severities"]


@dataclass(frozen=True, slots=True)
class Severities:
    """What [EventSeverity] says of the findings of a walk."""

    files: Severity
    dirs: Severity
    names: Severity


class Judge:
    """Adds findings to the record of the directory that they are about."""

    def __init__(self, ruleset: Ruleset, severities: Severities) -> None:
        self._ruleset = ruleset
        self._severities = severities

    def unreadable(self, path: bytes, place: Place, error: OSError) -> Finding:
        """Return the finding of a directory that cannot be looked into."""
        policy = "" if place.contents is None else place.contents.policy.value
        reason = error.strerror or f"error {error.errno}"
        return Finding(
            "FILE_UNREADABLE", path, self._severities.dirs, {"reason": reason, "policy": policy}
        )

    def entry(
        self, record: DirectoryRecord, name: bytes, entry: FileEntry, decision: Decision
    ) -> None:
        """Say so of an object that could not be examined."""
        path, policy = join(record.path, name), decision.policy.value
        if entry.state == State.UNSTABLE:
            unstable: dict[str, FieldValue] = {"policy": policy, "attempts": ATTEMPTS_MAX}
            record.findings.append(Finding("FILE_UNSTABLE", path, None, unstable))
        else:
            unreadable: dict[str, FieldValue] = {"reason": entry.reason, "policy": policy}
            record.findings.append(
                Finding("FILE_UNREADABLE", path, self._severities.files, unreadable)
            )

    def depth(self, record: DirectoryRecord, name: bytes, decision: Decision) -> None:
        """Say so of a directory that is too deep to be entered: a tree can be hidden down there."""
        fields: dict[str, FieldValue] = {
            "reason": f"deeper than the {DEPTH_MAX} levels that a rule can enter",
            "policy": decision.policy.value,
        }
        path = join(record.path, name)
        record.findings.append(Finding("FILE_UNREADABLE", path, self._severities.dirs, fields))

    def directory(
        self, record: DirectoryRecord, name: bytes, entry: FileEntry, place: Place
    ) -> None:
        """Say so where a ``dir=`` rule names something that is none."""
        if stat.S_ISDIR(entry.mode) or not entry.is_known:
            return
        for decision in place.own():
            rule = decision.rule
            # A wildcard may well match files; depth -1 asks for nothing inside.
            if rule.kind is RuleKind.DIR and not rule.is_glob and decision.levels >= 0:
                fields: dict[str, FieldValue] = {"rule": f"{rule.source}:{rule.line}"}
                if entry.link is not None:
                    fields["link"] = escape_bytes(entry.link)
                path, code = join(record.path, name), "POLICY_NODIRECTORY"
                if entry.link is not None and (real := self._behind_link(path)):
                    fields["resolved"] = escape_bytes(real)
                    code = "POLICY_ROOT_IS_LINK"
                record.findings.append(Finding(code, path, None, fields))

    def names(self, record: DirectoryRecord, listing: list[tuple[bytes, bool]]) -> None:
        """Say so of names with more than visible characters, where no rule ignores them."""
        together = b"".join(name for name, _ in listing)
        # One look at all names of a directory: nearly all have nothing but visible ASCII.
        if together.isascii() and together.decode("ascii").isprintable():
            return
        for name, _ in record.rows:
            decision = record.place.child(name)[0]
            if is_weird(name) and decision is not None and decision.policy is not Policy.IGNORE_ALL:
                record.findings.append(
                    Finding("WEIRD_FILENAME", join(record.path, name), self._severities.names, {})
                )

    def _behind_link(self, path: bytes) -> bytes | None:
        """Return the directory that a root leads to, where a rule covers it (``roots.py``)."""
        real = os.path.realpath(path)
        is_covered = self._ruleset.locate(real)[1].contents is not None
        return real if is_covered and os.path.isdir(real) else None
