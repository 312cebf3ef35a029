"""What goes on record of what was asked for: every argument but secrets, each within bounds.

Pure but for the size of a file. Nothing of it is checked yet: it is what somebody sent.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

from needfire_protocol.event import FieldValue

__all__ = ["asked_fields"]

_SECRETS: Final = frozenset({"salt", "verifier", "password", "secret"})
"""A verifier is as good as its password to who can guess."""
_ARGUMENTS_MAX: Final = 32
_NAME_MAX: Final = 48
_VALUE_MAX: Final = 200
_TEXT_MAX: Final = 2_000
"""Characters: what stands in a record is cut at twice as many."""


def asked_fields(arguments: Mapping[str, Any], file: BinaryIO | None) -> dict[str, FieldValue]:
    """Return ``arguments``, those that were given, as JSON; and of a file that came along its size."""
    given = [(name, value) for name, value in arguments.items() if value is not None]
    fields: dict[str, FieldValue] = {}
    if given:
        shown = {name[:_NAME_MAX]: _shown(name, value) for name, value in given[:_ARGUMENTS_MAX]}
        text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
        fields["arguments"] = _cut(text, _TEXT_MAX)
    if file is not None:
        with suppress(OSError, ValueError):
            fields["file_bytes"] = os.fstat(file.fileno()).st_size
    return fields


def _shown(name: str, value: Any) -> Any:
    if name in _SECRETS:
        return "(not recorded)"
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _cut(value if isinstance(value, str) else json.dumps(value), _VALUE_MAX)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
