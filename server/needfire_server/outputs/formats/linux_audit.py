"""The event as a record of the Linux audit daemon, which ausearch and aureport read.

    type=USER_LOGIN msg=audit(1795290047.123:2335): pid=0 uid=4294967295 auid=4294967295
    ses=4294967295 msg='op=login acct="web1" event="NEW_CLIENT" … addr=192.0.2.7 … res=success'

(on one line). Text that others choose stands in quotes, or as the hexadecimal digits of its UTF-8 where
it holds more than plain characters, as the audit library writes it. That leaves an apostrophe and
an equals sign as they are; here they are hexadecimal as well, because ausearch takes the first
``res=`` that it finds anywhere in a record, be it in the name of a file.

What a client reports has ``node=NAME`` before it, as the daemon itself writes where hosts come together,
and is a TRUSTED_APP, whatever its code: types that tell of log-ins, keys and accounts are the
server's own. Records of a host's own audit daemon come out as they were only where that is asked for.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from needfire_protocol.catalogue import CATALOGUE, is_success
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable, unescape_bytes
from needfire_protocol.event import Event, FieldValue

__all__ = ["LINE_BYTES_MAX", "linux_audit_line"]

LINE_BYTES_MAX: Final = 8_900
"""The daemon's own limit is 8,970 bytes (MAX_AUDIT_MESSAGE_LENGTH); its tools read no more of a line."""

_Pair: TypeAlias = tuple[str, str]
"""Name and value as they stand in a record."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of the server's own events is written.

    Attributes:
        type: the record's, of libaudit's list.
        op: what was done.
        kind: with what kind of key.
        whom: the field that acct is taken from: whose account it is about.
    """

    type: str
    op: str
    kind: str = ""
    whom: str = "client"


_SHAPES: Final[Mapping[str, _Shape]] = {
    "SESSION_KEY_MISMATCH": _Shape("USER_AUTH", "SRP"),
    "NOT_IN_CLIENT_LIST": _Shape("USER_AUTH", "SRP"),
    "LOOKUP_REQUIRED": _Shape("USER_ACCT", "lookup"),
    "NEW_CLIENT": _Shape("USER_LOGIN", "login"),
    "CLIENT_RESUMED": _Shape("USER_START", "resume"),
    "CONNECTION_CLOSED": _Shape("USER_END", "close"),
    "CONNECTION_TIMEOUT": _Shape("USER_END", "timeout"),
    "FORCE_AUTHENTICATION": _Shape("CRYPTO_KEY_USER", "destroy", kind="session"),
    "SIGNATURE_MISMATCH": _Shape("CRYPTO_FAILURE_USER", "verify", kind="session"),
    "MSG_SIGNATURE_MISMATCH": _Shape("CRYPTO_FAILURE_USER", "verify", kind="session"),
    "VERIFIERS_SEALED": _Shape("CRYPTO_KEY_USER", "use", kind="seal"),
    "SEAL_KEY_CHANGED": _Shape("CRYPTO_KEY_USER", "change", kind="seal", whom="user"),
    "SEAL_KEY_LOST": _Shape("CRYPTO_KEY_USER", "destroy", kind="seal", whom="user"),
    "AUDIT_KEY_HANDED_OVER": _Shape("CRYPTO_KEY_USER", "change", kind="audit", whom="user"),
    "REFUSED_CONNECTION": _Shape("ANOM_LOGIN_LOCATION", "libwrap"),
    "TOO_MANY_CONNECTIONS": _Shape("ANOM_LOGIN_SESSIONS", "connect"),
    "SESSION_IN_USE": _Shape("ANOM_LOGIN_SESSIONS", "login"),
    "ADMIN_REFUSED": _Shape("USER_ACCT", "connect", whom="user"),
    "AUTHZ_FAIL": _Shape("DAC_CHECK", "request", whom="user"),
    "ADMIN_LOCKED": _Shape("ANOM_LOGIN_FAILURES", "lock", whom="user"),
    "ADMIN_UNLOCKED": _Shape("RESP_ACCT_UNLOCK_TIMED", "unlock", whom="user"),
    "CLIENT_REGISTERED": _Shape("ADD_USER", "register"),
    "CLIENT_REMOVED": _Shape("DEL_USER", "remove"),
    "START": _Shape("SERVICE_START", "start"),
    "EXIT": _Shape("SERVICE_STOP", "stop"),
    "CONFIGURATION_RELOADED": _Shape("USYS_CONFIG", "reload", whom="user"),
    "SETTINGS_CHANGED": _Shape("USYS_CONFIG", "change", whom="user"),
    "CONFIGURATION_PUT": _Shape("USYS_CONFIG", "put", whom="user"),
    "BASELINE_PUT": _Shape("USYS_CONFIG", "put", whom="user"),
    "SOFTWARE_CHANGED": _Shape("SOFTWARE_UPDATE", "update"),
}
_OTHER: Final = "TRUSTED_APP"

