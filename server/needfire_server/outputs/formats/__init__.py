"""The forms that an event can have for other systems, by the name that configuration files use.

Each form is a pure function of an event and gives one line: no character in it ends a line or
changes how a terminal shows it, whatever the event holds.
"""

import socket
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from needfire_protocol.classic import text_line, xml_line
from needfire_protocol.event import Event
from needfire_protocol.gordium import gordium_line
from needfire_protocol.signed_audit import signed_audit_line
from needfire_server.outputs.formats.alert import alert_line
from needfire_server.outputs.formats.cef import cef_line
from needfire_server.outputs.formats.ecs import ecs_line
from needfire_server.outputs.formats.json_line import json_line
from needfire_server.outputs.formats.linux_audit import linux_audit_line
from needfire_server.outputs.formats.log_lines import journal_line, plain_line

__all__ = ["FORMATS", "Format"]

Format: TypeAlias = Callable[[Event], str]
"""Returns one line without its end; text only, to be encoded as UTF-8."""

_HOST: Final = socket.gethostname()


def _gordium(event: Event) -> str:
    """Both of its times are the event's own: a form must not differ from one look to the next."""
    sent_us = event.time_us if event.received_us is None else event.received_us
    return gordium_line(event, host=_HOST, sent_us=sent_us)


def _journal(event: Event) -> str:
    return journal_line(event, hostname=_HOST)


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "json": json_line,
        "ecs": ecs_line,
        "cef": cef_line,
        "alert": alert_line,
        "text": text_line,
        "classic": xml_line,
        "signed-audit": signed_audit_line,
        "gordium": _gordium,
        "linux-audit": linux_audit_line,
        "linux-audit-hosts": partial(linux_audit_line, with_host_records=True),
        "journal": _journal,
        "plain": plain_line,
    }
)
"""``text`` and ``classic`` are those of the log: Samhain's text and XML forms."""
