"""The form of one catalogue entry, and the classes of events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from string import Formatter

from needfire_protocol.severity import Severity

__all__ = ["Entry", "EventClass"]


class EventClass(Enum):
    """The six classes of events (spec/events.md 1)."""

    INTEGRITY = "integrity"
    TRAFFIC = "traffic"
    ADMINISTRATION = "administration"
    SYSTEM = "system"
    ALARM = "alarm"
    PROVISIONING = "provisioning"


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

    def msg_fields(self) -> frozenset[str]:
        """Names of the fields that the text holds already; the classic line omits them."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.msg) if name)
