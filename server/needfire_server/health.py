"""Can this server do its work right now? One answer for service managers, load balancers and people."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from needfire_protocol.errors import StorageError

__all__ = ["Health", "HealthCheck"]

PROBE_LIMIT_S: Final = 2.0
"""A store that takes longer for nothing at all takes no reports either."""

SWEEP_LIMIT_S: Final = 30.0
"""The background work comes round every few seconds; where it does not, something hangs."""

_FRESH_S: Final = 1.0
"""Answers are given again for so long, so that many who ask cost no more than one."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was looked at, and what was found.

    Attributes:
        store: ``ok``, or what is wrong with it.
        background: ``ok``, or for how long the work in the background has stood still.
        service: ``ok``, ``starting`` or ``stopping``.
    """

    store: str
    background: str
    service: str

    @property
    def is_ready(self) -> bool:
        """True where agents can be served."""
        return self.store == self.background == self.service == "ok"

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "ready": self.is_ready,
            "store": self.store,
            "background": self.background,
            "service": self.service,
        }


class HealthCheck:
    """Looks at the server. In the event loop's thread only.

    Args:
        probe: a round through the thread that writes to the store.
        is_store_failing: whether a write failed and none has succeeded since.
        steady_s: a clock that never jumps.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        is_store_failing: Callable[[], bool],
        steady_s: Callable[[], float],
    ) -> None:
        self.service = "starting"
        self._probe = probe
        self._is_store_failing = is_store_failing
        self._steady_s = steady_s
        self._swept_s = steady_s()
        self._looked_s = 0.0
        self._found: Health | None = None
        self._looking = asyncio.Lock()

    def swept(self) -> None:
        """The work in the background came round."""
        self._swept_s = self._steady_s()

    async def look(self) -> Health:
        """Return how it is, or was at most a second ago."""
        async with self._looking:
            now_s = self._steady_s()
            if (
                self._found is None
                or now_s - self._looked_s > _FRESH_S
                or self._found.service != self.service
            ):
                self._found = Health(await self._store(), self._background(), self.service)
                self._looked_s = self._steady_s()
            return self._found

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(PROBE_LIMIT_S):
                await self._probe()
        except TimeoutError:
            return f"no answer within {PROBE_LIMIT_S:g} s"
        except StorageError:
            # The reason is in the log: whoever asks here may be anybody.
            return "failing"
        return "failing" if self._is_store_failing() else "ok"

    def _background(self) -> str:
        stood_s = self._steady_s() - self._swept_s
        return "ok" if stood_s <= SWEEP_LIMIT_S else f"stands still for {stood_s:.0f} s"
