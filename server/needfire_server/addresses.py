"""The one spelling of an IP address, so that two texts of the same address compare equal."""

from ipaddress import IPv6Address, ip_address

from needfire_protocol.errors import FormatError

__all__ = ["is_address", "is_loopback", "neighbourhood", "plain_address"]


def plain_address(text: str) -> str:
    """Return the address in lower case, in its shortest form, and without a scope.

    An IPv4 address inside an IPv6 one (``::ffff:192.0.2.1``, what a dual-stack socket reports)
    becomes the IPv4 address: access lists and name servers know the host by that one.

    Raises:
        FormatError: the text is no IP address.
    """
    try:
        # By way of the packed form, which has no scope: fe80::1%eth0 and fe80::1 are one host.
        address = ip_address(ip_address(text).packed)
    except ValueError:
        raise FormatError(f"{text[:64]!r} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


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


def neighbourhood(address: str) -> str:
    """Return what the limits for one peer count by: an IPv6 host has a whole /64 to itself.

    The address must be in its one spelling.
    """
    parsed = ip_address(address)
    return address if parsed.version == 4 else f"{parsed.packed[:8].hex()}/64"
