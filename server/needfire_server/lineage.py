"""Does one agent have this identity, or several at the same time? Pure.

A restarted agent and a restored machine look alike at first: a process that nobody knew speaks, or
one from before speaks again. What neither of them can do is to *alternate*: once a machine was set
back, what ran on it since is gone for ever. So a clone is told only when both sides were seen to
live after each other:

* process A announced itself, then B from another boot, then A again, and B still speaks on the
  connection that it had before; or both announce themselves in turn, A B A B A B;
* one process writes two numberings of reports in turn, A B A B (a machine that was copied while
  it ran), or two processes write one numbering in turn (a copied state directory).

Two agents on one host (the same boot, each with its own state) are no clones but documented
state 7. Only what needs the answer of a live peer counts as a turn: a handshake, not bytes that
may have waited in a buffer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["Clone", "Lineage", "Process"]

WINDOW_S: Final = 1_200.0
"""Turns further apart prove nothing: somebody may set a machine back, and forth again. It is twice
the time after which an agent that lost its session asks again."""

SETTLED_S: Final = 10.0
"""A message on an older connection counts so long after the other's handshake; earlier it may have
waited in a buffer while its sender was gone already."""

_TURNS_MAX: Final = 6


class Process(NamedTuple):
    """One run of an agent, as it announced itself. A tuple, because each connection makes one."""

    instance: bytes
    boot_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Clone:
    """Two that live at the same time under one name."""

    one: Process
    other: Process
    reason: str


class _Turn(NamedTuple):
    process: Process
    stream: bytes
    at_s: float


class Lineage:
    """Whose turn it was to speak under one name; a bounded number of turns. Times are monotonic."""

    __slots__ = ("_announced", "_told", "_wrote")

    def __init__(self) -> None:
        # Tuples, not deques: there is one of these for each of many thousand agents.
        self._announced: tuple[_Turn, ...] = ()
        self._wrote: tuple[_Turn, ...] = ()
        self._told: frozenset[object] = frozenset()

    def announced(self, process: Process, now_s: float) -> Clone | None:
        """A process proved who it is, just now."""
        turns = self._announced
        if turns and turns[-1].process.instance == process.instance:
            # The same one again. Its first word counts: how long ago another one was here.
            return None
        self._announced = turns = (*turns, _Turn(process, b"", now_s))[-_TURNS_MAX:]
        # Most agents have had one turn only.
        if len(turns) < _TURNS_MAX:
            return None
        if not _alternates([turn.process.instance for turn in turns], _TURNS_MAX):
            return None
        if now_s - turns[-4].at_s > WINDOW_S:
            return None
        return self._clone(turns[-2], turns[-1], "both announce themselves in turn")

    def spoke(self, process: Process, opened_s: float, now_s: float) -> Clone | None:
        """A process spoke on a connection that it opened at ``opened_s``."""
        turns = self._announced
        if not turns or turns[-1].process.instance == process.instance:
            return None
        returned = turns[-1]
        earlier = {turn.process.instance for turn in turns[:-1]}
        if not {returned.process.instance, process.instance} <= earlier:
            return None
        if not opened_s <= returned.at_s <= now_s - SETTLED_S:
            return None
        if now_s - returned.at_s > WINDOW_S:
            return None
        return self._clone(
            returned, _Turn(process, b"", now_s), "one came back while the other one lives"
        )

    def wrote(self, process: Process, stream: bytes, now_s: float) -> Clone | None:
        """A process delivered reports of a numbering."""
        turns = self._wrote
        if turns and _writer(turns[-1]) == (process.instance, stream):
            return None
        self._wrote = turns = (*turns, _Turn(process, stream, now_s))[-4:]
        if not _alternates([_writer(turn) for turn in turns], 4):
            return None
        one, other = turns[-2:]
        if one.process.instance == other.process.instance:
            return self._clone(one, other, "one process, two numberings of reports in turn")
        if one.stream == other.stream:
            return self._clone(one, other, "two processes, one numbering of reports")
        return None

    def _clone(self, one: _Turn, other: _Turn, reason: str) -> Clone | None:
        """Return the finding, unless the two may be on one host or were told before."""
        if not one.stream and one.process.boot_id == other.process.boot_id:
            return None
        key = frozenset((_writer(one), _writer(other)))
        if key in self._told:
            return None
        self._told = frozenset((*list(self._told)[-3:], key))
        return Clone(one.process, other.process, reason)


def _writer(turn: _Turn) -> tuple[bytes, bytes]:
    return turn.process.instance, turn.stream


def _alternates(keys: Sequence[object], count: int) -> bool:
    """True where the last ``count`` are A B A B …"""
    last = list(keys[-count:])
    return len(last) == count and last[0] != last[1] and last == (last[:2] * (count // 2))
