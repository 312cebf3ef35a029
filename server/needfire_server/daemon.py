"""The life of a server process: start, privileges, signals, reload, clean stop."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from needfire_protocol.errors import ConfigError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.srp import BACKEND
from needfire_server.admin.endpoint import AdminEndpoint
from needfire_server.admin.members import access_of, lockout_of, unknown_members
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.audit.log import AuditLog
from needfire_server.audit.watch import watch_audit_log
from needfire_server.circles import spare_the_collector
from needfire_server.config import ServerSettings
from needfire_server.descriptors import (
    DESCRIPTORS_SPARE,
    connections_possible,
    raise_descriptor_limit,
)
from needfire_server.event_classes import class_settings
from needfire_server.fleet import Fleet
from needfire_server.herald import Herald
from needfire_server.journal import Journal
from needfire_server.listener import Listener
from needfire_server.logbook import Logbook
from needfire_server.lookup import NameChecker
from needfire_server.loop_watch import watch_loop
from needfire_server.outputs.engine import OutputEngine
from needfire_server.outputs.relay_origin import RelayOrigin
from needfire_server.outputs.targets import make_target
from needfire_server.privileges import drop_privileges
from needfire_server.registry import Registry
from needfire_server.relays import IDENTITY_SECRET, RelayDesk, identity_of
from needfire_server.retention import retain
from needfire_server.runtime import Runtime
from needfire_server.seal_key import key_check, key_id, read_credential
from needfire_server.sealing import keys_at_hand, open_seal
from needfire_server.session_keeper import SessionKeeper
from needfire_server.session_seal import SessionSeal
from needfire_server.sessions import SessionTable
from needfire_server.storage.opening import OpenStore, how_to_open, load_migrations
from needfire_server.storage.output_cursors import CursorStore
from needfire_server.storage.store import DatabaseStore
from needfire_server.stored_files import StoredFiles, data_files_of
from needfire_server.summing import keep_summed_up
from needfire_server.systemd_notify import notify, notify_reloading
from needfire_server.upkeep import Upkeep

__all__ = ["ServeOptions", "serve"]

_FLUSH_LIMIT_S: Final = 5
_SWITCH_INTERVAL_S: Final = 0.000_5
"""After so long the thread that stores makes way for the event loop. The loop lets Python's lock go with
each read, write and seal, dozens of times for a batch; with Python's own 5 ms each of them waited as
long as that for a commit in preparation, more came meanwhile, and the next commit took longer still."""
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says; it wins over the configuration file, also at a reload."""

    load_settings: Callable[[], ServerSettings]
    """Reads the configuration again; raises ConfigError."""
    data_directory: str
    listen: tuple[tuple[str, int], ...]
    is_foreground: bool


def serve(options: ServeOptions, settings: ServerSettings) -> ExitStatus:
    """Run the server until it is told to stop.

    Raises:
        ConfigError, StorageError, OSError: it cannot start; the message says why.
    """
    sockets = _bind(options.listen)
    monitoring: list[socket.socket] = []
    try:
        credential = read_credential(os.environ)
        if settings.metrics_listen is not None:
            monitoring = _bind((settings.metrics_listen,))
        # Its password may be for root's eyes only.
        open_store = how_to_open(
            options.data_directory, settings.store_url, settings.store_password_file
        )
        load_migrations()
        user = drop_privileges(settings.server_user, options.data_directory)
        server = _Server(options, settings, sockets, monitoring, user, credential, open_store)
        return asyncio.run(server.run())
    finally:
        for bound in (*sockets, *monitoring):
            bound.close()


