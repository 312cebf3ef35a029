"""How those who follow events are told that events cannot be recorded, at once and again."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

__all__ = ["with_warnings"]

_LOOK_S: Final = 1.0
"""How long nothing may be said of trouble that has begun."""
_AGAIN_S: Final = 60.0
"""How often it is said again while it lasts."""


async def with_warnings(
    items: AsyncGenerator[Mapping[str, Any], None], warning: Callable[[], str | None]
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield lines of a reply: each item, and a notice whenever there is something to warn of.

    Items come one by one and never wait for a warning; ``items`` stays the caller's to close.
    """
    loop = asyncio.get_running_loop()
    told_s: float | None = None
    told = ""
    waiting = asyncio.ensure_future(anext(items))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_LOOK_S)
            text = warning()
            is_due = told_s is None or text != told or loop.time() - told_s >= _AGAIN_S
            if text is not None and is_due:
                told_s, told = loop.time(), text
                yield {"notice": text}
            elif text is None and told_s is not None:
                told_s = None
                yield {"notice": "events are recorded again"}
            if done:
                try:
                    item = waiting.result()
                except StopAsyncIteration:
                    return
                yield {"item": item}
                waiting = asyncio.ensure_future(anext(items))
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
