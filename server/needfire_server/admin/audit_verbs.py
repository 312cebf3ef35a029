"""The verbs about the audit log: show, export, prove, its keys, and a new one."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject

__all__ = ["export", "keys", "prove", "rotate", "show"]

_LINES: Final = 500
"""Lines that are read at a time, for each who asks."""


async def export(subject: Subject, call: Call) -> Reply:
    """The log as lines, up to a checkpoint that is signed now."""
    call.arguments.check_names()
    checkpoint = await subject.audit.checkpoint()
    if checkpoint is None:
        raise AdminRefusedError(
            "nothing of the audit log is signed, because its key is not there",
            subject.audit.key_trouble,
        )
    return Reply(items=_lines(subject.audit.lines(checkpoint)))


async def show(subject: Subject, call: Call) -> Reply:
    """Records from a number on, or the newest ones."""
    call.arguments.check_names("first", "limit")
    limit = call.arguments.optional_integer("limit")
    first = call.arguments.optional_integer("first")
    size = (await subject.store.audit.head()).size
    if first is None:
        first = 0 if limit is None else max(0, size - limit)
    end = size if limit is None else min(size, first + limit)
    return Reply(items=_records(subject, first, end))


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
    return Reply(
        {
            "record": found.line.decode("ascii"),
            "number": found.number,
            "size": found.checkpoint.size,
            "hashes": [each.hex() for each in found.proof],
            "checkpoint": found.checkpoint.note,
            "key": str(found.key),
        }
    )


async def keys(subject: Subject, call: Call) -> Reply:
    """The public keys that the log had, the newest last."""
    call.arguments.check_names()
    return Reply({"keys": [str(key) for key in subject.audit.public_keys()]})


async def rotate(subject: Subject, call: Call) -> Reply:
    """Give the log a new key; the old one signs that it does."""
    call.arguments.check_names()
    return Reply({"key": str(await subject.audit.rotate(call.user))})


async def _lines(lines: Iterator[bytes]) -> AsyncGenerator[Mapping[str, Any], None]:
    while page := await asyncio.to_thread(list, itertools.islice(lines, _LINES)):
        for line in page:
            yield {"line": line.decode("ascii").removesuffix("\n")}


async def _records(
    subject: Subject, first: int, end: int
) -> AsyncGenerator[Mapping[str, Any], None]:
    while first < end:
        wanted = min(_LINES, end - first)
        page = await asyncio.to_thread(subject.store.audit.records_now, first, wanted)
        for number, line in page:
            if number < end:
                yield {"record": json.loads(line)}
        if not page:
            return
        first = page[-1][0] + 1
