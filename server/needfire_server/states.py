"""Which state a client is in, and what its events, its restarts and its silence make of it.

The words are those of Samhain's status page. Yule finds them by searching message texts, so that a
path with ``EXIT`` in it confuses it; here only the code of an event decides. Pure: no clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

__all__ = [
    "DECISIVE",
    "ClientState",
    "ClientStatus",
    "as_shown",
    "heard",
    "is_illegal_restart",
    "must_survive",
    "overdue",
    "says_goodbye",
    "status_of",
    "status_of_server_event",
    "told_by_relay",
]


class ClientStatus(Enum):
    """What was last known of a client; the values are shown and stored."""

    # One object each; a state has a map of them, and Enum's own hash is slow.
    __hash__ = object.__hash__

    INACTIVE = "Inactive"
    """Never heard."""
    STARTED = "Started"
    MESSAGE = "Message"
    """It sent something that is none of the others."""
    FILECHECK = "Filecheck"
    """A full check completed."""
    POLICY = "POLICY"
    """It found a difference."""
    PANIC = "PANIC"
    SUSPENDED = "Suspended"
    EXITED = "Exited"
    FILE_TRANSFER = "File_transfer"
    FAILED = "FAILED"
    """A log-in, a download or a message failed."""
    ILLEGAL = "ILLEGAL"
    """It started again without having said that it stops (documented state 8)."""
    TIMEOUT_EXCEEDED = "TIMEOUT_EXCEEDED"
    """It was silent for too long, and that was reported."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """What the server knows of one client.

    Attributes:
        name: the registered name, lower case.
        status: the latest one.
        instance: 16 random bytes of the agent process that last announced itself; of a relay, the
            identity of its store.
        last_seen_us: when it was last heard, by the server's clock; None: never.
        address: where it last connected from.
        is_overdue: its silence has been reported, and it has not been heard since.
        latest: when each status was last entered, by the server's clock.
    """

    name: str
    status: ClientStatus = ClientStatus.INACTIVE
    instance: bytes | None = None
    last_seen_us: int | None = None
    address: str | None = None
    is_overdue: bool = False
    latest: Mapping[ClientStatus, int] = field(default_factory=dict)

    @classmethod
    def initial(cls, name: str) -> "ClientState":
        """Return the state of a client that was never heard."""
        return cls(name)

    def heard_from(self, address: str, now_us: int) -> "ClientState":
        """Return the state of a client that spoke now, and did nothing else."""
        # Not ``replace``: a whole fleet that comes back passes here, and that takes twice as long.
        return ClientState(
            self.name,
            self.status,
            self.instance,
            now_us,
            address,
            self.is_overdue,
            self.latest,
        )

    def with_status(self, status: ClientStatus, now_us: int) -> "ClientState":
        """Return the state with another status; when it was last heard stays as it is."""
        return replace(self, status=status, latest={**self.latest, status: now_us})


def as_shown(state: ClientState, *, is_silent: bool) -> ClientState:
    """Return the state as people are to see it.

    An agent whose silence was alarmed is dead for all that is known, long before the limit that
    makes it overdue. What it did last is no present status then: it is TIMEOUT_EXCEEDED, since it
    was heard last. Only shown so: its next word still decides whether it restarted illegally.
    """
    if not is_silent or state.is_overdue or state.last_seen_us is None:
        return state
    return state.with_status(ClientStatus.TIMEOUT_EXCEEDED, state.last_seen_us)


DECISIVE: Final = frozenset(
    {
        ClientStatus.STARTED,
        ClientStatus.EXITED,
        ClientStatus.SUSPENDED,
        ClientStatus.ILLEGAL,
        ClientStatus.TIMEOUT_EXCEEDED,
    }
)
"""States that decide whether a later start is an illegal one."""

_OF_REPORTS: Final[Mapping[str, ClientStatus]] = {
    "START": ClientStatus.STARTED,
    "EXIT": ClientStatus.EXITED,
    "SUSPEND": ClientStatus.SUSPENDED,
    "CHECK_COMPLETED": ClientStatus.FILECHECK,
    "POLICY_ADDED": ClientStatus.POLICY,
    "POLICY_MISSING": ClientStatus.POLICY,
    "POLICY_MODIFIED": ClientStatus.POLICY,
    "POLICY_NODIRECTORY": ClientStatus.POLICY,
    "AGENT_INTERNAL_ERROR": ClientStatus.PANIC,
}

_DECISIVE_CODES: Final = frozenset(
    code for code, status in _OF_REPORTS.items() if status in DECISIVE
)

_OF_SERVER_EVENTS: Final[Mapping[str, ClientStatus]] = {
    "FILE_TRANSFER_COMPLETED": ClientStatus.FILE_TRANSFER,
    "FILE_NOT_ACCESSIBLE": ClientStatus.FAILED,
    "SESSION_KEY_MISMATCH": ClientStatus.FAILED,
    "SIGNATURE_MISMATCH": ClientStatus.FAILED,
    "MSG_SIGNATURE_MISMATCH": ClientStatus.FAILED,
    "REPORT_UNUSABLE": ClientStatus.FAILED,
    "RESTART_WITHOUT_EXIT": ClientStatus.ILLEGAL,
    "TIME_EXCEEDED": ClientStatus.TIMEOUT_EXCEEDED,
}

_SAID_GOODBYE: Final = frozenset(
    {ClientStatus.INACTIVE, ClientStatus.EXITED, ClientStatus.SUSPENDED}
)
"""From these a new process may start, and in these a client may be silent for as long as it likes.

