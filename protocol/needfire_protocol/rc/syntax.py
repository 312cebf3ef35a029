"""Lines, sections and conditionals: which directives a configuration file holds for this host.

The syntax is Samhain's (its manual, appendix C). What a directive means is not decided here.
"""

import re
from collections.abc import Callable
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.conditions import (
    COMMAND_TEST,
    Condition,
    Facts,
    hostname_is,
    parse_test,
    system_is,
)
from needfire_protocol.rc.directives import DIRECTIVES, SECTIONS, suggest_section
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.policies import SCHEDULE_TWO
from needfire_protocol.rc.values import group_name, quoted

__all__ = [
    "CONDITIONS_MAX",
    "FILE_BYTES_MAX",
    "LINE_BYTES_MAX",
    "NESTING_MAX",
    "Directive",
    "parse_lines",
]

FILE_BYTES_MAX: Final = 4 * 2**20
"""Bytes of one file; a client line of the server's file has about 850."""
LINE_BYTES_MAX: Final = 16_384
"""Bytes of one line without its end: Samhain's limit."""
NESTING_MAX: Final = 50
"""Conditional blocks inside each other."""
CONDITIONS_MAX: Final = 10_000
"""Conditions of one file that are looked up: each may ask the system and compile an expression."""

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_SIGNED: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNED_HEADER: Final = rb"[A-Za-z-]{1,40}: .*"
_SIGNATURE: Final = b"-----BEGIN PGP SIGNATURE-----"
_SIGNATURE_END: Final = b"-----END PGP SIGNATURE-----"
_CONDITIONAL: Final = re.compile(rb"(!?)\s*([@$])\s*(.+)", re.DOTALL)
_GROUP: Final = rb"(?i)(!?)\s*%(?:(SCHEDULE_TWO)|GROUP\b[ \t]*(.*))"


@dataclass(frozen=True, slots=True)
class Directive:
    """One line ``Key=Value`` that holds for this host."""

    section: str
    """Heading that it stands under, in lower case."""
    key: str
    """In lower case."""
    value: bytes
    """What stands behind the first ``=``, without blanks around it."""
    source: str
    line: int
    written: bytes = b""
    """The key as the file spells it."""
    group: str = ""
    """Between %GROUP and !%GROUP, or %SCHEDULE_TWO and !%SCHEDULE_TWO: the name of the group."""


@dataclass(slots=True)
class _Block:
    """A conditional that is open."""

    line: int
    holds: bool
    is_broken: bool = False
    """Its test is wrong (which was told): neither of its parts is read."""
    has_else: bool = False


def parse_lines(data: bytes, *, facts: Facts, findings: Findings) -> list[Directive]:
    """Return the directives that hold for the host, in the order of the file.

    Errors and notices go to ``findings``; a line with an error gives no directive.
    """
    if len(data) > FILE_BYTES_MAX:
        findings.error(None, f"the file has {len(data)} bytes; at most {FILE_BYTES_MAX} are read")
        return []
    parser = _Parser(facts, findings)
    for number, text in enumerate(data.removeprefix(_UTF8_MARK).split(b"\n"), start=1):
        if not parser.read(number, text):
            break
    parser.finish()
    return parser.directives


