"""What a target is to the engine: something that takes records, or says why it does not."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from needfire_protocol.errors import NeedfireError
from needfire_protocol.event import Event
from needfire_server.outputs.settings import OutputSettings
from needfire_server.storage.output_cursors import StoredEvent

__all__ = [
    "CLOSED",
    "ConfirmingTarget",
    "MakeTarget",
    "NumberedTarget",
    "RefusedError",
    "Target",
    "TargetError",
]

CLOSED: Final = "the connection was closed by the target"


class TargetError(NeedfireError):
    """The target did not take what it was given.

    Attributes:
        delivered: how many of the batch it is known to have taken before.
    """

    def __init__(self, reason: str, *, delivered: int = 0) -> None:
        self.delivered = delivered
        super().__init__(reason)


class RefusedError(TargetError):
    """The target will never take what it was given, whatever condition it is in.

    Only what the record itself is to blame for: its size, its form, its content. That somebody may
    not log in, or that there is nothing at an address, a person can change.

    Attributes:
        is_next: it is the first record that was not delivered. Otherwise it is one of the batch.
    """

    def __init__(self, reason: str, *, delivered: int = 0, is_next: bool = False) -> None:
        self.is_next = is_next
        super().__init__(reason, delivered=delivered)


class Target(Protocol):
    """One connection to a target; after a failure it is let go and never used again."""

    @property
    def settle_s(self) -> float:
        """Seconds after which a delivery counts, if the connection still stands then.

        0 where the target itself confirms: there a delivery counts when ``deliver`` returns.
        """

    @property
    def is_lost(self) -> bool:
        """True once the connection is known to be broken: what has not settled may be lost."""

    @property
    def loss(self) -> str:
        """Why the connection is lost, for a person."""

    @property
    def remark(self) -> str:
        """What a person should know of the last delivery although it succeeded; mostly empty."""

    async def open(self) -> None:
        """Connect.

        Raises:
            TargetError, OSError, ssl.SSLError: the target is away.
        """

    async def deliver(self, events: Sequence[Event]) -> None:
        """Hand over events, in their order.

        Raises:
            RefusedError: one of them will never be taken.
            TargetError, OSError, ssl.SSLError: not all of them were taken.
        """

    def handed_over(self) -> int:
        """Return a mark of everything that was handed over so far."""

    def acknowledged(self) -> int:
        """Return up to which mark the other host is known to have received."""

    async def finish(self) -> bool:
        """End in peace; True where it is certain now that everything arrived."""

    def abort(self) -> None:
        """Let go of everything at once. May be called at any time, and more than once."""


class ConfirmingTarget:
    """What targets have in common that confirm each delivery: nothing of theirs has to settle."""

    settle_s: float = 0.0
    is_lost: bool = False
    loss: str = CLOSED
    remark: str = ""

    async def open(self) -> None:
        """Nothing to do before the first delivery."""

    def handed_over(self) -> int:
        """Not used: a delivery counts when it returns."""
        return 0

    def acknowledged(self) -> int:
        """Not used either."""
        return 0

    async def finish(self) -> bool:
        """End; everything was confirmed."""
        self.abort()
        return True

    def abort(self) -> None:
        """Nothing to let go."""


class NumberedTarget(ConfirmingTarget):
    """A target that stays connected and is told which number each event has in the store.

    The number is the same each time an event is sent, whatever happened in between: a receiver
    that keeps the highest one takes each event once.
    """

    loss: str = ""
    """Why the connection is lost; empty while it stands."""

    async def join(self) -> None:
        """Be a part of the other system from now on, also while there is nothing to send.

        Raises:
            TargetError, OSError: it does not want us, or is away.
        """
        raise NotImplementedError

    async def deliver_numbered(self, events: Sequence[StoredEvent]) -> None:
        """Hand over events by their numbers, unmarked.

        Raises:
            TargetError, OSError: not all of them were taken.
        """
        raise NotImplementedError


MakeTarget: TypeAlias = Callable[[OutputSettings, Callable[[], None]], Target]
"""Makes a target that is not open yet; the second argument is called when it is lost."""
