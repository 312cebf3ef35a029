"""The one place where the agent says that something happened.

An event is made in the words of the catalogue, written to the local logbook, and handed to the
spool when it is for the server. May be used from any thread.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from needfire_client.logbook import Logbook
from needfire_protocol.catalogue import EventClass
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_protocol.severity import Severity, SeverityFilter

__all__ = ["PROGRAM", "VITAL_CODES", "Outbox", "Reporter"]

PROGRAM: Final = "needfire-agent"
"""Value of the field ``program``."""

VITAL_CODES: Final = frozenset(
    {
        "START",
        "EXIT",
        "SUSPEND",
        "WAKEUP",
        "CONFIGURATION_RELOADED",
        "SPOOL_FULL",
        "SPOOL_HAS_ROOM",
        "SPOOL_DAMAGED",
        "SPOOL_UNWRITABLE",
        "SPOOL_WRITABLE",
        "REPORTS_LOST",
    }
)
"""Events that always go to the server, whatever ExportSeverity says: from them it knows whether
an agent stopped or was stopped."""


class Outbox(Protocol):
    """Takes events for the server."""

    def put(self, event: Event, *, is_vital: bool, may_wait: bool) -> None: ...


class Reporter:
    """Says what happens, here and to the server.

    Args:
        clock_us: microseconds since 1970.
        random_bytes: for the identifiers of events.
    """

    def __init__(
        self,
        logbook: Logbook,
        *,
        clock_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._logbook = logbook
        self._clock_us = clock_us
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._outbox: Outbox | None = None
        self._exported = SeverityFilter.at_least(Severity.NOTICE)

    def export_to(self, outbox: Outbox | None) -> None:
        """Hand events for the server to this outbox; None where there is no server."""
        self._outbox = outbox

    def select_export(self, exported: SeverityFilter) -> None:
        """Use another ExportSeverity."""
        self._exported = exported

    def report(self, code: str, /, **fields: FieldValue) -> None:
        """Say that something happened; never waits."""
        self.report_fields(code, fields)

    def report_fields(
        self,
        code: str,
        fields: Mapping[str, FieldValue],
        *,
        severity: Severity | None = None,
        may_wait: bool = False,
    ) -> None:
        """Say that something happened.

        Args:
            severity: instead of the catalogue's, where configuration decides.
            may_wait: the caller can be held up while the spool has no room. Never for the event
                loop, whose wait would keep the server's acknowledgements from being read.
        """
        event = self._make(code, severity, fields)
        self._logbook.write(event)
        outbox = self._outbox
        if outbox is not None and self._is_for_server(event):
            outbox.put(event, is_vital=code in VITAL_CODES, may_wait=may_wait)

    def report_here(self, code: str, /, **fields: FieldValue) -> None:
        """Say it in the local logbook only."""
        self._logbook.write(self._make(code, None, fields))

    def report_exit_here(self, status: str) -> None:
        """Say in the local logbook only that this program ends, and as what."""
        self.report_here("EXIT", program=PROGRAM, status=status)

    def _make(
        self, code: str, severity: Severity | None, fields: Mapping[str, FieldValue]
    ) -> Event:
        # The clock is read and the event made in one piece, so that ids sort as they happened.
        with self._lock:
            return make_event(
                code,
                severity,
                time_us=self._clock_us(),
                random_10_bytes=self._random_bytes(10),
                **fields,
            )

    def _is_for_server(self, event: Event) -> bool:
        if event.code in VITAL_CODES:
            return True
        # The server sees connections and sessions itself, and from its own side.
        return event.event_class is not EventClass.TRAFFIC and event.severity in self._exported
