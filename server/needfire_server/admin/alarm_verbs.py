"""The verbs about alarms: which of them hold, and clearing what only a person can clear."""

from needfire_protocol.catalogue import ALARM_CLEARED, CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, format_time
from needfire_protocol.names import parse_reporter_name
from needfire_server.admin.requests import AdminRefusedError, Reply
from needfire_server.admin.subject import Call, Subject
from needfire_server.alarms import Alarm
from needfire_server.open_alarms import open_alarms

__all__ = ["clear_alarm", "list_alarms"]


async def list_alarms(subject: Subject, call: Call) -> Reply:
    """The alarms that hold, the oldest first."""
    call.arguments.check_names("name")
    found, client = await open_alarms(subject.store), _client(call)
    alarms = [_described(each) for each in found.alarms(client)]
    return Reply({"alarms": alarms, "left_out": found.left_out(client)})


async def clear_alarm(subject: Subject, call: Call) -> Reply:
    """Clear the alarms of a kind: of a client, or of the server itself where none is named."""
    call.arguments.check_names("code", "name", "about", "note")
    code, about = call.arguments.text("code").upper(), call.arguments.optional_text("about")
    entry = CATALOGUE.get(code)
    if entry is None or entry.event_class is not EventClass.ALARM or entry.clears:
        raise AdminRefusedError(
            f"{printable(code, 64)} is no alarm", "needfire-admin alarms list shows those that hold"
        )
    found = [
        each
        for each in (await open_alarms(subject.store)).alarms(_client(call) or "")
        if each.code == code and about in (None, each.about)
    ]
    if not found:
        raise AdminRefusedError(
            f"no alarm {code} holds of {_client(call) or 'the server itself'}",
            "needfire-admin alarms list shows those that hold",
        )
    note = call.arguments.note()
    await subject.record(*(_cleared(call, alarm, note) for alarm in found))
    return Reply({"cleared": [_described(each) for each in found]})


def _cleared(call: Call, alarm: Alarm, note: str) -> Event:
    return call.event(
        ALARM_CLEARED,
        client=alarm.client or None,
        alarm=alarm.code,
        about=alarm.about,
        count=alarm.count,
        since=format_time(alarm.since_us),
        note=note,
    )


def _client(call: Call) -> str | None:
    name = call.arguments.optional_text("name")
    return None if name is None else parse_reporter_name(name)


def _described(alarm: Alarm) -> dict[str, str | int]:
    return {
        "code": alarm.code,
        "client": alarm.client,
        "about": alarm.about,
        "severity": alarm.severity.word,
        "msg": alarm.msg,
        "since": format_time(alarm.since_us),
        "last": format_time(alarm.last_us),
        "count": alarm.count,
    }
