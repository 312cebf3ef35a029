"""What becomes of an administrator's commands: each is carried out once and answered until heard.

The server repeats a command until it has the answer, on whatever connection there is; so the ones
that were done are remembered, and a repeated one is only answered again.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from needfire_client.link import LinkError
from needfire_client.reporter import Reporter
from needfire_client.session import Session
from needfire_client.wishes import Request, Wish, wish_of_order
from needfire_protocol.messages import Command
from needfire_protocol.plain_classes import replace

__all__ = ["Orders"]

_REMEMBERED_MAX: Final = 256
"""Commands whose outcome is remembered: more than one connection can repeat."""


class Orders:
    """The commands that came, and what became of each.

    Args:
        take: gets the request that a new command stands for.
    """

    def __init__(self, reporter: Reporter, take: Callable[[Request], None]) -> None:
        self._reporter = reporter
        self._take = take
        self._outcomes: OrderedDict[int, tuple[str, str] | None] = OrderedDict()

    def received(self, session: Session, order: Command) -> None:
        """A command came, for the first time or again."""
        request = wish_of_order(session, order)
        if order.command_id not in self._outcomes:
            self._remember(order.command_id, None)
            self._reporter.report(
                "COMMAND_RECEIVED", command=order.verb, command_id=order.command_id
            )
            self._take(request)
        elif self._outcomes[order.command_id] is not None:
            self._take(replace(request, wish=Wish.ANSWER_AGAIN))

    def refused(self, request: Request, reason: str) -> Request:
        """A command will not be carried out; return the request to answer it."""
        assert request.order is not None
        self._remember(request.order.command_id, ("failed", reason))
        return replace(request, wish=Wish.ANSWER_AGAIN)

    async def answer(self, request: Request, outcome: str = "", detail: str = "") -> None:
        """Tell the server what became of a request, if it was the server that asked."""
        if request.order is None or request.session is None:
            return
        if outcome:
            self._remember(request.order.command_id, (outcome, detail))
        told = self._outcomes.get(request.order.command_id)
        if told is not None:
            with suppress(LinkError):  # it asks again on the next connection
                await request.session.answer_order(request.order, *told)

    def _remember(self, command_id: int, outcome: tuple[str, str] | None) -> None:
        self._outcomes[command_id] = outcome
        while len(self._outcomes) > _REMEMBERED_MAX:
            self._outcomes.popitem(last=False)
