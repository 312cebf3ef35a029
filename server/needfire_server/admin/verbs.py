"""Every verb of the admin tool: what carries it out, who may ask for it, and whether it changes anything."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from needfire_server.admin import (
    alarm_verbs,
    audit_verbs,
    client_verbs,
    command_verbs,
    event_verbs,
    file_verbs,
    output_verbs,
    proposal_verbs,
)
from needfire_server.admin.requests import Reply
from needfire_server.admin.roles import Role
from needfire_server.admin.subject import Call, Subject

__all__ = ["VERBS", "Verb", "roles_for"]

_Run: TypeAlias = Callable[[Subject, Call], Awaitable[Reply]]

_ANY: Final = frozenset(Role)
_ADMINISTRATORS: Final = frozenset({Role.ADMINISTRATORS})
_APPROVERS: Final = frozenset({Role.ADMINISTRATORS, Role.AGENTS})
_AUDITORS: Final = frozenset({Role.AUDITORS})
"""The audit log is theirs alone."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One row.

    Attributes:
        run: carries it out.
        roles: of which one is needed.
        is_reading: it changes nothing, and so is answered also where no record of the request can be
            written.
    """

    run: _Run
    roles: frozenset[Role]
    is_reading: bool = False


def _changes(run: _Run, roles: frozenset[Role] = _ADMINISTRATORS) -> Verb:
    return Verb(run, roles)


def _reads(run: _Run, roles: frozenset[Role] = _ADMINISTRATORS) -> Verb:
    return Verb(run, roles, is_reading=True)


VERBS: Final[Mapping[str, Verb]] = MappingProxyType(
    {
        "register": _changes(client_verbs.register),
        "clients-list": _reads(client_verbs.list_clients, _ANY),
        "clients-show": _reads(client_verbs.show_client, _ANY),
        "clients-remove": _changes(client_verbs.remove_client),
        "status": _reads(client_verbs.status, _ANY),
        "health": _reads(client_verbs.health, _ANY),
        "send": _changes(command_verbs.send_command),
        "commands": _reads(command_verbs.list_commands, _ANY),
        "cancel": _changes(command_verbs.cancel_commands),
        "config-put": _changes(file_verbs.put_configuration),
        "config-get": _reads(file_verbs.get_configuration),
        "baseline-put": _changes(file_verbs.put_baseline, _APPROVERS),
        "baseline-get": _reads(file_verbs.get_baseline, _ANY),
        "baseline-list": _reads(file_verbs.list_baselines, _ANY),
        "baseline-show": _reads(file_verbs.show_baseline, _ANY),
        "baseline-diff": _reads(proposal_verbs.show_changes, _ANY),
        "files-list": _reads(file_verbs.list_files, _ANY),
        "events": _reads(event_verbs.events, _ANY),
        "alarms-list": _reads(alarm_verbs.list_alarms, _ANY),
        "alarms-clear": _changes(alarm_verbs.clear_alarm),
        "output-list": _reads(output_verbs.list_outputs),
        "output-test": _changes(output_verbs.test_output),
        "output-skipped": _reads(output_verbs.list_skipped),
        "output-retry": _changes(output_verbs.retry_skipped),
        "output-discard": _changes(output_verbs.discard_skipped),
        "audit-show": _reads(audit_verbs.show, _AUDITORS),
        "audit-export": _reads(audit_verbs.export, _AUDITORS),
        "audit-prove": _reads(audit_verbs.prove, _AUDITORS),
        "audit-keys": _reads(audit_verbs.keys, _AUDITORS),
        "audit-rotate": _changes(audit_verbs.rotate, _AUDITORS),
        "audit-accept": _changes(audit_verbs.accept, _AUDITORS),
        "report": _reads(audit_verbs.report, _ANY),
    }
)


def roles_for(verb: str) -> frozenset[Role]:
    """Return the roles of which one is needed for a verb; for what is no verb, the administrators'."""
    row = VERBS.get(verb)
    return _ADMINISTRATORS if row is None else row.roles