class _Parser:
    def __init__(self, facts: Facts, findings: Findings) -> None:
        self.directives: list[Directive] = []
        self._facts = facts
        self._findings = findings
        self._section: str | None = None
        self._has_seen_heading = False
        self._blocks: list[_Block] = []
        self._group = ""
        self._group_line = 0
        self._condition_count = 0
        self._signature_line: int | None = None
        self._is_in_signed_head = False
        self._is_signed = False

    def read(self, number: int, raw: bytes) -> bool:
        """Read one line; False where nothing behind it counts."""
        text = raw.strip()
        if len(raw) > LINE_BYTES_MAX + 1:  # the carriage return of another system is no part of it
            self._findings.error(
                number, f"the line has {len(raw)} bytes; at most {LINE_BYTES_MAX} are read"
            )
        elif b"\0" in raw:
            self._findings.error(number, "the line holds a NUL byte; this is no text file")
        elif self._is_wrapping(number, text):
            pass
        elif text.startswith(b"- ") and self._is_signed:
            return self._read_text(number, text[2:].strip())
        else:
            return self._read_text(number, text)
        return True

    def finish(self) -> None:
        """Report what is still open at the end of the file."""
        for block in self._blocks:
            self._findings.error(block.line, "this conditional block has no @fi (or @end, $end)")
        if self._group:
            self._findings.notice(
                self._group_line, f"the group {self._group} has no end; it goes to that of the file"
            )
        if self._signature_line is not None:
            self._findings.error(self._signature_line, "this PGP signature has no end")

    def _read_text(self, number: int, text: bytes) -> bool:
        if not text or text.startswith((b"#", b";", b"//")):
            return True
        conditional = _CONDITIONAL.fullmatch(text)
        if conditional is not None:
            self._conditional(number, conditional)
        elif not all(block.holds for block in self._blocks):
            pass
        elif text.startswith(b"["):
            return self._heading(number, text)
        elif b"%" in text and (group := re.fullmatch(_GROUP, text)) is not None:
            self._mark_group(number, group)
        else:
            self._directive(number, text)
        return True

    # ---- a file that somebody signed ------------------------------------------

    def _is_wrapping(self, number: int, text: bytes) -> bool:
        """True for the lines that a PGP signature puts around the text."""
        if self._signature_line is not None:
            if text == _SIGNATURE_END:
                self._signature_line = None
            return True
        if self._is_in_signed_head:
            # Only what is a header: nothing else may vanish without a word.
            self._is_in_signed_head = re.fullmatch(_SIGNED_HEADER, text) is not None
            if self._is_in_signed_head:
                return True
        if text == _SIGNED:
            self._is_in_signed_head = self._is_signed = True
            self._findings.notice(number, "the PGP signature of this file is not verified")
            return True
        if text == _SIGNATURE:
            self._signature_line = number
            return True
        return False

    # ---- conditionals ---------------------------------------------------------

    def _conditional(self, number: int, match: re.Match[bytes]) -> None:
        is_negated, sign, rest = match[1] == b"!", match[2], match[3]
        word, _, argument = rest.replace(b"\t", b" ").partition(b" ")
        keyword = (sign + word.lower()).decode("ascii", "replace")
        if is_negated and keyword in ("@fi", "@end", "$end", "@else", "@if"):
            self._findings.error(number, f"'!' may not stand before {keyword}; write @if not TEST")
        if keyword in ("@fi", "@end", "$end"):
            self._close(number, keyword)
        elif keyword == "@else":
            self._else(number)
        elif keyword == "@if":
            self._open(number, lambda: parse_test(argument.strip()))
        elif sign == b"@":
            self._open(number, lambda: hostname_is(rest, is_negated=is_negated))
        else:
            self._open(number, lambda: system_is(rest, is_negated=is_negated))

    def _open(self, number: int, parse: Callable[[], Condition]) -> None:
        if len(self._blocks) == NESTING_MAX:
            self._findings.error(number, f"more than {NESTING_MAX} blocks inside each other")
        if not all(block.holds for block in self._blocks):
            # Inside a part that is not for this host nothing is looked up.
            self._blocks.append(_Block(number, holds=False))
            return
        self._condition_count += 1
        if self._condition_count > CONDITIONS_MAX:
            self._findings.error(number, f"more than {CONDITIONS_MAX} conditions in one file")
            self._blocks.append(_Block(number, holds=False, is_broken=True))
            return
        try:
            condition = parse()
            if condition.test == COMMAND_TEST:
                self._findings.notice(
                    number, "commands in a configuration are never run; this one counts as failed"
                )
            self._blocks.append(_Block(number, condition.holds(self._facts)))
        except FormatError as error:
            self._findings.error(number, str(error))
            self._blocks.append(_Block(number, holds=False, is_broken=True))

    def _else(self, number: int) -> None:
        if not self._blocks:
            self._findings.error(number, "@else without @if before it")
            return
        block = self._blocks[-1]
        if block.has_else:
            self._findings.error(number, f"a second @else for the block of line {block.line}")
        block.has_else = True
        block.holds = not block.holds and not block.is_broken

    def _close(self, number: int, keyword: str) -> None:
        if self._blocks:
            self._blocks.pop()
        else:
            self._findings.error(number, f"{keyword} without a conditional block before it")

    # ---- groups of rules --------------------------------------------------------

    def _mark_group(self, number: int, match: re.Match[bytes]) -> None:
        is_end, named = bool(match[1]), (match[3] or b"").strip()
        if is_end:
            self._end_group(number, named, SCHEDULE_TWO if match[2] else "")
            return
        try:
            name = SCHEDULE_TWO if match[2] else group_name(named)
        except FormatError as error:
            self._findings.error(number, str(error))
            return
        if self._group and self._group != name:
            self._findings.error(
                number, f"a group inside of the group {self._group} of line {self._group_line}"
            )
            return
        self._group, self._group_line = name, number

    def _end_group(self, number: int, named: bytes, name: str) -> None:
        if named:
            self._findings.error(number, "!%GROUP takes no name: it ends the group before it")
        elif not self._group:
            self._findings.notice(number, "no group has begun before this line")
        elif (self._group == SCHEDULE_TWO) != (name == SCHEDULE_TWO):
            self._findings.error(
                number, f"this is not the end of the group {self._group} of line {self._group_line}"
            )
        self._group = ""

    # ---- sections and directives ----------------------------------------------

    def _heading(self, number: int, text: bytes) -> bool:
        if not text.endswith(b"]"):
            self._findings.error(
                number, f"{quoted(text)} begins a heading that has no ']' at its end"
            )
            return True
        name = text[1:-1].strip().decode("utf-8", "replace")
        if name.upper() == "EOF":
            return False
        self._has_seen_heading = True
        self._section = name.lower() if name.lower() in SECTIONS else None
        if self._section is None:
            near = suggest_section(name)
            meant = "" if near is None else f"; the nearest known one is [{near}]"
            self._findings.error(
                number,
                f"unknown section {quoted(text)}{meant}",
                None if near is None else f"replace it with [{near}]",
            )
        return True

    def _directive(self, number: int, text: bytes) -> None:
        raw_key, equals, raw_value = text.partition(b"=")
        key = raw_key.strip().decode("utf-8", "replace").lower()
        if not key or (not equals and key not in DIRECTIVES):
            # Of a password without its equals sign only the name is told: this goes into logs.
            words = text.split(None, 1)
            shown = quoted(words[0] + b" ..." if len(words) > 1 else text)
            self._findings.error(number, f"{shown} is neither [Section] nor Key=Value")
            return
        if not self._has_seen_heading:
            self._findings.notice(
                number, f"{quoted(raw_key.strip())} stands before the first section: no effect"
            )
            return
        if self._section is None:
            return  # The heading was an error; what stands under it could only repeat that.
        value = raw_value.strip()
        if value.startswith(b"$(") and value.endswith(b")"):
            self._findings.notice(
                number,
                f"{quoted(raw_key.strip())} has no effect: commands in a configuration are "
                "never run; write the value",
            )
            return
        self.directives.append(
            Directive(
                self._section,
                key,
                value,
                self._findings.source,
                number,
                raw_key.strip(),
                self._group,
            )
        )
