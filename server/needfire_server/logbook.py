"""Which events are written where: thresholds, formats, and what strangers may make us write.

The server's own events pass the thresholds of the configuration. What a client reports is written
whatever its severity: it was selected on the client already (Samhain manual). Lines that
somebody without a password can provoke are limited for each address; how many were left out is
said, so that silence is never mistaken for peace.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.classic_batch import xml_lines
from needfire_protocol.event import Event, FieldValue, event_to_json, make_event
from needfire_protocol.event_batch import UsualEvents
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_server.addresses import is_address, neighbourhood, plain_address
from needfire_server.clock import now_us
from needfire_server.log_files import ClientFiles, Console, LogFile
from needfire_server.rate_limit import PUSHED_OUT, RateLimiter

__all__ = ["LogSettings", "Logbook"]

STRANGER_BURST: Final = 100
"""Lines that one address may cause at once. A host that tries again and again stays below it."""
STRANGER_LINES_PER_S: Final = 1.0
"""Lines a second that one address may cause in the long run."""
SUPPRESSED_INTERVAL_S: Final = 60.0
"""Seconds between two reports of what was left out."""
_SUPPRESSED_STORED_MAX: Final = 3
"""Sources of which each such report tells the store one by one: of a flood from everywhere there would
be thousands. The rest is told together."""
_FAILURES_STORED: Final = 10
_FAILURES_STORED_PER_S: Final = 1 / 60
"""A disk that is nearly full fails and recovers with each line."""

_FORMS: Final[Mapping[str, Callable[[Event], str]]] = MappingProxyType(
    {"classic": xml_line, "text": text_line, "json": event_to_json}
)


class LogSettings(Protocol):
    """What the configuration says about logs."""

    @property
    def print_severity(self) -> SeverityFilter:
        """Threshold of the console, for the server's own events."""

    @property
    def log_severity(self) -> SeverityFilter:
        """Threshold of the log file, for the server's own events."""

    @property
    def log_format(self) -> str:
        """``classic`` (XML), ``text`` or ``json``."""

    @property
    def log_file(self) -> str | bytes | None:
        """Path of the log file; None for ``log`` in the data directory."""

    @property
    def use_separate_logs(self) -> bool:
        """Whether each client's reports go to a file of their own instead of the main one."""

    @property
    def strip_domain(self) -> bool:
        """Whether classic lines name a client without its domain."""


