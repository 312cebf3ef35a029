"""Which names a shell pattern matches, one path component at a time, over bytes.

The rules are glob(7)'s: ``*``, ``?``, ``[...]`` with ranges, classes and ``!`` or ``^`` in front,
a backslash takes the next byte literally, and a leading dot must be matched by a dot. The standard
fnmatch lets wildcards match a leading dot, and knows no backslash.
"""

import re
from typing import Final

__all__ = ["compile_component", "literal_component"]

_MAGIC: Final = frozenset(b"*?[")
_ONE_CHARACTER: Final = rb"(?>[\xc2-\xf4][\x80-\xbf]+|.)"
"""A character of UTF-8, or one byte where the name is not UTF-8."""

_CLASSES: Final = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t-\r",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9a-fA-F",
}


def literal_component(component: bytes) -> bytes | None:
    """Return the one name that a component without wildcards means; None if it has any."""
    if b"\\" not in component:
        return None if _MAGIC.intersection(component) else component
    tokens = _tokens(component)
    if any(kind != "literal" for kind, _ in tokens):
        return None
    return b"".join(text for _, text in tokens)


def compile_component(component: bytes) -> re.Pattern[bytes]:
    """Return the regular expression whose ``fullmatch`` decides over one name.

    What stands between two stars is matched at its first place and never again, so that no
    pattern, however many stars it has, takes more than quadratic time.
    """
    tokens = _tokens(component)
    segments = [b""]
    for kind, text in tokens:
        if kind == "star":
            segments.append(b"")
        else:
            segments[-1] += re.escape(text) if kind == "literal" else text
    head = b"" if tokens and tokens[0][0] == "literal" else rb"(?!\.)"
    if len(segments) == 1:
        return re.compile(head + segments[0], re.DOTALL)
    middle = b"".join(b"(?>.*?" + segment + b")" for segment in segments[1:-1])
    return re.compile(head + segments[0] + middle + b".*" + segments[-1], re.DOTALL)


def _tokens(component: bytes) -> list[tuple[str, bytes]]:
    """Return (literal, byte), (any, expression), (star, …) for each part of the component."""
    tokens: list[tuple[str, bytes]] = []
    at = 0
    while at < len(component):
        byte = component[at : at + 1]
        at += 1
        if byte == b"*":
            tokens.append(("star", b""))
        elif byte == b"?":
            tokens.append(("any", _ONE_CHARACTER))
        elif byte == b"[" and (bracket := _bracket(component, at)) is not None:
            expression, at = bracket
            tokens.append(("any", expression))
        elif byte == b"\\" and at < len(component):
            tokens.append(("literal", component[at : at + 1]))
            at += 1
        else:
            tokens.append(("literal", byte))
    return tokens


def _bracket(component: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the expression of a bracket whose inside begins at ``at``, and where it has ended.

    None where it is never closed: then the bracket is an ordinary byte, as in the shell.
    """
    is_negated = component[at : at + 1] in (b"!", b"^")
    at += is_negated
    start, members = at, b""
    while at < len(component):
        if component[at : at + 1] == b"]" and at > start:
            inside = members or rb"\x00"
            return (b"[^" if is_negated else b"[") + inside + b"]", at + 1
        if component[at : at + 2] == b"[:" and (end := component.find(b":]", at)) > 0:
            members += _CLASSES.get(component[at + 2 : end], b"")
            at = end + 2
            continue
        low, at = _member(component, at)
        if component[at : at + 1] == b"-" and component[at + 1 : at + 2] not in (b"", b"]"):
            high, at = _member(component, at + 1)
            # A range that runs backwards matches nothing, as in the shell.
            if low <= high:
                members += re.escape(low) + b"-" + re.escape(high)
        else:
            members += re.escape(low)
    return None


def _member(component: bytes, at: int) -> tuple[bytes, int]:
    if component[at : at + 1] == b"\\" and at + 1 < len(component):
        at += 1
    return component[at : at + 1], at + 1
