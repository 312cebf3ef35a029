"""What an administrator can ask of the server: one method table, whoever asks and however.

The endpoint calls it for requests from the socket; the command line calls it directly on the store
where no server runs. So a verb does the same, checks the same and leaves the same events either
way.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import BinaryIO, Final, TypeAlias

from needfire_protocol.errors import FormatError, NeedfireError, StorageError
from needfire_server.admin import (
    alarm_verbs,
    audit_verbs,
    client_verbs,
    command_verbs,
    event_verbs,
    file_verbs,
    output_verbs,
    proposal_verbs,
)
from needfire_server.admin.asked import asked_fields
from needfire_server.admin.requests import Reply, Request
from needfire_server.admin.subject import AdminHooks, Call, Subject
from needfire_server.admin.wakeup import Wakeup
from needfire_server.audit.log import AuditLog
from needfire_server.datafiles import DataFiles
from needfire_server.lockout import RefusalStore
from needfire_server.registry import Registry
from needfire_server.storage.base import Store

__all__ = ["VERBS", "AdminHooks", "AdminService"]

_Verb: TypeAlias = Callable[[Subject, Call], Awaitable[Reply]]

VERBS: Final[Mapping[str, _Verb]] = {
    "register": client_verbs.register,
    "clients-list": client_verbs.list_clients,
    "clients-show": client_verbs.show_client,
    "clients-remove": client_verbs.remove_client,
    "status": client_verbs.status,
    "health": client_verbs.health,
    "send": command_verbs.send_command,
    "commands": command_verbs.list_commands,
    "cancel": command_verbs.cancel_commands,
    "config-put": file_verbs.put_configuration,
    "config-get": file_verbs.get_configuration,
    "baseline-put": file_verbs.put_baseline,
    "baseline-get": file_verbs.get_baseline,
    "baseline-list": file_verbs.list_baselines,
    "baseline-show": file_verbs.show_baseline,
    "baseline-diff": proposal_verbs.show_changes,
    "files-list": file_verbs.list_files,
    "events": event_verbs.events,
    "alarms-list": alarm_verbs.list_alarms,
    "alarms-clear": alarm_verbs.clear_alarm,
    "output-list": output_verbs.list_outputs,
    "output-test": output_verbs.test_output,
    "output-skipped": output_verbs.list_skipped,
    "output-retry": output_verbs.retry_skipped,
    "output-discard": output_verbs.discard_skipped,
    "audit-show": audit_verbs.show,
    "audit-export": audit_verbs.export,
    "audit-prove": audit_verbs.prove,
    "audit-keys": audit_verbs.keys,
    "audit-rotate": audit_verbs.rotate,
    "report": audit_verbs.report,
}


_READING: Final = frozenset(
    {
        "clients-list",
        "clients-show",
        "status",
        "config-get",
        "baseline-get",
        "baseline-list",
        "baseline-show",
        "baseline-diff",
        "events",
        "alarms-list",
        "output-list",
        "output-skipped",
        "commands",
        "health",
        "audit-show",
        "audit-export",
        "audit-prove",
        "audit-keys",
        "report",
    }
)
"""Verbs that change nothing."""


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
            return await verb(self._subject, call)
        except NeedfireError as error:
            await self._record(request.verb, call, "ADMIN_REQUEST_FAILED", reason=str(error))
            raise

    async def _record(self, verb: str, call: Call, code: str, **fields: str) -> None:
        """Put a request on record before it is carried out, and its failure when it has failed.

        The first record says only what was asked for, for nobody knows yet how it will end; what
        a request then does has records of its own, under the same request id. What changes nothing is answered even where the record cannot be written.
        """
        name = call.arguments.loose_text("name")
        asked = {} if fields else asked_fields(call.arguments.unchecked, call.file)
        draft = call.draft(code, client=name, verb=verb, **asked, **fields)
        draft = replace(draft, is_success=False if fields else None)
        try:
            await self._subject.audit.append(draft)
        except StorageError as error:
            self.hooks.on_store_failed(error)
            if verb not in _READING and not fields:
                raise

    def notify_new_events(self) -> None:
        """Tell those who follow events that the store has new ones. In the event loop's thread."""
        self._subject.new_events.notify()
