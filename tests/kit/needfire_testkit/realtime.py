"""A listener that keeps what a watcher told, with a way to wait for it."""

import threading
from collections.abc import Callable
from pathlib import Path

from needfire_client.processes import Writer

__all__ = ["Ears"]

WAIT_S = 10.0


class Ears:
    """Hears everything that any watcher or guard tells."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.paths: list[bytes] = []
        self.trees: list[bytes] = []
        self.writers: list[tuple[bytes, Writer | None, bool]] = []
        self.losses: list[tuple[str, bytes, int | None]] = []
        self.canaries: list[bytes] = []
        self.silences: list[tuple[object, ...]] = []
        self.methods: list[tuple[str, str, int]] = []
        self.hold = threading.Event()
        self.hold.set()

    def changed(self, path: bytes, *, below: bool = False) -> None:
        self.hold.wait(WAIT_S)
        with self.condition:
            self.paths.append(path)
            if below:
                self.trees.append(path)
            self.condition.notify_all()

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        with self.condition:
            self.writers.append((path, writer, below))

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        with self.condition:
            self.losses.append((reason, scope, since_us))
            self.condition.notify_all()

    def canary_came(self, which: bytes) -> None:
        with self.condition:
            self.canaries.append(which)
            self.condition.notify_all()

    def mounts_changed(self) -> None:
        pass

    def answered(self, path: bytes) -> None:
        pass

    def silent(self, *given: object) -> None:
        """Hear a guard (one silence) or a RealTime (method, path, scope, since)."""
        with self.condition:
            self.silences.append(given)
            self.condition.notify_all()

    def chosen(self, method: str, reason: str, watched: int, _polled: int) -> None:
        self.methods.append((method, reason, watched))

    def programs(self, path: Path) -> set[bytes | None]:
        """Return the programs that were told of a path; None for unknown."""
        with self.condition:
            return {
                None if writer is None else writer.program
                for each, writer, _ in self.writers
                if each == bytes(path)
            }

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something was told."""
        with self.condition:
            assert self.condition.wait_for(condition, WAIT_S), f"{what}: {self.paths} {self.losses}"

    def wait_paths(self, *paths: Path) -> None:
        """Wait until all of these paths were told."""
        wanted = {bytes(path) for path in paths}
        self.wait(lambda: wanted <= set(self.paths), f"waited for {wanted}")
