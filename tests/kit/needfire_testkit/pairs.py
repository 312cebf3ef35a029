"""An agent's and a server's connection, joined in memory, for tests of whatever sits on them.

pair = negotiated_pair()
pair.agent.send(Heartbeat(time_us=1, spool_reports=0, spool_oldest_us=None))
assert pair.deliver_to_server() == [MessageReceived(...)]
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from needfire_protocol.connection import AgentConnection, ServerConnection
from needfire_protocol.connection_events import (
    ConnectionEvent,
    Failed,
    NegotiationRequested,
    ProofReceived,
    ResumptionRequested,
)
from needfire_protocol.framing import Frame, FrameReader, FrameType
from needfire_protocol.keys import SessionKeys, sign_report
from needfire_protocol.messages import EVENT_REPORT, Report, ReportBatch
from needfire_protocol.srp import RandomBytes, Verifier, make_verifier

__all__ = [
    "FAKE_SALT_KEY",
    "NAME",
    "PASSWORD",
    "Pair",
    "assert_failed",
    "at_confirmation",
    "connect",
    "fixed_random",
    "frames",
    "negotiate",
    "negotiated_pair",
    "new_server",
    "only",
    "only_frame",
    "refused_pair",
    "resumed_pair",
    "signed_batch",
    "verifier_of",
]

NAME = "web1.example.org"
PASSWORD = "correct horse battery staple"
FAKE_SALT_KEY = bytes(range(32))


def fixed_random(seed: str) -> RandomBytes:
    """A source of bytes that gives the same ones in every run; for vectors and nothing else."""
    counter = 0

    def draw(count: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{seed}/{counter}".encode()).digest(count)

    return draw


@cache
def verifier_of(password: str = PASSWORD) -> Verifier:
    """The verifier of a password, made once: it costs 10 ms."""
    return make_verifier(password, fixed_random("verifier"))


def new_server(random_bytes: RandomBytes = os.urandom) -> ServerConnection:
    """A server's connection that has received nothing."""
    return ServerConnection(random_bytes=random_bytes, fake_salt_key=FAKE_SALT_KEY)


@dataclass
class Pair:
    """Both ends, and what each was told since the pair was made."""

    agent: AgentConnection
    server: ServerConnection
    agent_events: list[ConnectionEvent]
    server_events: list[ConnectionEvent]

    @property
    def keys(self) -> SessionKeys:
        """The session that both ends have."""
        assert self.agent.keys is not None
        assert self.agent.keys == self.server.keys
        return self.agent.keys

    def deliver_to_server(self) -> list[ConnectionEvent]:
        """Carry what the agent has to send, and return what the server was told."""
        events = self.server.receive_data(self.agent.data_to_send())
        self.server_events += events
        return events

    def deliver_to_agent(self) -> list[ConnectionEvent]:
        """Carry what the server has to send, and return what the agent was told."""
        events = self.agent.receive_data(self.server.data_to_send())
        self.agent_events += events
        return events


def connect(
    agent: AgentConnection,
    server: ServerConnection,
    *,
    verifier: Verifier | None = None,
    keys: SessionKeys | None = None,
) -> Pair:
    """Run a handshake to its end, with the answers that a server's owner would give."""
    pair = Pair(agent, server, [], [])
    while (to_server := agent.data_to_send()) or server.is_open != agent.is_open:
        told = server.receive_data(to_server)
        pair.server_events += told
        for event in told:
            pair.server_events += _answer(server, event, verifier, keys)
        if not pair.deliver_to_agent() and not to_server:
            break
    return pair


def _answer(
    server: ServerConnection,
    event: ConnectionEvent,
    verifier: Verifier | None,
    keys: SessionKeys | None,
) -> list[ConnectionEvent]:
    if isinstance(event, NegotiationRequested):
        server.challenge(verifier)
    elif isinstance(event, ProofReceived):
        return server.verify_proof()
    elif isinstance(event, ResumptionRequested):
        assert keys is not None, "a resumption needs the keys of its session"
        server.resume(keys)
    return []


