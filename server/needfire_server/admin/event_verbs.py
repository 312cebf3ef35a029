"""The verb about events: those that are stored, and those that come."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from needfire_protocol.event import Event, event_data
from needfire_protocol.names import parse_reporter_name
from needfire_server.admin.filters import FILTERS, event_class_of, place_of, severity_of
from needfire_server.admin.requests import Arguments, Page, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.admin.wakeup import wait_until
from needfire_server.clock import now_us
from needfire_server.storage.base import EventQuery

__all__ = ["events"]

_PAGE: Final = 100
"""Events held in memory at a time, for each who asks."""


async def events(subject: Subject, call: Call) -> Reply:
    """The newest events that match, oldest first; with ``follow`` also those to come.

    That ends when the time of ``until_us`` has come; without it never.

    With ``after`` the first ones behind it. Each comes with its number, which ``after`` and
    ``before`` take: pages join without a gap and without an event twice, whatever is stored meanwhile.
    """
    call.arguments.check_names(*FILTERS)
    query = _query(call.arguments)
    limit = call.arguments.optional_integer("limit")
    follow = call.arguments.flag("follow")
    end = await subject.store.last_rowid() + 1
    if query.before_rowid is not None:
        end = min(end, query.before_rowid)
    if query.after_rowid is None and limit is not None and limit <= _PAGE and not follow:
        return Reply(pages=_newest(subject, replace(query, before_rowid=end), limit))
    if query.after_rowid is None:
        after = await _before_newest(subject, query, limit, end)
        return Reply(pages=_pages(subject, query, after, None if follow else end))
    stored = _pages(subject, query, query.after_rowid, None if follow else end, limit)
    return Reply(pages=stored)


async def _newest(subject: Subject, query: EventQuery, limit: int) -> AsyncGenerator[Page, None]:
    """Yield a page of the newest: few enough to be turned round here, so one search is enough."""
    found: list[tuple[int, Event]] = []
    query = replace(query, newest_first=True)
    while len(found) < limit:
        page = await subject.store.search_events(replace(query, limit=limit - len(found)))
        found += page.events
        if page.reached is None:
            break
        query = query.behind(page.reached)
    yield [_item(rowid, event) for rowid, event in reversed(found)]


def _item(rowid: int, event: Event) -> Mapping[str, Any]:
    return {"rowid": rowid, "event": event_data(event)}


async def _before_newest(subject: Subject, query: EventQuery, limit: int | None, end: int) -> int:
    """Return the number behind which the newest ``limit`` before ``end`` begin."""
    if limit is None:
        return 0
    if limit == 0:
        return end - 1
    first = await subject.store.nth_newest_rowid(replace(query, before_rowid=end), limit)
    return max(first - 1, 0)


async def _pages(
    subject: Subject, query: EventQuery, after: int, end: int | None, limit: int | None = None
) -> AsyncGenerator[Page, None]:
    """Yield what is stored behind ``after``: up to ``end``, or until the query's time is over.

    Who follows is told once, with ``{"following": true}``, that from here on all is new.
    """
    left = limit
    is_told = False
    while left is None or left > 0:
        ticket = subject.new_events.ticket()
        # Before it is looked what there is: what arrives in between is still shown.
        is_over = query.until_us is not None and now_us() >= query.until_us
        # What was looked at in vain is not looked at again when more comes.
        now = await subject.store.last_rowid() + 1 if end is None else end
        wanted = _PAGE if left is None else min(_PAGE, left)
        page = await subject.store.search_events(
            replace(query, after_rowid=after, before_rowid=now, limit=wanted)
        )
        yield [_item(rowid, event) for rowid, event in page.events]
        left = None if left is None else left - len(page.events)
        after = max(after, now - 1) if page.reached is None else page.reached
        if page.reached is not None:
            continue
        if end is not None:
            return
        if is_over:
            return
        if not is_told:
            is_told = True
            yield [{"following": True}]
        await wait_until(ticket.wait(), query.until_us)


def _query(arguments: Arguments) -> EventQuery:
    client = arguments.optional_text("client")
    code = arguments.optional_word("code")
    path, below = place_of(arguments)
    return EventQuery(
        client=None if client is None else parse_reporter_name(client),
        since_us=arguments.optional_integer("since_us"),
        until_us=arguments.optional_integer("until_us"),
        event_class=event_class_of(arguments),
        severity=severity_of(arguments),
        code=None if code is None else code.upper(),
        path=path,
        below=below,
        request=arguments.optional_word("request"),
        after_rowid=arguments.optional_integer("after"),
        before_rowid=arguments.optional_integer("before"),
    )
