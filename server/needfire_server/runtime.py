"""What the parts of a running server share: who is who, made once by the daemon."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from needfire_server.config import ServerSettings
from needfire_server.datafiles import DataFiles
from needfire_server.fleet import Fleet
from needfire_server.journal import Journal
from needfire_server.logbook import Logbook
from needfire_server.lookup import NameChecker
from needfire_server.registry import Registry
from needfire_server.sessions import SessionTable
from needfire_server.storage.base import Store

__all__ = ["Runtime"]

_T = TypeVar("_T")


@dataclass(slots=True)
class Runtime:
    """The collaborators of one server process.

    ``settings`` is replaced as a whole at a reload; everything else lives as long as the process.
    """

    settings: ServerSettings
    store: Store
    registry: Registry
    data_files: DataFiles
    names: NameChecker
    logbook: Logbook
    journal: Journal
    fleet: Fleet
    sessions: SessionTable
    fake_salt_key: bytes
    """Makes salts for names that nobody registered, the same ones each time (32 random bytes)."""
    on_new_events: Callable[[], None]
    """Tells those who follow events that the store has new ones."""
    mathematics: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Log-ins that calculate at the same time; each keeps a core busy for some 25 ms."""
    _calculators: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="needfire-log-in")
    )

    async def calculate(self, work: Callable[[], _T]) -> _T:
        """Run the arithmetic of a log-in in a thread.

        Its threads are its own: files that are hashed for clients, or an administrator's check of
        a strange baseline, must not be able to keep everybody from logging in.
        """
        return await asyncio.get_running_loop().run_in_executor(self._calculators, work)
