"""How far one full check has come: where it goes on, what it keeps, what its receipt says of parts.

A check without a place to keep its position (a new baseline is written, or a single look) has a
course as well, of one part.
"""

from collections.abc import Mapping
from contextlib import suppress

from needfire_client.mounts import is_below
from needfire_client.policy import Selection
from needfire_client.position import Part, Position, PositionStore
from needfire_client.scan import Scan, ScanStoppedError
from needfire_client.walk import Rest
from needfire_protocol.baseline import key_of
from needfire_protocol.errors import StorageError
from needfire_protocol.escape import escape_bytes
from needfire_protocol.event import FieldValue, format_time
from needfire_protocol.plain_classes import replace

__all__ = ["Course"]

_EVERY_TIME = frozenset({"hashed", "bytes", "duration_ms"})
"""Numbers of parts that are looked at once more: everything else is counted then."""


class Course:
    """The course of one check. It may go on where another one was stopped.

    Args:
        store: where its position is kept; None: nowhere.
        watch: as for ``Position``.
    """

    def __init__(
        self,
        scan: Scan,
        store: PositionStore | None,
        *,
        configuration_sha256: str,
        baseline_sha256: str,
        selection: Selection,
        watch: str,
    ) -> None:
        self._scan = scan
        self._store = store
        self._began_us = 0 if store is None else store.clock_us()
        self._path: bytes | None = None
        self._position = Position(
            configuration_sha256=configuration_sha256,
            baseline_sha256=baseline_sha256,
            selection=selection,
            watch=watch,
            parts=(),
            again_until=None,
            met=(),
            numbers={},
        )
        self.rests: list[Rest] | None = None
        """What is left to walk; None: everything."""
        if store is not None:
            self._go_on(
                store.load(
                    configuration_sha256=configuration_sha256,
                    baseline_sha256=baseline_sha256,
                    selection=selection,
                )
            )

    def _go_on(self, found: Position | None) -> None:
        if found is None:
            return
        try:
            if any(is_below(found.path, point) for point in self._scan.unanswered()):
                # To look where it was would take for ever, and nobody else could do it.
                return
            rests = self._scan.walker.rests_after(found.path, self._scan.risks())
        except (OSError, ScanStoppedError):
            # The way there cannot be opened now. What that means, the walk from the root says.
            return
        self.rests = rests
        self._position = found.continued(self._position.watch)
        is_seen_again = self._position.again_until is not None
        self._scan.take_over(
            {
                name: number
                for name, number in found.numbers.items()
                if not is_seen_again or name in _EVERY_TIME
            },
            found.met,
        )

    @property
    def is_resumed(self) -> bool:
        """True where it goes on from an earlier part."""
        return self.rests is not None

    @property
    def again_until(self) -> bytes | None:
        """What is to be looked at once more at the end: all up to and with this directory."""
        return self._position.again_until

    @property
    def first_key(self) -> bytes:
        """The least key that has not been compared yet."""
        return key_of(self._position.path) + b"\0" if self.is_resumed else b""

    def passed(self, path: bytes) -> None:
        """Note that a directory has been compared, and everything before it."""
        self._path = path
        if self._store is not None and self._store.is_due:
            self._save(self._store)

    def stopped(self) -> None:
        """Keep how far it has come."""
        if self._store is not None and self._path is not None:
            self._save(self._store)

    def ended(self) -> None:
        """Forget how far it had come: it has seen everything."""
        if self._store is not None:
            self._store.clear()

    def start_fields(self) -> Mapping[str, FieldValue]:
        """Return what the event of its beginning says."""
        if not self.is_resumed:
            return {}
        return {"resumed_after": escape_bytes(self._position.path) or "/"}

    def fields(self) -> Mapping[str, FieldValue]:
        """Return what the receipt says: the spans of time of all parts, and what each covered."""
        if self._store is None or not self.is_resumed:
            return {}
        spans = [_span(part.from_us, part.to_us, part.until) for part in self._position.parts]
        spans.append(
            f"{format_time(self._began_us)} {format_time(self._store.clock_us())} the rest"
        )
        said: dict[str, FieldValue] = {"parts": len(spans), "spans": "; ".join(spans)}
        if self.again_until is not None:
            said["looked_again_until"] = escape_bytes(self.again_until) or "/"
        return said

    def _save(self, store: PositionStore) -> None:
        assert self._path is not None
        part = Part(self._began_us, store.clock_us(), self._path)
        position = replace(
            self._position,
            parts=(*self._position.parts, part),
            met=self._scan.met_indexes(),
            numbers=self._scan.numbers(),
        )
        # A full disk must not end a check; what is not kept is only done again.
        with suppress(StorageError):
            store.save(position)


def _span(from_us: int, to_us: int, until: bytes) -> str:
    shown = escape_bytes(until).replace(" ", "\\x20") or "/"
    return f"{format_time(from_us)} {format_time(to_us)} until {shown}"
