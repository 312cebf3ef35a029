"""Which of the server's own events are wanted, and which of them the store keeps.

Pure. What agents report is not asked: it is stored because it was promised to be. Nor is the audit
log, which records the same whatever is set here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.severity import Severity

if TYPE_CHECKING:
    from needfire_server.config import ServerSettings

__all__ = ["SWITCHABLE", "ClassSettings", "class_settings"]

SWITCHABLE: Final = (EventClass.TRAFFIC, EventClass.ADMINISTRATION, EventClass.SYSTEM)
"""The rest cannot be switched off (spec/events.md 1): an alarm that nobody hears is none."""


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """Attributes:
    disabled: classes whose events are neither logged nor stored.
    unpersisted: classes whose events are only logged and sent on.
    is_suspended: there is no room; what can be switched off is only logged for now.
    """

    disabled: frozenset[EventClass] = frozenset()
    unpersisted: frozenset[EventClass] = frozenset({EventClass.TRAFFIC})
    is_suspended: bool = False

    def takes(self, event_class: EventClass) -> bool:
        """Tell whether events of the class are wanted at all."""
        return event_class not in self.disabled

    def persists(self, event_class: EventClass, severity: Severity) -> bool:
        """Tell whether the store keeps an event.

        Traffic that needs a person is kept in any case: a failed log-in must not be found in one
        file only, which is gone with its rotation.
        """
        if self.is_suspended and event_class in SWITCHABLE:
            return False
        if event_class not in self.unpersisted:
            return True
        return event_class is EventClass.TRAFFIC and severity >= Severity.WARN


def class_settings(settings: "ServerSettings") -> ClassSettings:
    """Return what the configuration says of the classes."""

    wanted = {
        EventClass.TRAFFIC: (settings.enable_traffic, settings.persist_traffic),
        EventClass.ADMINISTRATION: (
            settings.enable_administration,
            settings.persist_administration,
        ),
        EventClass.SYSTEM: (settings.enable_system, settings.persist_system),
    }
    return ClassSettings(
        frozenset(each for each in SWITCHABLE if not wanted[each][0]),
        frozenset(each for each in SWITCHABLE if not wanted[each][1]),
    )
