r"""The lines of an exported log: a header, then records, and between them the checkpoints.

    {"needfire_audit":1,"keys":["NAME+KEYID+BASE64",…],"checkpoint":"…"}   the closing checkpoint
    {"n":0,"prev":"…","code":"AUDIT_KEY_MADE",…}                              a record
    {"checkpoint":"needfire.audit/5d0c…\n1\n…"}                              over all records above it

The header holds the checkpoint that the log must end with, so that a file that was cut is known
by itself, even where it was cut behind an earlier checkpoint.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from needfire_protocol.audit.note import NOTE_BYTES_MAX, PublicKey
from needfire_protocol.errors import FormatError

__all__ = [
    "LINE_BYTES_MAX",
    "Header",
    "checkpoint_line",
    "header_line",
    "parse_header",
    "parse_line",
]

LINE_BYTES_MAX: Final = 512 * 1024
"""Bytes of a line with its newline; who reads a file hands over longer ones in pieces."""

_VERSION: Final = 1
_KEYS_MAX: Final = 1_024
_HEADER: Final = b'{"needfire_audit":'
_CHECKPOINT: Final = b'{"checkpoint":'


@dataclass(frozen=True, slots=True)
class Header:
    """What stands above the records."""

    keys: tuple[PublicKey, ...]
    note: str


def header_line(keys: Sequence[PublicKey], note: str) -> bytes:
    """Return the first line, without the newline."""
    listed = [str(key) for key in keys]
    return _line({"needfire_audit": _VERSION, "keys": listed, "checkpoint": note})


def checkpoint_line(note: str) -> bytes:
    """Return the line of a checkpoint, without the newline."""
    return _line({"checkpoint": note})


def parse_header(line: bytes) -> Header | None:
    """Return the header of a line; None where it does not even begin as one.

    Raises:
        FormatError: it begins as one and is none.
    """
    if not line.startswith(_HEADER):
        return None
    data = _parsed(line)
    keys, note = data.get("keys"), data.get("checkpoint")
    if type(keys) is not list or len(keys) > _KEYS_MAX or type(note) is not str:
        raise FormatError("the header names no keys or no checkpoint")
    if not all(type(key) is str for key in keys):
        raise FormatError("the header's keys are no text")
    header = Header(tuple(PublicKey.parse(key) for key in keys), note)
    if header_line(header.keys, note) != line:
        raise FormatError("the header is not written in the one way that it has")
    return header


def parse_line(line: bytes) -> str | None:
    """Return the note of a checkpoint's line; None where it does not even begin as one.

    Raises:
        FormatError: it begins as one and is none.
    """
    if not line.startswith(_CHECKPOINT):
        return None
    note = _parsed(line).get("checkpoint")
    if type(note) is not str or len(note) > NOTE_BYTES_MAX or checkpoint_line(note) != line:
        raise FormatError("the line is no checkpoint")
    return note


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise FormatError("the line is not JSON") from None
    if type(data) is not dict:
        raise FormatError("the line is no JSON object")
    return data


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode("ascii")
