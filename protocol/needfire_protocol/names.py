"""Which strings may be the name of a client, and so part of a file name on the server."""

import re
from typing import Final

from needfire_protocol.errors import FormatError

__all__ = ["CLIENT_NAME_BYTES_MAX", "is_client_name", "parse_client_name"]

CLIENT_NAME_BYTES_MAX: Final = 255
"""Bytes: the length of a DNS name, and of one path component with room for ``file.``."""

_CLIENT_NAME = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9._:-]*", re.ASCII)


def is_client_name(text: str) -> bool:
    """True where the text may name a client (spec/interfaces.md 3).

    Letters, digits, ``.``, ``-``, ``_`` and ``:``; at most 255 bytes; no dot in front. That
    leaves no slash, no ``..``, no blank and no control character, so that ``rc.NAME`` can never
    lead out of the data directory.
    """
    return len(text) <= CLIENT_NAME_BYTES_MAX and _CLIENT_NAME.fullmatch(text) is not None


def parse_client_name(text: str) -> str:
    """Return the name in the one spelling that is compared and stored: lower case.

    Raises:
        FormatError: the text cannot name a client.
    """
    if not is_client_name(text):
        raise FormatError(
            f"{text[:64]!r} is not a client name: expected letters, digits, '.', '-', '_', ':', "
            f"at most {CLIENT_NAME_BYTES_MAX} bytes, no leading dot"
        )
    return text.lower()
