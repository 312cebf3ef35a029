"""The verbs about the audit log: show, export, prove, its keys, and a new one."""

import asyncio
import itertools
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from needfire_protocol.audit.note import parse_checkpoint, parse_note
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.names import parse_reporter_name
from needfire_server.admin.filters import FILTERS, codes_of, place_of
from needfire_server.admin.requests import AdminRefusedError, Arguments, Page, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.admin.wakeup import wait_until
from needfire_server.clock import now_us
from needfire_server.storage.audit_base import AuditQuery

__all__ = ["accept", "export", "keys", "prove", "report", "rotate", "show"]

_LINES: Final = 500
"""Lines that are read at a time, for each who asks."""
_LOOK_S: Final = 1.0
"""Who follows the log looks for what nobody told of."""


async def export(subject: Subject, call: Call) -> Reply:
    """The log as lines, up to a checkpoint that is signed now."""
    call.arguments.check_names()
    checkpoint = await subject.audit.checkpoint()
    if checkpoint is None:
        raise AdminRefusedError(
            "nothing of the audit log is signed, because its key is not there",
            subject.audit.key_trouble,
        )
    return Reply(pages=_lines(subject.audit.lines(checkpoint)))


async def show(subject: Subject, call: Call) -> Reply:
    """The newest records that match, oldest first; the first ones behind ``after``; or for ever."""
    call.arguments.check_names(*FILTERS, "subject", "outcome", "first")
    query = _query(call.arguments)
    limit = call.arguments.optional_integer("limit")
    follow = call.arguments.flag("follow")
    size = (await subject.store.audit.head()).size
    end = size if query.before is None else min(size, query.before)
    if query.after is None:
        after = await _before_newest(subject, query, limit, end)
        return Reply(pages=_records(subject, query, after, None if follow else end))
    return Reply(pages=_records(subject, query, query.after, None if follow else end, limit))


async def prove(subject: Subject, call: Call) -> Reply:
    """One record, and what shows that it is in the log."""
    call.arguments.check_names("number")
    number = call.arguments.optional_integer("number")
    if number is None:
        raise FormatError("the argument number is missing")
    found = await subject.audit.inclusion(number)
    if found is None:
        raise AdminRefusedError(
            f"there is no signed record {number}", "needfire-admin audit show --limit 10"
        )
    if not found.holds:
        raise await _refusal(subject, number)
    return Reply(
        {
            "record": found.line.decode("ascii"),
            "number": found.number,
            "size": found.checkpoint.size,
            "hashes": [each.hex() for each in found.proof],
            "checkpoint": found.checkpoint.note,
            "key": str(found.key),
            "handovers": list(found.handovers),
        }
    )


async def _refusal(subject: Subject, number: int) -> AdminRefusedError:
    """Return why there is no proof, in the words of a check of the whole log."""
    if subject.audit.finding is None:
        await subject.audit.check_all()
    finding = subject.audit.finding
    said = "the store holds something else than was signed"
    if finding is not None:
        said = f"{finding.verdict.value}: record {finding.first}: {finding.text}"
    return AdminRefusedError(
        f"nothing proves record {number}, because the audit log is not what was signed: {said}",
        "needfire-admin audit verify --store",
    )


async def keys(subject: Subject, call: Call) -> Reply:
    """The public keys that the log had, the newest last."""
    call.arguments.check_names()
    return Reply({"keys": [str(key) for key in subject.audit.public_keys()]})


async def report(subject: Subject, call: Call) -> Reply:
    """What a report says of itself: whose it is, and what of the audit log is signed now."""
    call.arguments.check_names()
    note, key = "", ""
    with suppress(StorageError):
        await subject.audit.checkpoint()
    if (shown := subject.audit.shown) is not None:
        note, key = shown.checkpoint.note, shown.key
    signed = parse_checkpoint(parse_note(note)) if note else None
    return Reply(
        {
            "server": socket.gethostname(),
            "user": call.user,
            "size": 0 if signed is None else signed.size,
            "root": "" if signed is None else signed.root.hex(),
            "note": note,
            "key": key,
        }
    )


async def rotate(subject: Subject, call: Call) -> Reply:
    """Give the log a new key; the old one signs that it does."""
    call.arguments.check_names()
    key = str(await subject.audit.rotate(call.user, call.request))
    subject.hooks.record_event("AUDIT_KEY_HANDED_OVER", key=key, **call.who)
    return Reply({"key": key})


async def accept(subject: Subject, call: Call) -> Reply:
    """End what was found wrong with the log: somebody knows of it, and says what it was."""
    call.arguments.check_names("note")
    note = call.arguments.note()
    ended = await asyncio.to_thread(subject.audit.accept)
    if ended is None:
        raise AdminRefusedError(
            "there is nothing to accept: the server has found nothing wrong with the audit log",
            "needfire-admin audit verify --store reads all of it now",
        )
    fields: dict[str, FieldValue] = {
        "verdict": ended.verdict.value,
        "record": ended.first,
        "reason": ended.text,
    }
    await subject.record_done(
        f"the finding is accepted ({ended.verdict.value})",
        call.event("AUDIT_FINDING_ACCEPTED", **fields, note=note),
    )
    return Reply(fields)


async def _lines(lines: Iterator[bytes]) -> AsyncGenerator[Page, None]:
    while page := await asyncio.to_thread(list, itertools.islice(lines, _LINES)):
        yield [{"line": line.decode("ascii").removesuffix("\n")} for line in page]


async def _before_newest(subject: Subject, query: AuditQuery, limit: int | None, end: int) -> int:
    """Return the number behind which the newest ``limit`` records before ``end`` begin."""
    if limit is None:
        return -1
    query = replace(query, before=end, newest_first=True)
    first, left = end, limit
    while left > 0:
        page = await subject.store.audit.search(replace(query, limit=min(left, _LINES)))
        left -= len(page.records)
        first = page.records[-1][0] if page.records else first
        if page.reached is None:
            break
        query = query.behind(page.reached)
    return first - 1


async def _records(
    subject: Subject, query: AuditQuery, after: int, end: int | None, limit: int | None = None
) -> AsyncGenerator[Page, None]:
    """Yield records up to ``end``, or as long as the query says; as ``event_verbs`` does."""
    left = limit
    is_told = False
    while left is None or left > 0:
        ticket = subject.new_events.ticket()
        is_over = query.until_us is not None and now_us() >= query.until_us
        now = (await subject.store.audit.head()).size if end is None else end
        wanted = _LINES if left is None else min(_LINES, left)
        page = await subject.store.audit.search(
            replace(query, after=after, before=now, limit=wanted)
        )
        yield [{"record": record} for _, record in page.records]
        left = None if left is None else left - len(page.records)
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
        # Not every record comes with an event, nor from this server.
        await wait_until(ticket.wait(), query.until_us, _LOOK_S)


def _query(arguments: Arguments) -> AuditQuery:
    client = arguments.optional_text("client")
    outcome = arguments.optional_text("outcome")
    if outcome not in (None, "success", "failure", "asked"):
        raise FormatError("the argument outcome must be success, failure or asked")
    path, below = place_of(arguments)
    first, after = arguments.optional_integer("first"), arguments.optional_integer("after")
    return AuditQuery(
        since_us=arguments.optional_integer("since_us"),
        until_us=arguments.optional_integer("until_us"),
        codes=codes_of(arguments),
        outcome=outcome,
        client=None if client is None else parse_reporter_name(client),
        subject=arguments.optional_word("subject"),
        request=arguments.optional_word("request"),
        path=path,
        below=below,
        after=after if first is None else first - 1,
        before=arguments.optional_integer("before"),
    )
