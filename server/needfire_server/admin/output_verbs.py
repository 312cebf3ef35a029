"""The verbs about outputs: how they are, and whether one works."""

import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from needfire_protocol.escape import printable
from needfire_protocol.event import event_data, format_time, make_event
from needfire_server.admin.requests import AdminRefusedError, Page, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.clock import now_us

if TYPE_CHECKING:
    from needfire_server.outputs.engine import OutputEngine, OutputStatus, SentNow

__all__ = ["discard_skipped", "list_outputs", "list_skipped", "retry_skipped", "test_output"]

_PAGE: Final = 50


async def list_outputs(subject: Subject, call: Call) -> Reply:
    """Each output of the configuration, with its counters."""
    call.arguments.check_names()
    return Reply(pages=_described(await _engine(subject).status()))


async def test_output(subject: Subject, call: Call) -> Reply:
    """Send one record to the target of an output now, and say what came of it."""
    call.arguments.check_names("name")
    name = call.arguments.text("name").lower()
    event = make_event(
        "OUTPUT_TEST", time_us=now_us(), random_10_bytes=os.urandom(10), output=name, user=call.user
    )
    result = await _engine(subject).send_now(name, event)
    if result is None:
        raise _unknown(name)
    outcome = _outcome(result)
    await subject.record_done(
        f"the test of {name} came to {outcome!r}",
        call.event("OUTPUT_TESTED", output=name, outcome=outcome, reason=result.reason or None),
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


async def list_skipped(subject: Subject, call: Call) -> Reply:
    """What targets refused for good, of one output or of all."""
    call.arguments.check_names("name")
    name = call.arguments.optional_text("name")
    engine = _engine(subject)
    names = sorted(await engine.skipped_counts()) if name is None else [name.lower()]
    return Reply(pages=_skipped(engine, names))


async def retry_skipped(subject: Subject, call: Call) -> Reply:
    """Send what was set aside once more, and say what came of it."""
    name, number = _which(call)
    result = await _engine(subject).retry_skipped(name, number)
    if result is None:
        raise _unknown(name)
    await subject.record_done(
        f"{result.sent} records were sent to {name} and {result.refused} refused",
        call.event(
            "OUTPUT_SKIPPED_RETRIED",
            output=name,
            sent=result.sent,
            refused=result.refused,
            reason=result.reason or None,
        ),
    )
    return Reply(
        {
            "name": name,
            "sent": result.sent,
            "refused": result.refused,
            "reason": result.reason or None,
        }
    )


async def discard_skipped(subject: Subject, call: Call) -> Reply:
    """Forget what was set aside."""
    name, number = _which(call)
    count = await _engine(subject).discard_skipped(name, number)
    if count == 0:
        raise AdminRefusedError(
            f"nothing of the kind is set aside for the output {printable(name, 64)!r}",
            "needfire-admin output skipped shows what is",
        )
    await subject.record_done(
        f"{count} records of {name} are given up",
        call.event("OUTPUT_SKIPPED_DISCARDED", output=name, count=count),
    )
    return Reply({"name": name, "discarded": count})


def _which(call: Call) -> tuple[str, int | None]:
    call.arguments.check_names("name", "number")
    return call.arguments.text("name").lower(), call.arguments.optional_integer("number")


def _unknown(name: str) -> AdminRefusedError:
    return AdminRefusedError(
        f"there is no output {printable(name, 64)!r}",
        "needfire-admin output list shows those of the server's configuration",
    )


async def _skipped(engine: "OutputEngine", names: list[str]) -> AsyncGenerator[Page, None]:
    for name in names:
        position = 0
        while page := await engine.skipped(name, position, _PAGE):
            position = page[-1].number
            yield [
                {
                    "output": name,
                    "number": each.number,
                    "skipped": format_time(each.skipped_us),
                    "reason": each.reason,
                    "event": event_data(each.event),
                }
                for each in page
            ]


def _engine(subject: Subject) -> "OutputEngine":
    engine = subject.hooks.outputs
    if engine is None:
        raise AdminRefusedError("outputs work in a running server only", "start the server")
    return engine


def _outcome(result: "SentNow") -> str:
    if result.reason:
        return "failed"
    return "delivered" if result.is_certain else "sent"


async def _described(found: "list[OutputStatus]") -> AsyncGenerator[Page, None]:
    yield [
        {
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
            "skipped": each.skipped,
        }
        for each in found
    ]
