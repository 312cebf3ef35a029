"""What the value of a directive may be: each kind with its words for people and its parser.

A parser takes the bytes behind ``=``, already stripped of blanks, and returns the typed value or
raises ``FormatError`` with what it found and what it expected. ``WithoutEffect`` says instead that
the value is a proper one that means nothing here; its directive then counts as not written.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from needfire_protocol.errors import FormatError, NeedfireError
from needfire_protocol.escape import printable
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import SCHEDULE_TWO, Check
from needfire_protocol.severity import Severity, SeverityFilter

if TYPE_CHECKING:
    from needfire_protocol.rc.posix_regex import PosixRegex

__all__ = [
    "ABSOLUTE_PATH",
    "ADDRESS",
    "BOOLEAN",
    "CRONTAB",
    "DIGEST",
    "DISK_FULL_ACTION",
    "GROUP_CRONTAB",
    "LISTEN_ADDRESS",
    "LOG_FORMAT",
    "LOOPBACK_OR_ADDRESS",
    "MASK_CHANGE",
    "MATCHED_PATH",
    "MEMBER",
    "PATH_REGEX",
    "PORT",
    "REALTIME_METHOD",
    "SERVER",
    "SEVERITY",
    "SEVERITY_LIST",
    "TEXT",
    "UID",
    "USER",
    "WEAK_DIGESTS",
    "WORKERS",
    "YEAR_S",
    "Kind",
    "MaskChange",
    "MatchedPath",
    "WithoutEffect",
    "duration",
    "group_duration",
    "group_name",
    "integer",
    "normalise",
    "quoted",
    "size",
]

PATH_BYTES_MAX: Final = 4_095
"""Bytes: PATH_MAX of Linux without the last NUL."""
NAME_BYTES_MAX: Final = 255
"""Bytes of one component: NAME_MAX."""
DEPTH_MAX: Final = 99
YEAR_S: Final = 365 * 86_400


class WithoutEffect(NeedfireError):  # noqa: N818 - it is no error: the file is used
    """The value is known, but has no effect here; the text says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    words: str
    """What may be written, for the documents: ``yes or no``."""
    parse: Callable[[bytes], object]


def quoted(value: bytes) -> str:
    """Return a value in quotes for an error text, printable and cut to a readable length."""
    return f"'{printable(value[:200].decode('utf-8', 'backslashreplace'), 80)}'"


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8").replace("\t", " ")
    except UnicodeDecodeError:
        raise FormatError(f"{quoted(value)} is not UTF-8 text") from None
    if not text.isprintable():
        raise FormatError(f"{quoted(value)} holds control characters")
    return text


# ---- words and numbers ----------------------------------------------------------

_BOOLEANS: Final = {
    b"yes": True,
    b"true": True,
    b"1": True,
    b"no": False,
    b"false": False,
    b"0": False,
}


def _boolean(value: bytes) -> bool:
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise FormatError(f"{quoted(value)} is neither yes (true, 1) nor no (false, 0)") from None


def _number(value: bytes) -> int:
    """Digits only: no sign of other alphabets, no underscores, and few enough to be cheap."""
    if re.fullmatch(rb"-?[0-9]{1,18}", value) is None:
        raise FormatError(f"{quoted(value)} is not a whole number")
    return int(value)


def _between(number: int, least: int, most: int, written: bytes, unit: str = "") -> int:
    if not least <= number <= most:
        raise FormatError(f"{quoted(written)} must be between {least} and {most}{unit}")
    return number


def integer(least: int, most: int) -> Kind:
    """Return the kind of a whole number with its bounds, both included."""
    return Kind(
        f"a number, {least} to {most}",
        lambda value: _between(_number(value), least, most, value),
    )


# Patterns are compiled when they are first asked for, and kept by ``re``: an agent's start would
# wait for all of them, and a configuration needs few.
_DURATION: Final = rb"(?i)([0-9]{1,12}) ?([smhd]?)"
_SECONDS: Final = {b"": 1, b"s": 1, b"m": 60, b"h": 3_600, b"d": 86_400}


def duration(least_s: int, most_s: int) -> Kind:
    """Return the kind of a time span in seconds with its bounds, both included."""

    def parse(value: bytes) -> int:
        match = re.fullmatch(_DURATION, value)
        if match is None:
            raise FormatError(
                f"{quoted(value)} is not a time span; expected seconds, or 10s, 5m, 2h, 7d"
            )
        seconds = int(match[1]) * _SECONDS[match[2].lower()]
        return _between(seconds, least_s, most_s, value, " seconds")

    return Kind("seconds, or 10s, 5m, 2h, 7d", parse)


_SIZE: Final = rb"(?i)([0-9]{1,15}) ?([kmgt]?)(?:i?b)?"
_BYTES: Final = {b"": 1, b"k": 2**10, b"m": 2**20, b"g": 2**30, b"t": 2**40}


