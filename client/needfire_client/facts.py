"""What is true of this host: the answers to the tests of ``@if`` in a configuration file."""

import os
from collections.abc import Callable

from needfire_client.digests import has_digest

__all__ = ["HostFacts"]


class HostFacts:
    """Facts (``needfire_protocol.rc.conditions``) of the running host."""

    __slots__ = ("_hostname", "system")

    def __init__(self, hostname: str | Callable[[], str] | None = None) -> None:
        """Ask the system once; hostname is given where the host goes by another name."""
        uname = os.uname()
        self._hostname = hostname
        self.system = f"{uname.sysname}:{uname.release}:{uname.machine}"

    @property
    def hostname(self) -> str:
        """The name; asks the resolver when it is needed, which it is in few configurations."""
        found = self._hostname
        if not isinstance(found, str):
            import socket

            found = self._hostname = (found or socket.getfqdn)()
        return found

    def file_exists(self, path: bytes, /) -> bool:
        """True where something is at the path; a dangling link counts as nothing, as in Samhain."""
        try:
            return os.path.exists(path)
        except ValueError:  # a NUL inside: no such path can exist
            return False

    def interface_exists(self, address: str, /) -> bool:
        """True where a local interface has the address: only those can be bound to."""
        import ipaddress
        import socket

        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if ip.is_unspecified or ip.is_multicast:  # may be bound to, but no interface has it
            return False
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
        except OSError:
            return False
        return True

    def has_digest(self, algorithm: str, /) -> bool:
        """True where this host can make digests of this name."""
        return has_digest(algorithm)
