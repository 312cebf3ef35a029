"""The verbs without a server: on the store and the data directory themselves, locked meanwhile."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from pwd import getpwuid
from types import TracebackType
from typing import Any, BinaryIO

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import StorageError
from needfire_protocol.event import Event, FieldValue, make_event
from needfire_server.admin.backend import Answer
from needfire_server.admin.owner import become_owner
from needfire_server.admin.requests import Arguments, Page, Reply, Request
from needfire_server.admin.service import AdminHooks, AdminService
from needfire_server.audit.drafts import draft_of_event
from needfire_server.audit.log import AuditLog
from needfire_server.clock import now_us
from needfire_server.registry import Registry
from needfire_server.seal_key import SealKeyError, read_credential
from needfire_server.sealing import (
    Exchanged,
    KeysAtHand,
    exchange_key,
    give_up_key,
    keys_at_hand,
    open_seal,
    usable_key,
)
from needfire_server.storage.base import ClientConnection
from needfire_server.storage.opening import how_to_open_again, load_drivers
from needfire_server.stored_files import data_files_of
from needfire_server.verifier_seal import VerifierSeal

__all__ = ["OfflineStore"]


class OfflineStore:
    """Implements ``Backend`` on a data directory that no server uses.

    What is registered in the [Clients] section of the server's configuration is not known here.
    """

    is_server = False

    def __init__(self, data_directory: str) -> None:
        """Lock and open the store.

        Raises:
            StorageError: another process has it, or it is not accessible.
        """
        if not os.path.isdir(data_directory):
            raise StorageError(
                f"{data_directory} is not a directory: start needfire-server first, which makes it, or "
                "name the server's own with --data-dir"
            )
        self._user = _user_name()
        # The program's own files may lie where only root can read them, and credentials too.
        load_drivers(data_directory)
        self._credential = read_credential(os.environ)
        become_owner(data_directory)
        self._data_directory = data_directory
        self._store = how_to_open_again(data_directory)()
        self._runner = asyncio.Runner()
        try:
            self._service = self._runner.run(self._make_service(data_directory))
        except BaseException:
            self._close()
            raise

    def call(self, verb: str, arguments: Mapping[str, Any], file: BinaryIO | None = None) -> Answer:
        reply = self._handle(verb, arguments, file)
        return Answer(reply.result, reply.file)

    def stream(self, verb: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        pages = self._handle(verb, arguments, None).pages
        # By the page: to run a loop for an item takes longer than to read it.
        while pages is not None and (page := self._runner.run(_next(pages))) is not None:
            yield from page

    def exchange_key(self) -> Exchanged:
        """Seal everything with a new key.

        Raises:
            StorageError: as ``sealing.exchange_key``.
        """
        done = self._runner.run(exchange_key(self._store, self._keys(), self._user))
        self._tell_key("SEAL_KEY_CHANGED", done)
        return done

    def give_up_key(self) -> tuple[Exchanged, list[str]]:
        """Begin with a new key; return who has to be registered anew.

        Raises:
            StorageError: as ``sealing.give_up_key``.
        """
        done, names = self._runner.run(give_up_key(self._store, self._keys(), self._user))
        self._tell_key("SEAL_KEY_LOST", done)
        return done, names

    def __enter__(self) -> "OfflineStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _keys(self) -> KeysAtHand:
        return keys_at_hand(self._data_directory, self._credential)

    async def _use_key(self) -> None:
        """Open verifiers where that is possible: most verbs need none, and change none."""
        check = await self._store.seal_check()
        if check is not None:
            with contextlib.suppress(SealKeyError):
                self._store.use_verifier_seal(VerifierSeal(usable_key(check, self._keys())))

    def _tell_key(self, code: str, done: Exchanged) -> None:
        self._record_event(
            code, key=done.after, before=done.before, count=done.count, user=self._user
        )

    def _close(self) -> None:
        self._runner.close()
        self._store.close()

    def _handle(self, verb: str, arguments: Mapping[str, Any], file: BinaryIO | None) -> Reply:
        request = Request(verb, Arguments(arguments))
        return self._runner.run(self._carry_out(request, file))

    async def _carry_out(self, request: Request, file: BinaryIO | None) -> Reply:
        if request.verb == "register":
            await open_seal(self._store, self._keys())
        return await self._service.handle(request, user=self._user, file=file)

    async def _make_service(self, data_directory: str) -> AdminService:
        await self._use_key()
        states = await self._store.load_client_states()
        hooks = AdminHooks(
            on_command_queued=lambda _client: None,
            on_client_removed=lambda _client: None,
            record_event=self._record_event,
            kept_of=_kept,
            connections=_nobody,
            states=lambda: states,
        )
        registry = Registry((), await self._store.clients())
        audit = await AuditLog.open(self._store.audit, data_directory)
        data_files = data_files_of(self._store, data_directory)
        return AdminService(self._store, registry, data_files, hooks, audit)

    def _record_event(self, code: str, /, **fields: FieldValue) -> None:
        event = make_event(code, time_us=now_us(), random_10_bytes=os.urandom(10), **fields)
        self._store.record_now(*_kept(event))


def _kept(event: Event) -> tuple[Event, Draft | None]:
    return event, draft_of_event(event)


async def _nobody() -> dict[str, ClientConnection]:
    return {}


async def _next(pages: AsyncGenerator[Page, None]) -> Page | None:
    return await anext(pages, None)


def _user_name() -> str:
    try:
        return getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
