"""The verbs about outputs: how they are, and whether one works."""

import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from needfire_protocol.escape import printable
from needfire_protocol.event import make_event
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.clock import now_us

if TYPE_CHECKING:
    from needfire_server.outputs.engine import OutputEngine, OutputStatus, SentNow

__all__ = ["list_outputs", "test_output"]


async def list_outputs(subject: Subject, call: Call) -> Reply:
    """Each output of the configuration, with its counters."""
    call.arguments.check_names()
    return Reply(items=_items(await _engine(subject).status()))


async def test_output(subject: Subject, call: Call) -> Reply:
    """Send one record to the target of an output now, and say what came of it."""
    call.arguments.check_names("name")
    name = call.arguments.text("name").lower()
    event = make_event(
        "OUTPUT_TEST", time_us=now_us(), random_10_bytes=os.urandom(10), output=name, user=call.user
    )
    result = await _engine(subject).send_now(name, event)
    if result is None:
        raise AdminRefusedError(
            f"there is no output {printable(name, 64)!r}",
            "needfire-admin output list shows those of the server's configuration",
        )
    outcome = _outcome(result)
    subject.hooks.record_event(
        "OUTPUT_TESTED", output=name, outcome=outcome, reason=result.reason or None, **call.who
    )
    return Reply(
        {
            "name": name,
            "outcome": outcome,
            "reason": result.reason or None,
            "duration_ms": result.duration_ms,
            "id": event.id,
        }
    )


def _engine(subject: Subject) -> "OutputEngine":
    engine = subject.hooks.outputs
    if engine is None:
        raise AdminRefusedError("outputs work in a running server only", "start the server")
    return engine


def _outcome(result: "SentNow") -> str:
    if result.reason:
        return "failed"
    return "delivered" if result.is_certain else "sent"


async def _items(found: "list[OutputStatus]") -> AsyncGenerator[Mapping[str, Any], None]:
    for each in found:
        yield {
            "name": each.name,
            "target": each.target,
            "format": each.format,
            "state": each.state.value,
            "reason": each.reason or None,
            "sent": each.sent,
            "retried": each.retried,
            "dropped": each.dropped,
            "waiting": each.waiting,
            "held": each.held,
        }