def _bind(addresses: tuple[tuple[str, int], ...]) -> list[socket.socket]:
    """Bind before the rights are dropped, so that a port below 1024 works."""
    sockets: list[socket.socket] = []
    for host, port in addresses:
        try:
            sockets.append(_bound(host, port))
        except OSError as error:
            if host == "::" and len(addresses) > 1 and error.errno in _NO_IPV6:
                # The default asks for both; a host without IPv6 still has the other one.
                continue
            for each in sockets:
                each.close()
            raise OSError(
                error.errno, f"cannot listen on {host} port {port}: {error.strerror}"
            ) from None
    return sockets


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            # 0.0.0.0 has a socket of its own.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class _Server:
    """One run of the server."""

    def __init__(
        self,
        options: ServeOptions,
        settings: ServerSettings,
        sockets: list[socket.socket],
        monitoring: list[socket.socket],
        user: str | None,
        credential: bytes | None,
        open_store: OpenStore,
    ) -> None:
        self._options = options
        self._settings = settings
        self._sockets = sockets
        self._monitoring = monitoring
        self._user = user
        self._credential = credential
        self._stop = asyncio.Event()
        self._stop_status = "SIGTERM"
        self._exit_status = ExitStatus.DONE
        self._reload = asyncio.Event()
        self._open_store = open_store

    async def run(self) -> ExitStatus:
        loop = asyncio.get_running_loop()
        for number, status in (
            (signal.SIGTERM, "SIGTERM"),
            (signal.SIGINT, "SIGINT"),
            (signal.SIGQUIT, "SIGQUIT"),
        ):
            loop.add_signal_handler(number, self._request_stop, status)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            # The agent's signals. Sent to the wrong process, they must not end it.
            loop.add_signal_handler(number, lambda: None)
        store = self._open_store()
        try:
            async with self._runtime(store) as (runtime, listener, service, upkeep):
                # What a crash left half-written, and files of proposals that the store forgot.
                runtime.data_files.sweep([each.path for each in await store.proposals()])
                await _take_over_files(runtime)
                await self._serve(runtime, listener, service, upkeep)
        finally:
            store.close()
        return self._exit_status

    def _request_stop(self, status: str) -> None:
        self._stop_status = status
        self._stop.set()

    def _no_room(self, runtime: Runtime) -> None:
        """Do what DiskFullAction says. Reports are not acknowledged in any case."""
        match runtime.settings.disk_full_action:
            case "halt":
                self._exit_status = ExitStatus.STORAGE_FULL
                self._request_stop("no room for events (DiskFullAction=halt)")
            case "suspend-class":
                runtime.journal.suspend_classes()

    @asynccontextmanager
    async def _runtime(
        self, store: DatabaseStore
    ) -> AsyncIterator[tuple[Runtime, Listener, AdminService, Upkeep]]:
        settings = self._settings
        service: AdminService | None = None
        outputs: OutputEngine | None = None

        def on_new_events() -> None:
            if service is not None:
                service.notify_new_events()
            if outputs is not None:
                outputs.notify()

        logbook = Logbook.from_settings(
            settings, self._options.data_directory, is_foreground=self._options.is_foreground
        )
        try:
            journal = Journal(logbook, store_path=store.name, on_recorded=on_new_events)
            identity = identity_of(await store.secret(IDENTITY_SECRET))
            seal_key = await self._unseal(store, journal)
            registry = Registry(settings.clients, await store.clients())
            audit = await AuditLog.open(store.audit, self._options.data_directory)
            fleet = Fleet(store, journal, await store.load_client_states())
            origin = RelayOrigin(identity, store, fleet, lambda: self._settings.relay_clients)
            outputs = OutputEngine(
                CursorStore(store),
                raise_event=journal.raise_event,
                make_target=partial(make_target, origin=origin),
            )
            await outputs.begin(settings.outputs)
            runtime = Runtime(
                settings=settings,
                store=store,
                registry=registry,
                data_files=data_files_of(store, self._options.data_directory),
                names=NameChecker.for_host(settings.lookup_timeout_s),
                logbook=logbook,
                journal=journal,
                fleet=fleet,
                keeper=SessionKeeper(SessionTable(), store, SessionSeal(seal_key, os.urandom)),
                fake_salt_key=await store.secret("fake-salt-key"),
                outputs=outputs,
                audit=audit,
                relays=RelayDesk(identity, journal.raise_event),
                on_new_events=on_new_events,
                connections_possible=connections_possible(raise_descriptor_limit()),
            )
            runtime.neighbours.on_key_exchanged = self._key_exchanged
            await runtime.neighbours.restore()
            listener = Listener(runtime)
            journal.classes = class_settings(settings)
            journal.on_full = lambda: self._no_room(runtime)
            upkeep = Upkeep(
                runtime, listener, self._options.data_directory, _server_name(self._sockets[0])
            )
            service = _admin_service(runtime, upkeep)
            yield runtime, listener, service, upkeep
        finally:
            logbook.close()

    async def _serve(
        self, runtime: Runtime, listener: Listener, service: AdminService, upkeep: Upkeep
    ) -> None:
        endpoint = AdminEndpoint(
            service,
            os.path.join(self._options.data_directory, "control.sock"),
            access_of(runtime.settings),
            lockout_of(runtime.settings),
        )
        await endpoint.start()
        herald = Herald(runtime.journal.troubles, runtime.outputs, lambda: runtime.settings)
        others = runtime.store.watch(
            on_events=runtime.on_new_events,
            on_commands=upkeep.command_queued,
            on_client=runtime.neighbours.heard,
        )
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    *map(group.create_task, _background(runtime, upkeep, herald)),
                    group.create_task(self._reload_when_told(runtime, listener, endpoint)),
                ]
                await self._begin(runtime, listener, upkeep)
                with others:
                    await self._stop.wait()
                await self._wind_down(runtime, listener, upkeep, herald)
                for task in background:
                    task.cancel()
                await upkeep.end()
        finally:
            await endpoint.close()

    async def _begin(self, runtime: Runtime, listener: Listener, upkeep: Upkeep) -> None:
        """Let agents in, and say so."""
        for bound in self._monitoring:
            await upkeep.serve_monitoring(bound)
        await listener.start(self._sockets)
        spare_the_collector()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        upkeep.health.service = "ok"
        self._announce_start(runtime)
        await runtime.provisioning.started(runtime.settings)

    async def _wind_down(
        self, runtime: Runtime, listener: Listener, upkeep: Upkeep, herald: Herald
    ) -> None:
        """Let nobody in any more, and bring what there is to the disk and to the outputs."""
        upkeep.health.service = "stopping"
        notify("STOPPING=1")
        await listener.stop()
        await herald.last_words(_FLUSH_LIMIT_S)
        runtime.journal.raise_event("EXIT", program="needfire-server", status=self._stop_status)
        await self._save(runtime)
        await runtime.outputs.stop()

    async def _save(self, runtime: Runtime) -> None:
        try:
            await runtime.fleet.save()
        except StorageError as error:
            runtime.journal.store_failed(error)
        await runtime.journal.flush(_FLUSH_LIMIT_S)
        try:
            await runtime.audit.checkpoint()
        except StorageError as error:
            runtime.journal.store_failed(error)

    def _announce_start(self, runtime: Runtime) -> None:
        journal, settings = runtime.journal, runtime.settings
        journal.raise_event(
            "START",
            program="needfire-server",
            userid=os.geteuid(),
            path=settings.source,
            hash=f"sha256:{settings.sha256}",
        )
        if self._user is not None:
            journal.raise_event("PRIVILEGES_DROPPED", user=self._user, userid=os.geteuid())
        _raise_configuration_events(runtime)
        for bound in self._sockets:
            address = _address(bound)
            journal.raise_event("SERVER_UP", address=address, backend=BACKEND)
            print(f"listening on {address}", flush=True)  # noqa: T201  # contract: scripts read it
        for bound in self._monitoring:
            print(f"monitoring on {_address(bound)}", flush=True)  # noqa: T201  # as the line above
        notify("READY=1")

    async def _unseal(self, store: DatabaseStore, journal: Journal) -> bytes:
        """Make the verifiers usable; return the key, which seals sessions as well.

        Raises:
            StorageError: the store's key is not at hand, or does not work.
        """
        keys = keys_at_hand(self._options.data_directory, self._credential)
        opened = await open_seal(store, keys)
        if opened.sealed:
            journal.raise_event(
                "VERIFIERS_SEALED", count=opened.sealed, key=key_id(key_check(opened.key))
            )
        if opened.moved is not None:
            moved = opened.moved
            journal.raise_event(
                "SEAL_KEY_CHANGED", key=moved.after, before=moved.before, count=moved.count, user=""
            )
        return opened.key

    def _key_exchanged(self) -> None:
        self._exit_status = ExitStatus.LOCAL
        self._request_stop("the store is sealed with another key now")

    async def _reload_when_told(
        self, runtime: Runtime, listener: Listener, endpoint: AdminEndpoint
    ) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            notify_reloading()
            self._reload_now(runtime, listener)
            self._configure_roles(runtime, endpoint)
            await runtime.provisioning.configured(runtime.settings)
            notify("READY=1")

    def _configure_roles(self, runtime: Runtime, endpoint: AdminEndpoint) -> None:
        try:
            endpoint.configure(access_of(runtime.settings), lockout_of(runtime.settings))
        except StorageError as error:
            runtime.journal.raise_event(
                "CONFIGURATION_UNUSABLE", path=runtime.settings.source, reason=str(error)
            )

    def _reload_now(self, runtime: Runtime, listener: Listener) -> None:
        """Read the configuration again; every connection of a client that stays goes on."""
        runtime.logbook.reopen()
        runtime.names.clear()
        listener.reloaded()
        try:
            settings = self._options.load_settings()
        except ConfigError as error:
            runtime.journal.raise_event(
                "CONFIGURATION_UNUSABLE",
                path=runtime.settings.source,
                reason=str(error.problems[0]),
            )
            return
        runtime.settings = self._settings = settings
        runtime.journal.configure(class_settings(settings))
        runtime.logbook.configure(settings)
        runtime.outputs.configure(settings.outputs)
        registry = runtime.registry
        before = {name: registry.lookup(name) for name in registry.names()}
        registry.reload(settings.clients)
        for client, verifier in before.items():
            if registry.lookup(client) != verifier:
                runtime.neighbours.forget(client)
        runtime.journal.raise_event(
            "CONFIGURATION_RELOADED", path=settings.source, hash=f"sha256:{settings.sha256}"
        )
        _raise_configuration_events(runtime)


