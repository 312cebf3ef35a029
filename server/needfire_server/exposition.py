"""What /metrics says: the counters of ``metrics.py`` and how things stand at this moment."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from needfire_protocol import __version__
from needfire_protocol.errors import StorageError
from needfire_server.clock import now_us
from needfire_server.listener import Listener
from needfire_server.outputs.engine import OutputStatus
from needfire_server.outputs.worker import WorkerState
from needfire_server.runtime import Runtime
from needfire_server.states import ClientStatus
from needfire_server.vitals import Pulse

__all__ = ["Exposition"]

_US_PER_S: Final = 1_000_000
_BEHIND_S: Final = (60, 300, 3_600, 86_400)


class Exposition:
    """Makes the text for Prometheus."""

    def __init__(
        self, runtime: Runtime, listener: Listener, clock_us: Callable[[], int] = now_us
    ) -> None:
        self._runtime = runtime
        self._listener = listener
        self._clock_us = clock_us
        self._started_us = clock_us()
        ProcessCollector(registry=runtime.metrics.registry)

    async def text(self) -> bytes:
        """Return everything, in Prometheus' text format."""
        present = CollectorRegistry()
        present.register(_Fixed([*self._present(), *await self._stored()]))
        return generate_latest(self._runtime.metrics.registry) + generate_latest(present)

    def _present(self) -> Iterator[Metric]:
        runtime = self._runtime
        build = GaugeMetricFamily("needfire_build_info", "Version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge(
            "needfire_start_time_seconds", "When the server started.", self._started_us / _US_PER_S
        )
        yield CounterMetricFamily(
            "needfire_connections",
            "Connections that were accepted.",
            value=runtime.metrics.connections,
        )
        handshakes = CounterMetricFamily(
            "needfire_handshakes", "Handshakes that ended.", labels=["outcome"]
        )
        for outcome, count in runtime.metrics.handshakes.items():
            handshakes.add_metric([outcome], count)
        yield handshakes
        yield _gauge(
            "needfire_sessions", "Agents with an open session.", len(self._listener.connected())
        )
        yield _gauge(
            "needfire_connections_open",
            "Connections that are open, of agents and of strangers.",
            self._listener.open_connections(),
        )
        yield _gauge(
            "needfire_journal_waiting",
            "Events of the server's own that wait for the store.",
            runtime.journal.waiting,
        )
        yield _gauge(
            "needfire_tasks",
            "Tasks of the event loop: one for each agent, one for each peer that is logging in with a "
            "password, and a few dozen of the server's own.",
            len(asyncio.all_tasks()),
        )
        yield from self._clients()

    def _clients(self) -> Iterator[Metric]:
        fleet, vitals = self._runtime.fleet, self._runtime.vitals
        names = self._runtime.registry.names()
        counts = Counter(fleet.state(name).status for name in names)
        clients = GaugeMetricFamily(
            "needfire_clients", "Registered clients by their present status.", labels=["status"]
        )
        for status in ClientStatus:
            clients.add_metric([status.value], counts[status])
        yield clients
        yield _gauge(
            "needfire_clients_behind_relays",
            "Clients that report through a relay.",
            len(fleet.behind_relays(names)),
        )
        pulses = [pulse for name in names if (pulse := vitals.pulse(name)) is not None]
        yield _gauge(
            "needfire_clients_silent",
            "Agents that fell silent without a goodbye.",
            sum(pulse.is_missed for pulse in pulses),
        )
        yield from _spools(pulses, self._clock_us())

    async def _stored(self) -> list[Metric]:
        """What the store knows; without a store only that there is none."""
        is_failing = self._runtime.journal.is_store_failing
        try:
            lost = await self._runtime.store.missing_reports()
        except StorageError:
            return [_gauge("needfire_store_up", "Whether the store works.", 0)]
        return [
            *_outputs(await self._output_status()),
            _gauge("needfire_store_up", "Whether the store works.", not is_failing),
            _gauge(
                "needfire_reports_lost",
                "Reports that are missing in the numbering of their agents, and never came.",
                lost,
            ),
        ]

    async def _output_status(self) -> list[OutputStatus]:
        try:
            return await self._runtime.outputs.status()
        except StorageError:
            return []


class _Fixed(Collector):
    """What was found before; a collector cannot wait."""

    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Sequence[Metric]:
        return self._found


def _outputs(found: Sequence[OutputStatus]) -> Iterator[Metric]:
    """Yield how outputs are. Their names are the configuration's."""
    events = CounterMetricFamily(
        "needfire_output_events", "Events that left an output.", labels=["output", "result"]
    )
    waiting = GaugeMetricFamily(
        "needfire_output_waiting", "Events that an output has not passed yet.", labels=["output"]
    )
    held = GaugeMetricFamily(
        "needfire_output_held",
        "Events that are kept beyond their time, for an output.",
        labels=["output"],
    )
    skipped = GaugeMetricFamily(
        "needfire_output_skipped",
        "Events that a target refused for good, and that are set aside.",
        labels=["output"],
    )
    works = GaugeMetricFamily(
        "needfire_output_up", "Whether the target took the last delivery.", labels=["output"]
    )
    for each in found:
        for result in ("sent", "retried", "dropped"):
            events.add_metric([each.name, result], getattr(each, result))
        waiting.add_metric([each.name], each.waiting)
        held.add_metric([each.name], each.held)
        skipped.add_metric([each.name], each.skipped)
        works.add_metric([each.name], each.state is WorkerState.WORKING)
    yield from (events, waiting, held, skipped, works)


def _spools(pulses: Sequence[Pulse], clock_us: int) -> Iterator[Metric]:
    ages_s = [
        max(0.0, (clock_us - pulse.spool_oldest_us) / _US_PER_S)
        for pulse in pulses
        if pulse.spool_oldest_us is not None
    ]
    yield _gauge(
        "needfire_spool_reports",
        "Reports that wait in the spools of agents, as they last said.",
        sum(pulse.spool_reports for pulse in pulses),
    )
    yield _gauge(
        "needfire_spool_age_seconds_max",
        "Age of the oldest report that waits in a spool.",
        max(ages_s, default=0.0),
    )
    behind = GaugeMetricFamily(
        "needfire_agents_behind",
        "Agents with a report in the spool that is older than this.",
        labels=["older_than_seconds"],
    )
    for limit_s in _BEHIND_S:
        behind.add_metric([str(limit_s)], sum(age_s > limit_s for age_s in ages_s))
    yield behind


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)
