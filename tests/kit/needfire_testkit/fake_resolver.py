"""A resolver that knows only what a test told it, and can be made to hang."""

import asyncio
from collections import Counter

from needfire_server.resolver import LookupFailedError, Resolved

__all__ = ["FakeResolver"]


class FakeResolver:
    """Answers from two tables.

    Attributes:
        asked: how often each name and each address was looked up.
        hanging: names and addresses that are never answered.
    """

    def __init__(
        self,
        forward: dict[str, list[str]] | None = None,
        reverse: dict[str, str] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> None:
        self.forward = forward or {}
        self.reverse_names = reverse or {}
        self.aliases = aliases or {}
        self.asked: Counter[str] = Counter()
        self.hanging: set[str] = set()
        self.open = 0
        self.most_open = 0

    async def resolve(self, name: str) -> Resolved:
        await self._look(name)
        canonical_name = self.aliases.get(name, name)
        if canonical_name not in self.forward:
            raise LookupFailedError("Name or service not known")
        return Resolved(canonical_name, frozenset(self.forward[canonical_name]))

    async def reverse(self, address: str) -> str:
        await self._look(address)
        if address not in self.reverse_names:
            raise LookupFailedError("Name or service not known")
        return self.reverse_names[address]

    async def _look(self, what: str) -> None:
        self.asked[what] += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if what in self.hanging:
                await asyncio.Event().wait()
        finally:
            self.open -= 1
