"""A verb that looks at all files once and ends: what init, check and update have in common.

It works beside a running daemon of the same state directory: it has a spool of its own, and takes
the session over for as long as it runs (suspend the daemon first, or it reports state 7).
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from needfire_client.background import run_in_background
from needfire_client.baseline import remove_abandoned
from needfire_client.check import CheckResult
from needfire_client.configuration import Baseline, Configuration, Provider, start_fields
from needfire_client.failures import CommandError
from needfire_client.fetching import as_command_error, obtain_baseline, obtain_rc
from needfire_client.options import Options
from needfire_client.reporter import PROGRAM
from needfire_client.runtime import Runtime
from needfire_client.session import Session
from needfire_client.troubles import exit_status_of
from needfire_protocol.errors import NeedfireError
from needfire_protocol.event import FieldValue
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import Command
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    from needfire_client.network import Network

__all__ = ["OneShot", "run_oneshot"]

_DELIVER_S: Final = 60.0
"""Seconds to deliver what was found to a server that was there at the beginning."""

_UNWIND_S: Final = 2.0
"""Seconds for an interrupted scan to end; a read that hangs must not keep the process."""

_STATUS_OF_SIGNAL: Final = {
    signal.SIGINT: "Interrupt",
    signal.SIGTERM: "Terminated",
    signal.SIGHUP: "Hangup",
    signal.SIGQUIT: "Quit",
}


class OneShot:
    """What a verb's own part gets to work with.

    Attributes:
        configuration: what holds.
        baseline: what to compare with; None for a verb that makes the first one.
    """

    def __init__(
        self,
        runtime: Runtime,
        network: "Network | None",
        configuration: Configuration,
        stop: threading.Event,
    ) -> None:
        self.runtime = runtime
        self.configuration = configuration
        self.baseline: Baseline | None = None
        self._network = network
        self._stop = stop
        self._is_idle = threading.Event()
        self._is_idle.set()

    def on_event(
        self, code: str, severity: Severity | None, fields: Mapping[str, FieldValue]
    ) -> None:
        """Report what the scan says; from the scanning thread."""
        self.runtime.reporter.report_fields(code, fields, severity=severity, may_wait=True)

    def should_stop(self) -> bool:
        """True once a signal has asked for the end."""
        return self._stop.is_set()

    async def scan(self, work: Callable[[], CheckResult]) -> CheckResult:
        """Run the scan in a thread.

        Raises:
            CommandError: baseline or disk cannot be used.
        """
        self._is_idle.clear()

        def tracked() -> CheckResult:
            try:
                return work()
            finally:
                self._is_idle.set()

        try:
            return await run_in_background(tracked, "scan")
        except NeedfireError as error:
            raise as_command_error(error) from None

    def wait_idle(self, within_s: float) -> None:
        """Let a scan that was told to stop remove its unfinished files; blocks."""
        self._is_idle.wait(within_s)

    async def session(self) -> Session:
        """Return a session for a verb that cannot do without.

        Raises:
            CommandError: there is no server, or it cannot be had.
        """
        if self._network is None:
            raise CommandError(
                ExitStatus.USAGE, "no server is given", hint="add --server HOST:PORT"
            )
        try:
            return await self._network.uplink.first()
        except NeedfireError as error:
            raise as_command_error(error) from None


Work = Callable[[OneShot], Coroutine[object, object, ExitStatus]]
"""A verb's own part: gets its tools and returns its exit status."""


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
        return asyncio.run(_Run(runtime, work, needs_baseline=needs_baseline).run())


