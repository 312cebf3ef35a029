"""Where the agent writes its events on its own host: the console and a log file.

The forms of a line are pure functions of ``needfire_protocol``; this module only puts lines
somewhere, and never lets a full disk or a closed terminal stop the agent.
"""

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, TextIO

from needfire_protocol.catalogue import EventClass
from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.event import Event, event_to_json
from needfire_protocol.severity import Severity, SeverityFilter

__all__ = ["FORMATS", "ConsoleSink", "FileSink", "Logbook", "Sink"]

FORMATS: Final[Mapping[str, Callable[[Event], str]]] = MappingProxyType(
    {"classic": xml_line, "text": text_line, "json": event_to_json}
)
"""Forms of a line by the name that --log-format takes."""

_EVERYTHING: Final = SeverityFilter(Severity)


class Sink(Protocol):
    """One place that takes lines."""

    def write(self, event: Event) -> None: ...


class Logbook:
    """All places where events are written on this host. May be used from any thread."""

    def __init__(self, *sinks: Sink) -> None:
        self._lock = threading.Lock()
        self._sinks = sinks

    def replace(self, *sinks: Sink) -> None:
        """Write to these places from now on."""
        with self._lock:
            self._sinks = sinks

    def write(self, event: Event) -> None:
        with self._lock:
            for sink in self._sinks:
                sink.write(event)


class ConsoleSink:
    """Events on the terminal, or where the service manager collects them.

    Args:
        selected: what PrintSeverity selects.
        findings: takes integrity events, which are the result of a check; None: as the others.
        others: takes everything else.
    """

    def __init__(
        self,
        form: Callable[[Event], str],
        selected: SeverityFilter,
        *,
        others: TextIO | None = None,
        findings: TextIO | None = None,
    ) -> None:
        self._form = form
        self._selected = selected
        self._is_verbose = False
        self._others = sys.stderr if others is None else others
        self._findings = self._others if findings is None else findings
        self._make_way: Callable[[], None] | None = None

    def configure(self, form: Callable[[Event], str], selected: SeverityFilter) -> None:
        """Use another form and another PrintSeverity."""
        self._form, self._selected = form, selected

    @contextlib.contextmanager
    def beside(self, make_way: Callable[[], None]) -> Iterator[None]:
        """Before each line, call what takes away whatever else stands in the line of a terminal."""
        self._make_way = make_way
        try:
            yield
        finally:
            self._make_way = None

    def toggle_verbosity(self) -> bool:
        """Write everything, or again only what is selected (SIGUSR1); return whether everything."""
        self._is_verbose = not self._is_verbose
        return self._is_verbose

    def write(self, event: Event) -> None:
        if event.severity not in (_EVERYTHING if self._is_verbose else self._selected):
            return
        is_finding = event.event_class is EventClass.INTEGRITY
        stream = self._findings if is_finding else self._others
        if self._make_way is not None:
            self._make_way()
        # A terminal that was closed, or a pipe whose reader died, must not stop the watch.
        with contextlib.suppress(OSError, ValueError):
            stream.write(self._form(event) + "\n")
            stream.flush()


class FileSink:
    """Events in a file that only its owner can read; follows rotation by name.

    Args:
        on_trouble: told once when writing begins to fail; it goes on trying.
    """

    def __init__(
        self,
        path: Path,
        form: Callable[[Event], str],
        selected: SeverityFilter,
        *,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._path = path
        self._form = form
        self._selected = selected
        self._on_trouble = on_trouble
        self._is_failing = False

    def write(self, event: Event) -> None:
        if event.severity not in self._selected:
            return
        # Opened anew for each line: logrotate may move the file at any time, and lines are few.
        try:
            handle = os.open(
                self._path,
                # O_NONBLOCK: a pipe that nobody reads must not hold the agent up.
                os.O_WRONLY
                | os.O_APPEND
                | os.O_CREAT
                | os.O_NOFOLLOW
                | os.O_NONBLOCK
                | os.O_CLOEXEC,
                0o600,
            )
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                os.write(handle, self._form(event).encode("utf-8", "backslashreplace") + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            if not self._is_failing:
                self._on_trouble(f"log file {self._path}: {error.strerror or error}")
            self._is_failing = True
        else:
            self._is_failing = False
