"""Whether a log is what its server once wrote; and if not, where it first differs, and how.

Lines go through one by one; what is kept does not grow with the log. A record is linked by its
number and by the hash of its predecessor; it is vouched for by the record behind it, and all of
them by the next checkpoint. After the first fault the rest is read only to tell kinds apart that
look alike at that place: a record that is missing may have been moved, one that is too many too.

    changed              a record or a checkpoint is not what it was
    removed              records are missing, and others follow
    inserted             there is something that the server never wrote there
    reordered            what belongs there stands elsewhere
    cut off              the end is missing
    wrong key            not signed by the key that was given, or by one that it handed over to
    missing checkpoint   the records are there, but one of the numbered checkpoints is not
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from needfire_protocol.audit.aftermath import Clues, judge_by_rest
from needfire_protocol.audit.export import Header, parse_header, parse_line
from needfire_protocol.audit.log_lines import LogLine, LogLines
from needfire_protocol.audit.merkle import Frontier
from needfire_protocol.audit.note import (
    Checkpoint,
    Note,
    PublicKey,
    handover_note,
    parse_checkpoint,
    parse_note,
)
from needfire_protocol.audit.record import (
    FIRST_PREVIOUS,
    KEY_HANDED_OVER,
    KEY_MADE,
    Head,
    parse_record,
)
from needfire_protocol.audit.verdict import Finding, Verdict, Verification
from needfire_protocol.errors import FormatError

__all__ = ["verify"]


def verify(
    lines: Iterable[bytes],
    keys: Sequence[PublicKey],
    *,
    anchor: Note | None = None,
    kept: Note | None = None,
    is_live: bool = False,
    size: int = 0,
    tip: bytes = b"",
) -> Verification:
    """Check a log.

    Args:
        lines: of the export, each with its newline.
        keys: who may have signed: any one key that the log had at some time is enough.
        anchor: a checkpoint that was kept elsewhere; the log must contain what it covers, and it.
        kept: another one, which the server has kept beside its store.
        is_live: records behind the closing checkpoint are no fault: the log is still written.
        size: records that there must be, where somebody knows.
        tip: hash of the last one of these, where somebody knows; empty: nobody does.
    """
    anchors = (
        *_anchors(anchor, "that is given"),
        *_anchors(kept, "that was kept beside the store"),
    )
    return _Check(lines, keys, anchors, is_live=is_live, size=size, tip=tip).run()


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A checkpoint that is not from the log itself, and how people are told which one it is."""

    note: Note
    checkpoint: Checkpoint
    which: str


def _anchors(note: Note | None, which: str) -> tuple[_Anchor, ...]:
    return () if note is None else (_Anchor(note, parse_checkpoint(note), which),)


