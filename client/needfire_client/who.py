"""Who changed a path since it was last looked at, and how an event says so.

The watcher notes writers as events come; the look at the path comes a moment later. A note holds
from its event until a look at the path that began after it has ended: what changes during a look
may be in that look's report or in the next one's, so it counts for both.
"""

import threading
from collections.abc import Iterable
from typing import Final

from needfire_client.attributes import owner_name
from needfire_client.masking import command_text
from needfire_client.mounts import is_below
from needfire_client.processes import Writer
from needfire_protocol.escape import escape_bytes, printable
from needfire_protocol.event import FieldValue
from needfire_protocol.plain_classes import dataclass, field

__all__ = ["UNKNOWN", "WhoBook", "who_fields"]

UNKNOWN: Final = "unknown"
_SEVERAL: Final = "several"

PATHS_MAX: Final = 20_000
WRITERS_MAX: Final = 4
"""Writers of one path that are told apart, the first ones. Of more it is told that there were, as
an unknown one: else four harmless ones would hide the fifth."""

_PROGRAM_CHARACTERS_MAX: Final = 256


@dataclass(slots=True)
class _Note:
    writers: dict[tuple[int, bytes] | None, Writer | None] = field(default_factory=dict)
    """By process and program; None for one that could not be known."""
    is_move: bool = False
    """A directory came or went here, with all that is below."""

    def add_one(self, key: tuple[int, bytes] | None, writer: Writer | None) -> None:
        if key in self.writers or len(self.writers) < WRITERS_MAX:
            self.writers[key] = writer
        else:
            self.writers[None] = None

    def add(self, other: "_Note") -> None:
        for key, writer in other.writers.items():
            self.add_one(key, writer)
        self.is_move |= other.is_move


class WhoBook:
    """Notes of who changed what. May be used from several threads.

    More paths than it may hold are forgotten: then the answer is unknown.
    """

    def __init__(self, paths_max: int = PATHS_MAX) -> None:
        self._paths_max = paths_max
        self._lock = threading.Lock()
        self._new: dict[bytes, _Note] = {}
        self._looked_at: dict[bytes, _Note] = {}

    def note(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        """Note that a process changed a path.

        Args:
            writer: None where it is not known who it was.
            below: it moved a directory, and with it all that is below.
        """
        key = None if writer is None else (writer.pid, writer.program)
        with self._lock:
            found = self._new.get(path)
            if found is None:
                if len(self._new) >= self._paths_max:
                    self._new.clear()
                found = self._new[path] = _Note()
            found.add_one(key, writer)
            found.is_move |= below

    def begin_look(self, paths: Iterable[bytes]) -> None:
        """Say that these paths are looked at from now on; notes for the look before are dropped."""
        with self._lock:
            self._looked_at = {}
            for path in paths:
                # A look at an object is one at its directory as well.
                for each in (path, path.rpartition(b"/")[0] or b"/"):
                    note = self._new.pop(each, None)
                    if note is not None:
                        self._looked_at[each] = note

    def begin_look_below(self, tree: bytes) -> None:
        """Say that a directory and everything below it is looked at from now on."""
        with self._lock:
            self._looked_at = {
                path: note for path, note in self._new.items() if is_below(path, tree)
            }
            for path in self._looked_at:
                del self._new[path]

    def put_off(self, paths: Iterable[bytes]) -> None:
        """Say that these paths are not looked at this time."""
        with self._lock:
            for path in paths:
                note = self._looked_at.get(path)
                if note is not None:
                    note.add(self._new.get(path, _Note()))
                    self._new[path] = note

    def writers(self, path: bytes) -> list[Writer | None]:
        """Return who changed a path, or moved a directory that it is in; empty: no note."""
        with self._lock:
            if not self._new and not self._looked_at:
                return []
            found = self._noted(path)
            while not found.writers and len(path) > 1:
                path = path.rpartition(b"/")[0] or b"/"
                around = self._noted(path)
                if around.is_move:
                    found = around
            return list(found.writers.values())

    def _noted(self, path: bytes) -> _Note:
        found = _Note()
        for notes in (self._looked_at, self._new):
            if path in notes:
                found.add(notes[path])
        return found


def who_fields(writers: list[Writer | None]) -> dict[str, FieldValue]:
    """Return the fields of an event that say who it was."""
    known = [writer for writer in writers if writer is not None]
    if not known:
        return {"who": UNKNOWN}
    if len(writers) > 1:
        # A comma in a program's own name must not make two of it.
        programs = dict.fromkeys(_program(writer.program).replace(",", "\\x2c") for writer in known)
        names = [*programs, *([UNKNOWN] if len(known) < len(writers) else [])]
        return {
            "who": _SEVERAL,
            "who_program": ", ".join(names),
            "who_pid": ", ".join(str(writer.pid) for writer in known),
        }
    return _one(known[0])


def _one(writer: Writer) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {
        "who_program": _program(writer.program),
        "who_pid": writer.pid,
    }
    if writer.command is not None:
        fields["who_command"] = command_text(writer.command)
    if writer.uid is not None:
        fields["who_user"] = owner_name(writer.uid)
    if writer.login_uid is not None:
        fields["who_login"] = owner_name(writer.login_uid)
    if writer.parent is not None:
        fields["who_parent"] = _program(writer.parent)
    if writer.unit is not None:
        fields["who_unit"] = printable(writer.unit, 128)
    return fields


def _program(path: bytes) -> str:
    return printable(escape_bytes(path[:1_024]), _PROGRAM_CHARACTERS_MAX)
