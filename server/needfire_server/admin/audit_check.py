"""What ``audit verify`` holds against what: a file or the store, keys, and a checkpoint that was kept."""

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import IO, Final

from needfire_protocol.audit.export import LINE_BYTES_MAX, parse_header
from needfire_protocol.audit.note import (
    NOTE_BYTES_MAX,
    Note,
    PublicKey,
    parse_checkpoint,
    parse_note,
)
from needfire_protocol.audit.verdict import Finding, Verdict, Verification
from needfire_protocol.audit.verify import verify
from needfire_protocol.errors import FormatError, StorageError
from needfire_server.audit.keys import AuditFiles, read_public_keys
from needfire_server.audit.log import readable_checkpoint
from needfire_server.audit.standing import Standing
from needfire_server.audit.stored import check_stored

__all__ = ["check_export", "check_file", "check_store", "read_anchor", "read_keys"]

_LOOK_LINES: Final = 16
"""Lines in which there is something of a log, whatever was done to the first one."""
_KEYS_BYTES_MAX: Final = 256 * 1024
_ANCHOR_BYTES_MAX: Final = 8 * NOTE_BYTES_MAX
"""Evidence holds two notes and their keys, as JSON writes them."""


def check_file(
    stream: IO[bytes], name: str, keys: tuple[PublicKey, ...], anchor: Note | None
) -> Verification:
    """Check an exported log, in memory that does not grow with it.

    Raises:
        FormatError: nothing in its first lines looks as if it ever was one.
    """
    lines: Iterator[bytes] = iter(lambda: stream.readline(LINE_BYTES_MAX), b"")
    first = list(islice(lines, _LOOK_LINES))
    if first and not any(map(_is_of_a_log, first)):
        raise FormatError(f"{name} is no audit log; needfire-admin audit export writes one")
    return verify(chain(first, lines), keys, anchor=anchor)


def _is_of_a_log(line: bytes) -> bool:
    """Whether a line is, or begins or was damaged as, one of an export: all of them are JSON."""
    return any(sign in line for sign in (b'"needfire_audit"', b'"checkpoint"', b'"prev"'))


def check_export(lines: Iterator[bytes]) -> Verification:
    """Check an export with the keys that it names itself: whether it is of one piece.

    Reads the lines to their end, whatever is wrong with them.
    """
    first = next(lines, b"")
    try:
        header = parse_header(first.removesuffix(b"\n"))
    except FormatError:
        header = None
    keys = () if header is None else header.keys
    result = verify(chain([first], lines), keys)
    deque(lines, maxlen=0)
    return result


def check_store(directory: str, keys: tuple[PublicKey, ...], anchor: Note | None) -> Verification:
    """Check the log in the store of a data directory, beside a server that may be running.

    The checkpoint that is kept beside the store counts as well, and so does what a server found
    wrong before and nobody has accepted.

    Gives up the rights of root, for those of the directory's owner.

    Raises:
        StorageError: the store cannot be read, or nothing in it was ever signed.
    """
    # Half of the program's start, and not needed for a file.
    from needfire_server.admin.owner import become_owner
    from needfire_server.storage.audit_reader import AuditReader
    from needfire_server.storage.opening import load_drivers, reading_engine

    # The program's own files may lie where only root can read them.
    load_drivers(directory)
    become_owner(directory)
    files = AuditFiles(directory)
    with AuditReader(reading_engine(directory)) as reader:
        # Before anything of the store: what is signed meanwhile is no fault.
        kept, standing = readable_checkpoint(files.kept_checkpoint()), Standing(files).finding
        while True:
            stored, closing, head = reader.public_keys(), reader.last_checkpoint(), reader.head()
            if stored == reader.public_keys():
                # All of one moment: no server changed the key meanwhile.
                break
        if closing is None and kept is not None:
            number = parse_checkpoint(kept).number
            text = f"checkpoint {number} was kept beside the store, and there is none in it"
            return Verification(Finding(Verdict.MISSING_CHECKPOINT, 0, 0, 0, text), 0, 0, None)
        if closing is None and standing is not None:
            return Verification(standing, 0, 0, None)
        if closing is None:
            raise StorageError(f"{reader.name}: nothing of its audit log was ever signed")
        try:
            named = [PublicKey.parse(each.key) for each in stored]
        except FormatError as error:
            text = f"a key that the store names (audit_keys) is damaged: {error}"
            return Verification(Finding(Verdict.WRONG_KEY, 0, 0, 0, text), 0, 0, None)
        result = check_stored(reader, named, keys, closing, head, anchor, kept=kept)
        return replace(result, finding=result.finding or standing)


def read_keys(key: str | None, directory: str) -> tuple[PublicKey, ...]:
    """Return the keys that ``--key`` gives, as text or as a file; without it those of the server.

    Raises:
        FormatError: it is neither.
        StorageError: the file cannot be read.
    """
    if key is not None and "+" in key and not os.path.exists(key):
        return (PublicKey.parse(key),)
    source = AuditFiles(directory).public_path if key is None else key
    try:
        with open(source, "rb") as file:
            return read_public_keys(file.read(_KEYS_BYTES_MAX), source)
    except PermissionError:
        raise StorageError(
            f"{source}: Permission denied; the store and its files belong to the server's user: run "
            "this as that user or as root. Auditors check what the server hands out, with the key "
            "that they noted: needfire-admin audit export - | needfire-admin audit verify --key KEY -"
        ) from None
    except OSError as error:
        raise StorageError(
            f"{source}: {error.strerror}; give the public key of the log with --key"
        ) from None


def read_anchor(path: str) -> Note:
    """Return the checkpoint in a file: of a note, or the kept one of an agent's evidence.

    How many newlines end a note is not looked at: who copies one by hand easily gets another number.

    Raises:
        FormatError: it is none.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(_ANCHOR_BYTES_MAX + 1)
    if len(data) > _ANCHOR_BYTES_MAX:
        raise FormatError(f"{path} is no checkpoint: it has more than {_ANCHOR_BYTES_MAX} bytes")
    try:
        text = data.decode()
        if text.startswith("{"):
            text = _kept(text)
        found = parse_note(text.rstrip("\n") + "\n")
        parse_checkpoint(found)
    except (UnicodeDecodeError, FormatError) as error:
        raise FormatError(f"{path} is no checkpoint: {error}") from None
    return found


def _kept(text: str) -> str:
    """Return what an agent had kept when it wrote its evidence (``audit-evidence/N.json``)."""
    try:
        evidence = json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError("it is neither a note nor the evidence of an agent") from None
    if type(evidence) is not dict or "kept" not in evidence:
        raise FormatError("it is JSON, and not the evidence of an agent")
    kept = evidence["kept"]
    if type(kept) is not str:
        raise FormatError("the agent that wrote it had kept none")
    return kept
