"""What the server takes from another server that passes reports on, and what it refuses.

A relay is a client that the configuration allows to speak for others (RelayClient). It can only do
so below its own name: whatever it says, its reports are those of ``relay/…``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.limits import RELAYS_MAX
from needfire_protocol.messages import RELAYED_REPORT, Report
from needfire_protocol.relayed import RELAY_IDENTITY_BYTES, Relayed, decode_relayed
from needfire_server.clock import monotonic_s
from needfire_server.intake import read_report
from needfire_server.storage.base import IncomingReport

__all__ = ["IDENTITY_SECRET", "RelayDesk", "Way", "identity_of"]

IDENTITY_SECRET: Final = "relay-identity"  # noqa: S105 -- its name
"""Name of the random number in the store of which its identity is made."""

_TOLD_AGAIN_S: Final = 3_600.0
"""Seconds between two events about the same. In a circle of relays each event comes round: one for
each report that is refused would never end."""

_LOOP: Final = "it had been here before"
_TOO_FAR: Final = f"it had passed more than {RELAYS_MAX} relays"


def identity_of(secret: bytes) -> bytes:
    """Return by what a store is known in the paths of relayed reports; no secret itself."""
    return secret[:RELAY_IDENTITY_BYTES]


class Way:
    """Reads the relayed reports of one batch, and remembers which way they came.

    Attributes:
        relays: identity by name of every server that they passed, as we call it.
        refused: how many were not taken, by the reason.
    """

    def __init__(self, relay: str, relay_identity: bytes, identity: bytes) -> None:
        """Args:
        relay: name of the client that sends them.
        relay_identity: what it announced itself as.
        identity: our own.
        """
        self.relays: dict[str, bytes] = {}
        self.refused: Counter[str] = Counter()
        self._relay = relay
        self._relay_identity = relay_identity
        self._identity = identity

    def read_all(self, reports: Iterable[Report], received_us: int) -> list[IncomingReport]:
        """Return what is to be stored of reports: the event, the raw body, or only the number."""
        return [
            self._read(report, received_us)
            if report.type == RELAYED_REPORT
            else read_report(report, self._relay, received_us)
            for report in reports
        ]

    def _read(self, report: Report, received_us: int) -> IncomingReport:
        try:
            relayed = self._decode(report.body, received_us)
        except FormatError as error:
            return IncomingReport(report.sequence, None, report.body, str(error), is_relayed=True)
        reason = self._objection(relayed)
        if reason is not None:
            # It counts as come, else it would come for ever and hold up all that follow.
            self.refused[reason] += 1
            return IncomingReport(report.sequence, None, b"", None, is_relayed=True)
        self.relays.update(relayed.relays(self._relay))
        return IncomingReport(report.sequence, relayed.event, report.body, None, is_relayed=True)

    def _decode(self, body: bytes, received_us: int) -> Relayed:
        relayed = decode_relayed(body, relay=self._relay, received_us=received_us)
        if relayed.path[-1] != self._relay_identity:
            raise FormatError("a relayed report does not come from the relay that sent it")
        return relayed

    def _objection(self, relayed: Relayed) -> str | None:
        if self._identity in relayed.path:
            return _LOOP
        return _TOO_FAR if len(relayed.path) > RELAYS_MAX else None


class RelayDesk:
    """Says what was wrong with relays, each thing once an hour."""

    def __init__(
        self,
        identity: bytes,
        raise_event: Callable[..., object],
        steady_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self.identity = identity
        """By what this store is known in the paths of relayed reports."""
        self._raise_event = raise_event
        self._steady_s = steady_s
        self._told_s: dict[tuple[str, str], float] = {}

    def not_allowed(self, client: str, peer: str) -> None:
        """A client wanted to speak for others."""
        self._tell("RELAY_REFUSED", client, peer=peer)

    def refused(self, client: str, refused: Mapping[str, int]) -> None:
        """Reports came round, or from too far."""
        for reason, count in refused.items():
            self._tell("RELAYED_REPORTS_REFUSED", client, reason=reason, count=count)

    def too_many(self, client: str, limit: int) -> None:
        """A relay speaks for more clients than states are kept of."""
        self._tell("RELAYED_CLIENTS_TOO_MANY", client, limit=limit)

    def _tell(self, code: str, client: str, **fields: Any) -> None:
        now_s = self._steady_s()
        key = (f"{code} {fields.get('reason', '')}", client)
        if now_s - self._told_s.get(key, float("-inf")) >= _TOLD_AGAIN_S:
            self._told_s[key] = now_s
            self._raise_event(code, client=client, **fields)
