"""Who gets a vector's bytes, made with fixed secrets, and what they make of them."""

from collections.abc import Callable
from dataclasses import dataclass

from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    AuthenticationFailed,
    Closed,
    ConnectionEvent,
    Failed,
    MessageReceived,
    ProofReceived,
    Refused,
)
from needfire_testkit.pairs import (
    NAME,
    PASSWORD,
    Pair,
    fixed_random,
    negotiated_pair,
    new_server,
    resumed_pair,
    verifier_of,
)

__all__ = [
    "KEYS",
    "RECEIVERS",
    "Vector",
    "challenged",
    "negotiated",
    "negotiating",
    "opened",
    "resuming_agent",
    "told",
]


@dataclass(frozen=True, slots=True)
class Vector:
    """Bytes, who gets them, and what that must lead to."""

    name: str
    receiver: str
    """Key of ``RECEIVERS``."""
    expect: str
    """The events, as ``told`` writes them; a failure by how its text begins."""
    comment: str
    data: bytes


def negotiating() -> AgentConnection:
    return AgentConnection.negotiate(
        NAME, PASSWORD, takeover=False, random_bytes=fixed_random("vector agent")
    )


def challenged() -> tuple[AgentConnection, ServerConnection]:
    agent, server = negotiating(), new_server(fixed_random("vector server"))
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    return agent, server


def _server_awaiting_proof() -> ServerConnection:
    _, server = challenged()
    server.data_to_send()
    return server


def _agent_awaiting_confirmation() -> AgentConnection:
    agent, server = challenged()
    agent.receive_data(server.data_to_send())
    return agent


def negotiated(suite: int = 1) -> Pair:
    return negotiated_pair(
        agent_random=fixed_random("vector agent"),
        server_random=fixed_random("vector server"),
        suites=(suite,),
    )


_KEYS_OF = {suite: negotiated(suite).keys for suite in (1, 2)}
KEYS = _KEYS_OF[1]


def opened(suite: int) -> Pair:
    return resumed_pair(
        _KEYS_OF[suite],
        agent_random=fixed_random("vector resuming agent"),
        server_random=fixed_random("vector resuming server"),
    )


def resuming_agent() -> AgentConnection:
    return AgentConnection.resume(KEYS, random_bytes=fixed_random("vector resuming agent"))


def _server_awaiting_resumption_proof() -> ServerConnection:
    server = new_server(fixed_random("vector resuming server"))
    server.receive_data(resuming_agent().data_to_send())
    server.resume(KEYS)
    server.data_to_send()
    return server


RECEIVERS: dict[str, Callable[[], AgentConnection | ServerConnection]] = {
    "fresh server": lambda: new_server(fixed_random("vector server")),
    "server awaiting proof": _server_awaiting_proof,
    "server awaiting resumption proof": _server_awaiting_resumption_proof,
    "open server, suite 1": lambda: opened(1).server,
    "open server, suite 2": lambda: opened(2).server,
    "open server, negotiated": lambda: negotiated().server,
    "agent awaiting challenge": negotiating,
    "agent awaiting confirmation": _agent_awaiting_confirmation,
    "agent awaiting resumption answer": resuming_agent,
    "open agent, suite 1": lambda: opened(1).agent,
}


def told(vector: Vector) -> str:
    """Return what the receiver makes of a vector's bytes, followed by the end of the stream."""
    receiver = RECEIVERS[vector.receiver]()
    events = receiver.receive_data(vector.data)
    if events and events[-1] == ProofReceived() and isinstance(receiver, ServerConnection):
        events += receiver.verify_proof()
    events += receiver.receive_eof()
    return (
        " | ".join(_word(event) for event in events if not isinstance(event, Closed)) or "nothing"
    )


def _word(event: ConnectionEvent) -> str:
    name = type(event).__name__
    if isinstance(event, Failed):
        return f"{name}: {event.error}"
    if isinstance(event, AuthenticationFailed):
        return f"{name}: {event.reason.value}"
    if isinstance(event, Refused):
        return f"{name}: {event.code.name}{' authenticated' if event.authenticated else ''}"
    if isinstance(event, MessageReceived):
        return f"{name}: {type(event.message).__name__}"
    return name
