"""Whose patience ends? One timer of the event loop for all connections.

Each has a deadline, and nearly none is ever reached: something comes, and there is another one. A timer
for each takes a fiftieth of what it costs to let an agent in, and a quarter of a KiB.
"""

import asyncio
import heapq
from typing import Final, Protocol

__all__ = ["STEP_S", "Deadlines", "Patient", "step_of"]

STEP_S: Final = 0.125
"""Deadlines within so many seconds come together: none early, and none later than this."""


class Patient(Protocol):
    """What waits for something."""

    def deadline_passed(self) -> None:
        """Be told, once, that a deadline has passed; must not raise."""


class Deadlines:
    """Tells those who wait when it is time. In the thread of the event loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Dictionaries as sets that keep their order.
        self._waiting: dict[int, dict[Patient, None]] = {}
        """Who waits for the end of which step of the loop's clock."""
        self._steps: list[int] = []
        """A heap of those steps."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, patient: Patient, deadline_s: float) -> int:
        """Have somebody told after a deadline; return the step that it falls in, for ``remove``.

        Args:
            deadline_s: by the loop's clock.
        """
        step = step_of(deadline_s)
        waiting = self._waiting.get(step)
        if waiting is None:
            self._waiting[step] = {patient: None}
            heapq.heappush(self._steps, step)
            if self._steps[0] == step or self._timer is None:
                self._set_timer()
        else:
            waiting[patient] = None
        return step

    def remove(self, patient: Patient, step: int) -> None:
        """Tell somebody nothing after all, unless those of its step are being told at this moment."""
        waiting = self._waiting.get(step)
        if waiting is not None:
            waiting.pop(patient, None)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._steps.clear()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at((self._steps[0] + 1) * STEP_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        try:
            while self._steps and (self._steps[0] + 1) * STEP_S <= now_s:
                for patient in self._waiting.pop(heapq.heappop(self._steps)):
                    self._tell(patient)
        finally:
            # Whatever happened: all limits of all connections hang on this timer.
            if self._steps:
                self._set_timer()

    def _tell(self, patient: Patient) -> None:
        try:
            patient.deadline_passed()
        except Exception as error:  # noqa: BLE001  # one must not take the others along
            self._loop.call_exception_handler(
                {"message": "telling of a deadline failed", "exception": error}
            )


def step_of(deadline_s: float) -> int:
    """Return the step in which a deadline falls."""
    return int(deadline_s / STEP_S)
