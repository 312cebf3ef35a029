"""What a hosts.allow or hosts.deny file says: its lines as rules (hosts_access(5)).

As libwrap does it, a line that cannot be understood is skipped; unlike libwrap, which tells only
the system log, every such line becomes a note for the reader of our log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Final

from needfire_protocol.escape import printable

__all__ = ["Rule", "Rules", "alternatives", "parse_rules"]

LINE_CHARS_MAX: Final = 16_384
"""Characters of one rule with its continuation lines; libwrap stops at 2048."""
NOTES_MAX: Final = 20
"""Lines of one file that are complained about; the twenty-first adds nothing."""

_SEPARATORS: Final = str.maketrans(dict.fromkeys(", \t\r\n", " "))


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: which daemons, which clients, and what else is to be done."""

    line: int
    """1-based number of its last physical line, as tcpdmatch counts."""
    daemons: tuple[str, ...]
    clients: tuple[str, ...]
    options: tuple[str, ...]
    """What stands after the second colon, at colons that no backslash protects."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A whole file."""

    rules: tuple[Rule, ...]
    notes: tuple[str, ...]


@lru_cache(maxsize=8)
def parse_rules(text: str) -> Rules:
    """Return the rules of a file. The same text is parsed once: it comes at each connection."""
    rules, notes = [], []
    for line, content in _logical_lines(text):
        if not content.strip() or content.startswith("#"):
            continue
        rule = _rule(line, content)
        if isinstance(rule, Rule):
            rules.append(rule)
        text_of_note = rule if isinstance(rule, str) else _mistake(rule, content)
        if text_of_note is not None:
            notes.append(f"line {line}: {text_of_note}: {printable(content.strip(), 80)}")
    return Rules(tuple(rules), tuple(notes[:NOTES_MAX]))


_NO_CLIENTS: Final = "no client is named (IPv6 addresses stand in brackets)"
_NO_BRACKETS: Final = "an address without brackets (IPv6 addresses stand in brackets)"


def _mistake(rule: Rule, content: str) -> str | None:
    """Return what is wrong with a rule that still counts as it was read."""
    if not rule.clients:
        return _NO_CLIENTS
    _, _, rest = _split_outside_brackets(content)
    words = rest.translate(_SEPARATORS).split()
    return _NO_BRACKETS if any(map(_is_bare_ipv6, words)) else None


def _is_bare_ipv6(word: str) -> bool:
    if word.count(":") < 2:
        return False
    try:
        IPv6Network(word, strict=False)
    except ValueError:
        return False
    return True


def alternatives(tokens: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the lists between the EXCEPTs: ``a EXCEPT b EXCEPT c`` gives a, b, c."""
    lists: list[list[str]] = [[]]
    for token in tokens:
        if token.upper() == "EXCEPT":
            lists.append([])
        else:
            lists[-1].append(token)
    return [tuple(each) for each in lists]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join lines that end in a backslash. A last line without a newline counts: see below."""
    joined: list[str] = []
    number = 0
    for number, physical in enumerate(text.split("\n"), start=1):
        if physical.endswith("\\"):
            joined.append(physical[:-1])
            continue
        yield number, "".join((*joined, physical))
        joined = []
    if joined:
        yield number, "".join(joined)


def _rule(line: int, content: str) -> Rule | str:
    """Return the rule, or why the line is skipped.

    libwrap also skips a last line that no newline ends. Whoever writes ``ALL: ALL`` into
    hosts.deny with an editor that adds none wants it to hold, so here it does.
    """
    if len(content) > LINE_CHARS_MAX:
        return f"skipped, longer than {LINE_CHARS_MAX} characters"
    daemons, separator, rest = _split_outside_brackets(content)
    if not separator:
        return "skipped, no colon separates daemons from clients"
    clients, separator, options = _split_outside_brackets(rest)
    return Rule(
        line,
        tuple(daemons.translate(_SEPARATORS).split()),
        tuple(clients.translate(_SEPARATORS).split()),
        tuple(_option_fields(options)) if separator else (),
    )


def _split_outside_brackets(text: str) -> tuple[str, str, str]:
    """Split at the first colon that is not part of an IPv6 address in brackets."""
    depth = 0
    for index, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        elif char == ":" and depth == 0:
            return text[:index], ":", text[index + 1 :]
    return text, "", ""


def _option_fields(text: str) -> Iterator[str]:
    field: list[str] = []
    protected = False
    for char in text:
        if char == ":" and not protected:
            yield "".join(field).strip()
            field = []
        elif char == ":":
            field[-1] = ":"
        else:
            field.append(char)
        protected = char == "\\"
    yield "".join(field).strip()
