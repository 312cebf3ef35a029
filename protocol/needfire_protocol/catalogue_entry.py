"""The form of one catalogue entry, and the classes of events."""

import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Final

from needfire_protocol.plain_classes import dataclass, field
from needfire_protocol.severity import Severity

__all__ = ["AlertForm", "Entry", "EventClass"]

_FIELD: Final = re.compile(r"\{(\w+)\}")
"""As texts of the catalogue name a field; string.Formatter knows more forms, and takes its time."""


class EventClass(Enum):
    """The six classes of events (spec/events.md 1)."""

    # One object each; asked for several times an event, and Enum's own hash is slow.
    __hash__ = object.__hash__

    INTEGRITY = "integrity"
    TRAFFIC = "traffic"
    ADMINISTRATION = "administration"
    SYSTEM = "system"
    ALARM = "alarm"
    PROVISIONING = "provisioning"


@dataclass(frozen=True, slots=True)
class AlertForm:
    """How an event looks as a traditional alert line: ``ALERT: (100) Text, Label: value, …``.

    Attributes:
        shows_number: whether the number stands before the text.
        labels: labels of fields that differ from the usual ones.
    """

    shows_number: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"shows_number": self.shows_number, "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of event.

    Attributes:
        code: name for programs and filters, upper case.
        event_class: which settings hold for it.
        severity: the default; some are set by configuration.
        msg: the contract text. ``{name}`` is filled in from the field of that name.
        description: what has happened, for a person who meets it for the first time.
        remedy: how to resolve it, as steps to take.
        fields: meaning of each field by name.
        state: number of the documented error state (1-8) that it belongs to, or None.
        source: where the words come from.
        number: what the customer's documents call it, or None.
        title: the heading there, where the text of the log line differs; None: the text.
        alert: its form as a traditional alert line, where a document fixes it.
        is_planned: nothing raises it yet; it stands here so that nothing else takes its place.
        written_by: the program on a host whose own words these are; None: Needfire.
        clears: codes of the alarms that it ends, of the same client and about the same thing.
        about: the field that says which of several things an alarm is about; None: there is one.
        is_failure: whether it tells that something failed or was refused, whatever its severity;
            None: that decides.
    """

    code: str
    event_class: EventClass
    severity: Severity
    msg: str
    description: str
    remedy: str
    fields: Mapping[str, str] = field(default_factory=dict)
    state: int | None = None
    source: str = "Needfire"
    number: int | None = None
    title: str | None = None
    alert: AlertForm | None = None
    is_planned: bool = False
    written_by: str | None = None
    clears: tuple[str, ...] = ()
    about: str | None = None
    is_failure: bool | None = None

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "code": self.code,
            "class": self.event_class.value,
            "severity": self.severity.word,
            "msg": self.msg,
            "description": self.description,
            "remedy": self.remedy,
            "fields": dict(self.fields),
            "state": self.state,
            "source": self.source,
            "clears": list(self.clears),
            "about": self.about,
            "number": self.number,
            "title": self.title,
            "alert": None if self.alert is None else self.alert.as_data(),
            "is_planned": self.is_planned,
            "written_by": self.written_by,
            "is_failure": self.is_failure,
        }

    def msg_fields(self) -> frozenset[str]:
        """Names of the fields that the text holds already; the classic line omits them."""
        return _named_in(self.msg)


@cache
def _named_in(msg: str) -> frozenset[str]:
    """Kept, because each line of a log asks; there are as many as the catalogue has texts."""
    return frozenset(_FIELD.findall(msg))
