"""Which session keys are valid: one a client name, and what became of the ones before.

A client has one current session. A new negotiation replaces it, and the one before becomes
*superseded*: its key is still remembered until it expires, only so that the older agent can be
told with proof that it was replaced (documented state 7) and does not have to believe a stranger.
Pure: times come in as monotonic seconds.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from needfire_protocol.keys import SessionKeys

__all__ = ["Session", "SessionTable"]

_SUPERSEDED_MAX: Final = 4
"""Superseded keys remembered for each client: a bound on what one client can make us hold."""
_GRACE_S: Final = 7_200
"""Seconds for which an expired session is remembered; more than any silence of a connection."""


@dataclass(frozen=True, slots=True)
class Session:
    """A negotiated session of one agent process."""

    client: str
    keys: SessionKeys
    instance: bytes
    """The agent process that negotiated it, by its own random identifier."""
    expires_s: float
    """Monotonic seconds after which the key must not be used."""


class SessionTable:
    """The current session of each client, and the recently superseded ones."""

    def __init__(self) -> None:
        self._current: dict[str, Session] = {}
        self._superseded: dict[str, deque[Session]] = {}
        self._by_id: dict[bytes, Session] = {}

    def current(self, client: str) -> Session | None:
        """Return the valid session of a client, expired or not, or None."""
        return self._current.get(client)

    def find(self, session_id: bytes) -> Session | None:
        """Return a current or superseded session by its identifier, or None."""
        return self._by_id.get(session_id)

    def is_current(self, session: Session) -> bool:
        """True while no newer negotiation has replaced the session and no exit ended it."""
        return self._current.get(session.client) is session

    def is_held_by_another(self, client: str, instance: bytes, now_s: float) -> bool:
        """True while another process of the client has a valid key and has not said goodbye."""
        holder = self._current.get(client)
        return holder is not None and holder.instance != instance and holder.expires_s > now_s

    def known(self, client: str) -> tuple[bytes, ...]:
        """Return the identifiers of all sessions of a client that are remembered."""
        current = self._current.get(client)
        older = [each.keys.session_id for each in self._superseded.get(client, ())]
        return (*older, *(() if current is None else (current.keys.session_id,)))

    def restore(self, session: Session, *, is_current: bool) -> None:
        """Take a session of an earlier process of the server, or of another server."""
        if is_current:
            self.install(session)
        else:
            self._by_id[session.keys.session_id] = session
            self._remember(session)

    def install(self, session: Session) -> Session | None:
        """Make a session the current one of its client; return the one that it replaces."""
        replaced = self._current.get(session.client)
        if replaced is not None:
            if replaced.instance == session.instance:
                # The same process renegotiated. Nothing will speak with the old key again.
                self._by_id.pop(replaced.keys.session_id, None)
            else:
                self._remember(replaced)
        self._current[session.client] = session
        self._by_id[session.keys.session_id] = session
        return replaced

    def clients(self) -> tuple[str, ...]:
        """Return the clients that have a current session."""
        return tuple(self._current)

    def end(self, session: Session) -> None:
        """Forget a session whose agent said goodbye, if it is still the current one."""
        if self.is_current(session):
            del self._current[session.client]
            self._by_id.pop(session.keys.session_id, None)

    def drop_client(self, client: str) -> None:
        """Forget everything of a client that is no longer registered."""
        for session in (self._current.pop(client, None), *self._superseded.pop(client, ())):
            if session is not None:
                self._by_id.pop(session.keys.session_id, None)

    def sweep(self, now_s: float) -> None:
        """Forget what has expired.

        Of the current ones only those that nobody can be using any more: a client that speaks with
        a key that is too old is to be told so, and not that somebody took its place.
        """
        for session in list(self._current.values()):
            if session.expires_s + _GRACE_S <= now_s:
                self.end(session)
        for client, sessions in list(self._superseded.items()):
            while sessions and sessions[0].expires_s <= now_s:
                self._by_id.pop(sessions.popleft().keys.session_id, None)
            if not sessions:
                del self._superseded[client]

    def _remember(self, replaced: Session) -> None:
        sessions = self._superseded.setdefault(replaced.client, deque())
        sessions.append(replaced)
        if len(sessions) > _SUPERSEDED_MAX:
            self._by_id.pop(sessions.popleft().keys.session_id, None)
