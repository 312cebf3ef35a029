"""A process that seals a store and is killed in the middle, as by the kernel or a power cut.

    python -m needfire_testkit.seal_killer begin|exchange NONCES DIRECTORY URL

SIGKILL comes when one nonce more than NONCES is asked for, each of which seals one row; or, with
``commit`` instead of a number, after the store is sealed and before the new key's file takes its place.
"""

import asyncio
import os
import signal
import sys
from typing import NoReturn

from needfire_server import sealing
from needfire_server.sealing import exchange_key, keys_at_hand, open_seal
from needfire_testkit.stores import open_place

__all__: list[str] = []

_NONCE_BYTES = 12


class _Source:
    def __init__(self, limit: int | None) -> None:
        self._left = limit

    def __call__(self, count: int) -> bytes:
        if self._left is not None and count == _NONCE_BYTES:
            if self._left == 0:
                _die()
            self._left -= 1
        return os.urandom(count)


def _die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives SIGKILL")


async def _main(what: str, when: str, directory: str, url: str) -> None:
    source = _Source(None if when == "commit" else int(when))
    if when == "commit":
        setattr(sealing, "promote_next_key", _die)  # noqa: B010  # mypy takes it for a constant
    store = open_place(directory, url)
    keys = keys_at_hand(directory, None)
    if what == "begin":
        await open_seal(store, keys, random_bytes=source)
    else:
        await exchange_key(store, keys, "root", random_bytes=source)


if __name__ == "__main__":
    what, when, directory, url = sys.argv[1:]
    asyncio.run(_main(what, when, directory, url))
