"""Doubles for tests of outputs: a store in memory, and a target that does as it is told."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event
from needfire_server.outputs.settings import OutputSettings, TargetKind
from needfire_server.outputs.suspects import source_of
from needfire_server.outputs.target import CLOSED, RefusedError, TargetError
from needfire_server.storage.output_cursors import OUTPUT_PAGE, OutputCursor, Skipped

__all__ = ["Crash", "MemoryStore", "ScriptedSink", "ScriptedTarget", "settings_of"]


class Crash(BaseException):
    """The end of the process, at this very place."""


def settings_of(**changes: Any) -> OutputSettings:
    """Return the settings of an output to a file that nobody opens."""
    given: dict[str, Any] = {"name": "out", "kind": TargetKind.FILE, "where": "/nowhere"}
    return OutputSettings(**given | changes)


@dataclass
class MemoryStore:
    """Implements ``OutputStore``; what is saved is safe at once."""

    events: dict[int, Event] = field(default_factory=dict)
    saved: dict[str, OutputCursor] = field(default_factory=dict)
    is_failing: bool = False
    is_chosen: bool = True
    saves: int = 0
    skips: dict[int, Skipped] = field(default_factory=dict)

    def add(self, *events: Event) -> None:
        for event in events:
            self.events[max(self.events, default=0) + 1] = event

    def remove_up_to(self, number: int) -> None:
        """Do what a retention does."""
        for old in [each for each in self.events if each <= number]:
            del self.events[old]

    async def cursors(self) -> list[OutputCursor]:
        self._check()
        return list(self.saved.values())

    async def save(self, cursor: OutputCursor) -> None:
        self._check()
        before = self.saved.get(cursor.name, cursor)
        assert cursor.confirmed >= before.confirmed, "a cursor never goes back"
        assert cursor.attempted >= cursor.confirmed
        self.saved[cursor.name] = cursor
        self.saves += 1

    async def after(self, number: int, limit: int = OUTPUT_PAGE) -> list[tuple[int, Event]]:
        self._check()
        await asyncio.sleep(0)
        return sorted(each for each in self.events.items() if each[0] > number)[:limit]

    async def skip(self, cursor: OutputCursor, skipped: Skipped) -> None:
        await self.save(cursor)
        self.skips[skipped.number] = skipped

    async def skipped_counts(self) -> dict[str, int]:
        self._check()
        return {"out": len(self.skips)}

    async def skipped_of(self, output: str, source: str | None) -> int:
        self._check()
        return sum(source_of(each.event) == source for each in self.skips.values())

    async def skipped(self, output: str, after: int, limit: int = OUTPUT_PAGE) -> list[Skipped]:
        return [each for number, each in sorted(self.skips.items()) if number > after][:limit]

    async def forget_skipped(self, output: str, numbers: Sequence[int]) -> int:
        return len([self.skips.pop(number) for number in numbers])

    async def may_send(self) -> bool:
        return self.is_chosen

    async def last(self) -> int:
        return max(self.events, default=0)

    def _check(self) -> None:
        if self.is_failing:
            raise StorageError("the disk is gone")


@dataclass
class ScriptedSink:
    """What is behind every target that it makes; it remembers what arrived over all of them.

    A step of the script is taken for each delivery: ``ok``; ``away`` (nothing is taken);
    ``torn`` (half of the batch is taken, and the sender is not told so); ``told`` (half is
    taken, and it is told); ``crash`` (half is taken, then the sender's process ends).
    """

    script: Iterator[str] = field(default_factory=lambda: iter(()))
    settle_s: float = 0.0
    got: list[Event] = field(default_factory=list)
    opened: int = 0
    remark: str = ""
    poison: frozenset[str] = frozenset()
    """Paths of which it takes no event, nor any that come together with one."""
    targets: list["ScriptedTarget"] = field(default_factory=list)

    def make(self, settings: OutputSettings, on_lost: Callable[[], None]) -> "ScriptedTarget":
        target = ScriptedTarget(self, on_lost)
        self.targets.append(target)
        return target

    def ids(self) -> list[str]:
        return [event.id for event in self.got]


class ScriptedTarget:
    """Implements ``Target``. With a time to settle, only what is pulled has arrived."""

    def __init__(self, sink: ScriptedSink, on_lost: Callable[[], None]) -> None:
        self._sink = sink
        self._on_lost = on_lost
        self._pipe: list[Event] = []
        self.is_lost = False
        self.loss = CLOSED
        self.settle_s = sink.settle_s
        self.remark = sink.remark

    async def open(self) -> None:
        self._sink.opened += 1

    async def deliver(self, events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        if any(event.fields["path"] in self._sink.poison for event in events):
            raise RefusedError("it answered 400 Bad Request")
        step = next(self._sink.script, "ok")
        half = len(events) // 2
        taken = {"ok": len(events), "away": 0}.get(step, half)
        self._take(events[:taken])
        if step == "crash":
            raise Crash
        if step != "ok":
            raise TargetError("as the script says", delivered=half if step == "told" else 0)

    def _take(self, events: Sequence[Event]) -> None:
        if self.settle_s:
            self._pipe += events
        else:
            self._sink.got += events

    def pull(self) -> None:
        """The receiver reads what is in the pipe."""
        self._sink.got += self._pipe
        self._pipe.clear()

    def lose(self) -> None:
        """The connection breaks; what is in the pipe is gone."""
        self._pipe.clear()
        self.is_lost = True
        self._on_lost()

    def handed_over(self) -> int:
        return 0

    def acknowledged(self) -> int:
        return 0

    async def finish(self) -> bool:
        self.pull()
        return True

    def abort(self) -> None:
        self.is_lost = True
