"""How long work that blocks runs beside the event loop without holding up the end of the process."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_in_background"]

_T = TypeVar("_T")


async def run_in_background(work: Callable[[], _T], name: str) -> _T:
    """Run work in a thread of its own and return what it returns.

    Unlike ``asyncio.to_thread`` the thread is a daemon: a read that hangs on a dead network mount
    must not keep a stopped agent from going.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(setter: Callable[[], None]) -> None:
        def if_wanted() -> None:
            if not future.done():
                setter()

        # The loop may have closed while the work hung.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(if_wanted)

    def target() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 -- handed over, not swallowed
            settle(lambda error=error: future.set_exception(error))  # type: ignore[misc]
        else:
            settle(lambda: future.set_result(result))

    threading.Thread(target=target, name=name, daemon=True).start()
    return await future
