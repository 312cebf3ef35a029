"""What the own part of init, check and update gets to work with, and how it is ended."""

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from needfire_client.check import CheckResult
from needfire_client.configuration import Baseline, Configuration
from needfire_client.runtime import Runtime
from needfire_protocol.event import FieldValue
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    from needfire_client.session import Session

__all__ = ["STATUS_OF_SIGNAL", "UNWIND_S", "OneShot", "Work", "die_by"]

UNWIND_S: Final = 2.0
"""Seconds for an interrupted scan to end; a read that hangs must not keep the process."""

STATUS_OF_SIGNAL: Final[Mapping[int, str]] = {
    signal.SIGINT: "Interrupt",
    signal.SIGTERM: "Terminated",
    signal.SIGHUP: "Hangup",
    signal.SIGQUIT: "Quit",
}


class OneShot(ABC):
    """What a verb's own part gets to work with.

    Attributes:
        configuration: what holds.
        baseline: what to compare with; None for a verb that makes the first one.
    """

    def __init__(self, runtime: Runtime, configuration: Configuration) -> None:
        self.runtime = runtime
        self.configuration = configuration
        self.baseline: Baseline | None = None
        self._is_stopping = False
        self._is_idle = threading.Event()
        self._is_idle.set()

    def on_event(
        self, code: str, severity: Severity | None, fields: Mapping[str, FieldValue]
    ) -> None:
        """Report what the scan says; from the scanning thread."""
        self.runtime.reporter.report_fields(code, fields, severity=severity, may_wait=True)

    def should_stop(self) -> bool:
        """True once a signal has asked for the end."""
        return self._is_stopping

    def stop(self) -> None:
        """Let ``should_stop`` be true; also in the middle of a signal's handler."""
        self._is_stopping = True

    @abstractmethod
    async def scan(self, work: Callable[[], CheckResult]) -> CheckResult:
        """Run the scan in a thread.

        Raises:
            CommandError: baseline or disk cannot be used.
        """

    @abstractmethod
    async def session(self) -> "Session":
        """Return a session for a verb that cannot do without.

        Raises:
            CommandError: there is no server, or it cannot be had.
        """

    def wait_idle(self, within_s: float) -> None:
        """Let a scan that was told to stop remove its unfinished files; blocks."""
        self._is_idle.wait(within_s)

    def tracked(self, work: Callable[[], CheckResult]) -> Callable[[], CheckResult]:
        """Return work that ``wait_idle`` knows of."""
        self._is_idle.clear()

        def run() -> CheckResult:
            try:
                return work()
            finally:
                self._is_idle.set()

        return run


Work = Callable[[OneShot], Coroutine[object, object, ExitStatus]]
"""A verb's own part: gets its tools and returns its exit status. It waits for its tools alone."""


def die_by(number: int) -> NoReturn:
    """End as whoever sent the signal expects it: a shell loop stops, too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable: the signal ends the process")
