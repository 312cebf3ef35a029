"""What keeps events or acts off the record at this moment, and in which words people are told.

Each kind begins and ends by itself: the audit log may fail while events are stored, and beside a
store that fails. In the event loop's thread only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from needfire_protocol.event import Event

__all__ = ["Trouble", "Troubles", "Warned"]


class Trouble(Enum):
    """A kind of trouble; the value is how it is told."""

    STORE = "events cannot be recorded"
    RECORDS = "the audit log cannot be written"
    SIGNING = "the audit log is not signed"


@dataclass(frozen=True, slots=True)
class Warned:
    """What people are told now.

    Attributes:
        kinds: of trouble, at least one. Only a new kind is worth telling before the time: the reasons of
            one kind may alternate with every attempt.
        text: in words, with the reasons.
    """

    kinds: frozenset[Trouble]
    text: str


class Troubles:
    """All that there is now."""

    def __init__(self) -> None:
        self._reasons: dict[Trouble, str] = {}
        self._events: dict[Trouble, Event] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called when one begins or ends."""

    def __contains__(self, trouble: Trouble) -> bool:
        return trouble in self._reasons

    @property
    def warning(self) -> Warned | None:
        """What everybody is told for as long as it lasts; None while all is well."""
        told = [f"{each.value}: {self._reasons[each]}" for each in Trouble if each in self]
        return Warned(frozenset(self._reasons), "; ".join(told)) if told else None

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that said so when it began."""
        return tuple(self._events[each] for each in Trouble if each in self._events)

    def begin(self, trouble: Trouble, reason: str) -> bool:
        """Note a trouble, or its new reason; True where it was not there before."""
        is_new = trouble not in self
        self._reasons[trouble] = reason
        return is_new

    def tell_with(self, trouble: Trouble, event: Event | None) -> None:
        """Note which event says so, and let others know."""
        if event is not None:
            self._events[trouble] = event
        self.on_change()

    def end(self, trouble: Trouble) -> bool:
        """Forget a trouble; False where there was none."""
        if trouble not in self:
            return False
        del self._reasons[trouble]
        self._events.pop(trouble, None)
        self.on_change()
        return True
