"""How far a full check has come, kept on disk, so that one that was stopped goes on from there.

A position belongs to one configuration, one baseline and one selection of rules; for any other it
does not exist. It is written every few seconds and when a check is stopped, so that after a loss
of power little is done twice.

What lies before it was seen by an earlier part of the check. If everything was watched since, in
one process, that is enough; otherwise the check looks at it once more, quickly, at its end
(``again_until``). So what changed while nobody watched is not left to the next check.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from needfire_client.policy import Selection
from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.limits import DecodingLimits
from needfire_protocol.plain_classes import dataclass, replace

__all__ = ["MAX_AGE_US", "PARTS_MAX", "Part", "Position", "PositionStore"]

MAX_AGE_US: Final = 24 * 3600 * 1_000_000
"""Microseconds since the beginning of its first part, after which a check begins anew."""

PARTS_MAX: Final = 50
"""Parts of one check; after that it begins anew."""

_SAVE_INTERVAL_S: Final = 5.0
_FORMAT: Final = 1
_LIMITS: Final = DecodingLimits(
    size_bytes_max=4 * 2**20,
    text_bytes_max=64 * 1024,
    binary_bytes_max=2**20,
    array_items_max=100_000,
    map_items_max=256,
    depth_max=6,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A span of time in which a check went on."""

    from_us: int
    to_us: int
    until: bytes
    """The last directory that it compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The state of a check that has not come to its end."""

    configuration_sha256: str
    baseline_sha256: str
    selection: Selection
    watch: str
    """A word that is the same for as long as nothing can have changed unseen; "" if nobody looks."""
    parts: tuple[Part, ...]
    again_until: bytes | None
    """What has to be looked at once more, up to and with this directory."""
    met: tuple[int, ...]
    """Rules that name something that is there, as indexes into ``Ruleset.decisions``."""
    numbers: Mapping[str, int]
    """What the receipt counts."""

    @property
    def path(self) -> bytes:
        """The last directory that was compared."""
        return self.parts[-1].until

    def continued(self, watch: str) -> "Position":
        """Return the position for a check that goes on from it now."""
        if watch and watch == self.watch:
            return self
        return replace(self, again_until=self.path, watch=watch)


class PositionStore:
    """The file of a position. Used by one thread.

    Args:
        clock_us: microseconds since 1970, for its age and its parts.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self.clock_us = clock_us
        self._clock_s = clock_s
        self._due_s = clock_s() + _SAVE_INTERVAL_S
        self._is_stale = False

    def load(
        self, *, configuration_sha256: str, baseline_sha256: str, selection: Selection
    ) -> Position | None:
        """Return the position of a check of this kind; None if it has to begin anew."""
        self._due_s = self._clock_s() + _SAVE_INTERVAL_S
        if self._is_stale:
            return None
        try:
            with self._path.open("rb") as file:
                found = _decoded(file.read(_LIMITS.size_bytes_max + 1))
        except (OSError, FormatError):
            return None
        age_us = self.clock_us() - found.parts[0].from_us
        is_same = (found.configuration_sha256, found.baseline_sha256, found.selection) == (
            configuration_sha256,
            baseline_sha256,
            selection,
        )
        is_usable = 0 <= age_us <= MAX_AGE_US and len(found.parts) < PARTS_MAX
        return found if is_same and is_usable else None

    @property
    def is_due(self) -> bool:
        """True where some seconds have gone by since the last time it was saved."""
        return self._clock_s() >= self._due_s

    def save(self, position: Position) -> None:
        """Keep a position, over a loss of power as well.

        Raises:
            StorageError: the disk refuses.
        """
        self._due_s = self._clock_s() + _SAVE_INTERVAL_S
        unfinished = self._path.with_name(self._path.name + ".new")
        try:
            with open(
                unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(_encoded(position))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path)
            self._is_stale = False
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error

    def clear(self) -> None:
        """Forget it: the check has come to its end, or is to begin anew."""
        self._is_stale = True
        # Where that fails, it is known here, and another process looks at everything once more.
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _encoded(position: Position) -> bytes:
    selection = position.selection
    return encode(
        [
            _FORMAT,
            position.configuration_sha256,
            position.baseline_sha256,
            None if selection.groups is None else sorted(selection.groups),
            sorted(selection.quick),
            position.watch,
            [[part.from_us, part.to_us, part.until] for part in position.parts],
            position.again_until,
            list(position.met),
            dict(position.numbers),
        ]
    )


def _decoded(data: bytes) -> Position:
    """Return the position; raise FormatError where it is none that this version wrote."""
    fields: Any = decode(data, limits=_LIMITS)
    try:
        number, configuration, baseline, groups, quick, watch, parts, again, met, numbers = fields
        if number != _FORMAT or not parts:
            raise FormatError("the position is of another version")
        times = [time_us for part in parts for time_us in part[:2]]
        if not all(type(each) is int for each in (*times, *met, *numbers.values())):
            raise FormatError("the position has text where numbers should be")
        if not all(type(path) is bytes and path[:1] in (b"", b"/") for *_, path in parts):
            raise FormatError("the position is no absolute path")
        return Position(
            configuration_sha256=configuration,
            baseline_sha256=baseline,
            selection=Selection(None if groups is None else frozenset(groups), frozenset(quick)),
            watch=watch,
            parts=tuple(Part(*part) for part in parts),
            again_until=again,
            met=tuple(met),
            numbers=numbers,
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"the position has another form: {error}") from None
