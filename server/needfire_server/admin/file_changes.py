"""What putting a configuration or a baseline in place changes: fields of the event that tells it.

Compared with what the client got before: its own file, or where it had none, that of all others.
Everything here blocks and may take seconds; call it in a thread, before the new file is committed.
"""

import hashlib
from collections.abc import Mapping
from typing import BinaryIO, Final, TypeAlias

from needfire_protocol.errors import FormatError
from needfire_protocol.event import FieldValue
from needfire_protocol.messages import FileKind
from needfire_protocol.rc.secrecy import masked_line
from needfire_server.baseline_changes import compare_baselines
from needfire_server.datafiles import (
    CONFIGURATION_BYTES_MAX,
    DataFiles,
    NotAccessible,
    OpenedFile,
    StagedFile,
)
from needfire_server.text_diff import diff_texts

__all__ = ["Changes", "changes_by", "digest_of"]

Changes: TypeAlias = Mapping[str, FieldValue]

_READ_BYTES: Final = 1024 * 1024


def changes_by(
    staged: StagedFile, data_files: DataFiles, kind: FileKind, name: str | None
) -> Changes:
    """Return what a staged file changes for a client, or (None) for all without one of their own.

    A file of before that cannot be read, or that is damaged, keeps nobody from replacing it: then
    ``not_compared`` says why, and there are no numbers.
    """
    found = data_files.find(kind, name)
    if isinstance(found, NotAccessible):
        if not found.is_missing:
            return {"hash_old": None, "not_compared": found.reason}
        return {"hash_old": None, **_compared(kind, None, staged)}
    with found:
        changes: dict[str, FieldValue] = {"hash_old": f"sha256:{digest_of(found.file)}"}
        if name is not None and found.is_catch_all:
            changes["path_old"] = found.told_as
        return {**changes, **_compared(kind, found, staged)}


def _compared(kind: FileKind, old: OpenedFile | None, staged: StagedFile) -> Changes:
    try:
        if kind is FileKind.CONFIGURATION:
            return _of_configuration(old, staged)
        return _of_baseline(old, staged)
    except OSError as error:
        return {"not_compared": error.strerror or str(error)}
    except FormatError as error:
        return {"not_compared": str(error)}


def _of_configuration(old: OpenedFile | None, staged: StagedFile) -> Changes:
    with open(staged.path, "rb") as file:
        after = _content(file)
    diff = diff_texts(b"" if old is None else _content(old.file), after, masked_line)
    return {
        "added": diff.added,
        "removed": diff.removed,
        "diff": diff.text,
        "diff_left_out": diff.left_out,
    }


def _of_baseline(old: OpenedFile | None, staged: StagedFile) -> Changes:
    changes = compare_baselines(None if old is None else old.path, staged.path)
    return {
        "added": changes.added,
        "removed": changes.removed,
        "modified": changes.modified,
        "diff": changes.text,
        "diff_left_out": changes.left_out,
    }


def digest_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file in hex, and leave it at its start."""
    digest = hashlib.sha256()
    while data := file.read(_READ_BYTES):
        digest.update(data)
    file.seek(0)
    return digest.hexdigest()


def _content(file: BinaryIO) -> bytes:
    return file.read(CONFIGURATION_BYTES_MAX)