Suspended is one of them because a second agent of the host may work meanwhile.
"""

_US_PER_S: Final = 1_000_000


def status_of(code: str) -> ClientStatus:
    """Return the status that a report of a client with this code puts it into.

    A code that only the server raises is a plain message here: no client can declare itself
    ILLEGAL or overdue, nor hide that it is.
    """
    return _OF_REPORTS.get(code, ClientStatus.MESSAGE)


def heard(state: ClientState, codes: Sequence[str], now_us: int) -> ClientState:
    """Return the state of a client that was heard, after reports with these codes, if any."""
    if not codes:
        # One that was called dead and only beats is neither dead any more nor anything else.
        now = state.with_status(ClientStatus.MESSAGE, now_us) if state.is_overdue else state
        return replace(now, last_seen_us=now_us, is_overdue=False)
    latest = {**state.latest, **{status_of(code): now_us for code in set(codes)}}
    return replace(
        state,
        status=status_of(codes[-1]),
        latest=latest,
        last_seen_us=now_us,
        is_overdue=False,
    )


def must_survive(state: ClientState, codes: Iterable[str]) -> bool:
    """True where what reports with these codes make of a state must not be lost in a crash.

    Others are known again soon: the client speaks at least once a minute.
    """
    return state.is_overdue or not _DECISIVE_CODES.isdisjoint(codes)


def status_of_server_event(code: str) -> ClientStatus | None:
    """Return the status that an event of the server's own gives the client it is about, if any."""
    return _OF_SERVER_EVENTS.get(code)


def told_by_relay(state: ClientState, code: str, now_us: int) -> ClientState:
    """Return the state of a client after the server that it reports to said something about it.

    Whether a client behind a relay is silent only the relay can know.
    """
    status = status_of_server_event(code)
    if code == "CLIENT_RETURNED":
        return replace(state.with_status(ClientStatus.MESSAGE, now_us), is_overdue=False)
    if status is None:
        return state
    is_overdue = state.is_overdue or status is ClientStatus.TIMEOUT_EXCEEDED
    return replace(state.with_status(status, now_us), is_overdue=is_overdue)


def says_goodbye(status: ClientStatus) -> bool:
    """True for the states in which a client may be silent for as long as it likes."""
    return status in _SAID_GOODBYE


def is_illegal_restart(
    state: ClientState | None, instance: bytes, prior_exit_pending: bool
) -> bool:
    """True where a new agent process appears although the one before never said that it stops.

    Args:
        state: what is known; None for a client that was never heard.
        instance: identifies the process that announces itself now. The same process that comes
            back (a new session key, a lost connection) has not restarted.
        prior_exit_pending: the agent has the EXIT of its predecessor in its spool and could not
            deliver it, for example because the server was away.
    """
    if state is None or state.status in _SAID_GOODBYE:
        return False
    if state.instance is None:
        # Heard, but no process ever announced itself: only failures from strangers were seen.
        return False
    return state.instance != instance and not prior_exit_pending


def overdue(
    states: Iterable[ClientState], now_us: int, limit_s: int, *, listening_since_us: int = 0
) -> list[ClientState]:
    """Return the clients whose silence is to be reported now, each of them once.

    Those that were never heard, that exited or that are suspended are never among them; nor are
    those that are marked as overdue already.

    Args:
        limit_s: SetClientTimeLimit; a client is overdue when it was silent for longer than this.
        listening_since_us: start of the server. Silence before it is the server's, not theirs.
    """
    silent_since_us = now_us - limit_s * _US_PER_S
    if listening_since_us >= silent_since_us:
        return []
    # Of a whole fleet, every few seconds: first what nearly nobody is.
    return [
        state
        for state in states
        if state.last_seen_us is not None
        and state.last_seen_us < silent_since_us
        and not state.is_overdue
        and state.status not in _SAID_GOODBYE
    ]
