"""Does a pattern of the access lists match this host? (hosts_access(5), PATTERNS and WILDCARDS)

Agrees with libwrap, pattern by pattern, with two exceptions on purpose. A pattern that can only
mean addresses (``10.*``) is never compared with a name: whoever owns a reverse zone could call his
host ``10.example.net`` and be let in. And a length behind a slash that has no digit is none: to
libwrap it is 0, and ``[2001:db8::]/x`` is everybody.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from needfire_protocol.errors import FormatError
from needfire_server.addresses import plain_address

__all__ = [
    "Client",
    "HostPatterns",
    "matches_wildcards",
    "needs_name",
    "split_at_sign",
    "text_matches",
]

NESTED_FILES_MAX: Final = 4
"""How deep a file of patterns may name another."""

_UNKNOWN: Final = "unknown"
_PARANOID: Final = "paranoid"
_LENGTH: Final = re.compile(r"\+?([0-9]{1,3})(?![0-9])")
"""What libwrap reads (atoi) of the length behind a slash; whatever follows is left unread."""
_ADDRESS_CHARACTERS: Final = frozenset("0123456789./*?")


@dataclass(frozen=True, slots=True)
class Client:
    """One end of a connection, as the access lists see it."""

    address: str | None
    """In its one spelling; None where it is not known."""
    name: str | None = None
    """None where it was not looked up, or the lookup failed."""
    is_paranoid: bool = False
    """The name does not lead back to the address, so it counts for nothing."""

    @property
    def address_text(self) -> str:
        """What address patterns are compared with."""
        return self.address or _UNKNOWN

    @property
    def name_text(self) -> str:
        """What name patterns are compared with."""
        return _PARANOID if self.is_paranoid else self.name or _UNKNOWN

    @property
    def has_name(self) -> bool:
        """True where the name is known and can be relied on."""
        return self.name_text.lower() not in (_UNKNOWN, _PARANOID)


class HostPatterns:
    """Compares patterns with hosts; collects what an administrator should know about them."""

    def __init__(self, read_patterns: Callable[[str], str]) -> None:
        """Args:
        read_patterns: gives the text of a ``/file`` of patterns, empty if there is none.
        """
        self._read_patterns = read_patterns
        self.notes: list[str] = []

    def match(self, pattern: str, host: Client, depth: int = 0) -> bool:
        """True where a host pattern of a client list, or after a daemon's ``@``, matches."""
        word = pattern.upper()
        if pattern.startswith("@"):
            self.notes.append(f"{pattern}: netgroups are not looked up, so this matches nothing")
            return False
        if pattern.startswith("/"):
            return self._match_file(pattern, host, depth)
        if word == "KNOWN":
            return host.address is not None and host.has_name
        if word == "LOCAL":
            return host.has_name and "." not in host.name_text
        net, slash, mask = _split_mask(pattern)
        if slash:
            return self._match_network(pattern, net, mask, host)
        return text_matches(pattern, host.address_text) or (
            not _ADDRESS_CHARACTERS.issuperset(pattern) and text_matches(pattern, host.name_text)
        )

    def _match_file(self, path: str, host: Client, depth: int) -> bool:
        if depth >= NESTED_FILES_MAX:
            self.notes.append(f"{path}: files of patterns are nested too deeply, so it is skipped")
            return False
        return any(
            self.match(pattern, host, depth + 1) for pattern in self._read_patterns(path).split()
        )

    def _match_network(self, pattern: str, net: str, mask: str, host: Client) -> bool:
        try:
            matches = _network(net, mask)
        except FormatError as error:
            self.notes.append(f"{pattern}: {error}, so this matches nothing")
            return False
        return host.address is not None and matches(host.address)


