"""The verbs about clients: register, list, show, remove, their status; and the server's health."""

from collections.abc import Mapping
from typing import Any

from needfire_protocol.errors import FormatError
from needfire_protocol.event import format_time
from needfire_protocol.names import is_relayed_name, parse_client_name, parse_reporter_name
from needfire_protocol.srp import Verifier
from needfire_server.admin.command_verbs import command_data
from needfire_server.admin.registered import registered
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.clock import now_us
from needfire_server.fleet import behind_relays
from needfire_server.registry import Registration
from needfire_server.states import ClientState, as_shown
from needfire_server.storage.base import ClientConnection, ClientRecord
from needfire_server.vitals import Pulse

__all__ = [
    "health",
    "list_clients",
    "register",
    "remove_client",
    "show_client",
    "status",
]


async def register(subject: Subject, call: Call) -> Reply:
    """Keep a verifier, which the caller made: a password never comes here."""
    call.arguments.check_names("name", "salt", "verifier")
    name = parse_client_name(call.arguments.text("name"))
    verifier = Verifier(
        _from_hex(call.arguments.text("salt")), _from_hex(call.arguments.text("verifier"))
    )
    moment_us = now_us()
    was_known = subject.registry.registration(name) is not None
    await subject.carry_out(
        lambda audit: subject.store.register(
            name, verifier, now_us=moment_us, user=call.user, audit=audit
        ),
        lambda replaced: call.event("CLIENT_REGISTERED", client=name, replaced=replaced),
    )
    subject.registry.put(ClientRecord(name, verifier, moment_us, call.user))
    if was_known:
        # Who has the old password may hold a session key for hours to come.
        subject.hooks.on_client_removed(name)
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
    entry = registered(subject, call.arguments.text("name"))
    commands = await subject.store.pending_commands(entry.name)
    proposals = await subject.store.proposals(entry.name)
    return Reply(
        {
            **_registration(entry),
            **_state(subject, entry.name, await subject.hooks.connections()),
            "commands": [command_data(command) for command in commands],
            "proposals": [proposal.id for proposal in proposals],
        }
    )


async def remove_client(subject: Subject, call: Call) -> Reply:
    """Take a client's registration out; it is cut off at once."""
    call.arguments.check_names("name")
    entry = registered(subject, call.arguments.text("name"))
    if entry.record is None:
        raise AdminRefusedError(
            f"{entry.name} is registered in the server's configuration ({entry.entry}), not here",
            "take that line out and reload the server (SIGHUP)",
        )
    await subject.carry_out(
        lambda audit: subject.store.remove(entry.name, audit),
        lambda was_there: call.event("CLIENT_REMOVED", client=entry.name) if was_there else None,
    )
    subject.registry.take_out(entry.name)
    subject.hooks.on_client_removed(entry.name)
    return Reply({"name": entry.name, "listed": subject.registry.listed_entry(entry.name)})


async def health(subject: Subject, call: Call) -> Reply:
    """How the server is; the same answer as /readyz."""
    call.arguments.check_names()
    look = subject.hooks.health
    assert look is not None, "only a server that runs is asked"
    return Reply((await look()).as_data())


async def status(subject: Subject, call: Call) -> Reply:
    """The latest event of each type of every client or of one."""
    call.arguments.check_names("name")
    name = call.arguments.optional_text("name")
    names = _all_names(subject) if name is None else (_heard_name(subject, name),)
    connected = await subject.hooks.connections()
    return Reply(
        {"clients": [{"name": each, **_state(subject, each, connected)} for each in names]}
    )


def _all_names(subject: Subject) -> list[str]:
    registered_names = subject.registry.names()
    behind = behind_relays(subject.hooks.states(), registered_names)
    return sorted((*registered_names, *behind))


def _heard_name(subject: Subject, name: str) -> str:
    """Return the name of a client that is registered, or that a relay has told of."""
    clean = parse_reporter_name(name)
    if not is_relayed_name(clean):
        return registered(subject, clean).name
    if clean not in behind_relays(subject.hooks.states(), subject.registry.names()):
        raise AdminRefusedError(f"nothing was heard of {clean}", "needfire-admin status")
    return clean


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


def _state(
    subject: Subject, name: str, connected: Mapping[str, ClientConnection]
) -> dict[str, Any]:
    connection = connected.get(name)
    pulse = subject.hooks.pulse(name)
    known = subject.hooks.states().get(name) or ClientState.initial(name)
    state = as_shown(known, is_silent=pulse is not None and pulse.is_missed)
    latest = sorted(state.latest.items(), key=lambda each: each[1], reverse=True)
    return {
        "status": state.status.value,
        "last_seen": None if state.last_seen_us is None else format_time(state.last_seen_us),
        "address": state.address,
        "connected": None if connection is None else connection.address,
        "server": None if connection is None else connection.server,
        "overdue": state.is_overdue,
        "latest": {status.value: format_time(time_us) for status, time_us in latest},
        **_pulse(pulse),
    }


def _pulse(pulse: Pulse | None) -> dict[str, Any]:
    """What the connections told; None where nothing was heard since the start of the server."""
    known = Pulse(0.0) if pulse is None else pulse
    process, difference_us = known.process, known.clock.difference_us
    return {
        "silent": known.is_missed,
        "version": known.version or None,
        "boot_id": None if process is None else process.boot_id,
        "instance": None if process is None else process.instance.hex(),
        "spool_reports": None if known.beat_s is None else known.spool_reports,
        "spool_oldest": _time(known.spool_oldest_us),
        "clock_difference_s": None if difference_us is None else difference_us / 1_000_000,
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else format_time(time_us)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise FormatError("salt and verifier must be hexadecimal") from None
