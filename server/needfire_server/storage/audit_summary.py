"""What does a summary say of a block of audit records? Pure.

The words of a record are summed up as they stand in its line, where text is made printable: that is
what a search looks for.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from needfire_protocol.audit.record import Draft, recorded
from needfire_server.storage.summary import Kind, Summary, key, pack, path_keys, time_spans

__all__ = ["RecordRow", "record_summary", "row_of_draft"]

RecordRow: TypeAlias = tuple[int, int, str, str | None, str | None, str | None]
"""Number, time in microseconds, code, client, subject and request."""

_WORDS: Final = ((2, Kind.CODE), (3, Kind.CLIENT), (4, Kind.SUBJECT), (5, Kind.REQUEST))


def row_of_draft(number: int, time_us: int, draft: Draft) -> RecordRow:
    """Return what a summary needs of a record that is being appended, beside its fields."""
    return number, time_us, draft.code, draft.client, draft.subject, draft.request


def record_summary(rows: Sequence[tuple[Any, ...]], fields: Sequence[Mapping[str, Any]]) -> Summary:
    """Return the summary of a block of records, at least one.

    Args:
        rows: each a ``RecordRow``, by number.
        fields: of each of them.
    """
    keys, exact = path_keys([_as_recorded(each) for each in fields])
    for place, kind in _WORDS:
        words = {row[place] for row in rows}
        keys.update(key(kind, word) for word in _printable(words))
    times = [row[1] for row in rows]
    return Summary(rows[0][0], rows[-1][0], *time_spans(times, times), 0, pack(keys), exact)


def _printable(words: Iterable[str | None]) -> Iterable[str]:
    return (recorded(word) for word in words if word)


def _as_recorded(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    path = fields.get("path")
    return {"path": recorded(path)} if type(path) is str else {}
