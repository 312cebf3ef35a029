"""Which strings may be the name of a client, and so part of a file name on the server."""

import re
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.limits import RELAYS_MAX

__all__ = [
    "CLIENT_NAME_BYTES_MAX",
    "is_client_name",
    "is_relayed_name",
    "parse_client_name",
    "parse_reporter_name",
]

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


def is_relayed_name(name: str) -> bool:
    """True for ``relay/name``: who reports through another server, and can never log in here.

    No client name has a slash, and no name with one passes ``parse_client_name``; so what makes
    a path of a name can never be given one of these.
    """
    return "/" in name


def parse_reporter_name(text: str) -> str:
    """Return the name of a client, or of one behind relays (``relay/name``), in lower case.

    For questions about what is stored. It must not become part of a path.

    Raises:
        FormatError: the text can name neither.
    """
    parts = text.split("/", RELAYS_MAX + 1)
    if len(parts) > RELAYS_MAX + 1:
        raise FormatError(f"{text[:64]!r} names more than {RELAYS_MAX} relays")
    return "/".join(map(parse_client_name, parts))
