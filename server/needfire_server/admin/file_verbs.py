"""The verbs about files: configurations and baselines, put in place only after they were checked."""

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

from needfire_protocol.baseline import BaselineMeta
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.escape import printable
from needfire_protocol.event import format_time
from needfire_protocol.messages import FileKind
from needfire_protocol.names import parse_client_name
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_server.admin.file_changes import Changes, changes_by
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.baseline_files import read_baseline_meta, validate_baseline
from needfire_server.datafiles import (
    CONFIGURATION_BYTES_MAX,
    DataFiles,
    NotAccessible,
    OpenedFile,
)
from needfire_server.storage.base import Proposal

__all__ = [
    "accessible",
    "find_proposal",
    "get_baseline",
    "get_configuration",
    "list_baselines",
    "list_files",
    "optional_name",
    "put_baseline",
    "put_configuration",
    "show_baseline",
]

_SOURCE_TEXT_MAX: Final = 256
_HOSTS_CHECKED_MAX: Final = 100
"""Clients as which a configuration for all is read, to find errors inside its conditions."""
_TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


async def put_configuration(subject: Subject, call: Call) -> Reply:
    """Put a configuration in place for one client or for all, if it has no errors."""
    call.arguments.check_names("name", "source")
    name = optional_name(call)
    source = printable(call.arguments.optional_text("source") or "configuration", _SOURCE_TEXT_MAX)
    file = _regular_file(call.file)
    hosts = subject.registry.names()[:_HOSTS_CHECKED_MAX] if name is None else (name,)
    async with subject.putting(FileKind.CONFIGURATION):
        put, changes = await asyncio.to_thread(
            _put_configuration, subject.data_files, name, source, file, hosts
        )
        await _record_put(subject, call, "CONFIGURATION_PUT", name, put, changes)
    return Reply({**put, **_about(subject, name), "changes": changes})


async def get_configuration(subject: Subject, call: Call) -> Reply:
    """Give the configuration that a client gets, or the one of all."""
    call.arguments.check_names("name")
    return await _get(subject, FileKind.CONFIGURATION, optional_name(call))


async def put_baseline(subject: Subject, call: Call) -> Reply:
    """Put a baseline in place for one client or for all: a file, or what the client proposed."""
    call.arguments.check_names("name", "proposal")
    name = optional_name(call)
    number = call.arguments.optional_integer("proposal")
    async with subject.putting(FileKind.BASELINE):
        if number is None:
            file = _regular_file(call.file)
            put, changes = await asyncio.to_thread(_put_baseline, subject.data_files, name, file)
        else:
            proposal = await find_proposal(subject, number, name)
            put, changes = await asyncio.to_thread(
                _put_proposal, subject.data_files, name, proposal
            )
            changes = {**changes, "proposal": number}
        await _record_put(subject, call, "BASELINE_PUT", name, put, changes)
    notices = [] if number is None else await _forget_proposal(subject, number)
    return Reply({**put, **_about(subject, name), "changes": changes, "notices": notices})


async def _forget_proposal(subject: Subject, number: int) -> list[str]:
    """Take a proposal off the list; return what went wrong: what was asked for is done already."""
    try:
        await subject.store.remove_proposal(number)
    except (StorageError, OSError) as error:
        return [f"proposal {number} is in place, and still stands in the list: {error}"]
    return []


async def get_baseline(subject: Subject, call: Call) -> Reply:
    """Give the baseline that a client gets, the one of all, or a proposal."""
    call.arguments.check_names("name", "proposal")
    number = call.arguments.optional_integer("proposal")
    if number is None:
        return await _get(subject, FileKind.BASELINE, optional_name(call))
    proposal = await find_proposal(subject, number, optional_name(call))
    opened = await asyncio.to_thread(subject.data_files.open_proposal, proposal.path)
    return _reply_with(opened)