class _Check:
    """One run over a log."""

    def __init__(
        self,
        lines: Iterable[bytes],
        keys: Sequence[PublicKey],
        anchors: Sequence[_Anchor],
        *,
        is_live: bool,
        size: int,
        tip: bytes,
    ) -> None:
        self._lines = LogLines(lines)
        self._keys = frozenset(keys)
        self._anchors = anchors
        self._anchor_sizes = frozenset(each.checkpoint.size for each in anchors)
        self._is_live = is_live
        self._size = size
        self._tip = tip
        self._finding: Finding | None = None
        self._exchanged: Finding | None = None
        """A checkpoint that has the number of one that was kept elsewhere, and is another."""
        self._header: Header | None = None
        self._closing: Checkpoint | None = None
        self._closing_note: Note | None = None
        # The tree without the latest record: nothing has vouched for that one yet.
        self._frontier = Frontier()
        self._pending: LogLine | None = None
        self._count = 0
        self._hash = FIRST_PREVIOUS
        self._announced: list[PublicKey] = []
        self._proven_keys = 0
        self._checkpoints = 0
        self._covered = 0
        self._last_number = 0
        self._clues = Clues()

    def run(self) -> Verification:
        self._read_header()
        if self._finding is None:
            self._read_log()
        records = self._count
        if self._finding is None:
            self._end()
        else:
            self._look_behind(self._finding)
        return Verification(
            self._finding,
            records,
            self._checkpoints,
            self._closing,
            max(0, records - self._covered),
            self._root(),
        )

    # ---- the beginning -------------------------------------------------------------------------

    def _read_header(self) -> None:
        item = next(self._lines, None)
        if item is None:
            self._found(Verdict.CUT_OFF, 0, 0, "the log is empty, or ends within its first line")
            return
        try:
            self._header = parse_header(item.raw)
            if self._header is not None:
                self._closing_note = parse_note(self._header.note)
                self._closing = parse_checkpoint(self._closing_note)
        except FormatError as error:
            text = f"the header is damaged: {error}"
            if item.raw.endswith(b"\r"):
                text = (
                    "its lines end with CR LF: it was copied as text, and not byte for byte; get "
                    "another copy"
                )
            self._found(Verdict.CHANGED, 0, item.line, text)
            return
        if self._header is None:
            if item.head is None and not item.raw.startswith(b'{"checkpoint"'):
                self._found(Verdict.CHANGED, 0, item.line, "the first line is no header of a log")
            else:
                self._found(
                    Verdict.MISSING_CHECKPOINT, 0, item.line, "the log begins without its header"
                )
                self._clues.is_misplaced = True
        elif not self._keys & set(self._header.keys):
            self._found(
                Verdict.WRONG_KEY, 0, item.line, "the log was never signed by the key that is given"
            )

    # ---- as long as nothing is wrong -----------------------------------------------------------

    def _read_log(self) -> None:
        for item in self._lines:
            head = item.head
            if head is not None:
                if head.number == self._count and head.previous == self._hash:
                    self._accept(item, head)
                else:
                    self._mismatch(item)
            elif (note := self._note_of(item)) is not None:
                self._meet(item, note)
            elif self._finding is None:
                self._mismatch(item)
            if self._finding is not None:
                return

    def _accept(self, item: LogLine, head: Head) -> None:
        pending = self._pending
        if pending is not None and pending.head is not None:
            self._frontier.append(pending.head.hash)
        self._pending = item
        self._hash = head.hash
        self._count += 1
        if head.code in (KEY_MADE, KEY_HANDED_OVER):
            self._learn_key(item, head)
        if self._count in self._anchor_sizes:
            self._meet_anchors(item)

    def _learn_key(self, item: LogLine, head: Head) -> None:
        try:
            fields = parse_record(item.raw).draft.fields
            key = PublicKey.parse(str(fields.get("key")))
            if head.code == KEY_HANDED_OVER:
                note = parse_note(handover_note(key, str(fields.get("signature"))))
                is_right = bool(self._announced) and self._announced[-1].verifies(note)
            else:
                is_right = not self._announced
            if is_right:
                self._announced.append(key)
                return
        except FormatError:
            pass
        following = self._following()
        if following is not None and following.head is not None and self._is_twin(following.head):
            return
        is_changed = (
            not item.is_canonical()
            or following is None
            or following.head is None
            or following.head.previous != head.hash
        )
        if is_changed:
            self._found(Verdict.CHANGED, head.number, item.line, "the record of a key is damaged")
        else:
            text = "a key takes over that the key before it did not name"
            self._found(Verdict.WRONG_KEY, head.number, item.line, text)

    def _meet_anchors(self, item: LogLine) -> None:
        for each in self._anchors:
            size = each.checkpoint.size
            if size == self._count and self._root() != each.checkpoint.root:
                text = f"the first {size} records are not those of the checkpoint {each.which}"
                self._found(Verdict.CHANGED, 0, item.line, text, last=size - 1)

    def _root(self) -> bytes:
        frontier = self._frontier
        if self._pending is not None and self._pending.head is not None:
            frontier = frontier.copy()
            frontier.append(self._pending.head.hash)
        return frontier.root()

    # ---- checkpoints ---------------------------------------------------------------------------

    def _note_of(self, item: LogLine) -> str | None:
        try:
            return parse_line(item.raw)
        except FormatError as error:
            self._found(
                Verdict.CHANGED, self._count, item.line, f"a checkpoint is damaged: {error}"
            )
            return None

    def _meet(self, item: LogLine, text: str) -> None:
        try:
            note = parse_note(text)
            checkpoint = parse_checkpoint(note)
        except FormatError as error:
            self._found(
                Verdict.CHANGED, self._count, item.line, f"a checkpoint is damaged: {error}"
            )
            return
        if not self._is_ours(note):
            self._unknown_signature(note, item, checkpoint)
        elif checkpoint.size != self._count:
            self._wrong_size(checkpoint, item)
        elif checkpoint.number > self._last_number + 1:
            self._clues.checkpoint = self._last_number + 1
            self._found(
                Verdict.MISSING_CHECKPOINT,
                self._covered,
                item.line,
                f"checkpoint {self._clues.checkpoint} is missing before checkpoint "
                f"{checkpoint.number}",
            )
        elif checkpoint.number <= self._last_number:
            self._found(
                Verdict.INSERTED,
                self._count,
                item.line,
                f"checkpoint {checkpoint.number} stands there again",
            )
        elif checkpoint.root != self._root():
            self._wrong_root(checkpoint, item)
        else:
            self._checkpoints += 1
            self._covered = self._count
            self._last_number = checkpoint.number
            self._proven_keys = len(self._announced)
            self._compare_with_anchors(checkpoint, item)

    def _compare_with_anchors(self, checkpoint: Checkpoint, item: LogLine) -> None:
        """Where checkpoints were deleted, others that are signed later get their numbers.

        Told at the end: where records lack or are others as well, that says more.
        """
        for each in self._anchors:
            is_another = each.checkpoint != checkpoint and self._is_ours(each.note)
            if each.checkpoint.number == checkpoint.number and is_another:
                text = f"checkpoint {checkpoint.number} is another one than the one {each.which}"
                first, verdict = self._covered, Verdict.MISSING_CHECKPOINT
                self._exchanged = self._exchanged or Finding(verdict, first, first, item.line, text)

    def _is_ours(self, note: Note) -> bool:
        return bool(self._announced) and self._announced[-1].verifies(note)

    def _unknown_signature(self, note: Note, item: LogLine, checkpoint: Checkpoint) -> None:
        if self._announced and self._announced[-1].is_named_by(note):
            text = f"the signature of checkpoint {checkpoint.number} does not fit its text"
            self._found(Verdict.CHANGED, self._count, item.line, text)
            return
        pending = self._pending
        if not self._announced and pending is not None and not pending.is_canonical():
            # The record that names the key is the one that was changed.
            self._found(Verdict.CHANGED, self._count - 1, pending.line, "the record is damaged")
            return
        if not self._count and checkpoint.size:
            # Nothing names a key. Where no record follows, all of them are gone.
            text = f"checkpoint {checkpoint.number} covers {checkpoint.size} records, not 0"
            self._found(Verdict.REMOVED, 0, item.line, text, last=checkpoint.size - 1)
            return
        text = f"checkpoint {checkpoint.number} is signed by a key that is not the log's"
        self._found(Verdict.WRONG_KEY, self._count, item.line, text)

    def _wrong_size(self, checkpoint: Checkpoint, item: LogLine) -> None:
        text = f"checkpoint {checkpoint.number} covers {checkpoint.size} records, not {self._count}"
        following = self._following()
        if checkpoint.size > self._count:
            goes_on = (
                following is not None
                and following.head is not None
                and following.head.number == self._count
                and following.head.previous == self._hash
            )
            if goes_on:
                self._found(Verdict.REORDERED, self._count, item.line, text)
            elif self._pending is not None and not self._pending.is_canonical():
                self._found(Verdict.CHANGED, self._count - 1, self._pending.line, text)
            elif following is None:
                self._found(Verdict.CUT_OFF, self._count, item.line, text)
            elif following.head is not None:
                self._found(Verdict.REMOVED, self._count, item.line, text)
                self._clues.note_gap(following.head)
            else:
                self._found(Verdict.CHANGED, self._count, following.line, text)
        elif checkpoint.number <= self._last_number:
            self._clues.checkpoint = self._last_number + 1
            self._found(Verdict.INSERTED, self._count, item.line, text)
        elif checkpoint.size == self._count - 1 and checkpoint.root == self._frontier.root():
            self._found(Verdict.REORDERED, self._count - 1, item.line, text)
        else:
            self._clues.is_misplaced = True
            self._found(
                Verdict.INSERTED, self._covered, item.line, text, last=max(self._count - 1, 0)
            )

    def _wrong_root(self, checkpoint: Checkpoint, item: LogLine) -> None:
        last = max(self._count - 1, 0)
        following = self._following()
        is_only_the_last = (
            following is not None
            and following.head is not None
            and following.head.number == self._count
            and following.head.previous != self._hash
        ) or (self._pending is not None and not self._pending.is_canonical())
        self._found(
            Verdict.CHANGED,
            last if is_only_the_last else self._covered,
            item.line,
            f"the records are not those that checkpoint {checkpoint.number} covers",
            last=last,
        )

    def _following(self) -> LogLine | None:
        ahead = self._lines.peek()
        return ahead[0] if ahead else None

    # ---- a record that does not fit ------------------------------------------------------------

    def _mismatch(self, item: LogLine) -> None:
        """Tell from the lines around it which record is bad, and how."""
        count, pending, head = self._count, self._pending, item.head
        ahead = self._lines.peek()
        following = ahead[0].head if ahead else None
        if item.raw.startswith(b'{"needfire_audit"'):
            self._found(Verdict.INSERTED, count, item.line, "another log begins here")
        elif pending is not None and not pending.is_canonical():
            self._found(Verdict.CHANGED, count - 1, pending.line, "the record is damaged")
            self._clues.note_gap(head)
        elif head is not None and self._is_twin(head):
            self._twins(item, head, following)
        elif head is not None and head.number == count:
            self._broken_link(item, head, following)
        elif head is not None and head.previous == self._hash:
            self._found(
                Verdict.CHANGED, count, item.line, f"record {count} has the number {head.number}"
            )
        elif any(self._is_next(each) for each in ahead):
            self._found(Verdict.INSERTED, count, item.line, "a line that does not belong there")
            self._clues.note_stray(item)
            if head is None:
                # Unless it is what was a checkpoint: then the next one will not be the next.
                self._clues.checkpoint = self._last_number + 1
                self._clues.otherwise = Verdict.CHANGED
        elif self._replaced_by(ahead) is not None:
            self._found(Verdict.CHANGED, count, item.line, f"record {count} is damaged or replaced")
            self._clues.wanted.add(self._replaced_by(ahead) or b"")
            self._clues.note_stray(item)
        elif head is not None and head.number > count:
            last = head.number - 1
            is_one = last == count
            text = (
                f"record {count} is missing" if is_one else f"records {count} to {last} are missing"
            )
            self._found(Verdict.REMOVED, count, item.line, text, last=last)
            self._clues.note_gap(head)
        elif head is not None:
            text = f"record {head.number} stands behind record {count - 1}"
            self._found(Verdict.INSERTED, count, item.line, text)
            self._clues.note_stray(item)
        elif not item.raw.strip() and not any(each.raw.strip() for each in ahead):
            text = "an empty line follows the log, which was not there when it was written"
            self._found(Verdict.INSERTED, count, item.line, text)
        else:
            self._found(Verdict.CHANGED, count, item.line, f"record {count} is damaged")
            self._clues.note_gap(None)

    def _is_twin(self, head: Head) -> bool:
        """Whether it claims the place that the record before it has already."""
        pending = None if self._pending is None else self._pending.head
        return (
            pending is not None
            and head.number == pending.number
            and head.previous == pending.previous
        )

    def _twins(self, item: LogLine, head: Head, following: Head | None) -> None:
        """Two records for one place: the one that the next record names is the right one."""
        pending = self._pending
        assert pending is not None
        is_first_false = (
            following is not None
            and following.number == self._count
            and following.previous == head.hash
            and head.hash != self._hash
        )
        if following is None and head.hash != self._hash:
            is_first_false = self._fits_checkpoint(head.hash)
        number = self._count - 1 if is_first_false else self._count
        line = pending.line if is_first_false else item.line
        self._found(
            Verdict.INSERTED, number, line, f"there are two records with the number {head.number}"
        )
        self._clues.note_stray(pending if is_first_false else item)

    def _fits_checkpoint(self, last: bytes, before: bytes | None = None) -> bool:
        """Whether the next line is a checkpoint over the tree with these last hashes."""
        item = self._lines.peek_line()
        try:
            text = None if item is None else parse_line(item.raw)
            checkpoint = None if text is None else parse_checkpoint(parse_note(text))
        except FormatError:
            return False
        frontier = self._frontier.copy()
        if before is not None:
            frontier.append(before)
        frontier.append(last)
        return checkpoint is not None and checkpoint.root == frontier.root()

    def _broken_link(self, item: LogLine, head: Head, following: Head | None) -> None:
        """The right number, but another predecessor: one of the two records was changed."""
        is_last = following is None and self._lines.peek_line() is None
        if following is not None and following.number == self._count + 1:
            is_intact = following.previous == head.hash
        elif is_last and self._tip:
            is_intact = head.hash == self._tip
        else:
            is_intact = self._fits_checkpoint(head.hash, head.previous)
        if is_last and not self._tip and self._count:
            text = f"records {self._count - 1} and {self._count} do not fit each other"
            self._found(Verdict.CHANGED, self._count - 1, item.line, text, last=self._count)
        elif is_intact and self._count:
            text = f"record {self._count} follows another record {self._count - 1} than this one"
            line = item.line if self._pending is None else self._pending.line
            self._found(Verdict.CHANGED, self._count - 1, line, text)
            self._clues.note_gap(head)
            if self._pending is not None:
                self._clues.note_stray(self._pending)
        else:
            text = f"record {self._count} does not name its predecessor"
            self._found(Verdict.CHANGED, self._count, item.line, text)

    def _is_next(self, item: LogLine) -> bool:
        head = item.head
        return head is not None and (head.number, head.previous) == (self._count, self._hash)

    def _replaced_by(self, ahead: Sequence[LogLine]) -> bytes | None:
        """Return what the record behind this place names as its predecessor."""
        for each in ahead:
            if each.head is not None:
                return each.head.previous if each.head.number == self._count + 1 else None
        return None

    # ---- behind the first fault ----------------------------------------------------------------

    def _look_behind(self, finding: Finding) -> None:
        verdict = judge_by_rest(
            finding.verdict,
            self._clues,
            self._lines,
            count=self._count,
            closing=self._closing,
            has_header=self._header is not None,
        )
        self._finding = replace(finding, verdict=verdict)

    # ---- the end ---------------------------------------------------------------------------------

    def _end(self) -> None:
        count, closing = self._count, self._closing
        assert closing is not None
        torn = self._lines.torn
        if torn is not None:
            is_newline_changed = _is_whole(torn[:-1])
            self._found(
                Verdict.CHANGED if is_newline_changed else Verdict.CUT_OFF,
                count,
                0,
                "the last line does not end",
            )
        elif self._pending is not None and not self._pending.is_canonical():
            self._found(Verdict.CHANGED, count - 1, self._pending.line, "the record is damaged")
        elif count < max(closing.size, self._size):
            most = max(closing.size, self._size)
            self._found(Verdict.CUT_OFF, count, 0, f"{count} records of {most} are there")
        elif self._tip and self._size == count and self._hash != self._tip:
            line = 0 if self._pending is None else self._pending.line
            # Or all that nothing signed covers yet, with a chain made anew.
            text = "the last record is not the one that the server wrote"
            last = max(0, count - 1)
            self._found(Verdict.CHANGED, min(self._covered, last), line, text, last=last)
        else:
            self._end_before_anchors(count)
            self._end_of_checkpoints(closing)
        if self._finding is None:
            self._end_of_keys()

    def _end_before_anchors(self, count: int) -> None:
        for each in self._anchors:
            size, number = each.checkpoint.size, each.checkpoint.number
            if size > count:
                text = (
                    f"{count} records are there, but {size} were when the checkpoint {each.which} "
                    "was signed"
                )
                self._found(Verdict.CUT_OFF, count, 0, text)
            elif number > self._last_number:
                text = f"checkpoint {number} {each.which} is not there"
                self._found(Verdict.MISSING_CHECKPOINT, self._covered, 0, text)
        self._finding = self._finding or self._exchanged

    def _end_of_checkpoints(self, closing: Checkpoint) -> None:
        if self._last_number < closing.number:
            self._found(
                Verdict.MISSING_CHECKPOINT,
                self._covered,
                0,
                f"checkpoint {closing.number} closes the log and is not there",
            )
        elif self._last_number > closing.number:
            self._found(
                Verdict.MISSING_CHECKPOINT,
                closing.size,
                1,
                f"the header has checkpoint {closing.number}, but checkpoint {self._last_number} "
                "is the last",
            )
        elif self._count > closing.size and not self._is_live:
            text = f"{self._count - closing.size} records follow the checkpoint that closes the log"
            self._found(Verdict.INSERTED, closing.size, 0, text, last=self._count - 1)

    def _end_of_keys(self) -> None:
        header, note = self._header, self._closing_note
        assert header is not None
        assert note is not None
        # Not what is announced behind the last checkpoint: anybody could have written that.
        if not self._keys & set(self._announced[: self._proven_keys]):
            text = "the log was never signed by the key that is given"
            self._found(Verdict.WRONG_KEY, 0, 0, text)
        elif tuple(self._announced) != header.keys:
            self._found(Verdict.CHANGED, 0, 1, "the header names other keys than the records")
        elif not any(key.verifies(note) for key in self._announced):
            self._found(Verdict.CHANGED, 0, 1, "the checkpoint in the header is not signed")
        for each in self._anchors:
            if not any(key.verifies(each.note) for key in self._announced):
                text = f"the checkpoint {each.which} is not signed by a key of this log"
                self._found(Verdict.WRONG_KEY, 0, 0, text)

    def _found(
        self, verdict: Verdict, first: int, line: int, text: str, *, last: int | None = None
    ) -> None:
        if self._finding is None:
            self._finding = Finding(verdict, first, first if last is None else last, line, text)


def _is_whole(line: bytes) -> bool:
    """Whether a line is a record or a checkpoint from its beginning to its end."""
    try:
        if parse_line(line) is not None or parse_header(line) is not None:
            return True
        parse_record(line)
    except FormatError:
        return False
    return True
