"""What the parts of a running server share: who is who, made once by the daemon."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from needfire_server.anteroom import Anteroom
from needfire_server.audit.log import AuditLog
from needfire_server.config import ServerSettings
from needfire_server.datafiles import DataFiles
from needfire_server.familiar import Familiar
from needfire_server.fleet import Fleet
from needfire_server.intake import Intake
from needfire_server.journal import Journal
from needfire_server.logbook import Logbook
from needfire_server.lookup import NameChecker
from needfire_server.metrics import Metrics
from needfire_server.neighbours import Neighbours
from needfire_server.outputs.engine import OutputEngine
from needfire_server.provisioning import Provisioning
from needfire_server.registry import Registry
from needfire_server.relays import RelayDesk
from needfire_server.session_keeper import SessionKeeper
from needfire_server.sessions import SessionTable
from needfire_server.storage.base import Store
from needfire_server.throttle import Throttle
from needfire_server.turnstile import Rank, Turnstile
from needfire_server.vitals import Vitals

__all__ = ["Runtime"]

_T = TypeVar("_T")

_CALCULATORS_MAX: Final = 8


def _calculators_max() -> int:
    """One thread for each core: powers run beside Python, and nothing else of it takes long."""
    return min(_CALCULATORS_MAX, os.cpu_count() or 1)


def _turnstile() -> Turnstile:
    count = _calculators_max()
    threads = ThreadPoolExecutor(count, thread_name_prefix="needfire-log-in")
    return Turnstile(threads, 2 * count)


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
    keeper: SessionKeeper
    outputs: OutputEngine
    audit: AuditLog
    fake_salt_key: bytes
    """Makes salts for names that nobody registered, the same ones each time (32 random bytes)."""
    relays: RelayDesk
    on_new_events: Callable[[], None]
    """Tells those who follow events that the store has new ones."""
    connections_possible: int = 2**31
    """What the system allows; ConnectionLimit may be less."""
    anteroom: Anteroom = field(default_factory=Anteroom)
    """Peers that have no session yet."""
    metrics: Metrics = field(default_factory=Metrics)
    intake: Intake = field(init=False)
    throttle: Throttle = field(init=False)
    vitals: Vitals = field(init=False)
    neighbours: Neighbours = field(init=False)
    provisioning: Provisioning = field(init=False)
    familiar: Familiar = field(default_factory=Familiar)
    """Addresses from which clients logged in lately."""
    _turnstile: Turnstile = field(default_factory=_turnstile)

    def __post_init__(self) -> None:
        self.intake = Intake(self.store, self.fleet.state, self.logbook.lines_of)
        self.throttle = Throttle(self.journal, lambda: self.settings)
        self.vitals = Vitals(self.journal, self.fleet)
        self.provisioning = Provisioning(self.store, self.journal, self.data_files.directory)
        self.neighbours = Neighbours(
            self.store,
            self.registry,
            self.keeper,
            self.fleet,
            self.vitals,
            self.journal,
            lifetime_limit_s=lambda: self.settings.session_key_lifetime_s,
        )

    @property
    def sessions(self) -> SessionTable:
        """Which session keys are valid."""
        return self.keeper.table

    @property
    def connection_limit(self) -> int:
        """Connections at the same time."""
        return min(self.settings.connection_limit, self.connections_possible)

    async def calculate(self, work: Callable[[], _T], rank: Rank) -> _T:
        """Run the arithmetic of a log-in in a thread, when its turn comes.

        Its threads are its own: files that are hashed for clients, or an administrator's check of
        a strange baseline, must not be able to keep everybody from logging in. What waits for them
        is bounded by the places of the anteroom.
        """
        return await self._turnstile.run(work, rank)
