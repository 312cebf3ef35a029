"""The verbs about clients: register, list, show, remove, their status, and commands to them."""

from typing import Any, Final

from needfire_protocol.errors import FormatError
from needfire_protocol.event import format_time
from needfire_protocol.names import parse_client_name
from needfire_protocol.srp import Verifier
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.admin.times import DURATION_S_MAX
from needfire_server.clock import now_us
from needfire_server.registry import Registration
from needfire_server.states import ClientState
from needfire_server.storage.base import (
    COMMAND_VERBS,
    ClientRecord,
    Command,
    TooManyCommandsError,
)

__all__ = [
    "COMMAND_EXPIRY_S",
    "list_clients",
    "register",
    "remove_client",
    "send_command",
    "show_client",
    "status",
]

COMMAND_EXPIRY_S: Final = 86_400
"""Seconds that a command waits unless told: nobody expects the ``stop`` of last month."""


async def register(subject: Subject, call: Call) -> Reply:
    """Keep a verifier, which the caller made: a password never comes here."""
    call.arguments.check_names("name", "salt", "verifier")
    name = parse_client_name(call.arguments.text("name"))
    verifier = Verifier(
        _from_hex(call.arguments.text("salt")), _from_hex(call.arguments.text("verifier"))
    )
    moment_us = now_us()
    was_known = subject.registry.registration(name) is not None
    replaced = await subject.store.register(name, verifier, now_us=moment_us, user=call.user)
    subject.registry.put(ClientRecord(name, verifier, moment_us, call.user))
    if was_known:
        # Who has the old password may hold a session key for hours to come.
        subject.hooks.on_client_removed(name)
    subject.hooks.record_event("CLIENT_REGISTERED", client=name, user=call.user, replaced=replaced)
    _warn_listed_twice(subject, name)
    return Reply(
        {"name": name, "replaced": was_known, "listed": subject.registry.listed_entry(name)}
    )


async def list_clients(subject: Subject, call: Call) -> Reply:
    """Every name that may speak, and where it is registered."""
    call.arguments.check_names()
    return Reply({"clients": [_registration(entry) for entry in subject.registry.registrations()]})


async def show_client(subject: Subject, call: Call) -> Reply:
    """Everything about one client."""
    call.arguments.check_names("name")
    entry = _registered(subject, call.arguments.text("name"))
    commands = await subject.store.pending_commands(entry.name)
    proposals = await subject.store.proposals(entry.name)
    return Reply(
        {
            **_registration(entry),
            **_state(subject, entry.name),
            "commands": [_command(command) for command in commands],
            "proposals": [proposal.id for proposal in proposals],
        }
    )


async def remove_client(subject: Subject, call: Call) -> Reply:
    """Take a client's registration out; it is cut off at once."""
    call.arguments.check_names("name")
    entry = _registered(subject, call.arguments.text("name"))
    if entry.record is None:
        raise AdminRefusedError(
            f"{entry.name} is registered in the server's configuration ({entry.entry}), not here",
            "take that line out and reload the server (SIGHUP)",
        )
    await subject.store.remove(entry.name)
    subject.registry.take_out(entry.name)
    subject.hooks.on_client_removed(entry.name)
    subject.hooks.record_event("CLIENT_REMOVED", client=entry.name, user=call.user)
    return Reply({"name": entry.name, "listed": subject.registry.listed_entry(entry.name)})


async def status(subject: Subject, call: Call) -> Reply:
    """The latest event of each type of every client or of one."""
    call.arguments.check_names("name")
    name = call.arguments.optional_text("name")
    names = subject.registry.names() if name is None else (_registered(subject, name).name,)
    return Reply({"clients": [{"name": each, **_state(subject, each)} for each in names]})


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
            number = await subject.store.queue_command(name, verb, call.user, moment_us, expires_us)
        except TooManyCommandsError as error:
            refused.append(str(error))
            continue
        queued.append({"client": name, "command_id": number, "expires": format_time(expires_us)})
        subject.hooks.record_event(
            "COMMAND_QUEUED", client=name, command=verb, command_id=number, user=call.user
        )
        subject.hooks.on_command_queued(name)
    if refused:
        raise AdminRefusedError("; ".join(refused[:3]), "see needfire-admin clients show NAME")
    connected = subject.hooks.connected()
    for each in queued:
        each["connected"] = each["client"] in connected
    return Reply({"verb": verb, "queued": queued})


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
        return (_registered(subject, name).name,)
    names = subject.registry.names()
    if not names:
        raise AdminRefusedError("no client is registered", "needfire-admin register NAME")
    return names


def _registered(subject: Subject, name: str) -> Registration:
    clean = parse_client_name(name)
    entry = subject.registry.registration(clean)
    if entry is None:
        raise AdminRefusedError(f"{clean} is not registered", "needfire-admin clients list")
    return entry


def _warn_listed_twice(subject: Subject, name: str) -> None:
    for twice in subject.registry.listed_twice():
        if twice.client == name:
            subject.hooks.record_event(
                "CLIENT_LISTED_TWICE", client=name, used=twice.used, other=twice.other
            )


def _registration(entry: Registration) -> dict[str, Any]:
    record = entry.record
    return {
        "name": entry.name,
        "entry": entry.entry,
        "registered": None if record is None else format_time(record.registered_us),
        "registered_by": None if record is None else record.registered_by,
    }


def _state(subject: Subject, name: str) -> dict[str, Any]:
    state = subject.hooks.states().get(name) or ClientState.initial(name)
    latest = sorted(state.latest.items(), key=lambda each: each[1], reverse=True)
    return {
        "status": state.status.value,
        "last_seen": None if state.last_seen_us is None else format_time(state.last_seen_us),
        "address": state.address,
        "connected": subject.hooks.connected().get(name),
        "overdue": state.is_overdue,
        "latest": {status.value: format_time(time_us) for status, time_us in latest},
    }


def _command(command: Command) -> dict[str, Any]:
    delivered = command.delivered_us
    return {
        "command_id": command.id,
        "verb": command.verb,
        "user": command.user,
        "queued": format_time(command.queued_us),
        "expires": None if command.expires_us is None else format_time(command.expires_us),
        "delivered": None if delivered is None else format_time(delivered),
    }


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise FormatError("salt and verifier must be hexadecimal") from None
