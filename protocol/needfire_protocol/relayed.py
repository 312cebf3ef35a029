"""What a server says to another server of a report that it passes on: the event, and its way.

The names are those that the relay knows its clients by, one for each server below it; the receiver
puts its own name of the relay before them. The path is what no name can be, since each server gives
its own: the identities of the stores that have had the event. Where a server finds itself in a
path, the event has come round.
"""

from dataclasses import dataclass
from typing import Any, Final

from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event, pack_event, unpack_event
from needfire_protocol.limits import RELAYED_DECODING
from needfire_protocol.names import parse_client_name

__all__ = ["RELAY_IDENTITY_BYTES", "Relayed", "decode_relayed", "encode_relayed"]

RELAY_IDENTITY_BYTES: Final = 16

_PARTS: Final = frozenset({"names", "path", "event"})


@dataclass(frozen=True, slots=True)
class Relayed:
    """The body of a report of type ``RELAYED_REPORT``.

    Attributes:
        names: of whom it is, as the relay calls him: ``("web1",)`` is the relay's own client,
            ``("hall", "web1")`` one of a relay below it, none the relay itself.
        path: identities of the stores that have had it, the relay's own at the end. One for each
            name, or one more where it is an event of a server's own.
        event: as it was first reported.
    """

    names: tuple[str, ...]
    path: tuple[bytes, ...]
    event: Event

    def relays(self, relay: str) -> dict[str, bytes]:
        """Return name and identity of each server on the way, as the receiver calls them.

        Args:
            relay: the receiver's name of the one who sent it.
        """
        below = reversed(self.path)
        return {
            "/".join((relay, *self.names[:depth])): identity for depth, identity in enumerate(below)
        }


def encode_relayed(relayed: Relayed) -> bytes:
    """Return the body of a report.

    Raises:
        FormatError: the event holds text that cannot be encoded.
    """
    parts = {"names": relayed.names, "path": relayed.path, "event": pack_event(relayed.event)}
    return encode(parts)


def decode_relayed(body: bytes, *, relay: str, received_us: int) -> Relayed:
    """Return what a body says; its event has the client ``RELAY/NAME/…``.

    How long the way may be is the receiver's to say, beyond what can be decoded.

    Raises:
        FormatError: it is no relayed report.
    """
    data = decode(body, limits=RELAYED_DECODING)
    if type(data) is not dict or data.keys() != _PARTS:
        raise FormatError("a relayed report is not a map of names, path and event")
    names = tuple(_name(each) for each in _items(data["names"], "names"))
    path = tuple(_identity(each) for each in _items(data["path"], "path"))
    if not path or len(path) - len(names) not in (0, 1):
        raise FormatError(f"a relayed report has {len(names)} names, but passed {len(path)} relays")
    client = "/".join((relay, *names))
    return Relayed(names, path, unpack_event(data["event"], client=client, received_us=received_us))


def _items(value: Any, what: str) -> list[Any]:
    if type(value) is not list:
        raise FormatError(f"the {what} of a relayed report are not an array")
    return value


def _name(value: object) -> str:
    if type(value) is not str or parse_client_name(value) != value:
        raise FormatError("a name in a relayed report is none, or not in lower case")
    return value


def _identity(value: object) -> bytes:
    if type(value) is not bytes or len(value) != RELAY_IDENTITY_BYTES:
        raise FormatError(f"a relay's identity must have {RELAY_IDENTITY_BYTES} bytes")
    return value
