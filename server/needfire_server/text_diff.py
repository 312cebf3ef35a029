"""Which lines of a file were added and removed, in a time that no file can make long.

difflib finds good matches, but two files of a few thousand similar lines keep it busy for hours.
So lines that stand exactly once in both files are matched first, in their longest common order
("patience diff", Bram Cohen; n log n), and difflib is asked only about what is left between two of
these, as long as that is little. The rest counts as removed and added. Whatever was matched, the
result is a true difference: it turns one file into the other.
"""

import difflib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from needfire_server.change_text import ChangeText

__all__ = ["TextDiff", "diff_texts"]

_CONTEXT_LINES: Final = 3
_PAIRS_MAX: Final = 40_000
"""Lines of one gap times lines of the other; difflib's worst case for so many is half a second."""
_PAIRS_TOGETHER_MAX: Final = 400_000
"""The same of all gaps."""

_Lines = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class TextDiff:
    """What changed.

    Attributes:
        added, removed: lines, of the whole difference.
        text: unified form without a head, as ``ChangeText`` writes it.
        left_out: lines of that form for which there was no room.
    """

    added: int
    removed: int
    text: str
    left_out: int


def diff_texts(old: bytes, new: bytes, show: Callable[[bytes], bytes]) -> TextDiff:
    """Return what changed from old to new. Whether the last line ends in a newline is no change.

    Args:
        show: what may be shown of a line; it is compared as it is, so that a change of what is
            hidden is seen to be one.
    """
    before, after = _lines(old), _lines(new)
    matcher = _Matched(before, after)
    added = removed = 0
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            removed, added = removed + i2 - i1, added + j2 - j1
    text = ChangeText()
    if added or removed:
        for line in _unified(matcher, before, after):
            if text.is_full:
                # What may be shown takes its time, of some lines a sixth of a second.
                text.leave_out(1)
                continue
            # A mark stands before each line, but for the head of a hunk.
            text.add(line if line[:1] == b"@" else line[:1] + show(line[1:]))
    return TextDiff(added, removed, str(text), text.left_out)


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _unified(matcher: "_Matched", before: _Lines, after: _Lines) -> Iterator[bytes]:
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        first, last = group[0], group[-1]
        spans = _span(first[1], last[2]), _span(first[3], last[4])
        yield f"@@ -{spans[0]} +{spans[1]} @@".encode()
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (b" " + line for line in before[i1:i2])
                continue
            yield from (b"-" + line for line in before[i1:i2])
            yield from (b"+" + line for line in after[j1:j2])


def _span(begin: int, end: int) -> str:
    """Lines as the unified form counts them: from 1, and an empty span after the line before."""
    if end - begin == 1:
        return str(begin + 1)
    return f"{begin + (end > begin)},{end - begin}"


class _Matched(difflib.SequenceMatcher[bytes]):
    """difflib's arithmetic on matches that were not found by it."""

    def __init__(self, before: _Lines, after: _Lines) -> None:
        super().__init__(None, [], [], autojunk=False)
        self.a, self.b = before, after
        self._blocks = list(_Matching(before, after).blocks())

    def get_matching_blocks(self) -> list[difflib.Match]:
        return [*self._blocks, difflib.Match(len(self.a), len(self.b), 0)]


class _Matching:
    """The matches of two files."""

    def __init__(self, before: _Lines, after: _Lines) -> None:
        self._before = before
        self._after = after
        self._pairs_left = _PAIRS_TOGETHER_MAX

    def blocks(self) -> Iterator[difflib.Match]:
        """Yield them in order, those that touch each other joined."""
        last: difflib.Match | None = None
        for block in self._found():
            if not block.size:
                continue
            if last is not None and last.a + last.size == block.a and last.b + last.size == block.b:
                last = difflib.Match(last.a, last.b, last.size + block.size)
                continue
            if last is not None:
                yield last
            last = block
        if last is not None:
            yield last

    def _found(self) -> Iterator[difflib.Match]:
        before, after = self._before, self._after
        head = _common(before, after)
        tail = _common(before[head:][::-1], after[head:][::-1])
        yield difflib.Match(0, 0, head)
        i, j = head, head
        ends = len(before) - tail, len(after) - tail
        for anchor_i, anchor_j in [*_anchors(before, after, head, ends), ends]:
            yield from self._between(i, anchor_i, j, anchor_j)
            i, j = anchor_i, anchor_j
            if (i, j) != ends:
                yield difflib.Match(i, j, 1)
                i, j = i + 1, j + 1
        yield difflib.Match(*ends, tail)

    def _between(self, i: int, i_end: int, j: int, j_end: int) -> Iterator[difflib.Match]:
        pairs = (i_end - i) * (j_end - j)
        if not pairs or pairs > min(_PAIRS_MAX, self._pairs_left):
            return
        self._pairs_left -= pairs
        one, other = self._before[i:i_end], self._after[j:j_end]
        for block in difflib.SequenceMatcher(
            None, one, other, autojunk=False
        ).get_matching_blocks():
            yield difflib.Match(i + block.a, j + block.b, block.size)


def _common(one: _Lines, other: _Lines) -> int:
    """Return how many lines both begin with."""
    count = 0
    for line, line_of_other in zip(one, other, strict=False):
        if line != line_of_other:
            break
        count += 1
    return count


def _anchors(
    before: _Lines, after: _Lines, begin: int, ends: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the places of the longest rising run of lines that each side has exactly once."""
    once = _places(before, begin, ends[0])
    places = [
        (i, j)
        for line, j in _places(after, begin, ends[1]).items()
        if (i := once.get(line)) is not None
    ]
    # Patience sorting: for each length of a run the least end that one can have.
    least: list[int] = []
    tops: list[int] = []
    before_me: list[int] = []
    for number, (i, _) in enumerate(places):
        pile = bisect_left(least, i)
        before_me.append(tops[pile - 1] if pile else -1)
        least[pile : pile + 1] = [i]
        tops[pile : pile + 1] = [number]
    run: list[tuple[int, int]] = []
    number = tops[-1] if tops else -1
    while number >= 0:
        run.append(places[number])
        number = before_me[number]
    return run[::-1]


def _places(lines: _Lines, begin: int, end: int) -> dict[bytes, int]:
    """Return where each line stands that stands there once."""
    span = lines[begin:end]
    counts = Counter(span)
    return {line: begin + place for place, line in enumerate(span) if counts[line] == 1}
