"""What an administrator can ask of the server: one method table, whoever asks and however.

The endpoint calls it for requests from the socket; the command line calls it directly on the store
where no server runs. So a verb does the same, checks the same and leaves the same events either
way.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import BinaryIO, Final, TypeAlias

from needfire_protocol.errors import FormatError
from needfire_server.admin import (
    client_verbs,
    command_verbs,
    event_verbs,
    file_verbs,
    output_verbs,
)
from needfire_server.admin.requests import Reply, Request
from needfire_server.admin.subject import AdminHooks, Call, Subject
from needfire_server.admin.wakeup import Wakeup
from needfire_server.datafiles import DataFiles
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
    "events": event_verbs.events,
    "output-list": output_verbs.list_outputs,
    "output-test": output_verbs.test_output,
}


class AdminService:
    """Carries out requests. Everything that it changes is recorded as an event with the user."""

    def __init__(
        self, store: Store, registry: Registry, data_files: DataFiles, hooks: AdminHooks
    ) -> None:
        self._subject = Subject(store, registry, data_files, hooks, Wakeup())

    @property
    def hooks(self) -> AdminHooks:
        """How it speaks to the rest of the server."""
        return self._subject.hooks

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
        return await verb(self._subject, Call(request.arguments, user, file))

    def notify_new_events(self) -> None:
        """Tell those who follow events that the store has new ones. In the event loop's thread."""
        self._subject.new_events.notify()
