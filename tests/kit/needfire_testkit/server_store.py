"""Events, reports and verifiers for tests of the server's store."""

import os
from functools import lru_cache

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.severity import Severity
from needfire_protocol.srp import Verifier, make_verifier
from needfire_server.storage.base import IncomingReport

__all__ = ["NOW_US", "STREAM", "event", "incoming", "unusable", "verifier"]

NOW_US = 1_795_000_000_000_000
STREAM = bytes(range(16))


def event(
    code: str = "POLICY_MISSING",
    *,
    time_us: int = NOW_US,
    severity: Severity | None = None,
    **fields: FieldValue,
) -> Event:
    """Return an event with a random identifier."""
    words = dict.fromkeys(CATALOGUE[code].msg_fields(), "x")
    given: dict[str, FieldValue] = {"path": "/etc/passwd", **words, **fields}
    return make_event(code, severity, time_us=time_us, random_10_bytes=os.urandom(10), **given)


def incoming(sequence: int, said: Event | None = None) -> IncomingReport:
    """Return a usable report."""
    return IncomingReport(sequence, said or event(path=f"/{sequence}"), b"packed", None)


def unusable(sequence: int, body: bytes = b"\xc1") -> IncomingReport:
    """Return a report that is no event."""
    return IncomingReport(sequence, None, body, "not decodable")


@lru_cache(maxsize=8)
def verifier(password: str = "correct horse battery staple") -> Verifier:
    """Return a verifier; the same one for the same password, because making one takes a while."""
    return make_verifier(password, os.urandom)
