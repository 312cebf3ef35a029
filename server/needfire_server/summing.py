"""How searches stay quick: blocks of events and records are summed up in the background.

Only one of the servers that share a store does it. Each step is a transaction of its own over about
a thousand rows, so that reports wait for one step at most. Whatever is not summed up yet is found all
the same, only not as soon.
"""

import asyncio
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_server.runtime import Runtime
from needfire_server.storage.base import Store

__all__ = ["keep_summed_up", "sum_up_all"]

_JOB: Final = "summaries"
_INTERVAL_S: Final = 10
_PAUSE_S: Final = 0.02
"""Between two steps, for the reports that wait: ten million events of before take five minutes."""


async def keep_summed_up(runtime: Runtime) -> None:
    """Sum up what comes, for ever; cancelled at the end of the server."""
    while True:
        try:
            await sum_up_all(runtime.store, pause_s=_PAUSE_S)
        except StorageError as error:
            runtime.journal.store_failed(error)
        await asyncio.sleep(_INTERVAL_S)


async def sum_up_all(store: Store, *, pause_s: float = 0.0) -> None:
    """Sum up all that can be; nothing where another server does it.

    Raises:
        StorageError: what is done by then is done.
    """
    while await store.holds(_JOB):
        if not await store.sum_up():
            return
        await asyncio.sleep(pause_s)