class _Run:
    def __init__(self, runtime: Runtime, work: Work, *, needs_baseline: bool) -> None:
        self._runtime = runtime
        self._work = work
        self._needs_baseline = needs_baseline
        self._provider = Provider(
            runtime.options, runtime.state, runtime.reporter, name=runtime.name
        )
        self._network: Network | None = None
        self._uplink: asyncio.Task[None] | None = None
        self._is_started = False
        self._stop = threading.Event()
        self._signal = signal.SIGINT
        self._tasks: asyncio.TaskGroup
        self._tools: OneShot | None = None

    async def run(self) -> ExitStatus:
        try:
            async with asyncio.TaskGroup() as self._tasks:
                job = self._tasks.create_task(self._job(), name=self._runtime.options.verb)
                self._catch_signals(job)
                await asyncio.wait({job})
                outcome = None if job.cancelled() else job.result()
                undelivered = await self._end(outcome)
                if self._uplink is not None:
                    self._uplink.cancel()
        finally:
            if self._network is not None:
                self._network.close()
        if outcome is None:
            if self._tools is not None:
                self._tools.wait_idle(_UNWIND_S)
            _die_by(self._signal)
        if isinstance(outcome, CommandError):
            raise outcome
        return undelivered if outcome is ExitStatus.DONE else outcome

    async def _job(self) -> ExitStatus | CommandError:
        try:
            self._tools = await self._prepare()
            return await self._work(self._tools)
        except NeedfireError as error:
            return as_command_error(error)

    async def _prepare(self) -> OneShot:
        configuration = await self._obtain_configuration()
        tools = OneShot(self._runtime, self._network, configuration, self._stop)
        if self._needs_baseline:
            tools.baseline = await obtain_baseline(
                self._provider, self._network, configuration.settings, may_be_old=False
            )
        self._is_started = True
        self._runtime.reporter.report_fields("START", start_fields(configuration, tools.baseline))
        return tools

    async def _obtain_configuration(self) -> Configuration:
        if not self._provider.is_rc_from_server:
            configuration = self._provider.local_rc()
            self._runtime.configure(configuration)
            self._open_network(configuration)
            return configuration
        network = self._open_network(None)
        if network is None:
            raise CommandError(
                ExitStatus.USAGE,
                "the configuration is to come from the server, but no server is given",
                hint="add --server HOST:PORT",
            )
        configuration = await obtain_rc(self._provider, network, may_be_old=False)
        self._runtime.configure(configuration)
        network.configure(self._provider.servers(configuration.settings), configuration.settings)
        return configuration

    def _open_network(self, configuration: Configuration | None) -> "Network | None":
        settings = None if configuration is None else configuration.settings
        servers = self._provider.servers(settings)
        if servers:
            # Not needed by most checks, and half of the time that they take to start.
            from needfire_client.network import Network

            self._network = Network(
                self._runtime,
                self._runtime.state.oneshot_spool,
                servers,
                settings,
                mode=self._runtime.options.verb,
                on_order=_leave_to_daemon,
            )
            self._uplink = self._tasks.create_task(self._network.uplink.run(), name="uplink")
        return self._network

    async def _end(self, outcome: ExitStatus | CommandError | None) -> ExitStatus:
        """Say EXIT; return what kept the reports from being delivered, or DONE."""
        if outcome is None:
            status = _STATUS_OF_SIGNAL[self._signal]
        else:
            status = "Failed" if isinstance(outcome, CommandError) else "None"
        network = self._network
        if network is None or not (self._is_started or network.uplink.was_welcomed):
            self._runtime.reporter.report_here("EXIT", program=PROGRAM, status=status)
            return ExitStatus.DONE
        is_heard = network.exit(status) if outcome is None else network.exit(status, _DELIVER_S)
        if await is_heard:
            return ExitStatus.DONE
        failure = network.uplink.failure
        return ExitStatus.UNREACHABLE if failure is None else exit_status_of(failure)

    def _catch_signals(self, job: asyncio.Task[object]) -> None:
        def stop(number: signal.Signals) -> None:
            self._signal = number
            self._stop.set()
            job.cancel()

        for number in _STATUS_OF_SIGNAL:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)


def _leave_to_daemon(_session: Session, _order: Command) -> None:
    """Commands are for the agent that stays; unanswered, the server gives them again."""


def _die_by(number: signal.Signals) -> NoReturn:
    """End as whoever sent the signal expects it: a shell loop stops, too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable: the signal ends the process")
