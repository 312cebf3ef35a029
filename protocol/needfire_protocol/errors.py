"""What can go wrong, as types that both sides catch.

    NeedfireError
    ├── LocalProtocolError      our own code asked for something the protocol forbids: a bug
    ├── RemoteProtocolError     the peer broke the protocol: this connection is over
    ├── ConfigError             a configuration file or option is wrong (file, line, hint)
    ├── StorageError            local storage failed: full, unreadable, damaged
    └── FormatError             bytes or text that are not what they claim to be

``str()`` of each is one line for a person, lower case, without a full stop: what was found, what
was expected. None of them ever carries a secret.
"""

from collections.abc import Sequence

from needfire_protocol.plain_classes import dataclass

__all__ = [
    "ConfigError",
    "FormatError",
    "LocalProtocolError",
    "NeedfireError",
    "Problem",
    "RemoteProtocolError",
    "StorageError",
    "StorageFullError",
]


class NeedfireError(Exception):
    """Base of every error that Needfire raises on purpose."""


class LocalProtocolError(NeedfireError):
    """Our side asked for a step that the protocol does not allow here. Always a bug of ours."""


class RemoteProtocolError(NeedfireError):
    """The peer sent something that the protocol does not allow. The connection must end."""


class StorageError(NeedfireError):
    """A local file or database could not be read, written or trusted."""


class StorageFullError(StorageError):
    """There is no room left for a local file or database."""


class FormatError(NeedfireError):
    """Input does not have the form that it must have."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration, and what to do about it."""

    source: str
    """File name as the user gave it, or the option's name."""
    line: int | None
    """1-based line, or None where there is no line to name."""
    text: str
    """What was found and what was expected."""
    hint: str | None = None
    """The exact mend, where we know one."""

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.text}"


class ConfigError(NeedfireError):
    """A configuration cannot be used; it carries every problem that was found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "a ConfigError names at least one problem"
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems))
