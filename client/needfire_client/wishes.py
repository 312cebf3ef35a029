"""What people ask a running agent to do, by signal or through the server: one list of wishes."""

import asyncio
import signal
from collections.abc import Callable
from enum import Enum
from typing import Final

from needfire_client.session import Session
from needfire_protocol.messages import Command
from needfire_protocol.plain_classes import dataclass

__all__ = ["Request", "Wish", "catch_signals", "wish_of_order"]


class Wish(Enum):
    """One thing that a running agent can be asked for."""

    RELOAD = "reload"
    SCAN = "scan"
    STOP = "stop"
    VERBOSITY = "verbosity"
    SUSPEND = "suspend"
    """Suspend, or wake up where it is suspended."""
    ANSWER_AGAIN = "answer again"
    """A command that was carried out already; the server has not heard."""


@dataclass(frozen=True, slots=True)
class Request:
    """A wish, and who has to be told what became of it."""

    wish: Wish
    status: str = ""
    """For STOP: the word of the EXIT event."""
    order: Command | None = None
    session: Session | None = None
    """Where the order came from."""


_SIGNALS: Final = {
    signal.SIGTERM: Request(Wish.STOP, "Terminated"),
    signal.SIGINT: Request(Wish.STOP, "Interrupt"),
    signal.SIGQUIT: Request(Wish.STOP, "Quit"),
    signal.SIGHUP: Request(Wish.RELOAD),
    signal.SIGUSR1: Request(Wish.VERBOSITY),
    signal.SIGUSR2: Request(Wish.SUSPEND),
    signal.SIGTTOU: Request(Wish.SCAN),
}
"""Samhain's signals (samhain manual, "Signals")."""

_ORDERS: Final = {
    "reload": (Wish.RELOAD, ""),
    "scan": (Wish.SCAN, ""),
    "stop": (Wish.STOP, "Quit"),
}


def catch_signals(take: Callable[[Request], None]) -> None:
    """Hand a request to ``take``, in the event loop, for each signal from now on."""
    loop = asyncio.get_running_loop()
    for number, request in _SIGNALS.items():
        loop.add_signal_handler(number, take, request)


def wish_of_order(session: Session, order: Command) -> Request:
    """Return the request that an administrator's command stands for."""
    wish, status = _ORDERS[order.verb]
    return Request(wish, status, order, session)
