"""What is different from the baseline: full checks, and checks of one path.

A full check walks the file system and reads the baseline side by side, both in key order, so that
neither is ever in memory as a whole. A directory whose packed entries are the same bytes as the
baseline's row is done; only others are unpacked and compared object by object
(``directory_check.py``).

A check of one path gives the same events as a full check would, for that object, for the
directory that it is in, and, where it is a directory that is new or gone, for all below it.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from needfire_client.attributes import group_name, never, owner_name
from needfire_client.baseline import BaselineReader, BaselineWriter
from needfire_client.compare import is_same_inode
from needfire_client.course import Course
from needfire_client.directory_check import DirectoryCheck
from needfire_client.looks import RecentLooks
from needfire_client.new_baseline import said_of, write_directory, written
from needfire_client.overlay import Overlay
from needfire_client.packing import pack_record
from needfire_client.paths import join
from needfire_client.pieces import is_large
from needfire_client.policy import EVERYTHING, Place, Ruleset, Selection
from needfire_client.position import PositionStore
from needfire_client.quick import KnownBaseline
from needfire_client.record import DirectoryRecord, Finding
from needfire_client.reference import UNREAD, Reference
from needfire_client.scan import (
    CheckResult,
    OnEvent,
    Progress,
    Scan,
    ScanStoppedError,
)
from needfire_client.walk import Whereabouts
from needfire_protocol.baseline import (
    FileEntry,
    check_key,
    decode_entries,
    differ_in_access_times_only,
    key_of,
    path_of,
    subtree_end,
)
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["CheckResult", "Checker", "OnEvent", "Progress"]


def _forget(_path: bytes) -> None:
    """Stand in for ``passed`` where nobody wants to know."""


class Checker:
    """Compares the file system with a baseline. Any thread may use it, but only one at a time.

    Args:
        overlay_path: scratch file for what was reported already; made anew by each checker.
        on_event: gets the changes, the findings, and the beginning and the end of full checks.
        health: what the receipt of a full check is to say of the watch between the checks.
        reader: the baseline, where somebody has opened it; the checker closes it.

    Raises:
        FormatError: the baseline is damaged or hostile; later checks may raise it too.
        StorageError: baseline or scratch file cannot be used.
    """

    def __init__(
        self,
        settings: AgentSettings,
        baseline_path: Path,
        overlay_path: Path,
        on_event: OnEvent,
        progress: Progress | None = None,
        *,
        health: Callable[[], Mapping[str, FieldValue]] = dict,
        reader: BaselineReader | None = None,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._progress = progress
        self._health = health
        self._ruleset = Ruleset(settings)
        self._reader = BaselineReader(baseline_path) if reader is None else reader
        self.meta = self._reader.meta
        """What the baseline says about itself."""
        try:
            self._overlay = Overlay(overlay_path)
        except BaseException:
            self._reader.close()
            raise
        if self._overlay.trouble is not None:
            on_event("LOCAL_STORAGE_FAILED", None, {"reason": self._overlay.trouble})
        remembers = self._overlay if settings.report_only_once else None
        self._reference = Reference(self._reader, remembers)
        self._directory = DirectoryCheck(settings, self._overlay, self.meta.algorithm)
        self._looks = RecentLooks()
        self._whereabouts = Whereabouts()
        self._known = KnownBaseline(baseline_path, self._reader)

    def full_check(
        self,
        stop: Callable[[], bool] = never,
        selection: Selection = EVERYTHING,
        *,
        positions: PositionStore | None = None,
        watch: str = "",
    ) -> CheckResult:
        """Compare everything that the rules cover, and report what differs.

        Args:
            selection: which rules it is for, and which of them are quick.
            positions: where it is kept how far it has come; one that was stopped goes on there.
            watch: a word that is the same for as long as nothing can have changed unseen.
        """
        return self._check(
            "check", stop, None, selection=selection, positions=positions, watch=watch
        )

    def update(
        self,
        out_path: Path,
        *,
        host: str,
        configuration_sha256: str,
        created_us: int,
        stop: Callable[[], bool] = never,
    ) -> CheckResult:
        """Do a full check, and write what was found as a new baseline.

        What cannot be read now keeps what the old baseline says of it. The checker itself goes on
        with the old baseline; one that was stopped, or saw nothing at all, writes nothing.
        """
        with BaselineWriter(
            out_path,
            algorithm=self.meta.algorithm,
            host=host,
            configuration_sha256=configuration_sha256,
        ) as writer:

            def finish() -> tuple[str, Mapping[str, FieldValue]]:
                meta = writer.finish(created_us=created_us)
                said = said_of(meta, "baseline_new")
                return written(out_path, meta, self._on_event), said

            return self._check("update", stop, writer, finish)

    def check_path(
        self, path: bytes, *, below: bool = False, looked_at: set[bytes] | None = None
    ) -> int:
        """Examine one absolute, normalised path; return the number of changes reported.

        A directory is examined with the objects in it, and with everything below it only where it
        is new, gone or another one than before. What no rule covers is ignored.

        Args:
            below: everything below a directory is examined in any case.
            looked_at: directories of which the entry has been looked at since the changes were
                noticed that this is about: not again, as it may change with each file that is
                written meanwhile. Those of this look are added.
        """
        self._looks.add(path)
        looked_at = set() if looked_at is None else looked_at
        decision, place = self._ruleset.locate(path)
        parent = path.rpartition(b"/")[0] or b"/"
        scan = self._scan(never)
        if parent != path and parent not in looked_at:
            # Its times and its size move with what is in it.
            self._check_around(scan, parent)
            looked_at.add(parent)
        if decision is None and not place.is_open:
            return scan.result(is_complete=True).changes
        if decision is None:
            # It is only on the way, so no entry of it can tell whether it is another than before.
            if path == b"/":
                self._check_contents(scan, path)
            else:
                self._check_tree(scan, path)
            return scan.result(is_complete=True).changes
        old, now = self._check_object(scan, path)
        if not place.is_open:
            pass
        elif below or _leads_elsewhere(place, old, now):
            self._check_tree(scan, path)
        elif _is_directory(now) or not place.is_uniform:
            self._check_contents(scan, path)
        return scan.result(is_complete=True).changes

    def check_below(self, path: bytes, stop: Callable[[], bool] = never) -> CheckResult:
        """Examine a path and everything below it, also where nothing seems to have changed."""
        self._looks.add(path)
        scan = self._scan(stop)
        decision, place = self._ruleset.locate(path)
        try:
            if decision is not None:
                self._check_object(scan, path)
            if place.is_open:
                self._check_tree(scan, path)
        except ScanStoppedError:
            return scan.result(is_complete=False)
        return scan.result(is_complete=True)

    @property
    def at(self) -> bytes:
        """The directory that it is at, or was at last, as another thread may ask; empty: none."""
        return self._whereabouts.path

    def close(self) -> None:
        """Close the baseline and remove the scratch file."""
        self._reader.close()
        with suppress(StorageError):
            self._overlay.close()

    # ---- a full check ----------------------------------------------------------------------------

    def _check(
        self,
        mode: str,
        stop: Callable[[], bool],
        writer: BaselineWriter | None,
        finish: Callable[[], tuple[str | None, Mapping[str, FieldValue]]] = lambda: (None, {}),
        *,
        selection: Selection = EVERYTHING,
        positions: PositionStore | None = None,
        watch: str = "",
    ) -> CheckResult:
        owner_name.cache_clear()
        group_name.cache_clear()
        self._looks.clear()
        scan = self._scan(stop, self._ruleset_of(selection))
        course = Course(
            scan,
            positions,
            configuration_sha256=self._settings.sha256,
            baseline_sha256=self.meta.content_sha256,
            selection=selection,
            watch=watch,
        )
        if not course.is_resumed or course.again_until is not None:
            self._overlay.begin_round()
        scan.begin(mode, course.start_fields())
        try:
            self._compare_stream(
                scan,
                scan.records(course.rests),
                course.first_key,
                writer=writer,
                looks=self._looks,
                passed=course.passed,
            )
            if course.again_until is not None:
                self._look_again(scan, course.again_until, stop)
        except ScanStoppedError:
            course.stopped()
            return scan.result(is_complete=False)
        scan.report_rules()
        self._report_lacking(scan)
        self._overlay.end_round(scan.ruleset.covers)
        course.ended()
        written, said = (None, {}) if scan.is_empty else finish()
        said = {**said_of(self.meta), **said, **course.fields(), **self._health()}
        return scan.complete(written, said)

    def _look_again(self, scan: Scan, until: bytes, stop: Callable[[], bool]) -> None:
        """Look quickly at what was compared before something may have changed it unseen."""
        selection = scan.ruleset.selection
        groups = frozenset(rule.group for rule in self._settings.rules)
        again = self._scan(stop, self._ruleset_of(Selection(selection.groups, groups)))
        end = key_of(until) + b"\0"
        records = again.records(until=until)
        self._compare_stream(again, records, end=end, looks=self._looks)
        # It went on while ``scan`` waited, whose own clock has counted its time.
        scan.take_over({**again.numbers(), "duration_ms": 0}, again.met_indexes())

    def _report_lacking(self, scan: Scan) -> None:
        for code, count in (
            ("BASELINE_INCOMPLETE", scan.lacking),
            ("BASELINE_LACKS_ATTRIBUTES", scan.lacking_attributes),
        ):
            if count:
                scan.report_finding(Finding(code, b"", None, {"files": count}))

    def _ruleset_of(self, selection: Selection) -> Ruleset:
        return self._ruleset if selection == EVERYTHING else Ruleset(self._settings, selection)

    def _scan(self, stop: Callable[[], bool], ruleset: Ruleset | None = None) -> Scan:
        return Scan(
            self._settings,
            ruleset or self._ruleset,
            self.meta.algorithm,
            self._on_event,
            is_new=self._is_new,
            progress=self._progress,
            growing_size=self._reference.size,
            stop=stop,
            looks=self._looks,
            known=self._known,
            whereabouts=self._whereabouts,
        )

    def _is_new(self, code: str, path: bytes) -> bool:
        return not self._settings.report_only_once or self._overlay.is_new(code, path)

    def _compare_stream(
        self,
        scan: Scan,
        records: Iterator[DirectoryRecord],
        first: bytes = b"",
        end: bytes = subtree_end(b""),
        *,
        writer: BaselineWriter | None = None,
        looks: RecentLooks | None = None,
        passed: Callable[[bytes], None] = _forget,
    ) -> None:
        """Compare what is there with what should be there, for the keys in [first, end).

        Args:
            looks: single looks that may happen meanwhile.
            passed: told of a directory when it, and everything before it, has been compared.
        """
        # A quick pass finds most directories as before, and has looked at their rows itself.
        is_quick = writer is None and all(each.is_quick for each in scan.ruleset.decisions)
        rows = self._reference.rows(first, end, only_keys=is_quick)
        row = next(rows, None)
        record = next(records, None)
        unknown_end = b""
        while row is not None or record is not None:
            record_key = None if record is None else key_of(record.path)
            if row is None or (record_key is not None and record_key < row[0]):
                assert record_key is not None
                key, packed, is_reported = record_key, None, False
            else:
                key, packed, is_reported = row
            here = record if record_key == key else None
            if here is not None:
                if not here.is_readable:
                    unknown_end = max(unknown_end, subtree_end(key))
                self._compare_directory(scan, here, packed, is_reported, writer)
                if key >= unknown_end:
                    passed(here.path)
            elif key < unknown_end:
                # Below a directory that cannot be read: not missing, only unknown.
                if writer is not None and packed is not None:
                    writer.add_packed(key, packed, len(decode_entries(packed)))
            elif looks is None or not looks.touched(path_of(key), since=0):
                # What was looked at meanwhile has been reported, and may well be there again.
                self._compare_gone(scan, key, packed)
            if row is not None and row[0] == key:
                row = next(rows, None)
            if here is not None:
                record = next(records, None)

    def _compare_directory(
        self,
        scan: Scan,
        record: DirectoryRecord,
        packed: bytes | None,
        is_reported: bool,
        writer: BaselineWriter | None,
    ) -> None:
        if record.is_as_before:
            if writer is None and not is_reported:
                return
            record.packed = self._row_of_before(record, packed)
        now = pack_record(record)
        key = key_of(record.path)
        packed = self._read(key, packed)
        if writer is not None:
            write_directory(writer, key, record, now, packed)
        if not is_reported and packed is not None and _is_same_row(record.place, packed, now):
            return
        if is_large(now) or (packed is not None and is_large(packed)):
            # Not also entry by entry, which takes several times the memory.
            record.fold(now, record.count)
            for known, new in self._reference.in_pieces(
                key, packed, now, ignores_times=_compares_no_times(record.place)
            ):
                self._directory.compare_names(scan, record, known, new)
            return
        self._directory.compare_entries(scan, record, self._reference.unpacked(key, packed))

    def _row_of_before(self, record: DirectoryRecord, packed: bytes | None) -> bytes:
        """Return what a quick look found nothing else than."""
        row = packed or self._reader.row(record.path)
        if row is None:
            raise FormatError("a quick look went by a directory that the baseline does not have")
        return row

    def _read(self, key: bytes, packed: bytes | None) -> bytes | None:
        """Return the row of the baseline that the comparison goes by; None: it has none."""
        return self._reader.row(path_of(key)) if packed == UNREAD else packed

    def _compare_gone(self, scan: Scan, key: bytes, packed: bytes | None) -> None:
        """Compare a directory that the walk did not come to: it is gone, or not covered now."""
        # All other keys were the same as those of directories that are there.
        path = path_of(check_key(key))
        # The pseudo-directory above the root has one name, and no place of its own.
        if not path:
            return
        place = scan.ruleset.locate(path)[1]
        if not place.is_open:
            # No rule covers anything in it: a large tree may have been taken out of the rules.
            return
        record = DirectoryRecord(path, place)
        nothing = pack_record(record)
        packed = self._read(key, packed)
        for known, new in self._reference.in_pieces(key, packed, nothing):
            self._directory.compare_names(scan, record, known, new)

    # ---- a check of one path ---------------------------------------------------------------------

    def _check_around(self, scan: Scan, parent: bytes) -> None:
        """Compare the directory that a path is in; all of it, where it is another or gone.

        A look at the directory itself may come later, and would find it as it was reported here.
        """
        place = self._ruleset.locate(parent)[1]
        old, now = self._check_object(scan, parent)
        if place.is_open and _leads_elsewhere(place, old, now):
            self._check_tree(scan, parent)

    def _check_object(self, scan: Scan, path: bytes) -> tuple[FileEntry | None, FileEntry | None]:
        """Compare one object; return what it was and what it is."""
        looked = scan.walker.look(path)
        if looked is None:
            return None, None
        record, now = looked
        scan.take(record)
        (name,) = record.scope or (b"",)
        known = self._reference.object(record.path, name)
        old = known.get(name)
        self._directory.compare_entries(scan, record, known)
        return old, now

    def _check_contents(self, scan: Scan, path: bytes) -> None:
        """Compare the objects in one directory, and go into those that are new or another."""
        try:
            record = scan.walker.scan(path)
        except OSError:
            # The next full check says why it cannot be opened.
            return
        if record is None:
            self._check_tree(scan, path)
            return
        scan.take(record)
        now, packed = pack_record(record), self._reader.row(path)
        record.fold(now, record.count)
        for known, new in self._reference.in_pieces(key_of(path), packed, now):
            names = known.names() | new.keys()
            before: Mapping[bytes, FileEntry | None] = {name: known.get(name) for name in names}
            self._directory.compare_names(scan, record, known, new)
            for name in sorted(names):
                if record.scope is not None and name not in record.scope:
                    continue
                was, is_now = before[name], new.get(name)
                if was != is_now and _leads_elsewhere(record.place.child(name)[1], was, is_now):
                    self._check_tree(scan, join(path, name))

    def _check_tree(self, scan: Scan, path: bytes) -> None:
        """Compare a directory with everything below it."""
        key = key_of(path)
        records = scan.taken(scan.walker.walk_from(path))
        self._compare_stream(scan, records, key, subtree_end(key))


def _leads_elsewhere(place: Place, old: FileEntry | None, new: FileEntry | None) -> bool:
    """True where what is below an object must be looked at: none of it is seen with the object.

    It is another directory than before, or none any more; or a symbolic link is or was on the way
    to what rules name behind it.
    """
    if _is_directory(old) and _is_directory(new):
        return not is_same_inode(old, new.inode)
    if _is_directory(old) or _is_directory(new):
        return True
    return not place.is_uniform and any(
        each is not None and each.link is not None for each in (old, new)
    )


def _is_same_row(place: Place, packed: bytes, now: bytes) -> bool:
    """Return whether nothing differs that any policy in the directory compares."""
    if packed == now:
        return True
    return _compares_no_times(place) and differ_in_access_times_only(packed, now)


def _compares_no_times(place: Place) -> bool:
    """True where no policy in the directory compares access times."""
    contents = place.contents
    return place.is_uniform and contents is not None and not contents.watches_reading


def _is_directory(entry: FileEntry | None) -> TypeGuard[FileEntry]:
    return entry is not None and stat.S_ISDIR(entry.mode)