def size(least_bytes: int, most_bytes: int) -> Kind:
    """Return the kind of a size in bytes with its bounds, both included."""

    def parse(value: bytes) -> int:
        match = re.fullmatch(_SIZE, value)
        if match is None:
            raise FormatError(f"{quoted(value)} is not a size; expected bytes, or 64K, 256M, 2G")
        number = int(match[1]) * _BYTES[match[2].lower()]
        if not least_bytes <= number <= most_bytes:
            least, most = _size_text(least_bytes), _size_text(most_bytes)
            raise FormatError(f"{quoted(value)} must be between {least} and {most}")
        return number

    return Kind("bytes, or 64K, 256M, 2G (powers of 1024)", parse)


def _size_text(size_bytes: int) -> str:
    """Return a size as it can be written in a file, in the largest unit that divides it."""
    for unit, factor in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if size_bytes and not size_bytes % factor:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def _one_of(what: str, words: Iterable[str]) -> Kind:
    known = tuple(words)

    def parse(value: bytes) -> str:
        word = _text(value).lower()
        if word not in known:
            raise FormatError(f"{quoted(value)} is no {what}; expected one of {', '.join(known)}")
        return word

    return Kind(" or ".join(known), parse)


_DIGESTS: Final = {
    name.replace("_", ""): name
    for name in (
        "sha256",
        "sha512",
        "sha384",
        "sha224",
        "sha3_224",
        "sha3_256",
        "sha3_384",
        "sha3_512",
        "blake2b",
        "blake2s",
        "sha1",
        "md5",
        "blake3",
    )
}
WEAK_DIGESTS: Final = frozenset({"md5", "sha1"})
"""Two files with the same digest can be made on purpose."""


def _digest(value: bytes) -> str:
    word = _text(value).lower().replace("-", "").replace("_", "")
    if word in ("tiger", "tiger192"):
        raise WithoutEffect("TIGER192 is not available here; sha256 is used")
    try:
        return _DIGESTS[word]
    except KeyError:
        raise FormatError(
            f"{quoted(value)} is no digest; expected one of {', '.join(_DIGESTS.values())}"
        ) from None


BOOLEAN: Final = Kind("yes or no (true, false, 1, 0)", _boolean)
SEVERITY: Final = Kind("one severity", lambda value: Severity.parse(_text(value)))
SEVERITY_LIST: Final = Kind(
    "a list of severities, each with *, ! or =", lambda value: SeverityFilter.parse(_text(value))
)
REALTIME_METHOD: Final = _one_of(
    "way of watching", ("auto", "fanotify", "inotify", "polling", "none")
)
DISK_FULL_ACTION: Final = _one_of("thing to do on a full disk", ("warn", "suspend-class", "halt"))
LOG_FORMAT: Final = _one_of("form of log lines", ("classic", "text", "json"))
DIGEST: Final = Kind("a digest: " + ", ".join(_DIGESTS.values()), _digest)
TEXT: Final = Kind("text", _text)
CRONTAB: Final = Kind(
    "minute hour day month weekday, each *, a number or name, a range, and /STEP",
    lambda value: _crontab(_text(value)),
)

_GROUP_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"


def group_name(value: bytes) -> str:
    """Return the name of a group of rules.

    Raises:
        FormatError: it is none, or a reserved one.
    """
    text = _text(value)
    if re.fullmatch(_GROUP_NAME, text) is None:
        raise FormatError(
            f"{quoted(value)} is not the name of a group: letters, digits, _ . -, at most 32"
        )
    if text.upper() == SCHEDULE_TWO:
        raise FormatError(f"the group {SCHEDULE_TWO} is made by %{SCHEDULE_TWO} alone")
    return text


def _of_group(kind: Kind) -> Kind:
    """Return the kind of a group's name with something behind it."""

    def parse(value: bytes) -> tuple[str, Any]:
        name, _, rest = value.replace(b"\t", b" ").partition(b" ")
        if not rest.strip():
            raise FormatError(
                f"{quoted(value)} is one word; expected the name of a group, and behind it "
                + kind.words
            )
        return group_name(name), kind.parse(rest.strip())

    return Kind(f"name of a group, and {kind.words}", parse)


def group_duration(least_s: int, most_s: int) -> Kind:
    """Return the kind of a group's name with a time span behind it."""
    return _of_group(duration(least_s, most_s))


GROUP_CRONTAB: Final = _of_group(CRONTAB)


def _crontab(text: str) -> object:
    from needfire_protocol.rc.crontab import parse_crontab

    return parse_crontab(text)


_WORKERS_MAX: Final = 64


def _workers(value: bytes) -> int:
    return 0 if value.lower() == b"auto" else _between(_number(value), 1, _WORKERS_MAX, value)


