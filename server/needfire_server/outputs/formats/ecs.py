"""The event in the Elastic Common Schema (ECS 8.11), one line of nested JSON.

What the schema has a field for stands there; every field of the event stands under ``needfire``
as well, under its own name, so that nothing is lost and nothing collides with the schema.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from needfire_protocol import __version__
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event, FieldValue, format_time
from needfire_server.outputs.formats.json_line import dump_line

__all__ = ["ECS_VERSION", "ecs_line"]

ECS_VERSION: Final = "8.11.0"

_CATEGORY: Final[Mapping[EventClass, str]] = MappingProxyType(
    {
        EventClass.INTEGRITY: "file",
        EventClass.TRAFFIC: "network",
        EventClass.ADMINISTRATION: "iam",
        EventClass.SYSTEM: "process",
        EventClass.ALARM: "host",
        EventClass.PROVISIONING: "configuration",
    }
)
_TYPE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "POLICY_ADDED": "creation",
        "POLICY_MISSING": "deletion",
        "POLICY_MODIFIED": "change",
        "START": "start",
        "EXIT": "end",
        "CLIENT_REGISTERED": "creation",
        "CLIENT_REMOVED": "deletion",
        "CONFIGURATION_PUT": "change",
        "BASELINE_PUT": "change",
        "SETTINGS_CHANGED": "change",
        "SOFTWARE_CHANGED": "change",
        "CATALOGUE_CHANGED": "change",
        "CONFIGURATION_TAKEN": "change",
        "BASELINE_TAKEN": "change",
    }
)


def ecs_line(event: Event) -> str:
    """Return the event as one line of JSON without its end."""
    document: dict[str, Any] = {
        "@timestamp": format_time(event.time_us),
        "ecs": {"version": ECS_VERSION},
        "message": event.msg,
        "log": {"level": event.severity.word},
        "event": _event(event),
        "observer": {"vendor": "Needfire", "product": "Needfire", "version": __version__},
        "needfire": {
            "class": event.event_class.value,
            "code": event.code,
            "fields": dict(event.fields),
        },
    }
    if event.client is not None:
        document["host"] = {"name": event.client}
    for path, name, convert in _MAPPED:
        value = _first(event.fields, name)
        if value is not None and value != "":
            _put(document, path, convert(value))
    return dump_line(document)


def _event(event: Event) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": event.id,
        "kind": "alert" if event.event_class is EventClass.INTEGRITY else "event",
        "category": [_CATEGORY[event.event_class]],
        "type": [_TYPE.get(event.code, "info")],
        "action": event.code.lower().replace("_", "-"),
        "code": event.code,
        "severity": int(event.severity),
        "module": "needfire",
        "dataset": f"needfire.{event.event_class.value}",
    }
    if event.received_us is not None:
        described["ingested"] = format_time(event.received_us)
    return described


def _first(fields: Mapping[str, FieldValue], names: str) -> FieldValue:
    return next((fields[name] for name in names.split() if fields.get(name) is not None), None)


def _put(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[last] = value


_MAPPED: Final[tuple[tuple[str, str, Callable[[FieldValue], object]], ...]] = (
    # What is there now comes before what was there; keyword fields are text in the schema.
    ("file.path", "path", str),
    ("file.size", "size_new size_old", lambda value: value if isinstance(value, int) else None),
    ("file.mode", "mode_new mode_old", str),
    ("file.owner", "owner_new owner_old", str),
    ("file.group", "group_new group_old", str),
    ("file.target_path", "link_new link_old", str),
    ("process.executable", "who_program", str),
    ("process.command_line", "who_command", str),
    ("process.pid", "who_pid", lambda value: value if isinstance(value, int) else None),
    ("user.name", "who_user user", str),
    ("client.address", "peer", str),
)
