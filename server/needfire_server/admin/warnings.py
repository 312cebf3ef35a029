"""How those who follow events are told that events cannot be recorded, at once and again."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from needfire_server.admin.requests import Page
from needfire_server.trouble import Trouble, Warned

__all__ = ["with_warnings"]

_LOOK_S: Final = 1.0
"""How long nothing may be said of trouble that has begun."""
_AGAIN_S: Final = 60.0
"""How often it is said again while it lasts."""


async def with_warnings(
    pages: AsyncGenerator[Page, None], warning: Callable[[], Warned | None]
) -> AsyncGenerator[Page, None]:
    """Yield lines of a reply: those of a page, and a notice whenever there is something to warn of.

    Pages never wait for a warning; ``pages`` stays the caller's to close.
    """
    loop = asyncio.get_running_loop()
    told_s: float | None = None
    told: frozenset[Trouble] = frozenset()
    waiting = asyncio.ensure_future(anext(pages))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_LOOK_S)
            now = warning()
            is_due = told_s is None or loop.time() - told_s >= _AGAIN_S
            if now is not None and (is_due or not now.kinds <= told):
                told = now.kinds if is_due else told | now.kinds
                told_s = loop.time()
                yield [{"notice": now.text}]
            elif now is None and told_s is not None:
                told_s, told = None, frozenset()
                yield [{"notice": "events are recorded again"}]
            if done:
                try:
                    page = waiting.result()
                except StopAsyncIteration:
                    return
                yield [{"item": item} for item in page]
                waiting = asyncio.ensure_future(anext(pages))
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
