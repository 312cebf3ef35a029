"""Which parts of a configuration hold for this host: the tests of ``@if`` and their answers."""

import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from needfire_protocol.errors import FormatError
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.values import quoted

__all__ = [
    "COMMAND_TEST",
    "Condition",
    "Facts",
    "StatedFacts",
    "hostname_is",
    "parse_test",
    "system_is",
]

COMMAND_TEST: Final = "command_succeeds"
"""Samhain's test that runs a command. It is never run: who can write the file of a host, and that
is the server for all hosts, would otherwise run programs there as root."""


class Facts(Protocol):
    """What a configuration may ask about the host that it is for."""

    @property
    def hostname(self) -> str:
        """Fully qualified name of the host."""

    @property
    def system(self) -> str:
        """``sysname:release:machine``, as uname has them."""

    def file_exists(self, path: bytes, /) -> bool:
        """True where something is at the path."""

    def interface_exists(self, address: str, /) -> bool:
        """True where a local interface has the address."""

    def has_digest(self, algorithm: str, /) -> bool:
        """True where digests of this name can be made: BLAKE3 is a package of its own."""


@dataclass(frozen=True, slots=True)
class StatedFacts:
    """Facts as somebody states them: for tests, and for looking at another host's file."""

    hostname: str = "localhost"
    system: str = "Linux:6.1.0:x86_64"
    files: frozenset[bytes] = frozenset()
    addresses: frozenset[str] = frozenset()

    def file_exists(self, path: bytes, /) -> bool:
        """True where the path is among the stated files."""
        return path in self.files

    def interface_exists(self, address: str, /) -> bool:
        """True where the address is among the stated ones."""
        return address in self.addresses

    def has_digest(self, _algorithm: str, /) -> bool:
        """True: whether a package is on the host cannot be told from elsewhere."""
        return True


@dataclass(frozen=True, slots=True)
class Condition:
    """A test as it stands in the file."""

    test: str
    argument: bytes
    is_negated: bool

    def holds(self, facts: Facts) -> bool:
        """Return the answer, turned round where the test is negated.

        Raises:
            FormatError: the argument is not what the test takes.
        """
        return _TESTS[self.test](self.argument, facts) is not self.is_negated


def parse_test(text: bytes) -> Condition:
    """Return the condition of what stands behind ``@if``.

    Raises:
        FormatError: no such test, or nothing to test.
    """
    negation = re.match(rb"(?:not\s|!)\s*", text)
    is_negated = negation is not None
    if negation is not None:
        text = text[negation.end() :]
    word, _, argument = text.replace(b"\t", b" ").partition(b" ")
    name = word.decode("ascii", "replace").lower()
    if name not in _TESTS:
        import difflib

        near = difflib.get_close_matches(name[:64], _TESTS, n=1, cutoff=0.6)
        meant = f"; the nearest known one is {near[0]}" if near else ""
        raise FormatError(
            f"unknown test {quoted(word)}{meant}; expected one of {', '.join(_TESTS)}"
        )
    if not argument.strip():
        raise FormatError(f"{name} needs something to test behind it")
    return Condition(name, argument.strip(), is_negated)


def hostname_is(expression: bytes, *, is_negated: bool) -> Condition:
    """Return the condition of the older form ``@HOST``."""
    return Condition("hostname_matches", expression, is_negated)


def system_is(expression: bytes, *, is_negated: bool) -> Condition:
    """Return the condition of the older form ``$SYSTEM``."""
    return Condition("system_matches", expression, is_negated)


def _hostname_matches(argument: bytes, facts: Facts) -> bool:
    # Like regexec, not anchored: web1 matches web10 too, as it does in Samhain.
    return _matches(argument, facts.hostname)


def _system_matches(argument: bytes, facts: Facts) -> bool:
    return _matches(argument, facts.system)


def _matches(expression: bytes, text: str) -> bool:
    # Here, because few need it, and everybody would wait for it.
    from needfire_protocol.rc.posix_regex import compile_posix_regex

    return compile_posix_regex(expression).search(text.encode())


def _file_exists(argument: bytes, facts: Facts) -> bool:
    if not argument.startswith(b"/"):
        raise FormatError(f"{quoted(argument)} is not an absolute path")
    return facts.file_exists(argument)


def _interface_exists(argument: bytes, facts: Facts) -> bool:
    return facts.interface_exists(argument.decode("ascii", "replace"))


_TESTS: Final[Mapping[str, Callable[[bytes, Facts], bool]]] = {
    "hostname_matches": _hostname_matches,
    "system_matches": _system_matches,
    "file_exists": _file_exists,
    "interface_exists": _interface_exists,
    COMMAND_TEST: lambda _argument, _facts: False,
}
