"""Which record of a batch a target refuses for good: smaller batches tell, and three refusals.

Pure. Whoever says so once may be mistaken: a proxy that is being exchanged answers 400 as well.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["REFUSALS_MAX", "Suspects"]

REFUSALS_MAX: Final = 3
"""Refusals of one record by itself after which it is set aside."""


class Suspects:
    """The events among which is one that is refused."""

    def __init__(self) -> None:
        self._up_to = 0
        self._size = 0
        self._refused = 0
        self._number = 0

    def delivery_size(self, confirmed: int, otherwise: int) -> int:
        """Return how many events may go together behind a position."""
        return min(self._size, otherwise) if confirmed < self._up_to else otherwise

    def narrowed(self, numbers: Sequence[int]) -> bool:
        """Note a refusal of these events, at least one; True where it is the only one.

        False: half of them are to be tried next, at once.
        """
        if len(numbers) > 1:
            self._up_to = max(self._up_to, numbers[-1])
            self._size = len(numbers) // 2
            return False
        self._refused = self._refused + 1 if numbers[0] == self._number else 1
        self._number = numbers[0]
        self._up_to, self._size = max(self._up_to, numbers[0]), 1
        return True

    @property
    def is_certain(self) -> bool:
        """Whether the event that was refused last has been refused often enough."""
        return self._refused >= REFUSALS_MAX