_UNSET: Final = 4_294_967_295
"""What the kernel writes for a user or a session that there is none of."""
_MARKS: Final = ("resent", "shortened")
"""Fields that readers count on; they come before those for which there may be no room."""
_TAKEN: Final = re.compile(
    r"(?:pid|uid|ses|subj|context|tclass|vm|comm|acct|hostname|addr|cwd|terminal|exe|res|result|"
    r"nf_id)$"
)
"""What ausearch looks for, also at the end of a longer name; and what is there already."""
_WHOM_TEXT_MAX: Final = 255
_SHORTENED: Final = "shortened"
_ENDING: Final = f" {_SHORTENED}=yes"

# Of records that hosts report.
_HOST_DAEMON: Final = "auditd"
_TYPE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}|UNKNOWN\[\d{1,5}\]", re.ASCII)
_SERIAL: Final = range(2**64)
_OF_SENDER: Final = ("pid", "uid", "auid", "ses", "subj")
_IN_MESSAGE: Final = (
    *("op", "kind", "fp", "direction", "cipher", "ksize", "mac", "pfs", "spid", "suid"),
    *("rport", "laddr", "lport", "grantors", "acct", "id"),
)
_AT_END: Final = ("exe", "hostname", "addr", "terminal", "res")
_KERNEL_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "LOGIN": ("pid", "uid", "subj", "old-auid", "auid", "tty", "old-ses", "ses", "res"),
    "SYSCALL": (
        *("arch", "syscall", "success", "exit", "a0", "a1", "a2", "a3", "items", "ppid", "pid"),
        *("auid", "uid", "gid", "euid", "suid", "fsuid", "egid", "sgid", "fsgid", "tty", "ses"),
        *("comm", "exe", "subj", "key"),
    ),
    "PROCTITLE": ("proctitle",),
}
"""Fields of the kernel's records, in their order."""
_FROM_PROGRAMS: Final = re.compile(
    r"(?:USER|CRED|CRYPTO|ADD|DEL|ACCT|GRP|ROLE|SERVICE|SYSTEM|SOFTWARE|USYS|VIRT|RESP)(?:_|$)|"
    r"DAC_CHECK$|TRUSTED_APP$|TEST$|ANOM_LOGIN_"
)
"""Types of records that programs hand to the kernel: what they say stands within ``msg='…'``."""
_ENCODED: Final = frozenset(
    {"acct", "exe", "comm", "key", "proctitle", "cwd", "cmd", "name", "path"}
)
"""Fields whose text somebody else chooses. All others are words of the kernel or of the program."""
_UNKNOWN: Final[Mapping[str, str]] = {"tty": "(none)", "key": "(null)", "acct": '"?"', "exe": '"?"'}
_OWN_NAMES: Final = frozenset({"type", "msg", "node"})

_PLAIN: Final = re.compile(rb"[!#-&(-<>-~]+")
"""Neither a quote nor a blank, an apostrophe or an equals sign; ASCII."""


def linux_audit_line(event: Event, *, with_host_records: bool = False) -> str:
    """Return the event as a record, ASCII on one line without the newline.

    Args:
        with_host_records: records of a client's own audit daemon keep their types. The tools' reports
            do not show whose they are, so whoever has a client's secret can put log-ins into them.
    """
    node = "" if event.client is None else f"node={_word(event.client)} "
    seconds, micros = divmod(event.time_us, 1_000_000)
    stamp = f"audit({seconds}.{micros // 1_000:03}"
    entry = CATALOGUE.get(event.code)
    if with_host_records and entry is not None and entry.written_by == _HOST_DAEMON:
        type_, serial = event.fields.get("record"), event.fields.get("serial")
        if _is_type(type_) and type(serial) is int and serial in _SERIAL:
            head = f"{node}type={type_} msg={stamp}:{serial}):"
            return _host_line(str(type_), event.fields, head)
    # Of two events within a millisecond, the last digits of their ids are random.
    serial = int(event.id[-8:], 16)
    shape = _SHAPES.get(event.code) if event.client is None else None
    type_ = _OTHER if shape is None else shape.type
    return _own_line(event, shape, f"{node}type={type_} msg={stamp}:{serial}):")


def _own_line(event: Event, shape: _Shape | None, head: str) -> str:
    fields = dict(event.fields)
    is_ours = event.client is None
    uid = fields.pop("uid") if is_ours and _is_uid(fields.get("uid")) else _UNSET
    address, port = _address(fields.pop("peer", None)) if is_ours else ("?", "")
    whom = "user" if shape is None else shape.whom
    acct = fields.pop(whom, None) if is_ours else None
    sender = f"pid=0 uid={uid} auid={_UNSET} ses={_UNSET}"
    first = f"op={event.code.lower() if shape is None else shape.op}"
    if shape is not None and shape.kind:
        first += f" kind={shape.kind}"
    if port:
        first += f" rport={port}"
    if acct is not None:
        first += f" acct={_quoted(printable(str(acct), _WHOM_TEXT_MAX))}"
    exe = "needfire-server" if is_ours else "needfire-agent"
    last = f'exe="{exe}" hostname=? addr={address} terminal=? res={_result(event)}'
    room = LINE_BYTES_MAX - len(f"{head} {sender} msg='{first} {last}'")
    return f"{head} {sender} msg='{first}{_within(_details(event, fields), room)} {last}'"


