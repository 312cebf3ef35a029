"""How init, check and update run where there is no server.

Most checks are such, and over before a network side would have been loaded: so this module imports
none, nor an event loop.
"""

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from needfire_client.check import CheckResult
from needfire_client.configuration import Configuration, Provider, start_fields
from needfire_client.failures import CommandError, command_error
from needfire_client.oneshot_tools import STATUS_OF_SIGNAL, UNWIND_S, OneShot, Work, die_by
from needfire_client.runtime import Runtime
from needfire_protocol.errors import NeedfireError
from needfire_protocol.exit_status import ExitStatus

if TYPE_CHECKING:
    from needfire_client.session import Session

__all__ = ["run_alone"]


def run_alone(
    runtime: Runtime,
    provider: Provider,
    configuration: Configuration,
    work: Work,
    *,
    needs_baseline: bool,
) -> ExitStatus:
    """Run a verb's own part; what it finds goes to the log and to standard output.

    Raises:
        CommandError: it cannot be done; the log has the reason already where it is a state.
    """
    run = _Run(runtime, provider, configuration)
    return run.run(work, needs_baseline=needs_baseline)


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


class _Run:
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
                self._runtime.reporter.report_exit_here("Failed")
                raise command_error(error) from None
            except _SignalledError:
                outcome = None
            number = self._signal
            if number is None and outcome is not None:
                self._runtime.reporter.report_exit_here("None")
                return outcome
            assert number is not None
            self._runtime.reporter.report_exit_here(STATUS_OF_SIGNAL[number])
            self._tools.wait_idle(UNWIND_S)
        return die_by(number)

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
