"""One connection, without I/O: bytes in, events out; messages in, bytes out.

    agent = AgentConnection.negotiate("web1.example.org", password, takeover=False,
                                      random_bytes=os.urandom)
    send_all(agent.data_to_send())
    for event in agent.receive_data(received): ...

Nothing that a peer sends makes these methods raise: a fault becomes the event ``Failed``, and the
connection is closed. What raises (``LocalProtocolError``) is a step that the owner may not take.
After it is closed, a connection still gives ``data_to_send`` (a refusal may wait there), takes
bytes without looking at them, and ignores answers of an owner that was busy meanwhile.

A connection belongs to one thread at a time. ``challenge`` and ``verify_proof`` do arithmetic of
10 to 20 ms and are meant to be called in another one; until they return, the owner may close the
connection, but must not do anything else with it, and so must not read from its socket either.
"""

from needfire_protocol.agent_connection import AgentConnection
from needfire_protocol.connection_base import SUITES, VERSIONS
from needfire_protocol.server_connection import ServerConnection

__all__ = ["SUITES", "VERSIONS", "AgentConnection", "ServerConnection"]
