"""Which baseline took a change in? Pure.

The rule, in words that a report carries (``RULE``): the first baseline that was put in place after
a change was first reported and that names its path among what it changes. A baseline names only the
first of its differences, or none that it could not be compared with: of such a one, it is the first
one put in place after the change was last reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_server.change_text import lines_of

__all__ = ["RULE", "Accepted", "accepted_by", "accepted_of"]

RULE: Final = (
    "A change counts as accepted by the first baseline that was put in place after the change was "
    "first reported and that names its path among its differences; where a baseline has more "
    "differences than its event names, or could not be compared, by the first one that was put in "
    "place after the change was last reported (marked: by time). Else it is not accepted."
)
_CUT: Final = "…"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that somebody put in place: from then on it says what is right.

    Attributes:
        added, removed, modified: objects, in comparison with what it replaced; None: not known.
        paths: of a baseline, those that it names as different.
        is_whole: it names all of them.
    """

    time_us: int
    what: str
    user: str
    digest: str
    proposal: str | None = None
    request: str | None = None
    added: int | None = None
    removed: int | None = None
    modified: int | None = None
    paths: frozenset[str] = frozenset()
    is_whole: bool = False

    @property
    def counts(self) -> str:
        """``+1 -0 ~2``; empty where it could not be compared, or is no baseline."""
        if self.added is None or self.removed is None or self.modified is None:
            return ""
        return f"+{self.added} -{self.removed} ~{self.modified}"


def accepted_of(what: str, fields: Mapping[str, Any], time_us: int) -> Accepted:
    """Return what an event says that put a file in place."""
    paths, is_whole = _named(fields)
    counts = (_count(fields.get(name)) for name in ("added", "removed", "modified"))
    added, removed, modified = counts if what == "baseline" else (None, None, None)
    return Accepted(
        time_us,
        what,
        str(fields["user"]),
        str(fields["hash"]),
        _text(fields.get("proposal")),
        _text(fields.get("request")),
        added,
        removed,
        modified,
        paths if what == "baseline" else frozenset(),
        is_whole and added is not None,
    )


def accepted_by(
    path: str, first_us: int, last_us: int, puts: Sequence[Accepted]
) -> tuple[Accepted, bool] | None:
    """Return what took a change in, and whether it names its path; None: nothing did.

    Args:
        first_us, last_us: when the server was told of it first and last.
        puts: in the order of time.
    """
    for put in puts:
        if put.what != "baseline" or put.time_us < first_us:
            continue
        if path in put.paths:
            return put, True
        if not put.is_whole and put.time_us >= last_us:
            return put, False
    return None


def _named(fields: Mapping[str, Any]) -> tuple[frozenset[str], bool]:
    """Return the paths that an event names, and whether those are all."""
    text = fields.get("diff")
    is_whole = not fields.get("diff_left_out") and not fields.get("not_compared")
    if not isinstance(text, str) or not text:
        return frozenset(), is_whole and not any(
            fields.get(name) for name in ("added", "removed", "modified")
        )
    try:
        lines = lines_of(text)
    except FormatError:
        return frozenset(), False
    is_cut = any(line.endswith(_CUT) for line in lines)
    return frozenset(line[2:] for line in lines), is_whole and not is_cut


def _count(value: object) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
