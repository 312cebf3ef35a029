"""May this peer connect? The access lists of tcp_wrappers (hosts_access(5), hosts_options(5)).

hosts.allow is asked first, then hosts.deny; the first rule that matches decides, and without one
the peer is let in. Our daemon is called ``needfire``, and ``yule`` as in Samhain, so that existing
lists go on working. Nothing in the lists is ever executed: an option that would run a command is
noted, and where the command was to decide, the peer is refused.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.escape import printable
from needfire_server.access_patterns import (
    Client,
    HostPatterns,
    needs_name,
    split_at_sign,
    text_matches,
)
from needfire_server.access_rules import Rule, alternatives, parse_rules
from needfire_server.addresses import plain_address
from needfire_server.lookup import PeerName

__all__ = [
    "DAEMON_NAMES",
    "AccessLists",
    "Client",
    "Decision",
    "decide",
    "patterns_need_name",
]

DAEMON_NAMES: Final = ("needfire", "yule")
"""What the lists may call this server."""

_UNKNOWN_SERVER: Final = Client(None)

FILE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one list: it is read again and again, for those who come at one stroke."""
_ROOM_TO_GROW: Final = 4096


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a peer may connect, and why."""

    allowed: bool
    rule: str | None = None
    """The list and line that decided; None where no rule did."""
    notes: tuple[str, ...] = ()
    """What an administrator should know about the lists; the same ones for each peer."""


_NOTHING_SAID: Final = Decision(True)


class AccessLists:
    """Both lists as they are when the first peer is checked; for peers that come at one stroke.

    A list that does not exist is empty. One that cannot be read is empty as well, as for libwrap,
    with a note. One that is too large to be read is our limit and not the administrator's wish, so
    then the peer is refused.
    """

    def __init__(
        self, allow_file: str | os.PathLike[str], deny_file: str | os.PathLike[str]
    ) -> None:
        self._files = allow_file, deny_file
        self._texts: tuple[str, str] | None = None
        self._notes: list[str] = []
        self._refusal: Decision | None = None
        """Of everybody, where a list is too large."""

    def check_at_once(self, peer_address: str, found: PeerName | None = None) -> Decision | None:
        """Decide about a peer; None where a pattern may need its name, and it was not looked up.

        Args:
            found: the name, where it was looked up.

        Raises:
            FormatError: the address is none.
        """
        if self._texts is None and self._refusal is None:
            self._texts = self._read()
        if self._texts is None:
            return self._refusal
        notes = list(self._notes)
        peer = plain_address(peer_address)
        if not any(map(_says_anything, self._texts)):
            # As they are on most hosts: there, or not there, and without a rule.
            return Decision(True, notes=tuple(notes)) if notes else _NOTHING_SAID
        if found is None:
            if any(map(patterns_need_name, self._texts)):
                return None
            found = PeerName(None)
        decision = decide(
            *self._texts,
            DAEMON_NAMES,
            Client(peer, found.name, found.is_paranoid),
            read_patterns=lambda path: _read_patterns(path, notes),
        )
        return Decision(decision.allowed, decision.rule, (*notes, *decision.notes))

    def _read(self) -> tuple[str, str] | None:
        allow_file, deny_file = self._files
        try:
            return _read_list(allow_file, self._notes), _read_list(deny_file, self._notes)
        except StorageError as error:
            self._refusal = Decision(False, str(error), tuple(self._notes))
            return None


def decide(
    allow_text: str,
    deny_text: str,
    daemon_names: Sequence[str],
    client: Client,
    *,
    server: Client = _UNKNOWN_SERVER,
    read_patterns: Callable[[str], str] = lambda path: "",
) -> Decision:
    """Return what the two lists say about a client.

    Args:
        read_patterns: gives the text of a file of patterns that a list names.
    """
    patterns = HostPatterns(read_patterns)
    notes: list[str] = []
    decided: Decision | None = None
    for table, text, verdict in (
        ("hosts.allow", allow_text, True),
        ("hosts.deny", deny_text, False),
    ):
        parsed = parse_rules(text)
        notes.extend(f"{table} {note}" for note in parsed.notes)
        if decided is not None:
            continue
        rule = _first_match(table, parsed.rules, daemon_names, client, server, patterns)
        if rule is not None:
            place = f"{table} line {rule.line}"
            allowed = _apply_options(rule.options, verdict, place, notes)
            decided = Decision(allowed, place)
    notes.extend(patterns.notes)
    return replace(decided or Decision(True), notes=tuple(dict.fromkeys(notes)))


def patterns_need_name(text: str, daemon_names: Sequence[str] = DAEMON_NAMES) -> bool:
    """True where a rule for one of these daemons may depend on the name of the client.

    Errs on the side of True: a file of patterns is not opened to find out.
    """
    return any(
        needs_name(pattern)
        for rule in parse_rules(text).rules
        if any(_is_daemon(token, daemon_names) for token in rule.daemons)
        for pattern in rule.clients
        if pattern.upper() != "EXCEPT"
    )


def _says_anything(text: str) -> bool:
    if not text:
        return False
    parsed = parse_rules(text)
    return bool(parsed.rules or parsed.notes)


def _first_match(
    table: str,
    rules: Iterable[Rule],
    daemon_names: Sequence[str],
    client: Client,
    server: Client,
    patterns: HostPatterns,
) -> Rule | None:
    def serves(token: str) -> bool:
        daemon, host = split_at_sign(token)
        return _is_daemon(token, daemon_names) and (daemon is None or patterns.match(host, server))

    def names_client(token: str) -> bool:
        user, host = split_at_sign(token)
        return patterns.match(host, client) and (
            user is None or _is_unknown_user(user, patterns.notes)
        )

    for rule in rules:
        noted = len(patterns.notes)
        matches = _list_matches(rule.daemons, serves) and _list_matches(rule.clients, names_client)
        place = f"{table} line {rule.line}"
        patterns.notes[noted:] = [f"{place}: {note}" for note in patterns.notes[noted:]]
        if matches:
            return rule
    return None


def _list_matches(tokens: tuple[str, ...], matches: Callable[[str], bool]) -> bool:
    """Apply EXCEPT: ``a EXCEPT b EXCEPT c`` is ``a EXCEPT (b EXCEPT c)``."""
    result = False
    for group in reversed(alternatives(tokens)):
        # From the right and not by recursion: a line may hold thousands of EXCEPTs.
        result = any(map(matches, group)) and not result
    return result


def _is_daemon(token: str, daemon_names: Sequence[str]) -> bool:
    """Token by token and not name by name: ``ALL EXCEPT yule`` must leave us out altogether."""
    daemon, host = split_at_sign(token)
    return any(text_matches(host if daemon is None else daemon, name) for name in daemon_names)


def _is_unknown_user(user: str, notes: list[str]) -> bool:
    """libwrap would ask the client who its user is (RFC 1413); whoever lies decides the answer.

    Nobody is asked here, so the user is unknown, as for every host that runs no such service.
    """
    notes.append(f"{user}@: users are not looked up; only ALL and UNKNOWN match before the @")
    return text_matches(user, "unknown")


_TAKES_VALUE: Final = {
    "aclexec": True,
    "allow": False,
    "banners": True,
    "deny": False,
    "group": True,
    "keepalive": False,
    "linger": True,
    "nice": None,
    "rfc931": None,
    "setenv": True,
    "severity": True,
    "spawn": True,
    "twist": True,
    "umask": True,
    "user": True,
}
"""The options of hosts_options(5): whether each has a value; None where it may have one."""
_LAST: Final = frozenset(("allow", "deny", "twist"))


def _apply_options(options: tuple[str, ...], verdict: bool, place: str, notes: list[str]) -> bool:
    """Return what the options make of the verdict of their rule.

    A mistake refuses the peer, in either list: hosts_options(5), DIAGNOSTICS.
    """
    for index, option in enumerate(options):
        name, value = _split_option(option)
        mistake = _option_mistake(name, value, is_last=index == len(options) - 1)
        if mistake is not None:
            notes.append(f"{place}: {mistake}; the peer is refused")
            return False
        if name in ("allow", "deny"):
            return name == "allow"
        if name in ("twist", "aclexec"):
            notes.append(f"{place}: {name} is never executed, so the peer is refused")
            return False
        notes.append(f"{place}: {name} has no effect here")
    return verdict


def _split_option(option: str) -> tuple[str, str]:
    """Split ``keyword value`` or ``keyword=value``."""
    for index, char in enumerate(option):
        if char in "= \t":
            value = option[index:].strip().removeprefix("=").strip()
            return option[:index].lower(), value
    return option.lower(), ""


def _option_mistake(name: str, value: str, *, is_last: bool) -> str | None:
    shown = printable(name, 40)
    if name not in _TAKES_VALUE:
        return f"{shown!r} is not an option" if name else "an option is empty"
    wants = _TAKES_VALUE[name]
    if wants is True and not value:
        return f"the option {shown} needs a value"
    if wants is False and value:
        return f"the option {shown} takes no value"
    if name in _LAST and not is_last:
        return f"the option {shown} must be the last one"
    return None


def _read_list(path: str | os.PathLike[str], notes: list[str]) -> str:
    try:
        return _read_regular_file(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        shown = printable(os.fspath(path), 200)
        notes.append(f"{shown} cannot be read ({error.strerror}), so it counts as empty")
        return ""


def _read_patterns(path: str, notes: list[str]) -> str:
    """A file of patterns that cannot be read matches nothing, as for libwrap."""
    try:
        return _read_list(path, notes)
    except StorageError as error:
        notes.append(str(error))
        return ""


def _read_regular_file(path: str | os.PathLike[str]) -> str:
    # Not blocking, and then looked at: a FIFO in its place would stop the server for good.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        data = _read_whole(handle, status.st_size)
    finally:
        os.close(handle)
    if len(data) > FILE_BYTES_MAX:
        shown = printable(os.fspath(path), 200)
        raise StorageError(f"{shown} is larger than {FILE_BYTES_MAX} bytes")
    return data.decode("utf-8", "replace")


def _read_whole(handle: int, likely_bytes: int) -> bytes:
    """Return all there is, or more than may be.

    Room for what is likely, and not for what may be: to get that takes ten times as long as to read.
    """
    data, room = b"", min(likely_bytes, FILE_BYTES_MAX) + _ROOM_TO_GROW
    while len(data) <= FILE_BYTES_MAX and (piece := os.read(handle, room)):
        data += piece
    return data