async def list_baselines(subject: Subject, call: Call) -> Reply:
    """The baselines in place, and the proposals that wait for somebody to look at them."""
    call.arguments.check_names()
    in_place = await asyncio.to_thread(_list_in_place, subject.data_files)
    proposals = await subject.store.proposals()
    return Reply({"baselines": in_place, "proposals": [_describe(each) for each in proposals]})


async def list_files(subject: Subject, call: Call) -> Reply:
    """Every configuration and baseline in place."""
    call.arguments.check_names()
    return Reply({"files": await asyncio.to_thread(_list_files, subject.data_files)})


async def show_baseline(subject: Subject, call: Call) -> Reply:
    """What the baseline of a client, the one of all, or a proposal says about itself."""
    call.arguments.check_names("name", "proposal")
    number = call.arguments.optional_integer("proposal")
    if number is None:
        name = optional_name(call)
        opened = await asyncio.to_thread(subject.data_files.find, FileKind.BASELINE, name)
        described: dict[str, Any] = {"client": name}
    else:
        proposal = await find_proposal(subject, number, optional_name(call))
        opened = await asyncio.to_thread(subject.data_files.open_proposal, proposal.path)
        described = _describe(proposal)
    with accessible(opened) as found:
        described |= {"path": found.told_as, "bytes": found.size_bytes}
        meta = await asyncio.to_thread(_validated, found.path)
    return Reply({**described, **_meta(meta)})


async def _record_put(
    subject: Subject,
    call: Call,
    code: str,
    name: str | None,
    put: Mapping[str, Any],
    changes: Changes,
) -> None:
    event = call.event(code, client=name, path=put["path"], hash=put["hash"], **changes)
    await subject.record_done(f"{put['path']} is in place", event)


def _put_configuration(
    data_files: DataFiles, name: str | None, source: str, file: BinaryIO, hosts: Sequence[str]
) -> tuple[dict[str, Any], Changes]:
    kind = FileKind.CONFIGURATION
    with data_files.staged(kind, file) as staged:
        with open(staged.path, "rb") as copy:
            data = copy.read(CONFIGURATION_BYTES_MAX)
        settings = _check_configuration(data, source, hosts)
        changes = changes_by(staged, data_files, kind, name)
        path = data_files.commit(kind, name, staged)
    put = {
        "path": path,
        "bytes": staged.size_bytes,
        "hash": f"sha256:{staged.sha256.hex()}",
        "rules": len(settings.rules),
        "notices": [str(notice) for notice in settings.notices],
    }
    return put, changes


def _check_configuration(data: bytes, source: str, hosts: Sequence[str]) -> AgentSettings:
    """Read a configuration as each of the hosts will: conditions make it another file for each.

    Returns what the first one reads. What the server's own host is says nothing about theirs.

    Raises:
        ConfigError: one of them could not use it.
    """
    stated = [StatedFacts(hostname=host) for host in hosts] or [StatedFacts()]
    read = [parse_agent_rc(data, source=source, facts=facts) for facts in stated]
    return read[0]


def _put_baseline(
    data_files: DataFiles, name: str | None, file: BinaryIO, *, proposal: Proposal | None = None
) -> tuple[dict[str, Any], Changes]:
    kind = FileKind.BASELINE
    with data_files.staged(kind, file) as staged:
        if proposal is not None and staged.sha256 != proposal.sha256:
            raise StorageError(f"proposal {proposal.id} is damaged: its digest has changed")
        meta = _validated(staged.path)
        changes = changes_by(staged, data_files, kind, name)
        path = data_files.commit(kind, name, staged)
    put = {
        "path": path,
        "bytes": staged.size_bytes,
        "hash": f"sha256:{staged.sha256.hex()}",
        **_meta(meta),
    }
    return put, changes


def _validated(path: str) -> BaselineMeta:
    """Return what a baseline says about itself; AdminRefusedError where it is none."""
    try:
        return validate_baseline(path)
    except FormatError as error:
        raise AdminRefusedError(str(error)) from error


