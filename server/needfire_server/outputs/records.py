"""How an event becomes what a target sends: marked where it is sent again, in the output's form."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from needfire_protocol.event import Event
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.formats.syslog import rfc5424_message, traditional_message
from needfire_server.outputs.settings import OutputSettings
from needfire_server.outputs.shortening import fitting, text_size
from needfire_server.outputs.threads import in_thread

__all__ = ["RECORD_BYTES_MAX", "identity_of", "line_of", "marked", "rendered", "syslog_message"]

_RESENT: Final = "resent"

RECORD_BYTES_MAX: Final = 256 * 1024
"""Of one record anywhere. An event may have two megabytes of text: no honest one has a tenth of that,
and two hundred of them at a time are more than receivers take, or we have memory for."""
_IN_LOOP_MAX: Final = 16_384
"""Characters whose rendering takes some milliseconds at most."""


def marked(event: Event, *, is_resent: bool) -> Event:
    """Return the event with the field ``resent`` where the target may have it already.

    So every form shows the mark, and the id is the same each time. An agent's event cannot bring
    the mark along: a receiver that leaves out what it has seen could be made to leave it out.
    """
    fields = dict(event.fields)
    if event.client is not None and _RESENT in fields:
        fields[f"{_RESENT}_"] = fields.pop(_RESENT)
    if is_resent:
        fields[_RESENT] = True
    return event if fields == event.fields else replace(event, fields=fields)


def identity_of(event: Event) -> str:
    """Return by what a receiver may leave an event out that it has: no agent can choose another's.

    The id of an event is its agent's word, who could give it the id of another client's event, so
    that the one that comes second is left out. So the server's own words are in it as well: who
    sent it, and when it came. It is the same each time the event is sent.
    """
    if event.client is None:
        return event.id
    told = f"{event.client} {event.received_us} {event.id}"
    return f"{event.id}.{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def line_of(settings: OutputSettings) -> Callable[[Event], bytes]:
    """Return what makes a record of an event: one line in UTF-8, without its end."""
    form = FORMATS[settings.format]

    def render(event: Event) -> bytes:
        return form(event).encode("utf-8", "backslashreplace")

    return lambda event: fitting(event, render, RECORD_BYTES_MAX)


async def rendered(render: Callable[[Event], bytes], event: Event) -> bytes:
    """Return what render makes of an event; in a thread where that takes its time."""
    if text_size(event) <= _IN_LOOP_MAX:
        return render(event)
    return await in_thread(lambda: render(event))


def syslog_message(settings: OutputSettings, hostname: str) -> Callable[[Event], bytes]:
    """Return what makes a whole syslog message of an event, within the size that is set."""
    form = FORMATS[settings.format]
    header = rfc5424_message if settings.header == "rfc5424" else traditional_message

    def render(event: Event) -> bytes:
        return header(event, form(event), facility=settings.facility, hostname=hostname)

    return lambda event: fitting(event, render, settings.message_bytes_max)
