"""What goes over the admin socket: requests, replies and errors, as lines of JSON.

    request   {"verb": "register", "arguments": {"name": "web1", …}}
    reply     {"notice": TEXT}         first, where the user is to be told something beside it
              {"item": {…}}            any number of them, for verbs that list or follow
              {"result": {…}}          the last line of a reply that succeeded
              {"error": {"kind": …, "message": …, "hint": …, "problems": […]}}

The contents of a file travel beside the line as an open file (SCM_RIGHTS), in either direction: its
size is bounded by its kind and not by a line, and neither side opens a path that the other names.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, TypeAlias

from needfire_protocol.errors import (
    ConfigError,
    FormatError,
    NeedfireError,
    Problem,
    StorageError,
)
from needfire_protocol.escape import printable

__all__ = [
    "REPLY_LINE_BYTES_MAX",
    "REQUEST_BYTES_MAX",
    "AdminRefusedError",
    "Arguments",
    "Page",
    "Reply",
    "Request",
    "decode_line",
    "encode_error",
    "encode_line",
    "error_of",
    "parse_request",
]

REQUEST_BYTES_MAX: Final = 1024 * 1024
"""Bytes of a request's line. The largest real one, a registration, has about 1,200."""

REPLY_LINE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of a reply's line: an event of 96 fields of 20,000 characters, each written as ``\\uXXXX``."""

_WORD_MAX: Final = 20_000
"""Characters: a path of PATH_MAX bytes, each of them escaped as four characters."""
_NOTE_TEXT_MAX: Final = 512


class AdminRefusedError(NeedfireError):
    """The server understood what was asked and does not do it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that is asked of the server."""

    verb: str
    arguments: "Arguments"


Page: TypeAlias = Sequence[Mapping[str, Any]]
"""Items that are told together: an item's own turn of the event loop costs more than the item."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a verb gives back.

    Attributes:
        result: the last line.
        pages: what comes before it; each page is sent as soon as it is there.
        file: an open file that goes along; whoever sends the reply closes it.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    pages: AsyncGenerator[Page, None] | None = None
    file: BinaryIO | None = None


class Arguments:
    """The arguments of a request, each checked where it is taken.

    Every method raises FormatError where the argument has another type or is missing.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @property
    def unchecked(self) -> Mapping[str, Any]:
        """All as they came; for what is only told, before anything is checked."""
        return self._values

    def text(self, name: str) -> str:
        """Return a text that must be given."""
        value = self.optional_text(name)
        if value is None:
            raise FormatError(f"the argument {name} is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None."""
        value = self._values.get(name)
        if value is not None and type(value) is not str:
            raise FormatError(f"the argument {name} must be text")
        return value

    def loose_text(self, name: str) -> str | None:
        """Return a text where there is one; for what is only told, before anything is checked."""
        value = self._values.get(name)
        return value if type(value) is str else None

    def optional_integer(self, name: str) -> int | None:
        """Return an integer of 63 bits that is not negative, or None."""
        value = self._values.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < 2**63):
            raise FormatError(f"the argument {name} must be a number from 0 to 2**63-1")
        return value

    def optional_word(self, name: str) -> str | None:
        """Return a text that what is stored can be compared with, or None."""
        value = self.optional_text(name)
        if value is not None and (not value.isprintable() or len(value) > _WORD_MAX):
            raise FormatError(
                f"the argument {name} must be printable text of at most {_WORD_MAX} characters"
            )
        return value

    def note(self) -> str:
        """Return what somebody says to what they do, printable; empty where they say nothing."""
        return printable(self.optional_text("note") or "", _NOTE_TEXT_MAX)

    def flag(self, name: str) -> bool:
        """Return a truth value; false where it is not given."""
        value = self._values.get(name, False)
        if type(value) is not bool:
            raise FormatError(f"the argument {name} must be true or false")
        return value

    def check_names(self, *known: str) -> None:
        """Refuse arguments that this verb does not have: a newer admin tool, or a wrong name."""
        unknown = sorted(self._values.keys() - set(known))
        if unknown:
            raise FormatError(f"unknown argument {unknown[0][:64]!r}")


def parse_request(line: bytes) -> Request:
    """Return the request of one line.

    Raises:
        FormatError: it is none.
    """
    data = decode_line(line)
    verb, arguments = data.get("verb"), data.get("arguments", {})
    if type(verb) is not str or type(arguments) is not dict or not data.keys() <= _REQUEST_PARTS:
        raise FormatError('a request is {"verb": TEXT, "arguments": {…}}')
    return Request(verb, Arguments(arguments))


_REQUEST_PARTS: Final = frozenset({"verb", "arguments"})


def encode_line(data: Mapping[str, Any]) -> bytes:
    """Return one line with its newline; ASCII only, so that no byte can be mistaken for one."""
    return json.dumps(data, separators=(",", ":")).encode("ascii") + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        FormatError: the line is no JSON object.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise FormatError("the line is not JSON") from None
    if type(data) is not dict:
        raise FormatError("the line is not a JSON object")
    return data


def encode_error(error: NeedfireError) -> dict[str, Any]:
    """Return the last line of a reply that failed."""
    body: dict[str, Any] = {"kind": _kind_of(error), "message": str(error)}
    if isinstance(error, ConfigError):
        body["problems"] = [
            {"source": p.source, "line": p.line, "text": p.text, "hint": p.hint}
            for p in error.problems
        ]
    if isinstance(error, AdminRefusedError):
        body["hint"] = error.hint
    return {"error": body}


def error_of(body: Mapping[str, Any]) -> NeedfireError:
    """Return the error that a reply carries, for raising."""
    message = str(body.get("message"))
    match body.get("kind"):
        case "configuration":
            problems = [
                Problem(p["source"], p["line"], p["text"], p["hint"]) for p in body["problems"]
            ]
            return ConfigError(problems)
        case "storage":
            return StorageError(message)
        case "format":
            return FormatError(message)
        case _:
            return AdminRefusedError(message, body.get("hint"))


def _kind_of(error: NeedfireError) -> str:
    if isinstance(error, ConfigError):
        return "configuration"
    if isinstance(error, StorageError):
        return "storage"
    return "format" if isinstance(error, FormatError) else "refused"