def _admin_service(runtime: Runtime, upkeep: Upkeep) -> AdminService:
    journal = runtime.journal
    hooks = AdminHooks(
        on_command_queued=upkeep.command_queued,
        on_client_removed=runtime.neighbours.forget,
        record_event=journal.raise_event,
        kept_of=journal.kept_of,
        on_stored=journal.already_stored,
        store_later=journal.store_later,
        connections=upkeep.presence.everywhere,
        states=runtime.fleet.states,
        pulse=runtime.vitals.pulse,
        health=upkeep.health.look,
        warning=lambda: journal.warning,
        on_store_failed=journal.store_failed,
        outputs=runtime.outputs,
    )
    return AdminService(runtime.store, runtime.registry, runtime.data_files, hooks, runtime.audit)


def _background(
    runtime: Runtime, upkeep: Upkeep, herald: Herald
) -> tuple[Coroutine[Any, Any, None], ...]:
    """Return what runs until the server ends, and is cancelled then."""
    return (
        runtime.journal.store_waiting(runtime.store),
        upkeep.run(),
        runtime.neighbours.follow(),
        watch_loop(runtime.metrics),
        runtime.outputs.run(),
        retain(runtime),
        keep_summed_up(runtime),
        watch_audit_log(runtime),
        herald.run(),
    )