WORKERS: Final = Kind(f"auto, or a number, 1 to {_WORKERS_MAX}", _workers)


# ---- users, hosts, addresses ----------------------------------------------------

_USER: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?"
_HOST: Final = r"(?!-)[A-Za-z0-9_.-]{1,253}"


def _user(value: bytes) -> str:
    text = _text(value)
    if re.fullmatch(_USER, text) is None:
        raise FormatError(f"{quoted(value)} is not the name of a user")
    return text


def _member(value: bytes) -> str:
    text = _text(value)
    if re.fullmatch(_USER, text.removeprefix("@")) is None:
        raise FormatError(f"{quoted(value)} is neither the name of a user nor @ and a group's")
    return text


def _address(value: bytes) -> str:
    try:
        import ipaddress

        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise FormatError(f"{quoted(value)} is not an IP address") from None


def _any_or_address(value: bytes) -> str | None:
    return None if value.upper() == b"INADDR_ANY" else _address(value)


def _server(value: bytes) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, ``[IPv6]:PORT``, or an IPv6 address alone."""
    text = _text(value)
    if text.count(":") >= 2 and not text.startswith("["):
        return _address(value), None
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{1,5}))?", text)
    if match is None:
        raise FormatError(f"{quoted(value)} is not HOST, HOST:PORT or [IPv6]:PORT")
    port = None if match[2] is None else _port(match[2].encode())
    if match[1].startswith("["):
        return _address(match[1][1:-1].encode()), port
    if re.fullmatch(_HOST, match[1]) is None:
        raise FormatError(f"{quoted(value)} does not begin with the name or address of a host")
    return match[1], port


def _port(value: bytes) -> int:
    return _between(_number(value), 1, 65_535, value)


def _loopback_or_address(value: bytes) -> tuple[str, int]:
    """``PORT`` on loopback, or ``ADDRESS:PORT``; port 0 picks a free one."""
    host, separator, port = value.rpartition(b":")
    if host.startswith(b"[") and host.endswith(b"]"):
        host = host[1:-1]
    elif b":" in host:
        raise FormatError(f"{quoted(value)} is not PORT, ADDRESS:PORT or [IPv6]:PORT")
    address = _address(host) if separator else "127.0.0.1"
    return address, _between(_number(port), 0, 65_535, value)


PORT: Final = Kind("a port, 1 to 65535", _port)
LOOPBACK_OR_ADDRESS: Final = Kind(
    "PORT (on 127.0.0.1), ADDRESS:PORT or [IPv6]:PORT; port 0 picks a free one",
    _loopback_or_address,
)
USER: Final = Kind("the name of a user", _user)
MEMBER: Final = Kind("the name of a user, or @ and the name of a group", _member)
UID: Final = integer(0, 2**32 - 2)
ADDRESS: Final = Kind("an IP address", _address)
LISTEN_ADDRESS: Final = Kind("an IP address, or INADDR_ANY", _any_or_address)
SERVER: Final = Kind("HOST, HOST:PORT or [IPv6]:PORT", _server)


# ---- paths ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MatchedPath:
    """The value of ``file=`` or ``dir=``."""

    depth: int | None
    """What stood directly before the first slash, or None."""
    path: bytes
    """Absolute and normalised; where it is a glob, ``[x]`` stands for an escaped x."""
    is_glob: bool


_ESCAPES: Final = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b"'": b"'",
    b'"': b'"',
}
_ESCAPE: Final = rb"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9A-Fa-f]{2})|)"
_DEPTH_AND_PATH: Final = re.compile(rb"(-?[0-9]{1,4})?(/.*)", re.DOTALL)
_MAGIC: Final = frozenset(b"*?[")
_GLOB_PART: Final = rb"(?s)\\(.)|([*?\[])"


def _matched_path(value: bytes) -> MatchedPath:
    """Quotes off, escapes resolved, depth split off, path checked: Samhain's order."""
    match = _DEPTH_AND_PATH.fullmatch(_unescape(_unquote(value)))
    if match is None:
        raise FormatError(
            f"{quoted(value)} is not an absolute path; it must begin with / "
            "(for dir= a depth may stand directly before it)"
        )
    path = normalise(match[2])
    is_glob, path = _glob(path)
    return MatchedPath(None if match[1] is None else int(match[1]), path, is_glob)


def _unquote(value: bytes) -> bytes:
    """Only the first and the last character are looked at, as in Samhain."""
    if value[:1] not in (b"'", b'"'):
        return value
    if len(value) < 2 or value[-1:] != value[:1]:
        raise FormatError(f"{quoted(value)} begins with a quote that is not closed at its end")
    return value[1:-1]


