"""How a peer becomes a client: name, checks, proof.

What a stranger sees of a failed log-in is the same whatever the reason: the same steps, the same
bytes, the same arithmetic. The reason is only in the log.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from needfire_protocol.connection_events import (
    AuthenticationFailed,
    AuthenticationFailure,
    Closed,
    ConnectionEvent,
    Established,
    Failed,
    NegotiationRequested,
    ProofReceived,
    ResumptionRequested,
)
from needfire_protocol.errors import StorageError
from needfire_protocol.keys import SessionKeys
from needfire_protocol.messages import RefusalCode
from needfire_protocol.severity import Severity
from needfire_protocol.srp import Verifier
from needfire_server.anteroom import Visit
from needfire_server.clock import monotonic_s
from needfire_server.runtime import Runtime
from needfire_server.sessions import Session
from needfire_server.turnstile import Rank
from needfire_server.wire import Wire

__all__ = ["Claim", "Login", "log_in", "resumes_at_once"]


# Not frozen: to make one of six values takes four times as long then.
@dataclass(slots=True)
class Login:
    """A peer that has proved who it is.

    Attributes:
        client: the registered name.
        verifier: what the password was held against; None for a resumed session.
        keys: the session's keys.
        resumed: the session that it resumed; None after a full negotiation.
        takeover: it may replace the session of another process of the same name.
        rest: events that came with the last bytes of the handshake.
    """

    client: str
    verifier: Verifier | None
    keys: SessionKeys
    resumed: Session | None
    takeover: bool
    rest: tuple[ConnectionEvent, ...]


@dataclass(slots=True)
class Claim:
    """What is known of the peer so far.

    Attributes:
        until_s: when our patience ends, by the clock of ``monotonic_s``.
    """

    until_s: float
    client: str = ""
    takeover: bool = False
    resumed: Session | None = None
    verifier: Verifier | None = None
    is_lookup_refused: bool = False
    """The name checks refused it (RequireLookup), which has been logged already."""

    def left_s(self) -> float:
        """Return for how long we are still patient."""
        return max(0.0, self.until_s - monotonic_s())


async def log_in(
    wire: Wire, runtime: Runtime, visit: Visit, claim: Claim, events: list[ConnectionEvent]
) -> Login | None:
    """Drive the handshake to its end; return None where it failed, with the reason logged.

    Args:
        claim: how far it is, and when our patience ends.
        events: what has come already.

    Raises:
        OSError: the connection broke.
        TimeoutError: it was not over in time.
    """
    while True:
        if not events:
            # What went wrong while we calculated is told first: no byte may ever follow it.
            events = wire.connection.untold()
            if not events:
                if claim.left_s():
                    events = await wire.receive(claim.until_s)
                if not claim.left_s():
                    # Also where there is something by now: one that always has a byte ready would never
                    # let the wait end.
                    raise TimeoutError
            continue
        event, *events = events
        match event:
            case NegotiationRequested():
                # Before anything is looked up or calculated for it.
                places = runtime.settings.handshake_limit
                if not runtime.anteroom.negotiate(visit, places, monotonic_s()):
                    await _no_place(wire, runtime, places)
                    return None
                async with asyncio.timeout(claim.left_s()):
                    rank = _rank(visit, Rank.HELLO)
                    if not await _negotiate(wire, runtime, claim, event, rank):
                        return None
                visit.owes_since_s = monotonic_s()
            case ResumptionRequested():
                if not await _resume(wire, runtime, claim, event):
                    return None
            case ProofReceived():
                visit.owes_since_s = None
                rank = _rank(visit, Rank.PROOF)
                async with asyncio.timeout(claim.left_s()):
                    verified = await runtime.calculate(wire.connection.verify_proof, rank)
                # What it makes us say is sent with what it means.
                events = [*verified, *events]
            case Established(keys=keys):
                await wire.flush()
                runtime.metrics.handshake("resumed" if claim.resumed else "negotiated")
                if not claim.resumed:
                    runtime.throttle.logged_in(claim.client)
                return Login(
                    claim.client, claim.verifier, keys, claim.resumed, claim.takeover, tuple(events)
                )
            case AuthenticationFailed(reason=reason):
                await _authentication_failed(wire, runtime, claim, reason)
                return None
            case Failed(error=error):
                runtime.metrics.handshake("protocol_error")
                runtime.journal.raise_event(
                    "PROTOCOL_ERROR", client=claim.client, peer=wire.peer, reason=str(error)
                )
                await _farewell(wire)
                return None
            case Closed():
                runtime.metrics.handshake("closed")
                runtime.journal.raise_event(
                    "CONNECTION_CLOSED",
                    client=claim.client,
                    peer=wire.peer,
                    reason="the peer closed it before it logged in",
                )
                return None
            case _:
                raise AssertionError(f"{type(event).__name__} during the handshake")


def _rank(visit: Visit, of_a_stranger: Rank) -> Rank:
    return Rank.FAMILIAR if visit.is_familiar else of_a_stranger


async def _negotiate(
    wire: Wire, runtime: Runtime, claim: Claim, event: NegotiationRequested, rank: Rank
) -> bool:
    """Challenge a peer that says who it is; False where it is turned away instead."""
    settings = runtime.settings
    claim.takeover = event.takeover
    if settings.set_client_from_accept:
        claim.client = await runtime.names.name_from_address(wire.address)
    if not runtime.throttle.may_log_in(claim.client or event.name.lower()):
        # Before the name service is asked for it, too.
        runtime.metrics.handshake("too_often")
        wire.connection.refuse(RefusalCode.BUSY)
        await wire.flush()
        return False
    if not settings.set_client_from_accept:
        identity = await runtime.names.check(event.name, wire.address)
        claim.client = identity.name
        for finding in identity.findings:
            runtime.journal.raise_event(finding.code, settings.severity_lookup, **finding.fields)
        if settings.require_lookup and not identity.is_confirmed:
            runtime.journal.raise_event("LOOKUP_REQUIRED", client=claim.client, peer=wire.peer)
            claim.is_lookup_refused = True
    verifier = None if claim.is_lookup_refused else runtime.registry.lookup(claim.client)
    claim.verifier = verifier
    work = partial(wire.connection.challenge, verifier, name=claim.client)
    await runtime.calculate(work, rank)
    await wire.flush()
    return True


async def _no_place(wire: Wire, runtime: Runtime, places: int) -> None:
    runtime.metrics.handshake("busy")
    runtime.journal.raise_event("TOO_MANY_CONNECTIONS", peer=wire.address, limit=places)
    wire.connection.refuse(RefusalCode.BUSY)
    await wire.flush()


def resumes_at_once(
    wire: Wire, runtime: Runtime, claim: Claim, events: Sequence[ConnectionEvent]
) -> bool:
    """Answer a client that brings a session's key, where that is all it says and takes no waiting.

    False where it takes more than that; nothing was done then. True also where the answer was the end of
    the connection, as if it asks for another suite than the session has.
    """
    if len(events) != 1 or runtime.store.is_shared:
        return False
    event = events[0]
    if not isinstance(event, ResumptionRequested):
        return False
    session = runtime.sessions.find(event.session_id)
    if session is None or _what_forbids(runtime, session):
        return False
    _go_on(wire, claim, session)
    wire.flush_at_once()
    return True


async def _resume(wire: Wire, runtime: Runtime, claim: Claim, event: ResumptionRequested) -> bool:
    """Answer a client that brings a session's key; False where the connection is over."""
    try:
        session = await runtime.neighbours.find(event.session_id, claim.left_s())
    except StorageError as error:
        # Not that the session is unknown: a whole fleet would log in with passwords then.
        runtime.journal.store_failed(error)
        runtime.metrics.handshake("store_failed")
        wire.connection.refuse(RefusalCode.BUSY)
        await wire.flush()
        return False
    reason = _what_forbids(runtime, session)
    if session is None or reason == "session_unknown":
        runtime.metrics.handshake("session_unknown")
        wire.connection.refuse_resumption(RefusalCode.SESSION_UNKNOWN, None)
    elif reason == "session_superseded":
        runtime.journal.raise_event("SIGNATURE_MISMATCH", client=session.client, peer=wire.peer)
        runtime.metrics.handshake(reason)
        wire.connection.refuse_resumption(RefusalCode.SESSION_SUPERSEDED, session.keys)
    elif reason == "session_expired":
        runtime.metrics.handshake(reason)
        # With the peer, whose share it counts for: the identifier was sent in clear, and is no proof.
        runtime.journal.raise_event("FORCE_AUTHENTICATION", client=session.client, peer=wire.peer)
        wire.connection.refuse_resumption(RefusalCode.SESSION_UNKNOWN, None)
    else:
        _go_on(wire, claim, session)
        await wire.flush()
        return True
    await wire.flush()
    return False


