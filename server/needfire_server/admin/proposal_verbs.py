"""What would a proposal change? The verb that tells it before somebody puts it in place."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import islice
from typing import Any, Final

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.escape import escape_bytes, printable
from needfire_protocol.event import FieldValue
from needfire_protocol.messages import FileKind
from needfire_server.admin.file_changes import digest_of
from needfire_server.admin.file_verbs import accessible, find_proposal, optional_name
from needfire_server.admin.requests import AdminRefusedError, Page, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.baseline_changes import Difference, differences
from needfire_server.baseline_files import read_baseline_meta
from needfire_server.datafiles import DataFiles, NotAccessible, OpenedFile
from needfire_server.entry_text import attributes_of, differing
from needfire_server.storage.base import Proposal

__all__ = ["show_changes"]

_AT_ONCE: Final = 50
"""Differences that are looked for, and held, at a time."""
_PATH_MAX: Final = 20_000
"""Characters, as of a path in an event; a baseline that no agent wrote may hold longer ones."""
_WORDS: Final = {b"A": "added", b"D": "removed", b"M": "modified"}

_Items = Generator[Mapping[str, Any], None, None]


async def show_changes(subject: Subject, call: Call) -> Reply:
    """Each object in which a proposal differs from the baseline that is in place; then numbers.

    The numbers are those that putting it in place tells, also of what ``limit`` does not show.
    """
    call.arguments.check_names("name", "proposal", "limit")
    name = optional_name(call)
    number = call.arguments.optional_integer("proposal")
    if number is None:
        raise FormatError("the argument proposal is missing")
    proposal = await find_proposal(subject, number, name)
    limit = call.arguments.optional_integer("limit")
    items = _told(subject.data_files, name, proposal, limit)
    return Reply(pages=_streamed(items, subject.comparing))


async def _streamed(items: _Items, turn: asyncio.Semaphore) -> AsyncGenerator[Page, None]:
    """Yield what a blocking generator yields, which runs in one thread of its own: SQLite wants that.

    Args:
        turn: held while it works. Many at a time would keep the agents' server from its processor.
    """
    thread = ThreadPoolExecutor(1, "baseline-diff")
    try:
        while page := await _next_page(items, thread, turn):
            yield page
    finally:
        # Who goes away early leaves files open: they are closed where they were opened.
        thread.submit(items.close)
        thread.shutdown(wait=False)


async def _next_page(
    items: _Items, thread: ThreadPoolExecutor, turn: asyncio.Semaphore
) -> list[Mapping[str, Any]]:
    await turn.acquire()
    loop = asyncio.get_running_loop()
    work = thread.submit(lambda: list(islice(items, _AT_ONCE)))
    # By the work itself, which goes on where whoever asked has gone away: they may come again.
    work.add_done_callback(lambda _: _give_back(loop, turn))
    return await asyncio.wrap_future(work)


def _give_back(loop: asyncio.AbstractEventLoop, turn: asyncio.Semaphore) -> None:
    # The server may have ended meanwhile.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(turn.release)


def _told(data_files: DataFiles, name: str | None, proposal: Proposal, limit: int | None) -> _Items:
    try:
        with ExitStack() as stack:
            new = stack.enter_context(accessible(data_files.open_proposal(proposal.path)))
            if digest_of(new.file) != proposal.sha256.hex():
                raise StorageError(f"proposal {proposal.id} is damaged: its digest has changed")
            old = _in_place(data_files, name)
            if old is not None:
                stack.enter_context(old)
            yield from _compared(old, new, limit, _about(name, proposal, old))
    except FormatError as error:
        raise AdminRefusedError(f"not compared: {error}") from error


def _in_place(data_files: DataFiles, name: str | None) -> OpenedFile | None:
    found = data_files.find(FileKind.BASELINE, name)
    if isinstance(found, NotAccessible) and found.is_missing:
        return None
    return accessible(found)


def _about(name: str | None, proposal: Proposal, old: OpenedFile | None) -> dict[str, FieldValue]:
    about: dict[str, FieldValue] = {
        "client": name,
        "proposal": proposal.id,
        "hash": f"sha256:{proposal.sha256.hex()}",
        "hash_old": None if old is None else f"sha256:{digest_of(old.file)}",
    }
    if old is not None and name is not None and old.is_catch_all:
        about["path_old"] = old.told_as
    return about


def _compared(
    old: OpenedFile | None, new: OpenedFile, limit: int | None, about: Mapping[str, FieldValue]
) -> _Items:
    algorithm = read_baseline_meta(new.path).algorithm
    algorithm_old = algorithm if old is None else read_baseline_meta(old.path).algorithm
    counts = dict.fromkeys(_WORDS.values(), 0)
    not_shown = 0
    for number, each in enumerate(differences(None if old is None else old.path, new.path)):
        counts[_WORDS[each.mark]] += 1
        if limit is None or number < limit:
            yield _item(each, algorithm_old, algorithm)
        else:
            not_shown += 1
    yield {"summary": {**about, **counts, "not_shown": not_shown}}


def _item(each: Difference, algorithm_old: str, algorithm: str) -> Mapping[str, Any]:
    old, new = attributes_of(each.old, algorithm_old), attributes_of(each.new, algorithm)
    return {
        "change": _WORDS[each.mark],
        "path": printable(escape_bytes(each.path), _PATH_MAX),
        "attributes": differing(old, new),
    }
