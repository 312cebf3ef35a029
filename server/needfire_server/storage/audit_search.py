"""How records of the audit log are found: by summaries of blocks, then by reading the lines.

The log is lines, because lines are what is hashed. Summaries are not signed: they make reading quick,
and say nothing of whether the log is whole, which ``verify`` finds out from the lines alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import parse_time
from needfire_server.storage import audit_statements, tables
from needfire_server.storage.audit_base import AuditPage, AuditQuery
from needfire_server.storage.audit_summary import RecordRow, record_summary
from needfire_server.storage.summaries import Blocks, Stretch, stretches
from needfire_server.storage.summary import (
    Kind,
    Summary,
    Wanted,
    key,
    place_keys,
    unreadable_summary,
)

__all__ = ["AUDIT_BLOCKS", "AUDIT_PAGE_MAX", "search"]

AUDIT_PAGE_MAX: Final = 500
"""Records that one step returns at most."""
_COST_MAX: Final = 16_384
"""Records that one step looks at, or the like of it: each is taken apart."""
_LINES: Final = 256


def search(connection: sa.Connection, query: AuditQuery) -> AuditPage:
    """Do one step of a search.

    Raises:
        StorageError: a record is none.
    """
    limit = min(max(query.limit, 1), AUDIT_PAGE_MAX)
    found: list[tuple[int, Mapping[str, Any]]] = []
    cost = 0
    for stretch in _stretches(connection, query):
        cost += stretch.cost
        for number, record in _records(connection, query, stretch):
            if _matches(record, query):
                found.append((number, record))
                if len(found) >= limit:
                    return AuditPage(found, number)
        if cost >= _COST_MAX:
            return AuditPage(found, stretch.first if query.newest_first else stretch.last)
    return AuditPage(found, None)


def _stretches(connection: sa.Connection, query: AuditQuery) -> Iterator[Stretch]:
    size = audit_statements.head(connection).size
    before = size if query.before is None else min(query.before, size)
    after = -1 if query.after is None else query.after
    if before - after > 1:
        yield from stretches(
            connection, AUDIT_BLOCKS, _wanted(query), after, before, newest_first=query.newest_first
        )


def _wanted(query: AuditQuery) -> Wanted:
    place = place_keys(query.path, query.below)
    # Not of the empty text, which no summary knows.
    groups: list[tuple[int, ...]] = [(key(kind, text),) for kind, text in _words(query) if text]
    if query.codes is not None:
        groups.append(tuple(key(Kind.CODE, code) for code in sorted(query.codes)))
    return replace(
        place, since_us=query.since_us, until_us=query.until_us, keys=tuple(groups) + place.keys
    )


def _words(query: AuditQuery) -> Iterator[tuple[Kind, str | None]]:
    yield Kind.CLIENT, query.client
    yield Kind.SUBJECT, query.subject
    yield Kind.REQUEST, query.request


def _records(
    connection: sa.Connection, query: AuditQuery, stretch: Stretch
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the records of a stretch in the query's order, some of them at a time in memory."""
    if not stretch.may_hold:
        return
    starts = range(stretch.first, stretch.last + 1, _LINES)
    for start in reversed(starts) if query.newest_first else starts:
        end = min(start + _LINES - 1, stretch.last)
        page = _lines(connection, start, end)
        for number, line in reversed(page) if query.newest_first else page:
            yield number, _parsed(number, line)


def _lines(connection: sa.Connection, first: int, last: int) -> list[tuple[int, bytes]]:
    number = tables.audit_records.c.number
    wanted = sa.select(number, tables.audit_records.c.record)
    rows = connection.execute(wanted.where(number.between(first, last)).order_by(number))
    return [(row[0], row[1]) for row in rows]


def _parsed(number: int, line: bytes) -> Mapping[str, Any]:
    """Return the parts of a line, each of its type; who wrote the database may be no friend."""
    record: Mapping[str, Any] = {}
    try:
        record = json.loads(line)
        time_us = parse_time(record["time"])
        texts = (record["code"], record["outcome"], record["subject"])
        names = (record["client"], record["request"])
        is_record = (
            all(type(each) is str for each in texts)
            and all(each is None or type(each) is str for each in names)
            and type(record["fields"]) is dict
            and 0 <= time_us < 2**63
        )
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, FormatError):
        is_record = False
    if not is_record:
        raise StorageError(
            f"record {number} of the audit log is none; needfire-admin audit verify --store says "
            "what is wrong with the log"
        )
    return record


def _matches(record: Mapping[str, Any], query: AuditQuery) -> bool:
    for name in ("client", "subject", "request"):
        wanted = getattr(query, name)
        if wanted is not None and record[name] != wanted:
            return False
    if query.codes is not None and record["code"] not in query.codes:
        return False
    if query.outcome is not None and record["outcome"] != query.outcome:
        return False
    return _is_within(record, query) and _is_at(record["fields"].get("path"), query)


def _is_within(record: Mapping[str, Any], query: AuditQuery) -> bool:
    if query.since_us is None and query.until_us is None:
        return True
    time_us = parse_time(record["time"])
    return (query.since_us is None or time_us >= query.since_us) and (
        query.until_us is None or time_us < query.until_us
    )


def _is_at(path: object, query: AuditQuery) -> bool:
    if query.path is None and query.below is None:
        return True
    if type(path) is not str:
        return False
    if query.path is not None and path != query.path:
        return False
    below = query.below
    return below is None or path == below or path.startswith(below + "/")


def _sum_up(connection: sa.Connection, first: int, last: int) -> Summary | None:
    lines = _lines(connection, first, last)
    if not lines:
        return None
    try:
        return replace(_summary(lines), first=first, last=last)
    except (StorageError, ValueError):
        # It is found out when the log is verified; here it must not be passed over.
        return unreadable_summary(first, last)


def _summary(lines: Sequence[tuple[int, bytes]]) -> Summary:
    records = [_parsed(number, line) for number, line in lines]
    rows = [_row(number, record) for (number, _), record in zip(lines, records, strict=True)]
    return record_summary(rows, [record["fields"] for record in records])


def _row(number: int, record: Mapping[str, Any]) -> RecordRow:
    code, client, subject, request = (
        record[name] for name in ("code", "client", "subject", "request")
    )
    return number, parse_time(record["time"]), code, client, subject, request


AUDIT_BLOCKS: Final = Blocks(
    tables.audit_summaries, tables.audit_records.c.number, "audit_summaries", _sum_up
)
