"""Where the server is: ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``."""

from typing import Final

from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.plain_classes import dataclass

__all__ = ["DEFAULT_PORT", "ServerAddress"]

DEFAULT_PORT: Final = 49777

_HOST_LENGTH_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Host name or address of a server, and the port."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> "ServerAddress":
        """Return the address that a person wrote.

        A bare IPv6 address needs no brackets as long as no port follows.

        Raises:
            FormatError: the text is no such address.
        """
        stripped = text.strip()
        if stripped.startswith("["):
            host, closing, rest = stripped[1:].partition("]")
            if not closing or (rest and not rest.startswith(":")):
                raise _unusable(text)
            port_text = rest[1:] if rest else None
        elif stripped.count(":") == 1:
            host, _, port_text = stripped.partition(":")
        else:
            host, port_text = stripped, None
        return cls(_host(host, text), default_port if port_text is None else _port(port_text, text))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _host(host: str, text: str) -> str:
    if not host or len(host) > _HOST_LENGTH_MAX or not host.isascii() or not host.isprintable():
        raise _unusable(text)
    if any(char in "/@ []" for char in host):
        raise _unusable(text)
    return host


def _port(port_text: str, text: str) -> int:
    if not (port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5):
        raise _unusable(text)
    port = int(port_text)
    if not 1 <= port <= 65_535:
        raise _unusable(text)
    return port


def _unusable(text: str) -> FormatError:
    return FormatError(
        f"{printable(text, 80)!r} is not the address of a server; expected HOST, HOST:PORT or "
        f"[IPV6]:PORT, for example loghost.example.org:{DEFAULT_PORT}"
    )
