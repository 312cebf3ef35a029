"""How init, check and update run where there is a server to report to.

It works beside a running daemon of the same state directory: it has a spool of its own, and takes
the session over for as long as it runs (suspend the daemon first, or it reports state 7).
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from needfire_client.background import run_in_background
from needfire_client.check import CheckResult
from needfire_client.configuration import Configuration, Provider, start_fields
from needfire_client.failures import CommandError
from needfire_client.fetching import as_command_error, obtain_baseline, obtain_rc
from needfire_client.network import Network
from needfire_client.oneshot_tools import STATUS_OF_SIGNAL, UNWIND_S, OneShot, Work, die_by
from needfire_client.runtime import Runtime
from needfire_client.session import Session
from needfire_client.troubles import exit_status_of
from needfire_protocol.errors import NeedfireError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import Command

__all__ = ["run_connected"]

_DELIVER_S: Final = 60.0
"""Seconds to deliver what was found to a server that was there at the beginning."""


def run_connected(
    runtime: Runtime,
    provider: Provider,
    configuration: Configuration | None,
    work: Work,
    *,
    needs_baseline: bool,
) -> ExitStatus:
    """Run a verb's own part with a server, and deliver what it found.

    Args:
        configuration: the local one, which the log follows already; None: the server has it.

    Raises:
        CommandError: it cannot be done; the log has the reason already where it is a state.
    """
    run = _Run(runtime, provider, configuration, work, needs_baseline=needs_baseline)
    return asyncio.run(run.run())


class _ShotConnected(OneShot):
    def __init__(
        self, runtime: Runtime, network: Network | None, configuration: Configuration
    ) -> None:
        super().__init__(runtime, configuration)
        self._network = network

    async def scan(self, work: Callable[[], CheckResult]) -> CheckResult:
        try:
            return await run_in_background(self.tracked(work), "scan")
        except NeedfireError as error:
            raise as_command_error(error) from None

    async def session(self) -> Session:
        if self._network is None:
            raise CommandError(
                ExitStatus.USAGE, "no server is given", hint="add --server HOST:PORT"
            )
        try:
            return await self._network.uplink.first()
        except NeedfireError as error:
            raise as_command_error(error) from None


class _Run:
    def __init__(
        self,
        runtime: Runtime,
        provider: Provider,
        configuration: Configuration | None,
        work: Work,
        *,
        needs_baseline: bool,
    ) -> None:
        self._runtime = runtime
        self._provider = provider
        self._configuration = configuration
        self._work = work
        self._needs_baseline = needs_baseline
        self._network: Network | None = None
        self._uplink: asyncio.Task[None] | None = None
        self._is_started = False
        self._signal: int = signal.SIGINT
        self._tasks: asyncio.TaskGroup
        self._tools: _ShotConnected | None = None

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
                self._tools.wait_idle(UNWIND_S)
            die_by(self._signal)
        if isinstance(outcome, CommandError):
            raise outcome
        return undelivered if outcome is ExitStatus.DONE else outcome

    async def _job(self) -> ExitStatus | CommandError:
        try:
            return await self._work(await self._prepare())
        except NeedfireError as error:
            return as_command_error(error)

    async def _prepare(self) -> "_ShotConnected":
        configuration = await self._obtain_configuration()
        tools = _ShotConnected(self._runtime, self._network, configuration)
        self._tools = tools
        if self._needs_baseline:
            tools.baseline = await obtain_baseline(
                self._provider, self._network, configuration.settings, may_be_old=False
            )
        self._is_started = True
        self._runtime.reporter.report_fields("START", start_fields(configuration, tools.baseline))
        return tools

    async def _obtain_configuration(self) -> Configuration:
        if self._configuration is not None:
            self._open_network(self._configuration)
            return self._configuration
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

    def _open_network(self, configuration: Configuration | None) -> Network | None:
        settings = None if configuration is None else configuration.settings
        servers = self._provider.servers(settings)
        if servers:
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
            status = STATUS_OF_SIGNAL[self._signal]
        else:
            status = "Failed" if isinstance(outcome, CommandError) else "None"
        network = self._network
        if network is None or not (self._is_started or network.uplink.was_welcomed):
            self._runtime.reporter.report_exit_here(status)
            return ExitStatus.DONE
        is_heard = network.exit(status) if outcome is None else network.exit(status, _DELIVER_S)
        if await is_heard:
            return ExitStatus.DONE
        failure = network.uplink.failure
        return ExitStatus.UNREACHABLE if failure is None else exit_status_of(failure)

    def _catch_signals(self, job: asyncio.Task[object]) -> None:
        def stop(number: int) -> None:
            self._signal = number
            if self._tools is not None:
                self._tools.stop()
            job.cancel()

        for number in STATUS_OF_SIGNAL:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)


def _leave_to_daemon(_session: Session, _order: Command) -> None:
    """Commands are for the agent that stays; unanswered, the server gives them again."""
