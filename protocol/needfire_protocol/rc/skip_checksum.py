"""Of which files the contents are not digested: the conditions of ``SkipChecksum``.

The conditions of one line must all hold; of several lines one is enough (Samhain manual, "file
checksums"). A type of file cannot be asked for, because that means reading the file: a line that
does is without effect as a whole, so that more is digested rather than less.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.values import Kind, WithoutEffect, quoted

if TYPE_CHECKING:
    from needfire_protocol.rc.posix_regex import PosixRegex

__all__ = ["CONDITIONS_MAX", "SKIP_CHECKSUM", "SkipCondition", "SkipLine"]

CONDITIONS_MAX: Final = 50
"""Conditions of one line."""
_PERMISSIONS: Final = 0o7777


@dataclass(frozen=True, slots=True)
class SkipCondition:
    """One condition; its name says which of the three arguments counts."""

    name: str
    """As it is written: match_prefix, match_regex, size_exceeds, match_permission, ..."""
    is_negated: bool
    prefix: bytes = b""
    regex: "PosixRegex | None" = None
    number: int = 0

    @property
    def asks_path(self) -> bool:
        """True where the path alone decides."""
        return self.name in ("match_prefix", "match_regex")

    def holds(self, path: bytes, mode: int, size: int) -> bool:
        """Return whether it holds for a regular file."""
        return _TESTS[self.name](self, path, mode, size) is not self.is_negated

    def __str__(self) -> str:
        argument = str(self.number)
        if self.asks_path:
            written = self.prefix if self.regex is None else self.regex.pattern
            argument = printable(written.decode("utf-8", "backslashreplace"), 1_024)
        elif self.name != "size_exceeds":
            argument = f"{self.number:04o}"
        return f"{'!' if self.is_negated else ''}{self.name}({argument})"


@dataclass(frozen=True, slots=True)
class SkipLine:
    """One line ``SkipChecksum = …``."""

    conditions: tuple[SkipCondition, ...]

    def holds(self, path: bytes, mode: int, size: int) -> bool:
        """Return whether the contents of a regular file are to be left alone."""
        return all(condition.holds(path, mode, size) for condition in self.conditions)

    def may_hold(self, path: bytes) -> bool:
        """Return whether it can hold for a file at the path, whatever its size and its mode."""
        return all(each.holds(path, 0, 0) for each in self.conditions if each.asks_path)

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))


_TESTS: Final[dict[str, Callable[[SkipCondition, bytes, int, int], bool]]] = {
    "match_prefix": lambda condition, path, _mode, _size: path.startswith(condition.prefix),
    "match_regex": lambda condition, path, _mode, _size: (
        condition.regex is not None and condition.regex.search(path)
    ),
    "size_exceeds": lambda condition, _path, _mode, size: size > condition.number,
    "match_permission": lambda condition, _path, mode, _size: (
        mode & _PERMISSIONS == condition.number
    ),
    "have_permission": lambda condition, _path, mode, _size: (
        mode & condition.number == condition.number
    ),
}
_FILE_TYPE: Final = "match_filetype"
_BEGIN: Final = rb"[\s,]*(!?)\s*([A-Za-z_]{1,30})\s*\("
_NEXT: Final = (
    rb"(?i)\)(?=[\s,]*\Z|[\s,]+!?\s*(?:match_prefix|match_regex|size_exceeds|match_permission"
    rb"|have_permission|match_filetype)\s*\()"
)
"""The parenthesis that ends a condition: an expression may hold others."""


def _parse(value: bytes) -> SkipLine:
    conditions: list[SkipCondition] = []
    at, has_type = 0, False
    # Here, because few configurations have such a line, and every start would wait for it.
    begins, ends = re.compile(_BEGIN), re.compile(_NEXT)
    while value[at:].strip(b" \t,"):
        begin = begins.match(value, at)
        end = None if begin is None else ends.search(value, begin.end())
        if begin is None or end is None:
            raise FormatError(
                f"{quoted(value[at:])} is no condition; expected for example size_exceeds(1000000)"
            )
        name = begin[2].decode("ascii").lower()
        has_type = has_type or name == _FILE_TYPE
        if name != _FILE_TYPE:
            argument = value[begin.end() : end.start()].strip()
            conditions.append(_condition(name, argument, is_negated=begin[1] == b"!"))
        if len(conditions) > CONDITIONS_MAX:
            raise FormatError(f"more than {CONDITIONS_MAX} conditions; write several lines")
        at = end.end()
    if has_type:
        raise WithoutEffect(
            "match_filetype is not looked at, because that means to read the file; "
            "what the line would leave out is digested"
        )
    if not conditions:
        raise FormatError("there is no condition; expected for example size_exceeds(1000000)")
    return SkipLine(tuple(conditions))


def _condition(name: str, argument: bytes, *, is_negated: bool) -> SkipCondition:
    if name == "match_prefix":
        if not argument.startswith(b"/"):
            raise FormatError(f"match_prefix needs the beginning of a path, not {quoted(argument)}")
        return SkipCondition(name, is_negated, prefix=argument)
    if name == "match_regex":
        if not argument:
            raise FormatError("match_regex needs an expression")
        from needfire_protocol.rc.posix_regex import compile_posix_regex

        return SkipCondition(name, is_negated, regex=compile_posix_regex(argument))
    if name == "size_exceeds":
        return SkipCondition(name, is_negated, number=_number(name, argument, rb"[0-9]{1,18}", 10))
    if name in ("match_permission", "have_permission"):
        return SkipCondition(name, is_negated, number=_number(name, argument, rb"[0-7]{1,5}", 8))
    known = ", ".join([*_TESTS, _FILE_TYPE])
    raise FormatError(f"{quoted(name.encode())} is no condition; expected one of {known}")


def _number(name: str, argument: bytes, form: bytes, base: int) -> int:
    what = "octal permissions such as 0755" if base == 8 else "a number of bytes"
    if re.fullmatch(form, argument) is None or (base == 8 and int(argument, 8) > _PERMISSIONS):
        raise FormatError(f"{name} needs {what}, not {quoted(argument)}")
    return int(argument, base)


SKIP_CHECKSUM: Final = Kind(
    "a list of conditions, each perhaps with ! in front: match_prefix(TEXT), match_regex(REGEX), "
    "size_exceeds(BYTES), match_permission(OCTAL), have_permission(OCTAL)",
    _parse,
)