def negotiated_pair(
    *,
    agent_random: RandomBytes = os.urandom,
    server_random: RandomBytes = os.urandom,
    takeover: bool = False,
    suites: tuple[int, ...] = (1, 2),
) -> Pair:
    """Both ends of an open connection under a new session; costs about 60 ms."""
    agent = AgentConnection.negotiate(
        NAME, PASSWORD, takeover=takeover, random_bytes=agent_random, suites=suites
    )
    pair = connect(agent, new_server(server_random), verifier=verifier_of())
    assert agent.is_open
    assert pair.server.is_open
    return pair


@cache
def _session_keys(suite: int) -> SessionKeys:
    return negotiated_pair(suites=(suite,)).keys


def resumed_pair(
    keys: SessionKeys | None = None,
    *,
    suite: int = 1,
    agent_random: RandomBytes = os.urandom,
    server_random: RandomBytes = os.urandom,
) -> Pair:
    """Both ends of an open connection under an existing session; costs less than 1 ms."""
    keys = _session_keys(suite) if keys is None else keys
    agent = AgentConnection.resume(keys, random_bytes=agent_random)
    pair = connect(agent, new_server(server_random), keys=keys)
    assert agent.is_open
    assert pair.server.is_open
    return pair


def signed_batch(
    keys: SessionKeys, stream: bytes, bodies: list[bytes], first_sequence: int = 1
) -> ReportBatch:
    """Reports of these bodies as an agent of the session signs them."""
    reports = []
    for sequence, body in enumerate(bodies, first_sequence):
        signature = sign_report(keys, stream, sequence, EVENT_REPORT, body)
        reports.append(Report(sequence, EVENT_REPORT, body, signature))
    return ReportBatch(stream, tuple(reports))


# ---- one side at a time ---------------------------------------------------------------------------


def negotiate(password: str = PASSWORD, **keywords: Any) -> AgentConnection:
    """An agent that begins; whatever its connection takes can be given by name."""
    options: dict[str, Any] = {"takeover": False, "random_bytes": os.urandom, **keywords}
    return AgentConnection.negotiate(NAME, password, **options)


def at_confirmation() -> tuple[AgentConnection, ServerConnection]:
    """Both sides of a negotiation in which only the proof and its confirmation are missing."""
    agent, server = negotiate(), new_server()
    server.receive_data(agent.data_to_send())
    server.challenge(verifier_of())
    agent.receive_data(server.data_to_send())
    return agent, server


def refused_pair(password: str, *, known: bool) -> tuple[Pair, bytes]:
    """The pair after a failed negotiation, and all that the server sent."""
    agent, server = (
        negotiate(password, random_bytes=fixed_random("a")),
        new_server(fixed_random("s")),
    )
    sent = bytearray()
    pair = Pair(agent, server, [], [])
    for answer in ("challenge", "verify"):
        pair.deliver_to_server()
        if answer == "challenge":
            server.challenge(verifier_of() if known else None)
        else:
            pair.server_events += server.verify_proof()
        data = server.data_to_send()
        sent += data
        pair.agent_events += agent.receive_data(data)
    return pair, bytes(sent)


def frames(data: bytes) -> list[Frame]:
    """The frames that the bytes are, with nothing left over."""
    reader, found = FrameReader(), []
    reader.feed(data)
    while frame := reader.next_frame(frozenset(FrameType)):
        found.append(frame)
    assert reader.buffered_bytes == 0
    return found


def only_frame(connection: AgentConnection | ServerConnection) -> Frame:
    """The one frame that it has to send."""
    found = frames(connection.data_to_send())
    assert len(found) == 1
    return found[0]


def only(events: list[ConnectionEvent]) -> Any:
    assert len(events) == 1, events
    return events[0]


def assert_failed(
    connection: AgentConnection | ServerConnection, events: list[ConnectionEvent], text: str
) -> None:
    """It has failed with such a text, and whatever comes now is nothing to it."""
    assert isinstance(events[-1], Failed), events
    assert text in str(events[-1].error)
    assert connection.is_closed
    assert not connection.is_open
    assert connection.receive_data(b"\x20\x00\x00\x00\x01x" * 10) == []