def text_matches(pattern: str, text: str) -> bool:
    """Compare one pattern with one name or address; neither case counts."""
    folded, wanted = text.lower(), pattern.lower()
    if "*" in wanted or "?" in wanted:
        return matches_wildcards(wanted, folded)
    if wanted.startswith("."):
        return len(folded) > len(wanted) and folded.endswith(wanted)
    if wanted == "all":
        return True
    if wanted == "known":
        return folded != _UNKNOWN
    if wanted.endswith("."):
        return folded.startswith(wanted)
    if ":" in wanted:
        return _same_ipv6(wanted, folded)
    return wanted == folded


def needs_name(pattern: str) -> bool:
    """True where the host's name may decide whether the pattern matches."""
    _, host = split_at_sign(pattern)
    if host.upper() == "ALL" or host.startswith(("@", "[")):
        return False
    return host.startswith("/") or not _ADDRESS_CHARACTERS.issuperset(host)


def split_at_sign(token: str) -> tuple[str | None, str]:
    """Split ``user@host`` or ``daemon@host``; a leading ``@`` names a netgroup instead."""
    before, at, host = token[1:].partition("@")
    return (token[0] + before, host) if at else (None, token)


def matches_wildcards(pattern: str, text: str) -> bool:
    """True where ``*`` (any characters) and ``?`` (one) make the pattern the text.

    Steps back to the last star only, so it takes pattern times text steps at the most; the usual
    regular expression for it can be made to take for ever.
    """
    at = where = 0
    star, resume = -1, 0
    while where < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, where
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[where]):
            at += 1
            where += 1
        elif star >= 0:
            resume += 1
            at, where = star + 1, resume
        else:
            return False
    return all(char == "*" for char in pattern[at:])


def _split_mask(pattern: str) -> tuple[str, bool, str]:
    """Split ``net/mask``; a slash inside brackets would not be an address anyway."""
    net, slash, mask = pattern.partition("/")
    return net, bool(slash), mask


def _network(net: str, mask: str) -> Callable[[str], bool]:
    """Return the test for membership of a network.

    Raises:
        FormatError: it is none, or one that libwrap never matches.
    """
    if net.startswith("["):
        return _network_6(net, mask)
    wanted, bits = _quad(net), _mask_4(mask)
    if wanted & ~bits:
        raise FormatError("the network has bits outside its mask")
    return lambda address: ":" not in address and int(IPv4Address(address)) & bits == wanted


def _network_6(net: str, mask: str) -> Callable[[str], bool]:
    if not net.endswith("]"):
        raise FormatError("the bracket of the network is not closed")
    try:
        wanted = int(IPv6Address(net[1:-1]))
    except AddressValueError:
        raise FormatError("the network is not an IPv6 address") from None
    length = _number(mask, 0, 128)
    bits = (1 << 128) - (1 << (128 - length))
    return lambda address: ":" in address and (int(IPv6Address(address)) ^ wanted) & bits == 0


def _quad(text: str) -> int:
    try:
        return int(IPv4Address(text))
    except AddressValueError:
        raise FormatError("the network is not an IPv4 address") from None


def _mask_4(mask: str) -> int:
    """A prefix length or a dotted mask. libwrap takes neither 0 nor 255.255.255.255 for one."""
    if "." not in mask:
        length = _number(mask, 1, 32)
        return (1 << 32) - (1 << (32 - length))
    bits = _quad(mask)
    if bits == 0xFFFF_FFFF:
        raise FormatError("255.255.255.255 is no mask; write the address alone")
    return bits


def _number(text: str, least: int, most: int) -> int:
    found = _LENGTH.match(text)
    if found is None or not least <= int(found[1]) <= most:
        raise FormatError(f"the length after the slash is not a number from {least} to {most}")
    return int(found[1])


def _same_ipv6(pattern: str, address: str) -> bool:
    inner = pattern[1:-1] if pattern.startswith("[") and pattern.endswith("]") else pattern
    try:
        # Not plain_address on both sides: [::ffff:192.0.2.1] does not name the IPv4 host.
        return ":" in address and plain_address(inner) == address
    except FormatError:
        return False
