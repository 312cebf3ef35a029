"""How what an administrator asks for is carried out and put on record, whoever asks and however.

The endpoint calls it for requests from the socket; the command line calls it directly on the store
where no server runs. So a verb does the same, checks the same and leaves the same events either
way.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import BinaryIO, Final

from needfire_protocol.counted import counted
from needfire_protocol.errors import ConfigError, FormatError, NeedfireError, StorageError
from needfire_server.admin.asked import asked_fields
from needfire_server.admin.requests import Page, Reply, Request
from needfire_server.admin.subject import AdminHooks, Call, Subject
from needfire_server.admin.verbs import VERBS
from needfire_server.admin.wakeup import Wakeup
from needfire_server.audit.log import AuditLog
from needfire_server.datafiles import DataFiles
from needfire_server.lockout import RefusalStore
from needfire_server.registry import Registry
from needfire_server.storage.base import Store

__all__ = ["AdminHooks", "AdminService"]

_LINES_MAX: Final = 20
"""Lines of a wrong configuration that a record of the audit log names."""


class AdminService:
    """Carries out requests. Everything that it changes is recorded as an event with the user."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        data_files: DataFiles,
        hooks: AdminHooks,
        audit: AuditLog,
    ) -> None:
        self._subject = Subject(store, registry, data_files, hooks, Wakeup(), audit)

    @property
    def hooks(self) -> AdminHooks:
        """How it speaks to the rest of the server."""
        return self._subject.hooks

    @property
    def refusals(self) -> RefusalStore:
        """Where refused requests are counted."""
        return self._subject.store

    async def handle(self, request: Request, *, user: str, file: BinaryIO | None = None) -> Reply:
        """Carry out one request.

        Args:
            user: who asks, for the events; the caller has checked that they may.
            file: the open file that came along; stays the caller's to close.

        Raises:
            AdminRefusedError: it is not done, and why.
            ConfigError: the configuration that was given is wrong.
            FormatError: no such verb, or its arguments are not as they must be.
            StorageError: the disk or the store failed.
        """
        verb = VERBS.get(request.verb)
        if verb is None:
            raise FormatError(f"no verb {request.verb[:64]!r}; is the server older than this tool?")
        call = Call(request.arguments, user, file, os.urandom(8).hex())
        await self._record(request.verb, call, "ADMIN_REQUEST")
        try:
            reply = await verb.run(self._subject, call)
        except Exception as error:
            await self._record_failure(request.verb, call, error)
            raise
        if reply.pages is None:
            return reply
        return replace(reply, pages=self._watched(request.verb, call, reply.pages))

    async def _watched(
        self, verb: str, call: Call, pages: AsyncGenerator[Page, None]
    ) -> AsyncGenerator[Page, None]:
        """Yield what a reply has, and put it on record if that fails on the way."""
        async with aclosing(pages):
            try:
                async for page in pages:
                    yield page
            except Exception as error:
                await self._record_failure(verb, call, error)
                raise

    async def _record_failure(self, verb: str, call: Call, error: Exception) -> None:
        is_ours = isinstance(error, NeedfireError | OSError)
        reason = _reason_of(error) if is_ours else f"internal error: {type(error).__name__}"
        await self._record(verb, call, "ADMIN_REQUEST_FAILED", reason=reason)

    async def _record(self, verb: str, call: Call, code: str, **fields: str) -> None:
        """Put a request on record before it is carried out, and its failure when it has failed.

        The first record says only what was asked for, for nobody knows yet how it will end; what
        a request then does has records of its own, under the same request id. What changes nothing
        is answered even where the record cannot be written.
        """
        name = call.arguments.loose_text("name")
        asked = {} if fields else asked_fields(call.arguments.unchecked, call.file)
        draft = call.draft(code, client=name, verb=verb, **asked, **fields)
        draft = draft._replace(is_success=False if fields else None)
        try:
            await self._subject.audit.append(draft)
        except StorageError as error:
            self.hooks.on_store_failed(error)
            if not VERBS[verb].is_reading and not fields:
                raise

    def notify_new_events(self) -> None:
        """Tell those who follow events that the store has new ones. In the event loop's thread."""
        self._subject.new_events.notify()


def _reason_of(error: Exception) -> str:
    """Return why a request failed, without what stands in a file: a record is for ever.

    What is wrong with a configuration is said by quoting it, and who put a wrong file in place may
    have given one of passwords.
    """
    if not isinstance(error, ConfigError):
        return str(error)
    lines = [str(each.line) for each in error.problems[:_LINES_MAX] if each.line is not None]
    where = f", in line{'s' * (len(lines) > 1)} {', '.join(lines)}" if lines else ""
    return f"{counted(len(error.problems), 'error')} in the configuration{where}"
