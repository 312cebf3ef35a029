"""A verb that looks at all files once and ends: what init, check and update have in common.

Where there is a server, ``oneshot_connected.py`` runs it. Most checks have none, and are over
before a network side would have been loaded: so this module imports none, nor an event loop.
"""

import os
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from needfire_client.baseline import remove_abandoned
from needfire_client.check import CheckResult
from needfire_client.configuration import Baseline, Configuration, Provider, start_fields
from needfire_client.failures import CommandError, command_error
from needfire_client.options import Options
from needfire_client.reporter import PROGRAM
from needfire_client.runtime import Runtime
from needfire_protocol.errors import NeedfireError
from needfire_protocol.event import FieldValue
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    from needfire_client.session import Session

__all__ = ["STATUS_OF_SIGNAL", "UNWIND_S", "OneShot", "Work", "die_by", "run_oneshot"]

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


def run_oneshot(options: Options, work: Work, *, needs_baseline: bool) -> ExitStatus:
    """Run a verb's own part between START and EXIT, connected where a server is given.

    Raises:
        CommandError: it cannot be done; the log has the reason already where it is a state.
        StorageError: the state directory cannot be used.
    """
    runtime = Runtime(options, findings_on_stdout=True)
    with runtime.state.exclusive(runtime.state.oneshot_lock, "needfire-agent init/check/update"):
        for place in (runtime.state.baseline, runtime.state.proposal):
            remove_abandoned(place)
        provider = Provider(
            runtime.options, runtime.state, runtime.reporter, name=lambda: runtime.name
        )
        configuration = None
        if not provider.is_rc_from_server:
            configuration = _local_configuration(runtime, provider)
            if not provider.servers(configuration.settings):
                return _Alone(runtime, provider, configuration).run(
                    work, needs_baseline=needs_baseline
                )
        from needfire_client.oneshot_connected import run_connected

        return run_connected(runtime, provider, configuration, work, needs_baseline=needs_baseline)


def die_by(number: int) -> NoReturn:
    """End as whoever sent the signal expects it: a shell loop stops, too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable: the signal ends the process")


def _local_configuration(runtime: Runtime, provider: Provider) -> Configuration:
    try:
        configuration = provider.local_rc()
    except NeedfireError as error:
        _tell_exit(runtime, "Failed")
        raise command_error(error) from None
    runtime.configure(configuration)
    return configuration


def _tell_exit(runtime: Runtime, status: str) -> None:
    runtime.reporter.report_here("EXIT", program=PROGRAM, status=status)


class _SignalledError(BaseException):
    """A signal asks for the end; nothing on the way may take it for an error."""


class _ShotAlone(OneShot):
    """The tools where there is no server. Nothing that it gives to be awaited suspends."""

    def __init__(self, runtime: Runtime, configuration: Configuration) -> None:
        super().__init__(runtime, configuration)
        # The only queue that a signal's handler may put something into.
        self.news: queue.SimpleQueue[bool] = queue.SimpleQueue()

    async def scan(self, work: Callable[[], CheckResult]) -> CheckResult:
        # A thread, because one that reads from a dead network mount hears no signal.
        outcome: list[CheckResult | BaseException] = []
        tracked = self.tracked(work)

        def target() -> None:
            try:
                outcome.append(tracked())
            except BaseException as error:  # noqa: BLE001 -- handed over, not swallowed
                outcome.append(error)
            self.news.put(True)

        threading.Thread(target=target, name="scan", daemon=True).start()
        self.news.get()
        if self.should_stop():
            raise _SignalledError
        (found,) = outcome
        if isinstance(found, NeedfireError):
            raise command_error(found) from None
        if isinstance(found, BaseException):
            raise found
        return found

    async def session(self) -> "Session":
        raise CommandError(ExitStatus.USAGE, "no server is given", hint="add --server HOST:PORT")


class _Alone:
    """One run without a server."""

    def __init__(self, runtime: Runtime, provider: Provider, configuration: Configuration) -> None:
        self._runtime = runtime
        self._provider = provider
        self._tools = _ShotAlone(runtime, configuration)
        self._signal: int | None = None

    def run(self, work: Work, *, needs_baseline: bool) -> ExitStatus:
        with self._signals_caught():
            try:
                outcome = self._outcome(work, needs_baseline)
            except NeedfireError as error:
                _tell_exit(self._runtime, "Failed")
                raise command_error(error) from None
            except _SignalledError:
                outcome = None
            number = self._signal
            if number is None and outcome is not None:
                _tell_exit(self._runtime, "None")
                return outcome
            assert number is not None
            _tell_exit(self._runtime, STATUS_OF_SIGNAL[number])
            self._tools.wait_idle(UNWIND_S)
        die_by(number)

    def _outcome(self, work: Work, needs_baseline: bool) -> ExitStatus:
        tools = self._tools
        if needs_baseline:
            tools.baseline = self._provider.local_baseline(stays_open=True)
        start = start_fields(tools.configuration, tools.baseline)
        self._runtime.reporter.report_fields("START", start)
        try:
            # It waits for what its tools give, and these never suspend: it ends at the first step.
            work(tools).send(None)
        except StopIteration as ended:
            status: ExitStatus = ended.value
            return status
        raise AssertionError("a verb without a server waits for something")

    @contextmanager
    def _signals_caught(self) -> Iterator[None]:
        def stop(number: int, _frame: object) -> None:
            self._signal = number
            self._tools.stop()
            self._tools.news.put(False)

        before = {number: signal.signal(number, stop) for number in STATUS_OF_SIGNAL}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
