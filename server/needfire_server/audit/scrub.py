"""Whether the store still holds what it held: read again and again while the server runs.

The hashes of what was read once stay in memory, one for 4,096 records. Each step reads all that is
new, the records since the last full part, and the next of the old parts in turn. Who changes the
store of a running server changes none of these hashes.
"""

from collections.abc import Sequence
from typing import Final

from needfire_protocol.audit.merkle import Frontier, leaf_hash
from needfire_protocol.audit.record import FIRST_PREVIOUS, parse_head
from needfire_protocol.audit.verdict import Finding, Verdict
from needfire_server.audit.stored import stray_finding
from needfire_server.storage.audit_base import AuditPages

__all__ = ["PART_RECORDS", "Scrubber"]

PART_RECORDS: Final = 4_096
_PARTS_A_STEP: Final = 8


class Scrubber:
    """Used from one thread at a time."""

    def __init__(self, tables: AuditPages) -> None:
        self._tables = tables
        self._parts: list[bytes] = []
        self._ends: list[bytes] = [FIRST_PREVIOUS]
        self._tail: list[bytes] = []
        self._next = 0

    def step(self) -> Finding | None:
        """Read on; return the first thing that is not as it was.

        Raises:
            StorageError: the store cannot be read.
        """
        for _ in range(min(_PARTS_A_STEP, len(self._parts))):
            finding = self._read_again(self._next % len(self._parts))
            self._next += 1
            if finding is not None:
                return finding
        return stray_finding(self._tables) or self._read_tail()

    def read_all(self) -> Finding | None:
        """Read all that was read before, and what is new; return the first thing that is not right.

        Raises:
            StorageError: the store cannot be read.
        """
        for part in range(len(self._parts)):
            finding = self._read_again(part)
            if finding is not None:
                return finding
        return stray_finding(self._tables) or self._read_tail()

    def _read_again(self, part: int) -> Finding | None:
        first = part * PART_RECORDS
        rows = self._tables.records_now(first, PART_RECORDS)
        frontier = Frontier()
        for _, line in rows:
            frontier.append(leaf_hash(line))
        if frontier.size == PART_RECORDS and frontier.root() == self._parts[part]:
            return None
        text = "the store holds other records than when they were read before"
        return Finding(Verdict.CHANGED, first, first + PART_RECORDS - 1, 0, text)

    def _read_tail(self) -> Finding | None:
        first = len(self._parts) * PART_RECORDS
        previous, place, seen = self._ends[-1], first, self._tail
        changed: Finding | None = None
        hashes: list[bytes] = []
        while rows := self._tables.records_now(place, PART_RECORDS):
            for number, line in rows:
                head = parse_head(line)
                fits = head is not None and (head.number, head.previous) == (place, previous)
                if head is None or number != place or not fits:
                    return Finding(Verdict.CHANGED, max(place - 1, 0), place, 0, "the chain breaks")
                if changed is None and head.hash != _at(seen, place - first, head.hash):
                    text = "the record was another one"
                    changed = Finding(Verdict.CHANGED, place, place, 0, text)
                hashes.append(head.hash)
                previous, place = head.hash, place + 1
            if place - first >= len(seen):
                if changed is not None:
                    return changed
                hashes = self._keep(hashes)
        if place - first < len(seen):
            text = f"{place} records are there, and {first + len(seen)} were"
            return Finding(Verdict.CUT_OFF, place, place, 0, text)
        return None

    def _keep(self, hashes: list[bytes]) -> list[bytes]:
        """Keep one hash of each full part; return those of the records behind them."""
        while len(hashes) >= PART_RECORDS:
            part, hashes = hashes[:PART_RECORDS], hashes[PART_RECORDS:]
            frontier = Frontier()
            for each in part:
                frontier.append(each)
            self._parts.append(frontier.root())
            self._ends.append(part[-1])
        self._tail = hashes
        return list(hashes)


def _at(seen: Sequence[bytes], offset: int, default: bytes) -> bytes:
    return seen[offset] if offset < len(seen) else default
