"""The admin side of a server, whole and real: store, registry, files and socket, without agents."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.admin.endpoint import AdminEndpoint
from needfire_server.admin.roles import Access, Role
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.audit.drafts import draft_of_event
from needfire_server.audit.log import AuditLog
from needfire_server.datafiles import DataFiles
from needfire_server.lockout import LockLimits
from needfire_server.registry import ListedClient, Registry
from needfire_server.sealing import keys_at_hand, open_seal
from needfire_server.states import ClientState
from needfire_server.storage.base import ClientConnection
from needfire_server.storage.sqlite import SqliteStore
from needfire_testkit.server_store import NOW_US, verifier

__all__ = [
    "OWN",
    "RC",
    "AdminServer",
    "Ended",
    "on_terminal",
    "registered",
    "run_admin",
    "start_admin",
]

RC = b"[ReadOnly]\ndir=/etc\n[Misc]\nSetFilecheckTime=600\n"

OWN: Final = Access({role: frozenset({0, os.geteuid()}) for role in Role}, {})
"""Who runs the tests has every role."""


@dataclass
class AdminServer:
    """One that runs; what it did to the rest of a server is written down."""

    directory: Path
    store: SqliteStore
    registry: Registry
    service: AdminService
    socket_path: Path
    states: dict[str, ClientState] = field(default_factory=dict)
    connected: dict[str, str] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    raised: list[Event] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        listed: tuple[ListedClient, ...] = (),
        *,
        access: Access | None = None,
        limits: LockLimits | None = None,
        **endpoint_options: Any,
    ) -> AsyncIterator["AdminServer"]:
        """Start one on a data directory; unless told, who runs the test may do everything."""
        store = SqliteStore.open(str(directory / "needfire.sqlite"))
        await open_seal(store, keys_at_hand(str(directory), None))
        registry = Registry(listed, await store.clients())
        server: AdminServer

        def record_event(code: str, /, **fields: FieldValue) -> None:
            event = make_event(code, time_us=1, random_10_bytes=os.urandom(10), **fields)
            server.raised.append(event)
            store.record_now(event)
            server.service.notify_new_events()

        def stored(event: Event) -> None:
            server.raised.append(event)
            server.service.notify_new_events()

        hooks = AdminHooks(
            on_command_queued=lambda client: server.woken.append(client),
            on_client_removed=lambda client: server.dropped.append(client),
            record_event=record_event,
            kept_of=lambda event: (event, draft_of_event(event)),
            on_stored=stored,
            connections=lambda: server.connections(),
            states=lambda: server.states,
        )
        audit = await AuditLog.open(store.audit, str(directory))
        service = AdminService(store, registry, DataFiles(str(directory)), hooks, audit)
        server = cls(directory, store, registry, service, directory / "control.sock")
        try:
            async with AdminEndpoint(
                service,
                str(server.socket_path),
                access or OWN,
                limits or LockLimits(),
                **endpoint_options,
            ):
                yield server
        finally:
            store.close()

    async def connections(self) -> dict[str, ClientConnection]:
        """Return what ``connected`` says, at this server."""
        return {
            client: ClientConnection("log1:49777", address)
            for client, address in self.connected.items()
        }

    def codes(self) -> list[str]:
        """Return the codes of the events that were raised, in order."""
        return [event.code for event in self.raised]

    def last(self) -> Mapping[str, FieldValue]:
        """Return the fields of the event that was raised last."""
        return self.raised[-1].fields


@dataclass(frozen=True)
class Ended:
    """A command that has run."""

    status: int
    out: str
    err: str


async def start_admin(
    *arguments: str | Path, directory: Path | None = None, stdin: bool = False
) -> asyncio.subprocess.Process:
    """Start ``needfire-admin`` as a process of its own."""
    where = () if directory is None else ("--data-dir", str(directory))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from needfire_server.admin.cli import main; main()",
        *where,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run_admin(
    *arguments: str | Path, directory: Path | None = None, stdin: bytes | None = None
) -> Ended:
    """Run ``needfire-admin`` to its end."""
    process = await start_admin(*arguments, directory=directory, stdin=stdin is not None)
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def registered(server: AdminServer, *names: str) -> None:
    """Register clients, as the server itself would know of them."""
    for name in names:
        await server.store.register(name, verifier(), now_us=NOW_US, user="root")
        record = await server.store.client_record(name)
        assert record is not None
        server.registry.put(record)


async def on_terminal(*arguments: str, directory: Path) -> bytes:
    """Run needfire-admin on a terminal; return what it shows there."""
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from needfire_server.admin.cli import main; main()",
        *("--data-dir", str(directory), *arguments),
        stdout=follower,
        stderr=follower,
        stdin=follower,
    )
    await process.wait()
    os.close(follower)
    shown = os.read(leader, 65_536)
    os.close(leader)
    return shown
