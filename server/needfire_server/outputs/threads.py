"""Where outputs wait for libraries that block: threads of their own.

With the event loop's default threads, a few targets that answer slowly would keep name lookups and
files for clients waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["in_thread"]

_T = TypeVar("_T")

THREADS_MAX: Final = 64
"""Two for each output that there may be: one at work, one whose socket was just taken away."""

_threads: Final = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="needfire-output")


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run work in a thread. Cancelled, it returns at once; the caller must see to the thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
