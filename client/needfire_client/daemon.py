"""The agent as a service: watch, report, obey signals and orders, until told to stop.

    signals ─┐                         ┌─► Watching (scans, in a thread)
    orders ──┴─► wishes, one by one ───┼─► reload, suspend, verbosity
                                       └─► Uplink (session with the server)

The event loop never scans and never waits for the disk of the spool; the scanning thread never
talks to the server. What both share is the Reporter.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from needfire_client.configuration import Baseline, Configuration, Provider, start_fields
from needfire_client.failures import CommandError
from needfire_client.fetching import as_command_error, obtain_baseline, obtain_rc
from needfire_client.in_use import InUseFile, in_use, taken
from needfire_client.link import LinkError
from needfire_client.network import GOODBYE_S, Network
from needfire_client.orders import Orders
from needfire_client.reporter import PROGRAM
from needfire_client.runtime import Runtime
from needfire_client.session import FileRefusedError, Session
from needfire_client.watching import Watching
from needfire_client.wishes import Request, Wish, catch_signals
from needfire_protocol.errors import ConfigError, FormatError, StorageError
from needfire_protocol.exit_status import ExitStatus

__all__ = ["Daemon"]

_RELOAD_CONNECT_S: Final = 15.0
"""Seconds that a reload waits for a connection before it keeps the configuration it has."""

_WISHES_MAX: Final = 64
"""Wishes that may wait. A server that sends orders faster than they are done is not believed."""

_ANSWERS_MAX: Final = 64
"""Answers that may wait behind them: to orders that came again, or for which there was no room."""

_STOPS_MAX: Final = 16
"""Orders to stop that are answered at the end; each that is not would stop the next process."""

_UNUSABLE = (ConfigError, FormatError, StorageError, LinkError, FileRefusedError, CommandError)


class Daemon:
    """One run of the agent. To be made inside the event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reporter = runtime.reporter
        self._provider = Provider(
            runtime.options, runtime.state, runtime.reporter, name=lambda: runtime.name
        )
        self._orders = Orders(runtime.reporter, self._take)
        self._watching = Watching(
            runtime.reporter,
            runtime.state.overlay,
            runtime.state.position,
            on_bug=runtime.bug,
        )
        self._wishes: asyncio.Queue[Request] = asyncio.Queue(_WISHES_MAX + _ANSWERS_MAX)
        self._more_stops: list[Request] = []
        self._stopping: asyncio.Future[Request] = asyncio.get_running_loop().create_future()
        self._beside: list[asyncio.Task[None]] = []
        self._tasks: asyncio.TaskGroup
        self._network: Network | None = None
        self._configuration: Configuration
        self._baseline: Baseline
        self._is_started = False
        self._is_suspended = False

    async def run(self) -> None:
        """Run until a signal or an order ends it.

        Raises:
            CommandError: it cannot start.
        """
        catch_signals(self._take)
        failure: CommandError | None = None
        try:
            async with asyncio.TaskGroup() as self._tasks:
                try:
                    failure = await self._live()
                finally:
                    for task in self._beside:
                        task.cancel()
        except Exception as error:
            # It ends with a traceback kept, status 70 and, where it can, word to the server.
            self._runtime.bug(error)
            raise
        finally:
            if self._network is not None:
                self._network.close()
        if failure is not None:
            raise failure

    async def _live(self) -> CommandError | None:
        """Start, work, end; return what kept it from starting."""
        start = self._tasks.create_task(self._start(), name="start")
        either: set[asyncio.Future[Any]] = {start, self._stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.done():
            start.cancel()
        elif (failure := start.result()) is not None:
            await self._end("Startup failed")
            return failure
        else:
            self._spawn(self._watching.run(), "watching")
            self._spawn(self._mark_time(), "timestamps")
            self._spawn(self._obey(), "wishes")
        request = await asyncio.shield(self._stopping)
        for each in (request, *self._more_stops):
            await self._orders.answer(each, "done")
        await self._end(request.status)
        return None

    async def _start(self) -> CommandError | None:
        try:
            self._configuration = await self._first_configuration()
            settings = self._configuration.settings
            self._baseline = await obtain_baseline(
                self._provider, self._network, settings, may_be_old=True
            )
        except _UNUSABLE as error:
            return as_command_error(error)
        self._is_started = True
        self._reporter.report_fields("START", start_fields(self._configuration, self._baseline))
        await self._tell_taken()
        self._watching.configure(settings, self._baseline)
        return None

    async def _first_configuration(self) -> Configuration:
        if self._provider.is_rc_from_server:
            network = self._open_network(None)
            if network is None:
                raise CommandError(
                    ExitStatus.USAGE,
                    "the configuration is to come from the server, but no server is given",
                    hint="add --server HOST:PORT",
                )
            configuration = await obtain_rc(self._provider, network, may_be_old=True)
            self._runtime.configure(configuration)
        else:
            configuration = self._provider.local_rc()
            self._runtime.configure(configuration)
            self._open_network(configuration)
        self._configure_network(configuration)
        return configuration

    def _open_network(self, configuration: Configuration | None) -> Network | None:
        settings = None if configuration is None else configuration.settings
        servers = self._provider.servers(settings)
        if servers and self._network is None:
            self._network = Network(
                self._runtime,
                self._runtime.state.spool,
                servers,
                settings,
                mode="run",
                on_order=self._orders.received,
            )
            self._spawn(self._network.uplink.run(), "uplink")
        return self._network

    def _configure_network(self, configuration: Configuration) -> None:
        if self._network is not None:
            settings = configuration.settings
            self._network.configure(self._provider.servers(settings), settings)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        self._beside.append(self._tasks.create_task(work, name=name))

    def _take(self, request: Request) -> None:
        """Note a wish; to stop is not queued behind others, which may take long."""
        if request.wish is Wish.STOP:
            self._take_stop(request)
        elif request.wish is Wish.ANSWER_AGAIN:
            self._take_answer(request)
        elif self._wishes.qsize() < _WISHES_MAX:
            self._wishes.put_nowait(request)
        elif request.order is not None:
            reason = f"{_WISHES_MAX} others wait; send it again later"
            self._take_answer(self._orders.refused(request, reason))

    def _take_stop(self, request: Request) -> None:
        if not self._stopping.done():
            self._stopping.set_result(request)
        elif len(self._more_stops) < _STOPS_MAX:
            self._more_stops.append(request)

    def _take_answer(self, request: Request) -> None:
        """Let an answer wait for its turn. One that is dropped is asked for again."""
        if not self._wishes.full():
            self._wishes.put_nowait(request)

    async def _mark_time(self) -> None:
        while True:
            await asyncio.sleep(self._configuration.settings.loop_interval_s)
            if not self._is_suspended:
                self._reporter.report_here("TIMESTAMP")

    async def _obey(self) -> None:
        while True:
            request = await self._wishes.get()
            outcome, detail = await self._fulfil(request.wish)
            await self._orders.answer(request, outcome, detail)

    async def _fulfil(self, wish: Wish) -> tuple[str, str]:
        """Do what is wished; return how it came out, as the server is told."""
        if wish is Wish.RELOAD:
            return await self._reload()
        if wish is Wish.SCAN:
            self._watching.request_check()
        elif wish is Wish.VERBOSITY:
            self._runtime.console.toggle_verbosity()
        elif wish is Wish.SUSPEND:
            await self._toggle_suspension()
        return ("", "") if wish is Wish.ANSWER_AGAIN else ("done", "")

    async def _toggle_suspension(self) -> None:
        self._is_suspended = not self._is_suspended
        if self._is_suspended:
            self._watching.pause()
            self._reporter.report("SUSPEND", program=PROGRAM)
            if self._network is not None:
                await self._network.written()
                await self._network.uplink.suspend(GOODBYE_S)
        else:
            self._reporter.report("WAKEUP", program=PROGRAM)
            if self._network is not None:
                self._network.uplink.wake()
            self._watching.resume()

    async def _reload(self) -> tuple[str, str]:
        """Read everything again. What cannot be used changes nothing: the watch goes on."""
        try:
            configuration = await self._new_configuration()
        except _UNUSABLE as error:
            self._provider.tell_unusable(error)
            return "failed", str(error)[:400]
        self._configuration = configuration
        self._runtime.configure(configuration)
        self._open_network(configuration)
        self._configure_network(configuration)
        self._reporter.report(
            "CONFIGURATION_RELOADED", path=configuration.path, hash=configuration.digest
        )
        outcome = await self._renew_baseline(configuration)
        await self._tell_taken()
        self._watching.configure(configuration.settings, self._baseline)
        return outcome

    async def _tell_taken(self) -> None:
        """Tell what is in use now that was not before, and remember it."""
        configuration, baseline = self._configuration, self._baseline
        file = InUseFile(self._runtime.state.in_use)
        now = await asyncio.to_thread(in_use, configuration, baseline, self._runtime.name)
        before = await asyncio.to_thread(file.load)
        if before == now:
            return
        for code, fields in () if before is None else taken(before, now, configuration, baseline):
            self._reporter.report_fields(code, fields)
        if self._network is not None:
            # After a crash between the two it is told twice, and not never.
            await self._network.written()
        try:
            await asyncio.to_thread(file.save, now)
        except StorageError as error:
            self._reporter.report("LOCAL_STORAGE_FAILED", reason=str(error))

    async def _new_configuration(self) -> Configuration:
        if not self._provider.is_rc_from_server:
            return self._provider.local_rc()
        return await self._provider.fetch_rc(await self._session_soon())

    async def _renew_baseline(self, configuration: Configuration) -> tuple[str, str]:
        try:
            if self._provider.is_baseline_from_server(configuration.settings):
                session = await self._session_soon()
                self._baseline = await self._provider.fetch_baseline(session)
            else:
                self._baseline = await asyncio.to_thread(self._provider.local_baseline)
        except _UNUSABLE as error:
            self._reporter.report(
                "BASELINE_UNUSABLE", path=self._baseline.shown_path, reason=str(error)
            )
            return "partly", f"the baseline stays as it was: {error}"[:400]
        return "done", ""

    async def _session_soon(self) -> Session:
        if self._network is None:
            raise CommandError(ExitStatus.UNREACHABLE, "no server is configured")
        uplink = self._network.uplink
        uplink.hurry()
        try:
            async with asyncio.timeout(_RELOAD_CONNECT_S):
                return await uplink.wait_session()
        except TimeoutError:
            raise CommandError(ExitStatus.UNREACHABLE, "the server cannot be reached now") from None

    async def _end(self, status: str) -> None:
        """Stop scanning first: EXIT has to be the last thing that this process says."""
        network = self._network
        if network is not None:
            network.let_go()
        if self._is_started:
            await self._watching.stop()
        if network is not None and (self._is_started or network.uplink.was_welcomed):
            await network.exit(status)
        else:
            self._reporter.report_exit_here(status)
