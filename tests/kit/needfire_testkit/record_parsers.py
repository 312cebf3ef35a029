"""Readers of records that share nothing with the code that writes them: written from the standards.

Each raises ValueError where a record is not as its standard says.
"""

import re
from dataclasses import dataclass

__all__ = [
    "AuditRecord",
    "SyslogMessage",
    "parse_alert",
    "parse_cef",
    "parse_linux_audit",
    "parse_octet_counted",
    "parse_rfc5424",
]


@dataclass(frozen=True)
class SyslogMessage:
    """A message of RFC 5424."""

    facility: int
    severity: int
    timestamp: str
    hostname: str
    app_name: str
    procid: str
    msgid: str
    elements: dict[str, dict[str, str]]
    msg: str


def parse_rfc5424(raw: bytes) -> SyslogMessage:
    """Read a message by the grammar of RFC 5424 section 6, one character after another."""
    text = raw.decode("utf-8")
    head = re.match(
        r"<(\d{1,3})>1 (\S+) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) ", text
    )
    if head is None:
        raise ValueError(f"no header: {text[:100]!r}")
    priority = int(head[1])
    elements: dict[str, dict[str, str]] = {}
    at = head.end() + (text[head.end()] == "-")
    while text[at] == "[":
        at += 1
        name, at = _sd_name(text, at)
        if name in elements:
            raise ValueError(f"element {name} stands twice")
        elements[name] = {}
        while text[at] == " ":
            key, at = _sd_name(text, at + 1)
            if text[at : at + 2] != '="':
                raise ValueError(f"no value for {key}")
            elements[name][key], at = _sd_value(text, at + 2)
        if text[at] != "]":
            raise ValueError(f"element {name} has no end")
        at += 1
    if text[at] != " ":
        raise ValueError("no blank before the message")
    return SyslogMessage(
        priority // 8,
        priority % 8,
        head[2],
        head[3],
        head[4],
        head[5],
        head[6],
        elements,
        text[at + 1 :],
    )


def _sd_name(text: str, at: int) -> tuple[str, int]:
    match = re.compile(r"""[!#-<>-\\^-~]{1,32}""").match(text, at)
    if match is None:
        raise ValueError(f"no name at {text[at : at + 20]!r}")
    return match[0], match.end()


def _sd_value(text: str, at: int) -> tuple[str, int]:
    value = ""
    while text[at] != '"':
        if text[at] == "]":
            raise ValueError("a bracket that is not escaped")
        if text[at] == "\\" and text[at + 1] in '\\"]':
            at += 1
        value += text[at]
        at += 1
    return value, at + 1


def parse_octet_counted(stream: bytes) -> list[bytes]:
    """Split a stream into messages (RFC 6587 3.4.1)."""
    messages = []
    while stream:
        digits, _, rest = stream.partition(b" ")
        if re.fullmatch(rb"[1-9][0-9]*", digits) is None or len(rest) < int(digits):
            raise ValueError(f"no length at {stream[:20]!r}")
        messages.append(rest[: int(digits)])
        stream = rest[int(digits) :]
    return messages


def parse_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Return the seven parts of the header and the extension of a CEF record."""
    parts, at = [""], 0
    while len(parts) < 8:
        char = line[at]
        if char == "\\":
            if line[at + 1] not in "\\|":
                raise ValueError(f"escape of {line[at + 1]!r} in the header")
            at += 1
            parts[-1] += line[at]
        elif char == "|":
            parts.append("")
        else:
            parts[-1] += char
        at += 1
    if not parts[0].startswith("CEF:"):
        raise ValueError("no CEF")
    rest = line[at:]
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9_.]+)=", rest))
    extension: dict[str, str] = {}
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        raw = rest[key.end() : len(rest) if following is None else following.start()]
        if key[1] in extension:
            raise ValueError(f"{key[1]} stands twice")
        if re.sub(r"\\[\\=]", "", raw).count("=") or re.search(r"(?<!\\)(?:\\\\)*\\[^\\=]", raw):
            raise ValueError(f"{key[1]} is not escaped: {raw!r}")
        extension[key[1]] = re.sub(r"\\([\\=])", r"\1", raw)
    return parts[:7], extension


def parse_alert(line: str) -> tuple[str, str, str | None, str, list[tuple[str, str]]]:
    """Return severity, host, number or code, title and the labelled fields of an alert line."""
    head = re.fullmatch(r"([A-Z]+): <([^<>]*)> ALERT: (?:\(([A-Z0-9_]+)\) )?(.*)", line)
    if head is None:
        raise ValueError(f"no alert: {line[:80]!r}")
    title, *rest = re.split(r", (?=[A-Za-z][A-Za-z0-9_ ]*: )", head[4])
    pairs = [part.partition(": ") for part in rest]
    undone = [
        text.replace("\\x2c", ",").replace("\\x5c", "\\")
        for text in (title, *(value for _, _, value in pairs))
    ]
    names = [name for name, _, _ in pairs]
    return head[1], head[2], head[3], undone[0], list(zip(names, undone[1:], strict=True))


@dataclass(frozen=True)
class AuditRecord:
    """A record of the Linux audit daemon.

    Attributes:
        node: the host that it comes from, where several come together.
        stamp: seconds with their milliseconds, and the number, as they stand there.
        fields: values by name; quotes taken away, hexadecimal digits as they are.
        quoted: names of those that had quotes.
        said: names of those within msg='…'.
    """

    node: str | None
    type: str
    stamp: tuple[str, int]
    fields: dict[str, str]
    quoted: frozenset[str]
    said: frozenset[str]

    def text(self, name: str) -> str:
        """Return text that is in quotes or encoded."""
        value = self.fields[name]
        return value if name in self.quoted else bytes.fromhex(value).decode("utf-8")


def parse_linux_audit(line: str) -> AuditRecord:
    """Read a record as auparse does: pairs between blanks, those of a program within msg='…'."""
    head = re.match(
        r"(?:node=([!-~]+) )?type=([A-Z][A-Z0-9_]*(?:\[\d+\])?) msg=audit\((\d+\.\d{3}):(\d+)\):",
        line,
    )
    if head is None or not line.isascii() or not line.isprintable():
        raise ValueError(f"no record: {line[:80]!r}")
    rest = line[head.end() :]
    sender, apostrophe, said = rest.partition(" msg='")
    if apostrophe and not said.endswith("'"):
        raise ValueError("what a program says has no end")
    outer, inner = sender.split(), said[:-1].split(" ") if said[:-1] else []
    fields: dict[str, str] = {}
    quoted = set()
    for word in [*outer, *inner]:
        name, equals, value = word.partition("=")
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) is None or not equals or name in fields:
            raise ValueError(f"no field: {word!r}")
        if value[:1] == '"':
            if len(value) < 2 or value[-1] != '"':
                raise ValueError(f"quotes without an end: {word!r}")
            quoted.add(name)
            value = value[1:-1]
        if any(sign in value for sign in "\"'= "):
            raise ValueError(f"{name} is not escaped")
        fields[name] = value
    names = frozenset(word.partition("=")[0] for word in inner)
    return AuditRecord(head[1], head[2], (head[3], int(head[4])), fields, frozenset(quoted), names)
