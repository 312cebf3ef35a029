"""What the server counts, for Prometheus: names, buckets, and one place to add to them.

No label ever holds what a peer chose: the number of series does not depend on who connects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from needfire_server.clock import now_us

__all__ = ["HANDSHAKE_OUTCOMES", "REPORT_RESULTS", "Metrics"]

HANDSHAKE_OUTCOMES: Final = (
    *("negotiated", "resumed", "wrong_password", "unknown_name", "lookup_refused"),
    *("session_unknown", "session_superseded", "session_expired"),
    *("protocol_error", "closed", "timed_out", "store_failed", "busy", "too_often"),
)
REPORT_RESULTS: Final = ("accepted", "duplicate", "unusable", "refused")
REFUSAL_REASONS: Final = ("access_list", "connection_limit", "handshake_limit")

_COMMIT_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAG_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The counters of one server process. In the event loop's thread only."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.connections = 0
        """Connections that were accepted since the start."""
        self.last_connection_us: int | None = None
        refused = Counter(
            "needfire_connections_refused",
            "Connections that were closed before a byte was read.",
            ["reason"],
            registry=registry,
        )
        self.handshakes = dict.fromkeys(HANDSHAKE_OUTCOMES, 0)
        """Handshakes that ended, by outcome. As ``connections`` a plain number, which ``exposition.py``
        shows: each agent of a fleet that comes back counts for both, and a counter of the library takes a
        lock each time."""
        reports = Counter(
            "needfire_reports",
            "Reports that came; refused ones come again.",
            ["result"],
            registry=registry,
        )
        # Made now, so that each series is there from the start: a rate needs its first zero.
        self._refused = {word: refused.labels(word) for word in REFUSAL_REASONS}
        self._reports = {word: reports.labels(word) for word in REPORT_RESULTS}
        self._waiting = Gauge(
            "needfire_batches_waiting",
            "Batches of reports that wait for their commit.",
            registry=registry,
        )
        self._commits = Histogram(
            "needfire_commit_seconds",
            "From a batch of reports to the end of the commit that holds it.",
            buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )
        self._lag = Histogram(
            "needfire_event_loop_lag_seconds",
            "How much later than asked for the event loop came back.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )

    def accepted(self) -> None:
        """A connection was accepted."""
        self.connections += 1
        self.last_connection_us = now_us()

    def refused(self, reason: str) -> None:
        """A connection was closed at once; one of ``REFUSAL_REASONS``."""
        self._refused[reason].inc()

    def handshake(self, outcome: str) -> None:
        """A handshake ended; one of ``HANDSHAKE_OUTCOMES``."""
        self.handshakes[outcome] += 1

    def reports(self, result: str, count: int) -> None:
        """Reports were dealt with; one of ``REPORT_RESULTS``."""
        self._reports[result].inc(count)

    def lag(self, seconds: float) -> None:
        """The event loop came back late."""
        self._lag.observe(seconds)

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Around the commit of a batch; one that fails is not part of the latencies."""
        began_s = perf_counter()
        self._waiting.inc()
        try:
            yield
            self._commits.observe(perf_counter() - began_s)
        finally:
            self._waiting.dec()
