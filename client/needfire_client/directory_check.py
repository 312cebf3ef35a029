"""What differs in one directory, object by object: reported, and remembered as reported."""

import stat
from collections.abc import Mapping
from functools import partial

from needfire_client.attributes import group_name, owner_name
from needfire_client.compare import Change, ChangeKind, Names, compare, is_same_inode
from needfire_client.overlay import Overlay
from needfire_client.packing import entries_of
from needfire_client.paths import join
from needfire_client.policy import Decision, Place
from needfire_client.record import DirectoryRecord
from needfire_client.reference import Known
from needfire_client.scan import Scan
from needfire_protocol.baseline import FileEntry, State, key_of
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import Check

__all__ = ["DirectoryCheck"]


class DirectoryCheck:
    """Compares objects with what is known of them.

    Args:
        overlay: remembers what was reported, where a change is to be reported only once.
        algorithm: of the baseline's digests.
    """

    def __init__(self, settings: AgentSettings, overlay: Overlay, algorithm: str) -> None:
        self._settings = settings
        self._overlay = overlay
        self._names = Names(owner_name, group_name, algorithm)

    def compare_entries(self, scan: Scan, record: DirectoryRecord, known: Known) -> None:
        """Report what differs in one directory, and remember what was reported."""
        self.compare_names(scan, record, known, entries_of(record))

    def compare_names(
        self,
        scan: Scan,
        record: DirectoryRecord,
        known: Known,
        new: Mapping[bytes, FileEntry],
    ) -> None:
        """Do the same for those names of a directory that are known or new."""
        for name in sorted(known.names() | new.keys()):
            now, old = new.get(name), known.get(name)
            if now is None and record.scope is not None and name not in record.scope:
                continue
            decision, place = _child(scan, record, name)
            if decision is None:
                continue
            if now is None:
                # The rule does match something; it is only gone.
                scan.walker.met.update(place.own())
            if now != old:
                self._compare_object(scan, record, name, known, now, decision)

    def _compare_object(
        self,
        scan: Scan,
        record: DirectoryRecord,
        name: bytes,
        known: Known,
        now: FileEntry | None,
        decision: Decision,
    ) -> None:
        old = known.get(name)
        if decision.hashes and _lacks_digest(old, now):
            scan.lacking += 1
        if Check.MOD in decision.mask and _lacks_attributes(old, now):
            scan.lacking_attributes += 1
        change = compare(
            join(record.path, name),
            old,
            now,
            decision,
            self._settings,
            self._names,
            prefix=record.prefixes.get(name),
        )
        if change is None:
            return
        if not self._is_rotation(scan, record.path, old, change, decision):
            scan.report_change(change)
        if self._settings.report_only_once:
            self._remember(key_of(record.path), name, known, now)

    def _is_rotation(
        self,
        scan: Scan,
        directory: bytes,
        old: FileEntry | None,
        change: Change,
        decision: Decision,
    ) -> bool:
        """True where a growing log began anew, and the old one stands beside it unharmed.

        The name then means another file, as after every logrotate; the new file of the old log
        is reported as added all the same, unless IgnoreAdded says otherwise.
        """
        return (
            decision.grows
            and change.kind is ChangeKind.MODIFIED
            and old is not None
            and old.digest is not None
            and "I" in change.code
            and set(change.code) <= set("CIHTS-")
            and scan.walker.rotated_prefix(directory, partial(is_same_inode, old), old.size)
            == old.digest
        )

    def _remember(self, key: bytes, name: bytes, known: Known, now: FileEntry | None) -> None:
        if known.baseline.get(name) == now:
            self._overlay.forget(key, name)
        else:
            self._overlay.put(key, name, now)


def _child(scan: Scan, record: DirectoryRecord, name: bytes) -> tuple[Decision | None, Place]:
    return record.place.child(name) if record.path else scan.ruleset.root()


def _lacks_digest(old: FileEntry | None, new: FileEntry | None) -> bool:
    return (
        old is not None
        and new is not None
        and old.digest is None
        and new.digest is not None
        and stat.S_ISREG(old.mode)
    )


def _lacks_attributes(old: FileEntry | None, new: FileEntry | None) -> bool:
    if old is None or new is None or old.state == State.IMPORTED:
        # The import has said what a Samhain database does not have.
        return False
    return bool(new.looked & ~old.looked)
