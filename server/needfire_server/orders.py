"""What becomes of commands that a client never answers: they are settled or they expire, and it is told."""

from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.event import format_time
from needfire_server.audit.drafts import acknowledgement_draft
from needfire_server.journal import Journal
from needfire_server.storage.base import Command, Store

__all__ = ["Expiry", "settle_stops"]

_EVER: Final = 0
"""As the present time, it lets no command be too old to be returned."""


async def settle_stops(store: Store, client: str, now_us: int, detail: str) -> list[Command]:
    """Count every ``stop`` that was delivered as done, because the client has stopped.

    Its answer may have been lost with the connection. Sent again, it would stop the next process.

    Args:
        detail: how that is known.

    Returns:
        The commands, as they are now.

    Raises:
        StorageError: the store failed.
    """
    settled = []
    for command in await store.pending_commands(client, now_us=_EVER):
        if command.verb == "stop" and command.delivered_us is not None:
            done = await store.acknowledge_command(
                command.id,
                "done",
                detail,
                now_us=now_us,
                client=client,
                audit=acknowledgement_draft,
            )
            settled += [] if done is None else [done]
    return settled


class Expiry:
    """Watches the clients for which commands wait, and ends those whose time is over."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._due_us: dict[str, int] = {}

    def watch(self, client: str) -> None:
        """Commands may wait for a client."""
        self._due_us[client] = 0

    async def sweep(self, now_us: int) -> None:
        """End what has expired; only clients for which something may be due are looked at.

        For whom nothing waits is asked once for all of them: after a start that is the whole fleet.

        Raises:
            StorageError: the store failed; the rest waits for the next time.
        """
        due = {client for client, due_us in self._due_us.items() if due_us <= now_us}
        if not due:
            return
        for client in due:
            # Before it is asked: who is watched meanwhile is looked at the next time.
            del self._due_us[client]
        try:
            for client in due & await self._store.clients_with_commands():
                await self._end_expired(client, now_us)
        except StorageError:
            self._due_us = dict.fromkeys(due, 0) | self._due_us
            raise

    async def _end_expired(self, client: str, now_us: int) -> None:
        waiting = []
        for command in await self._store.pending_commands(client, now_us=_EVER):
            if command.expires_us is None:
                continue
            if command.expires_us > now_us:
                waiting.append(command.expires_us)
            elif await self._store.acknowledge_command(
                command.id, "expired", "", now_us=now_us, client=client
            ):
                self._tell(command)
        if waiting:
            # Who was watched meanwhile stays due.
            self._due_us[client] = min(*waiting, self._due_us.get(client, waiting[0]))

    def _tell(self, command: Command) -> None:
        delivered_us = command.delivered_us
        self._journal.raise_event(
            "COMMAND_EXPIRED",
            client=command.client,
            command=command.verb,
            command_id=command.id,
            user=command.user,
            request=command.request,
            delivered="" if delivered_us is None else format_time(delivered_us),
        )