def _put_proposal(
    data_files: DataFiles, name: str | None, proposal: Proposal
) -> tuple[dict[str, Any], Changes]:
    with accessible(data_files.open_proposal(proposal.path)) as opened:
        return _put_baseline(data_files, name, opened.file, proposal=proposal)


def _list_files(data_files: DataFiles) -> list[dict[str, Any]]:
    return [
        {"kind": kind.value, "client": name, "path": data_files.path_of(kind, name)}
        for kind in FileKind
        for name in data_files.list_files(kind)
    ]


def _list_in_place(data_files: DataFiles) -> list[dict[str, Any]]:
    listed = []
    for name in data_files.list_files(FileKind.BASELINE):
        found = data_files.find(FileKind.BASELINE, name)
        if isinstance(found, NotAccessible):
            listed.append({"client": name, "path": found.first_path, "problem": found.reason})
            continue
        with found:
            row: dict[str, Any] = {
                "client": name,
                "path": found.told_as,
                "bytes": found.size_bytes,
            }
            try:
                row |= _meta(read_baseline_meta(found.path))
            except FormatError as error:
                row["problem"] = str(error)
            listed.append(row)
    return listed


async def _get(subject: Subject, kind: FileKind, name: str | None) -> Reply:
    return _reply_with(await asyncio.to_thread(subject.data_files.find, kind, name))


def _reply_with(opened: OpenedFile | NotAccessible) -> Reply:
    found = accessible(opened)
    result = {
        "path": found.told_as,
        "bytes": found.size_bytes,
        "is_catch_all": found.is_catch_all,
    }
    return Reply(result, file=found.file)


def accessible(opened: OpenedFile | NotAccessible) -> OpenedFile:
    """Return a file that was opened; AdminRefusedError where it was not."""
    if isinstance(opened, NotAccessible):
        raise AdminRefusedError(f"File not accessible: {opened.first_path}: {opened.reason}")
    return opened


async def find_proposal(subject: Subject, number: int, name: str | None) -> Proposal:
    """Return a proposal; AdminRefusedError where there is none, or another client made it."""
    proposal = await subject.store.proposal(number)
    hint = "needfire-admin baseline list shows the proposals that there are"
    if proposal is None:
        raise AdminRefusedError(f"there is no proposal {number}, or no longer", hint)
    if name is not None and proposal.client != name:
        raise AdminRefusedError(
            f"proposal {number} came from {proposal.client}, not from {name}", hint
        )
    return proposal


def _regular_file(file: BinaryIO | None) -> BinaryIO:
    """Return the file that came along; another kind could stop the server when it reads it."""
    if file is None:
        raise FormatError("no file came along")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise FormatError("what came along is not a regular file")
    return file


def optional_name(call: Call) -> str | None:
    """Return the client that a request is about; None for all without a file of their own."""
    name = call.arguments.optional_text("name")
    return None if name is None else parse_client_name(name)


def _about(subject: Subject, name: str | None) -> dict[str, Any]:
    is_registered = name is None or subject.registry.registration(name) is not None
    return {"client": name, "is_registered": is_registered}


def _hash(proposal: Proposal) -> str:
    return f"sha256:{proposal.sha256.hex()}"


def _describe(proposal: Proposal) -> dict[str, Any]:
    return {
        "proposal": proposal.id,
        "client": proposal.client,
        "bytes": proposal.size_bytes,
        "hash": _hash(proposal),
        "received": format_time(proposal.received_us),
    }


def _meta(meta: BaselineMeta) -> dict[str, Any]:
    return {
        "host": printable(meta.host, 255),
        # A baseline may claim any number, also one that is no time.
        "created": format_time(meta.created_us) if meta.created_us <= _TIME_US_MAX else None,
        "version": printable(meta.version, 64),
        "algorithm": meta.algorithm,
        "entries": meta.entries,
        "contents": f"sha256:{meta.content_sha256}",
    }