def _unescape(value: bytes) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return _ESCAPES[match[1]]
        number = int(match[2], 8) if match[2] is not None else int(match[3] or b"0", 16)
        if not 0 < number < 256:
            raise FormatError(
                f"{quoted(value)} holds an escape that is none of \\a \\b \\f \\n \\r \\t \\v "
                "\\\\ \\' \\\" \\nnn (three octal digits) \\xNN"
            )
        return bytes([number])

    return re.sub(_ESCAPE, replace, value)


def normalise(path: bytes) -> bytes:
    """Return an absolute path without empty and ``.`` components and without a last slash.

    Raises:
        FormatError: it is relative, holds ``..`` or NUL, or is too long.
    """
    if not path.startswith(b"/") or b"\0" in path:
        raise FormatError(f"{quoted(path)} is not an absolute path")
    if len(path) > PATH_BYTES_MAX:
        raise FormatError(f"the path has {len(path)} bytes; at most {PATH_BYTES_MAX} are possible")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        # Through a symbolic link '..' is not the parent that the text shows.
        raise FormatError(f"{quoted(path)} holds '..'; write the path that is meant")
    return b"/" + b"/".join(parts)


def _glob(path: bytes) -> tuple[bool, bytes]:
    r"""Return whether the path is a glob, and the path with ``\x`` resolved as glob(3) does.

    Without ``*``, ``?`` or ``[`` a path is taken as it is, backslashes and all.
    """
    if _MAGIC.isdisjoint(path):
        return False, path
    parts = re.findall(_GLOB_PART, path)
    if any(magic for _, magic in parts):
        return True, re.sub(_GLOB_PART, _bracketed, path)
    if any(escaped in (b"*", b"?", b"[") for escaped, _ in parts):
        return False, re.sub(_GLOB_PART, lambda match: match[1] or match[0], path)
    return False, path


def _bracketed(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        return match[0]
    return b"[" + match[1] + b"]" if match[1] in (b"*", b"?", b"[") else match[1]


def _absolute_path(value: bytes) -> bytes:
    if value.upper() == b"AUTO":
        raise WithoutEffect(
            "AUTO means Samhain's compiled-in path with the host's name; write the path"
        )
    return normalise(_unquote(value))


MATCHED_PATH: Final = Kind("an absolute path, quotes, escapes and globs allowed", _matched_path)
ABSOLUTE_PATH: Final = Kind("an absolute path", _absolute_path)


# ---- expressions and masks ------------------------------------------------------


def _path_regex(value: bytes) -> "PosixRegex":
    # Here, because few need it, and everybody would wait for it.
    from needfire_protocol.rc.posix_regex import compile_posix_regex

    if not value.removeprefix(b"^").removeprefix(b"(").startswith(b"/"):
        raise FormatError(
            f"{quoted(value)} must begin with /: the expression must match the whole path"
        )
    return compile_posix_regex(value)


@dataclass(frozen=True, slots=True)
class MaskChange:
    """What ``RedefXxx`` does to the mask of a policy."""

    added: Check
    removed: Check
    replaced: Check | None = None
    """The whole mask, where an item had no sign; added and removed then apply to it."""
    without_effect: tuple[str, ...] = ()
    """Flags of Samhain that do nothing here."""

    def applied_to(self, mask: Check) -> Check:
        """Return the mask after the change."""
        base = mask if self.replaced is None else self.replaced
        return (base | self.added) & ~self.removed


_FLAGS_WITHOUT_EFFECT: Final = ("AUDIT", "TXT", "PRE")


def _mask_change(value: bytes) -> MaskChange:
    """Items apply together: Samhain's own way, where a later item without a sign throws away
    what stood before it, would make of ``CHK,MOD`` a policy that looks at the mode alone."""
    items = _text(value).replace(",", " ").split()
    if not items:
        raise FormatError("the list of flags is empty; expected for example +CHK,-MTM")
    added = removed = bare = Check(0)
    is_replaced = False
    ignored: list[str] = []
    for item in items:
        sign, name = (item[0], item[1:]) if item[0] in "+-" else ("", item)
        if name.upper() in _FLAGS_WITHOUT_EFFECT:
            ignored.append(name.upper())
            continue
        flag = _flag(name)
        if sign == "+":
            added, removed = added | flag, removed & ~flag
        elif sign == "-":
            added, removed = added & ~flag, removed | flag
        else:
            bare, is_replaced = bare | flag, True
    return MaskChange(added, removed, bare if is_replaced else None, tuple(ignored))


def _flag(name: str) -> Check:
    try:
        return Check[name.upper()]
    except KeyError:
        known = " ".join([*(flag.name or "" for flag in Check), *_FLAGS_WITHOUT_EFFECT])
        raise FormatError(f"{printable(name, 40)!r} is no flag; expected one of {known}") from None


PATH_REGEX: Final = Kind("a POSIX extended expression for whole paths", _path_regex)
MASK_CHANGE: Final = Kind("a list of flags, +FLAG, -FLAG or FLAG", _mask_change)
