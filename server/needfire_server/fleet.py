"""What the server knows of each client: its state, when it was heard, and whether it is overdue."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeGuard

from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event, format_time
from needfire_protocol.names import is_relayed_name, parse_reporter_name
from needfire_server.clock import now_us
from needfire_server.journal import Journal
from needfire_server.states import (
    DECISIVE,
    ClientState,
    ClientStatus,
    heard,
    is_illegal_restart,
    overdue,
    told_by_relay,
)
from needfire_server.storage.base import Store

__all__ = ["BEHIND_RELAY_MAX", "Fleet", "behind_relays"]

BEHIND_RELAY_MAX: Final = 10_000
"""Clients of one relay whose states are kept: it could make up names without end."""


class Fleet:
    """The states of all clients; in memory, written through to the store."""

    def __init__(
        self, store: Store, journal: Journal, states: dict[str, ClientState] | None = None
    ) -> None:
        self._store = store
        self._journal = journal
        self._states = dict(states or {})
        self._unsaved: set[str] = set()
        self._behind = _count_behind(self._states)
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

        Raises:
            StorageError: it may not survive.
        """
        is_illegal, states = self.begun(
            client, instance, address, prior_exit_pending=prior_exit_pending
        )
        await self._write(states)
        return is_illegal

    def begun(
        self, client: str, instance: bytes, address: str, *, prior_exit_pending: bool
    ) -> tuple[bool, tuple[ClientState, ...]]:
        """As ``started``, for those who store the states themselves: together with something else.

        They call ``saved`` with them then; what they cannot store is saved later.
        """
        state = self.state(client)
        if state.instance == instance:
            # The same process again. It may have come back out of a suspension. If not, nothing
            # has changed that a crash must not take away: a fleet that resumes writes nothing.
            if state.status in _AT_REST:
                status = ClientStatus.MESSAGE
                return False, self._enter(client, status, instance=instance, address=address)
            self._change(state.heard_from(address, now_us()))
            return False, ()
        illegal = is_illegal_restart(state, instance, prior_exit_pending=prior_exit_pending)
        status = ClientStatus.ILLEGAL if illegal else ClientStatus.STARTED
        return illegal, self._enter(client, status, instance=instance, address=address)

    def saved(self, states: Iterable[ClientState]) -> None:
        """The store has these states; what has changed since is still to be written."""
        self._unsaved -= {state.name for state in states if self._states[state.name] is state}

    def heard(
        self, client: str, events: Sequence[Event] = (), *, saved: ClientState | None = None
    ) -> None:
        """Note that a client spoke, and what its reports say about its state.

        Args:
            saved: the state that the store has since it stored the events, if it was to keep it.
        """
        before = self.state(client)
        if before.is_overdue:
            self._journal.raise_event("CLIENT_RETURNED", client=client)
        # From what is known now: meanwhile something else may have happened to the client.
        moment_us = now_us() if saved is None or saved.last_seen_us is None else saved.last_seen_us
        after = heard(before, [event.code for event in events], moment_us)
        self._states[client] = after
        if after == saved:
            self._unsaved.discard(client)
        else:
            self._unsaved.add(client)

    def take(self, stored: ClientState) -> None:
        """Take what the store has of a client that comes from another server, perhaps.

        What was heard here and is not saved yet is newer.
        """
        if stored.name not in self._unsaved:
            self._states[stored.name] = stored

    def adopt(self, stored: Iterable[ClientState]) -> list[ClientState]:
        """Take over what another server on the same store has heard since; return those states."""
        newer = [state for state in stored if _is_newer(state, self.state(state.name))]
        self._states.update({state.name: state for state in newer})
        if newer:
            self._behind = _count_behind(self._states)
        return newer

    async def relayed_by(self, relays: Mapping[str, bytes]) -> None:
        """Note which servers reports have passed; durable before the reports are.

        Args:
            relays: identity by name (``relay/name``).
        """
        changed = [
            replace(self.state(name), instance=identity)
            for name, identity in relays.items()
            if self.state(name).instance != identity
        ]
        kept = [state for state in changed if self._change_behind(state)]
        await self._save({state.name for state in kept})

    def heard_through(self, relay: str, events: Sequence[Event]) -> bool:
        """Note what a relay passed on says of clients behind it; False where there are too many.

        Those that are too many have their reports stored, and no state.
        """
        moment_us = now_us()
        is_whole = True
        for event in events:
            whose = event.client or relay
            if whose != relay:
                state = heard(self.state(whose), [event.code], moment_us)
                is_whole &= self._change_behind(state)
            about = event.fields.get("client")
            if is_relay(whose, relay, self.state(whose)) and _is_name(about):
                told = self.state(f"{whose}/{about}")
                after = told_by_relay(told, event.code, moment_us)
                if after != told:
                    is_whole &= self._change_behind(after)
        return is_whole

    def behind_relays(self, registered: Iterable[str]) -> list[str]:
        """Return the names of those who report through a relay that is registered, sorted."""
        return behind_relays(self._states, registered)

    async def note(self, client: str, status: ClientStatus) -> None:
        """Note something that the server itself saw of a client."""
        await self._write(self._enter(client, status))

    def overdue(self, registered: Iterable[str], limit_s: int) -> list[ClientState]:
        """Return the clients that ``sweep`` would report."""
        wanted = set(registered)
        return overdue(
            [state for name, state in self._states.items() if name in wanted],
            now_us=now_us(),
            limit_s=limit_s,
            listening_since_us=self._listening_since_us,
        )

    async def sweep(self, registered: Iterable[str], limit_s: int) -> None:
        """Report clients that have been silent for too long, once each, and save what waits."""
        for state in self.overdue(registered, limit_s):
            last = None if state.last_seen_us is None else format_time(state.last_seen_us)
            self._journal.raise_event(
                "TIME_EXCEEDED", client=state.name, limit_s=limit_s, last=last
            )
            # Not heard: only the status changes, not the time of the last message.
            changed = state.with_status(ClientStatus.TIMEOUT_EXCEEDED, now_us())
            self._change(replace(changed, is_overdue=True))
        await self.save()

    async def save(self) -> None:
        """Write every state that has changed since it was last written.

        Raises:
            StorageError: none was written; the next call tries them all again.
        """
        await self._save(set(self._unsaved))

    async def _save(self, names: set[str]) -> None:
        await self._write([self._states[name] for name in sorted(names)])

    async def _write(self, states: Sequence[ClientState]) -> None:
        if states:
            await self._store.save_client_states(states)
            self.saved(states)

    def _enter(
        self,
        client: str,
        status: ClientStatus,
        *,
        instance: bytes | None = None,
        address: str | None = None,
    ) -> tuple[ClientState, ...]:
        """Let a client enter a status; return what of that must not be lost in a crash."""
        before = self.state(client)
        if before.is_overdue:
            self._journal.raise_event("CLIENT_RETURNED", client=client)
        moment_us = now_us()
        after = replace(
            before.with_status(status, moment_us),
            last_seen_us=moment_us,
            is_overdue=False,
            instance=before.instance if instance is None else instance,
            address=before.address if address is None else address,
        )
        self._change(after)
        return (after,) if status in DECISIVE or before.is_overdue else ()

    def _change_behind(self, state: ClientState) -> bool:
        """Take a state, unless it is one too many of a relay."""
        if state.name not in self._states and is_relayed_name(state.name):
            relay = state.name.partition("/")[0]
            if self._behind[relay] >= BEHIND_RELAY_MAX:
                return False
            self._behind[relay] += 1
        self._change(state)
        return True

    def _change(self, state: ClientState) -> None:
        self._states[state.name] = state
        self._unsaved.add(state.name)


def _is_newer(stored: ClientState, ours: ClientState) -> bool:
    theirs_us, ours_us = stored.last_seen_us or 0, ours.last_seen_us or 0
    # Of the same silence, another server may have told that it is too long.
    return theirs_us > ours_us or (theirs_us == ours_us and stored.is_overdue > ours.is_overdue)


def behind_relays(states: Iterable[str], registered: Iterable[str]) -> list[str]:
    """Return which of the names are of clients behind one of the registered ones, sorted."""
    known = set(registered)
    return sorted(
        name for name in states if is_relayed_name(name) and name.partition("/")[0] in known
    )


def _count_behind(names: Iterable[str]) -> Counter[str]:
    """How many clients each relay has."""
    return Counter(name.partition("/")[0] for name in names if is_relayed_name(name))


def is_relay(client: str, relay: str, state: ClientState) -> bool:
    """True where reports of the client are a server's own: of the relay, or of one behind it."""
    return client == relay or state.instance is not None


def _is_name(value: object) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    try:
        return parse_reporter_name(value) == value
    except FormatError:
        return False


_AT_REST = frozenset({ClientStatus.EXITED, ClientStatus.SUSPENDED, ClientStatus.TIMEOUT_EXCEEDED})