def _what_forbids(runtime: Runtime, session: Session | None) -> str | None:
    """Return why a session cannot be resumed, as the metrics have it; None where it can."""
    if session is None or runtime.registry.lookup(session.client) is None:
        return "session_unknown"
    if not runtime.sessions.is_current(session):
        return "session_superseded"
    return "session_expired" if session.expires_s <= monotonic_s() else None


def _go_on(wire: Wire, claim: Claim, session: Session) -> None:
    claim.client, claim.resumed = session.client, session
    wire.connection.resume(session.keys)


async def _farewell(wire: Wire) -> None:
    """Send the last there is to say, if the peer is there to hear it.

    What it did is logged in any case: who tries passwords would else stay out of the log by a reset.
    """
    with contextlib.suppress(OSError):
        await wire.flush()


async def _authentication_failed(
    wire: Wire, runtime: Runtime, claim: Claim, reason: AuthenticationFailure
) -> None:
    # Send first: what we log must not be measurable in the time of the answer.
    await _farewell(wire)
    if claim.is_lookup_refused:
        runtime.metrics.handshake("lookup_refused")
        return
    is_unknown = claim.resumed is None and reason is AuthenticationFailure.UNKNOWN_NAME
    runtime.metrics.handshake("unknown_name" if is_unknown else "wrong_password")
    if claim.resumed is not None:
        runtime.journal.raise_event("SIGNATURE_MISMATCH", client=claim.client, peer=wire.peer)
    elif reason is AuthenticationFailure.UNKNOWN_NAME:
        runtime.journal.raise_event(
            "NOT_IN_CLIENT_LIST", Severity.CRIT, client=claim.client, peer=wire.peer
        )
    else:
        # Only said. Whoever does not have the password must not change what is known of a client:
        # a stranger could keep a killed agent from being missed, or spoil a clean exit.
        runtime.journal.raise_event("SESSION_KEY_MISMATCH", client=claim.client, peer=wire.peer)