def _result(event: Event) -> str:
    told = event.fields.get("outcome")
    return "success" if is_success(event.code, event.severity, told) else "failed"


def _details(event: Event, fields: Mapping[str, FieldValue]) -> Iterator[_Pair]:
    yield "event", _quoted(event.code)
    yield "class", _quoted(event.event_class.value)
    yield "severity", _quoted(event.severity.word)
    yield "nf_id", _quoted(event.id)
    marks = [name for name in _MARKS if name in fields]
    taken: set[str] = set()
    for name in [*marks, *(name for name in fields if name not in marks)]:
        # The path keeps its name: ausearch -i decodes fields that it knows.
        own = name if name == "path" else f"nf_{name}"
        while _TAKEN.search(own) or own in taken:
            own += "_"
        taken.add(own)
        yield own, _detail(fields[name])
    yield "text", _quoted(event.msg)


def _host_line(type_: str, fields: Mapping[str, FieldValue], head: str) -> str:
    """Return a record of a host's own audit daemon: its fields in the order of its type."""
    given = {name: value for name, value in fields.items() if name not in ("record", "serial")}
    marks = [*_taken(given, _MARKS)]
    order = _KERNEL_ORDERS.get(type_, ())
    if order or _FROM_PROGRAMS.match(type_) is None:
        pairs = [*marks, *_taken(given, order), *_rest(given)]
        return head + _within(pairs, LINE_BYTES_MAX - len(head))
    room = LINE_BYTES_MAX - len(f"{head} msg=''")
    sender = _within(_taken(given, _OF_SENDER), room // 2)
    first, last = [*_taken(given, _IN_MESSAGE)], [*_taken(given, _AT_END)]
    message = _within([*marks, *first, *_rest(given), *last], room - len(sender))
    return f"{head}{sender} msg='{message[1:]}'"


def _taken(given: dict[str, FieldValue], order: Iterable[str]) -> Iterator[_Pair]:
    """Yield those fields that there are in this order, and take them away."""
    for name in order:
        field = name.replace("-", "_")
        if field in given:
            yield name, _host_value(name, given.pop(field))


def _rest(given: Mapping[str, FieldValue]) -> Iterator[_Pair]:
    for name, value in given.items():
        own = name
        while own in _OWN_NAMES or (own != name and own in given):
            own += "_"
        yield own, _host_value(name, value)


def _host_value(name: str, value: FieldValue) -> str:
    if value is None:
        return _UNKNOWN.get(name, "?")
    if isinstance(value, str):
        return _quoted(_raw(value)) if name in _ENCODED else _word(value)
    return _number(value)


def _within(pairs: Iterable[_Pair], room: int) -> str:
    """Return the pairs for which there is room, each behind a blank, and whether one was left out."""
    room -= len(_ENDING)
    texts, is_cut = [], False
    for name, value in pairs:
        text = f" {name}={value}"
        if name == _SHORTENED or len(text) > room:
            is_cut = True
            continue
        room -= len(text)
        texts.append(text)
    return "".join(texts) + (_ENDING if is_cut else "")


def _detail(value: FieldValue) -> str:
    if value is None:
        return "?"
    return _quoted(value) if isinstance(value, str) else _number(value)


def _number(value: int) -> str:
    return str(value) if type(value) is int else ("yes" if value else "no")


def _quoted(text: str | bytes) -> str:
    """Return text that somebody chose; nothing in it ends it."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _PLAIN.fullmatch(raw) is None and raw:
        return raw.hex().upper()
    return f'"{raw.decode("ascii")}"'


def _word(text: str) -> str:
    """Return a word without quotes; what is none has the form of other text."""
    return text if _PLAIN.fullmatch(text.encode("utf-8", "surrogatepass")) else _quoted(text)


def _raw(text: str) -> bytes:
    """Return the bytes that an agent made printable; of any other text, its own."""
    try:
        return unescape_bytes(text)
    except FormatError:
        return text.encode("utf-8", "surrogatepass")


def _address(peer: FieldValue) -> _Pair:
    """Return address and port of ``192.0.2.7``, ``192.0.2.7:4711`` or ``[2001:db8::7]:4711``."""
    if not isinstance(peer, str) or not peer or len(peer) > _WHOM_TEXT_MAX:
        return "?", ""
    found = re.fullmatch(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:]+)):(?P<port>[0-9]{1,5})", peer)
    return (
        (_word(peer), "") if found is None else (_word(found["v6"] or found["v4"]), found["port"])
    )


def _is_type(value: FieldValue) -> bool:
    return isinstance(value, str) and _TYPE.fullmatch(value) is not None


def _is_uid(value: FieldValue) -> bool:
    return type(value) is int and 0 <= value <= _UNSET