class Logbook:
    """The console and the log files of one server. Used from the event loop's thread only."""

    def __init__(
        self,
        settings: LogSettings,
        path: str,
        *,
        console: Console | None,
        default_path: str,
        clock: Callable[[], float] = time.monotonic,
        clock_us: Callable[[], int] = now_us,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._settings = settings
        self._console = console
        self._default_path = default_path
        self._clock = clock
        self._clock_us = clock_us
        self._random_bytes = random_bytes
        self._limiter = RateLimiter(burst=STRANGER_BURST, per_s=STRANGER_LINES_PER_S)
        self._collect_at = clock() + SUPPRESSED_INTERVAL_S
        self._failures = RateLimiter(burst=_FAILURES_STORED, per_s=_FAILURES_STORED_PER_S)
        self._failed: set[str] = set()
        """Files of which the store knows that they cannot be written."""
        self.to_store: Callable[[Event], object] = lambda _event: None
        """Called with what the log says of itself: who reads the store, or an output, hears it as well."""
        self._use(path)

    @classmethod
    def from_settings(
        cls, settings: LogSettings, data_directory: str, *, is_foreground: bool
    ) -> "Logbook":
        """Return the logbook of a server, with its log file open.

        Args:
            is_foreground: write to standard error as well.

        Raises:
            StorageError: the log file cannot be written.
        """
        console = Console(sys.stderr.fileno()) if is_foreground else None
        default_path = os.path.join(data_directory, "log")
        logbook = cls(
            settings, _path(settings, default_path), console=console, default_path=default_path
        )
        logbook._main.open()
        return logbook

    def takes(self, severity: Severity) -> bool:
        """Whether an event of the server's own of this severity is written anywhere."""
        settings = self._settings
        is_shown = self._console is not None and severity in settings.print_severity
        return is_shown or severity in settings.log_severity

    def write(self, event: Event) -> bool:
        """Write an event of the server's own where its severity belongs.

        False where the address that caused it has caused too many: then do not store it either.
        """
        if not self.admits(event.event_class, event.fields.get("peer")):
            return False
        self._write_own(event)
        return True

    def admits(self, event_class: EventClass, peer: FieldValue) -> bool:
        """Count an event; False where the address that caused it has caused too many.

        Args:
            peer: its field of that name.
        """
        self.tell_suppressed()
        source = _stranger(event_class, peer)
        return source is None or self._limiter.admit(source, self._clock())

    def tell_suppressed(self) -> None:
        """Say what was left out, if that is due. To be called now and then, also if nothing happens."""
        now = self._clock()
        if now >= self._collect_at:
            self._report_suppressed(now)

    def lines_of(self, reports: UsualEvents) -> Sequence[str]:
        """Return the lines of reports as ``write_reports`` writes them now."""
        if self._settings.log_format != "classic":
            return list(map(self._line, reports.events))
        is_short = self._settings.strip_domain
        return xml_lines(reports, _without_domain(reports.client) if is_short else reports.client)

    def write_reports(self, events: Sequence[Event], lines: Sequence[str] | None = None) -> None:
        """Write what one client reported, whatever its severity; one write for all of it.

        What comes through a relay stands in the relay's file.

        Args:
            lines: theirs (``lines_of``), where somebody has made them already.
        """
        if not events:
            return
        client = (events[0].client or "").partition("/")[0]
        text = "\n".join(map(self._line, events) if lines is None else lines)
        if self._console is not None:
            self._console.write(text)
        file = self._files.file_of(client) if self._settings.use_separate_logs else None
        self._append(file or self._main, text, len(events))

    def configure(self, settings: LogSettings) -> None:
        """Go on with other settings. A file that cannot be opened is tried again at each line."""
        self.close()
        self._settings = settings
        self._use(_path(settings, self._default_path))

    def reopen(self) -> None:
        """Open the files again by their names: they were rotated."""
        self._main.close()
        self._files.close()

    def close(self) -> None:
        """Say what was left out, and close the files."""
        self._report_suppressed(self._clock())
        self._main.close()
        self._files.close()

    def _use(self, path: str) -> None:
        self._main = LogFile(path)
        self._files = ClientFiles(path)

    def _report_suppressed(self, now: float) -> None:
        self._collect_at = now + SUPPRESSED_INTERVAL_S
        found = sorted(self._limiter.collect(now), key=lambda each: each.count, reverse=True)
        for number, suppressed in enumerate(found):
            event = self._event("LOG_SUPPRESSED", peer=suppressed.source, count=suppressed.count)
            self._write_own(event)
            if number < _SUPPRESSED_STORED_MAX:
                self.to_store(event)
        rest = sum(each.count for each in found[_SUPPRESSED_STORED_MAX:])
        if rest:
            self.to_store(self._event("LOG_SUPPRESSED", peer=PUSHED_OUT, count=rest))

    def _event(self, code: str, **fields: FieldValue) -> Event:
        return make_event(
            code,
            time_us=self._clock_us(),
            random_10_bytes=self._random_bytes(10),
            **fields,
        )

    def _write_own(self, event: Event) -> None:
        if self._console is not None and event.severity in self._settings.print_severity:
            self._print(event)
        if event.severity in self._settings.log_severity:
            self._append(self._main, self._line(event))

    def _print(self, event: Event) -> None:
        if self._console is not None:
            self._console.write(self._line(event))

    def _append(self, file: LogFile, text: str, lines: int = 1) -> None:
        """Append lines; say once that a file cannot be written, and once that it can again."""
        if file.lost:
            recovered = self._event("LOG_RECOVERED", path=file.path, lost=file.lost)
            if file.write(self._line(recovered), lines):
                file.lost = 0
                self._print(recovered)
                if file.path in self._failed:
                    self._failed.discard(file.path)
                    self.to_store(recovered)
            else:
                # The message itself is no loss; the lines that were to follow it are.
                return
        if not file.write(text, lines):
            failed = self._event("LOG_FAILED", path=file.path, reason=file.reason)
            self._print(failed)
            if self._failures.admit("", self._clock()):
                self._failed.add(file.path)
                self.to_store(failed)

    def _line(self, event: Event) -> str:
        form = self._settings.log_format
        if event.client is not None and self._settings.strip_domain and form != "json":
            short = _without_domain(event.client)
            if short != event.client:
                event = replace(event, client=short)
        return _FORMS[form](event)


def _path(settings: LogSettings, default_path: str) -> str:
    return default_path if settings.log_file is None else os.fsdecode(settings.log_file)


@lru_cache(maxsize=16_384)
def _without_domain(client: str) -> str:
    """The first label of a host name; an address is no name and stays as it is.

    Of ``relay/name`` that of each.
    """
    return "/".join(
        part if is_address(part) else part.partition(".")[0] for part in client.split("/")
    )


def _stranger(event_class: EventClass, peer: FieldValue) -> str | None:
    """Return who caused an event that takes no password to cause; None for all others."""
    if event_class is not EventClass.TRAFFIC or not isinstance(peer, str):
        return None
    address = _address_of(peer)
    return None if address is None else neighbourhood(address)


def _address_of(peer: str) -> str | None:
    """Return the address in ``192.0.2.1``, ``192.0.2.1:5000``, ``::1`` or ``[::1]:5000``."""
    host = peer.rpartition(":")[0].removeprefix("[").removesuffix("]")
    # The usual form first: that another one is no address takes long to find out, and is never
    # known from before, because each connection has a port of its own.
    for text in (host, peer) if peer.count(":") == 1 or peer.startswith("[") else (peer, host):
        if is_address(text):
            return plain_address(text)
    return None