async def _take_over_files(runtime: Runtime) -> None:
    """Serve what was in the data directory before the servers shared a store."""
    files = runtime.data_files
    if isinstance(files, StoredFiles) and await runtime.store.holds("files"):
        count = await asyncio.to_thread(files.take_over)
        if count:
            runtime.journal.raise_event("FILES_TAKEN_OVER", count=count, path=files.directory)


def _raise_configuration_events(runtime: Runtime) -> None:
    settings, journal = runtime.settings, runtime.journal
    for notice in settings.notices:
        journal.raise_event(
            "CONFIGURATION_NOTICE", text=notice.text, path=notice.source, line=notice.line
        )
    for name in unknown_members(settings):
        journal.raise_event("ROLE_MEMBER_UNKNOWN", name=name, path=settings.source)
    if settings.connection_limit > runtime.connections_possible:
        journal.raise_event(
            "CONFIGURATION_NOTICE",
            text=f"ConnectionLimit is {settings.connection_limit}, but the system allows "
            f"{runtime.connections_possible + DESCRIPTORS_SPARE} open files, of which "
            f"{DESCRIPTORS_SPARE} are needed for other things: only "
            f"{runtime.connections_possible} connections are taken; raise LimitNOFILE of the service",
            path=settings.source,
        )
    for client in runtime.registry.unreadable():
        journal.raise_event("REGISTRATION_UNREADABLE", client=client)
    for twice in runtime.registry.listed_twice():
        journal.raise_event(
            "CLIENT_LISTED_TWICE", client=twice.client, used=twice.used, other=twice.other
        )
    if settings.severity_lookup not in settings.log_severity:
        journal.raise_event("LOOKUP_UNSAFE", severity=settings.severity_lookup.word)


def _server_name(bound: socket.socket) -> str:
    """Return what people call this server: the host, and the port for several on one."""
    return f"{socket.gethostname()}:{bound.getsockname()[1]}"


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
