"""The one spelling of an IP address, so that two texts of the same address compare equal."""

import socket
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from needfire_protocol.errors import FormatError

__all__ = ["is_address", "is_loopback", "neighbourhood", "plain_address"]

_KEPT: Final = 8_192
"""Answers that are kept of each function: each log-in asks some twenty times for one address, and
to parse one takes longer than all else that is done about it."""


@lru_cache(maxsize=_KEPT)
def plain_address(text: str) -> str:
    """Return the address in lower case, in its shortest form, and without a scope.

    An IPv4 address inside an IPv6 one (``::ffff:192.0.2.1``, what a dual-stack socket reports)
    becomes the IPv4 address: access lists and name servers know the host by that one.

    Raises:
        FormatError: the text is no IP address.
    """
    if _is_plain_ipv4(text):
        return text
    try:
        # By way of the packed form, which has no scope: fe80::1%eth0 and fe80::1 are one host.
        address = ip_address(ip_address(text).packed)
    except ValueError:
        raise FormatError(f"{text[:64]!r} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


@lru_cache(maxsize=_KEPT)
def is_address(text: str) -> bool:
    """True where the text is an IP address in any usual spelling."""
    try:
        plain_address(text)
    except FormatError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """True where the address, in its one spelling, belongs to this machine alone."""
    return ip_address(address).is_loopback


@lru_cache(maxsize=_KEPT)
def neighbourhood(address: str) -> str:
    """Return what the limits for one peer count by: an IPv6 host has a whole /64 to itself.

    The address must be in its one spelling.
    """
    if _is_plain_ipv4(address):
        return address
    return f"{ip_address(address).packed[:8].hex()}/64"


def _is_plain_ipv4(text: str) -> bool:
    """True for what the kernel calls an IPv4 peer; fifty times as fast as to parse it."""
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, text)) == text
    except (OSError, ValueError):
        return False
