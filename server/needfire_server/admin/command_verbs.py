"""The verbs about commands to clients: send, list what waits, cancel."""

from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.event import Event, format_time
from needfire_server.admin.registered import registered
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.admin.times import DURATION_S_MAX
from needfire_server.clock import now_us
from needfire_server.storage.audit_base import AuditOf
from needfire_server.storage.base import COMMAND_VERBS, Command, TooManyCommandsError

__all__ = [
    "COMMAND_EXPIRY_S",
    "cancel_commands",
    "command_data",
    "list_commands",
    "send_command",
]

COMMAND_EXPIRY_S: Final = 86_400
"""Seconds that a command waits unless told: nobody expects the ``stop`` of last month."""


async def send_command(subject: Subject, call: Call) -> Reply:
    """Queue a command for one client or for all."""
    call.arguments.check_names("name", "all", "verb", "expires_s")
    verb = call.arguments.text("verb")
    if verb not in COMMAND_VERBS:
        raise FormatError(f"{verb[:64]!r} is no command; expected {', '.join(COMMAND_VERBS)}")
    moment_us = now_us()
    expires_us = moment_us + 1_000_000 * _expires_s(call)
    queued: list[dict[str, Any]] = []
    refused = []
    for name in _addressees(subject, call):
        try:
            number = await subject.carry_out(
                partial(_queue, subject, call, name, verb, (moment_us, expires_us)),
                partial(_queued, call, name, verb),
            )
        except TooManyCommandsError as error:
            refused.append(str(error))
            continue
        queued.append({"client": name, "command_id": number, "expires": format_time(expires_us)})
        subject.hooks.on_command_queued(name)
    if refused:
        raise AdminRefusedError("; ".join(refused[:3]), "see needfire-admin clients show NAME")
    connected = await subject.hooks.connections()
    for each in queued:
        each["connected"] = each["client"] in connected
    return Reply({"verb": verb, "queued": queued})


def _queue(
    subject: Subject,
    call: Call,
    client: str,
    verb: str,
    times_us: tuple[int, int],
    audit: AuditOf[int],
) -> Awaitable[int]:
    return subject.store.queue_command(
        client, verb, call.user, *times_us, audit=audit, request=call.request
    )


def _queued(call: Call, client: str, verb: str, number: int) -> Event:
    return call.event("COMMAND_QUEUED", client=client, command=verb, command_id=number)


async def list_commands(subject: Subject, call: Call) -> Reply:
    """What waits for one client or for all, oldest first for each."""
    call.arguments.check_names("name")
    name = call.arguments.optional_text("name")
    names = subject.registry.names() if name is None else (registered(subject, name).name,)
    return Reply(
        {
            "commands": [
                {"client": each, **command_data(command)}
                for each in names
                for command in await subject.store.pending_commands(each)
            ]
        }
    )


async def cancel_commands(subject: Subject, call: Call) -> Reply:
    """Take back one command, or all that wait for a client."""
    call.arguments.check_names("name", "command_id")
    name = registered(subject, call.arguments.text("name")).name
    number = call.arguments.optional_integer("command_id")
    waiting = await subject.store.pending_commands(name)
    wanted = [command for command in waiting if number in (None, command.id)]
    if number is not None and not wanted:
        raise AdminRefusedError(
            f"no command {number} waits for {name}", f"needfire-admin commands {name}"
        )
    cancelled = [each for each in wanted if await _cancel(subject, call, each)]
    return Reply({"cancelled": [{"client": name, **command_data(each)} for each in cancelled]})


async def _cancel(subject: Subject, call: Call, command: Command) -> bool:
    """False where the client has acknowledged it meanwhile."""
    done = await subject.carry_out(
        lambda audit: subject.store.acknowledge_command(
            command.id,
            "cancelled",
            f"by {call.user}",
            now_us(),
            client=command.client,
            audit=audit,
        ),
        partial(_cancelled, call),
    )
    return done is not None


def _cancelled(call: Call, command: Command | None) -> Event | None:
    if command is None:
        return None
    return call.event(
        "COMMAND_CANCELLED", client=command.client, command=command.verb, command_id=command.id
    )


def command_data(command: Command) -> dict[str, Any]:
    """Return a command as the interface shows it."""
    delivered = command.delivered_us
    return {
        "command_id": command.id,
        "verb": command.verb,
        "user": command.user,
        "queued": format_time(command.queued_us),
        "expires": None if command.expires_us is None else format_time(command.expires_us),
        "delivered": None if delivered is None else format_time(delivered),
    }


def _expires_s(call: Call) -> int:
    seconds = call.arguments.optional_integer("expires_s")
    if seconds is None:
        return COMMAND_EXPIRY_S
    if not 1 <= seconds <= DURATION_S_MAX:
        raise FormatError(f"a command waits from 1 to {DURATION_S_MAX} seconds")
    return seconds


def _addressees(subject: Subject, call: Call) -> tuple[str, ...]:
    name = call.arguments.optional_text("name")
    if call.arguments.flag("all") == (name is not None):
        raise FormatError("a command goes to one client or to all of them")
    if name is not None:
        return (registered(subject, name).name,)
    names = subject.registry.names()
    if not names:
        raise AdminRefusedError("no client is registered", "needfire-admin register NAME")
    return names
