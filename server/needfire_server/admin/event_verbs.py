"""The verb about events: those that are stored, and those that come."""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.event import event_to_json
from needfire_protocol.names import parse_reporter_name
from needfire_protocol.severity import Severity
from needfire_server.admin.requests import Arguments, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.storage.base import EventQuery

__all__ = ["events"]

_PAGE: Final = 100
"""Events held in memory at a time, for each who asks."""


async def events(subject: Subject, call: Call) -> Reply:
    """The newest events that match, oldest first; with ``follow`` also those to come, for ever."""
    call.arguments.check_names(
        "client", "since_us", "until_us", "class", "severity", "code", "limit", "follow"
    )
    query = _query(call.arguments)
    limit = call.arguments.optional_integer("limit")
    last = await subject.store.last_rowid()
    first = 0
    if limit == 0:
        first = last + 1
    elif limit is not None:
        first = await subject.store.nth_newest_rowid(replace(query, before_rowid=last + 1), limit)
    follow = call.arguments.flag("follow")
    return Reply(items=_items(subject, query, after=max(first - 1, 0), last=last, follow=follow))


async def _items(
    subject: Subject, query: EventQuery, *, after: int, last: int, follow: bool
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield what is stored behind ``after``: up to ``last``, or without end.

    Who follows is told once, with ``{"following": true}``, that from here on all is new.
    """
    before = None if follow else last + 1
    is_told = False
    while True:
        ticket = subject.new_events.ticket()
        page = await subject.store.query_events(
            replace(query, after_rowid=after, before_rowid=before, limit=_PAGE)
        )
        for rowid, event in page:
            after = rowid
            yield {"rowid": rowid, "event": json.loads(event_to_json(event))}
        if len(page) == _PAGE:
            continue
        if not follow:
            return
        if not is_told:
            is_told = True
            yield {"following": True}
        await ticket.wait()


def _query(arguments: Arguments) -> EventQuery:
    client = arguments.optional_text("client")
    severity = arguments.optional_text("severity")
    code = arguments.optional_text("code")
    return EventQuery(
        client=None if client is None else parse_reporter_name(client),
        since_us=arguments.optional_integer("since_us"),
        until_us=arguments.optional_integer("until_us"),
        event_class=_event_class(arguments.optional_text("class")),
        severity=None if severity is None else Severity.parse(severity),
        code=None if code is None else code.upper(),
    )


def _event_class(word: str | None) -> EventClass | None:
    if word is None:
        return None
    try:
        return EventClass(word.lower())
    except ValueError:
        known = ", ".join(each.value for each in EventClass)
        raise FormatError(f"{word[:64]!r} is no class of events; expected {known}") from None
