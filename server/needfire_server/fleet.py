"""What the server knows of each client: its state, when it was heard, and whether it is overdue."""

from collections.abc import Iterable
from dataclasses import replace

from needfire_protocol.event import Event, format_time
from needfire_server.clock import now_us
from needfire_server.journal import Journal
from needfire_server.states import ClientState, ClientStatus, is_illegal_restart, overdue, status_of
from needfire_server.storage.base import Store

__all__ = ["Fleet"]

_WRITTEN_AT_ONCE = frozenset(
    {
        ClientStatus.STARTED,
        ClientStatus.EXITED,
        ClientStatus.SUSPENDED,
        ClientStatus.ILLEGAL,
        ClientStatus.TIMEOUT_EXCEEDED,
    }
)
"""States that decide whether a later start is an illegal one: they must survive a crash of the
server. The others are written with the next sweep."""


class Fleet:
    """The states of all clients; in memory, written through to the store."""

    def __init__(
        self, store: Store, journal: Journal, states: dict[str, ClientState] | None = None
    ) -> None:
        self._store = store
        self._journal = journal
        self._states = dict(states or {})
        self._unsaved: set[str] = set()
        self._listening_since_us = now_us()

    def state(self, client: str) -> ClientState:
        """Return what is known of a client; one that never spoke is Inactive."""
        return self._states.get(client) or ClientState.initial(client)

    def states(self) -> dict[str, ClientState]:
        """Return all states by name: a copy."""
        return dict(self._states)

    async def started(
        self, client: str, instance: bytes, address: str, *, prior_exit_pending: bool
    ) -> bool:
        """Note that an agent process has a session; True where an earlier one said no goodbye.

        That is documented state 8, "Restart without prior exit".
        """
        state = self.state(client)
        if state.instance == instance:
            # The same process again. It may have come back out of a suspension.
            status = ClientStatus.MESSAGE if state.status in _AT_REST else state.status
            await self._set(client, status, instance=instance, address=address)
            return False
        illegal = is_illegal_restart(state, instance, prior_exit_pending=prior_exit_pending)
        status = ClientStatus.ILLEGAL if illegal else ClientStatus.STARTED
        await self._set(client, status, instance=instance, address=address)
        return illegal

    async def heard(self, client: str, events: Iterable[Event] = ()) -> None:
        """Note that a client spoke, and what its reports say about its state."""
        statuses: list[ClientStatus | None] = [status_of(event.code) for event in events]
        for status in statuses or [None]:
            await self._set(client, status)

    async def note(self, client: str, status: ClientStatus) -> None:
        """Note something that the server itself saw of a client."""
        await self._set(client, status)

    async def sweep(self, registered: Iterable[str], limit_s: int) -> None:
        """Report clients that have been silent for too long, once each, and save what waits."""
        wanted = set(registered)
        silent = overdue(
            [state for name, state in self._states.items() if name in wanted],
            now_us=now_us(),
            limit_s=limit_s,
            listening_since_us=self._listening_since_us,
        )
        for state in silent:
            last = None if state.last_seen_us is None else format_time(state.last_seen_us)
            self._journal.raise_event(
                "TIME_EXCEEDED", client=state.name, limit_s=limit_s, last=last
            )
            overdue_state = state.with_status(ClientStatus.TIMEOUT_EXCEEDED, now_us())
            # Not heard: only the status changes, not the time of the last message.
            overdue_state = replace(overdue_state, is_overdue=True, last_seen_us=state.last_seen_us)
            self._states[state.name] = overdue_state
            await self._store.save_client_state(overdue_state)
        await self.save()

    async def save(self) -> None:
        """Write every state that has changed since it was last written."""
        while self._unsaved:
            name = self._unsaved.pop()
            await self._store.save_client_state(self._states[name])

    async def _set(
        self,
        client: str,
        status: ClientStatus | None,
        *,
        instance: bytes | None = None,
        address: str | None = None,
    ) -> None:
        before = self.state(client)
        if before.is_overdue:
            self._journal.raise_event("CLIENT_RETURNED", client=client)
        moment = now_us()
        after = before if status is None else before.with_status(status, moment)
        after = replace(
            after,
            last_seen_us=moment,
            is_overdue=False,
            instance=before.instance if instance is None else instance,
            address=before.address if address is None else address,
        )
        self._states[client] = after
        self._unsaved.add(client)
        if status in _WRITTEN_AT_ONCE or before.is_overdue:
            self._unsaved.discard(client)
            await self._store.save_client_state(after)


_AT_REST = frozenset({ClientStatus.EXITED, ClientStatus.SUSPENDED, ClientStatus.TIMEOUT_EXCEEDED})
