"""Is each agent alive, does its clock go right, and is it only one?

What an agent's connections, heartbeats and reports tell beyond its state (``fleet.py``). It is kept
in memory: after a restart of the server agents are back within a minute and tell it again.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from needfire_protocol.event import Event, format_time
from needfire_protocol.messages import Announce, Heartbeat
from needfire_server.clock import monotonic_s, now_us
from needfire_server.clock_watch import ClockWatch, whole_seconds
from needfire_server.fleet import Fleet
from needfire_server.journal import Journal
from needfire_server.lineage import Clone, Lineage, Process
from needfire_server.rate_limit import PUSHED_OUT, RateLimiter
from needfire_server.states import ClientState, ClientStatus, says_goodbye, status_of

__all__ = ["Pulse", "Vitals", "Voice"]

_US_PER_S: Final = 1_000_000
_HEARTBEATS_MISSED: Final = 3
_STREAMS_REMEMBERED: Final = 4
_CLOCK_EVENTS: Final = 10
_CLOCK_EVENTS_PER_S: Final = 1 / 600
"""So much is told of one client's clock. Whoever steers an agent moves it at will, and the store and
the audit log keep each event; what is beyond is counted."""
_CLOCK_COUNTED_S: Final = 600


class Voice(NamedTuple):
    """One connection on which a client speaks. A tuple, because each connection makes one."""

    client: str
    process: Process
    opened_s: float


@dataclass(slots=True)
class Pulse:
    """What was last learnt of one client. ``_s`` are monotonic seconds of the server."""

    heard_s: float
    process: Process | None = None
    version: str = ""
    started_us: int = 0
    """When the process that was admitted last began, by its own clock."""
    beat_s: float | None = None
    interval_s: float | None = None
    """The longest time between two heartbeats of the open connection; None before the second."""
    spool_reports: int = 0
    spool_oldest_us: int | None = None
    open_voices: int = 0
    is_missed: bool = False
    clock: ClockWatch = field(default_factory=ClockWatch)
    lineage: Lineage = field(default_factory=Lineage)
    is_difference_told: bool = False
    """Whether the alarm about its clock holds: it may have been held back."""
    restored: tuple[bytes, ...] = ()
    """Streams of which it was told that they came from an earlier state."""
    is_exit_claimed: bool = False
    """It said that the process before it stopped, and its reports have not shown it yet."""

    def is_silent(self, now_s: float, limit_s: int) -> bool:
        """True where nothing was heard for longer than it may be silent.

        A connection that is open has its own rhythm (SetLoopTime of the agent). Before its second
        heartbeat that is not known, and SetConnectionTimeout ends the connection where none comes.
        """
        silence_s = now_s - self.heard_s
        if not self.open_voices:
            return silence_s > limit_s
        if self.interval_s is None:
            return False
        return silence_s > max(limit_s, _HEARTBEATS_MISSED * self.interval_s)


class Vitals:
    """The pulses of all clients. In the event loop's thread only."""

    def __init__(
        self,
        journal: Journal,
        fleet: Fleet,
        *,
        clock_us: Callable[[], int] = now_us,
        steady_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._journal = journal
        self._fleet = fleet
        self._clock_us = clock_us
        self._steady_s = steady_s
        self._pulses: dict[str, Pulse] = {}
        self._own_clock = ClockWatch()
        self._clock_events = RateLimiter(burst=_CLOCK_EVENTS, per_s=_CLOCK_EVENTS_PER_S)
        self._clock_counted_s = steady_s()
        self._began_s = steady_s()
        self._newest_before_us = max(
            (state.last_seen_us or 0 for state in fleet.states().values()), default=0
        )

    def pulse(self, client: str) -> Pulse | None:
        """Return what is known; None where the client was not heard since the server's start."""
        return self._pulses.get(client)

    def pulses(self) -> dict[str, Pulse]:
        """Return all of them by name: a copy."""
        return dict(self._pulses)

    def forget(self, client: str) -> None:
        """A client is no longer registered, or anew."""
        self._pulses.pop(client, None)

    # ---- what the connections tell ---------------------------------------------------------------

    def announced(self, client: str, announce: Announce, address: str) -> Voice:
        """A peer that knows the password said which process it is; it may still be refused."""
        now_s = self._steady_s()
        process = Process(announce.instance, announce.boot_id, address)
        self._tell_clone(client, self._of(client).lineage.announced(process, now_s))
        return Voice(client, process, now_s)

    def opened(self, voice: Voice, announce: Announce) -> None:
        """The peer was admitted."""
        pulse = self._of(voice.client)
        pulse.process = voice.process
        pulse.version, pulse.started_us = announce.version, announce.started_us
        pulse.beat_s = pulse.interval_s = None
        pulse.open_voices += 1
        self.heard(voice)

    def closed(self, voice: Voice) -> None:
        """The connection of an admitted peer ended."""
        pulse = self._pulses.get(voice.client)
        if pulse is not None:
            pulse.open_voices = max(0, pulse.open_voices - 1)

    def heard(self, voice: Voice) -> None:
        """A client that may speak said something."""
        pulse = self._of(voice.client)
        pulse.heard_s = self._steady_s()
        if pulse.is_missed:
            pulse.is_missed = False
            if not self._fleet.state(voice.client).is_overdue:
                # Else the fleet tells it.
                self._journal.raise_event("CLIENT_RETURNED", client=voice.client)
        clone = pulse.lineage.spoke(voice.process, voice.opened_s, pulse.heard_s)
        self._tell_clone(voice.client, clone)

    def beat(self, voice: Voice, heartbeat: Heartbeat, clock_limit_s: int) -> None:
        """A heartbeat came."""
        pulse, now_s = self._of(voice.client), self._steady_s()
        if pulse.beat_s is not None:
            pulse.interval_s = max(pulse.interval_s or 0.0, now_s - pulse.beat_s)
        pulse.beat_s = now_s
        pulse.spool_reports = heartbeat.spool_reports
        pulse.spool_oldest_us = heartbeat.spool_oldest_us
        if pulse.is_exit_claimed and not heartbeat.spool_reports:
            self._tell_not_shown(voice.client, pulse, "nothing waits in its spool")
        if clock_limit_s:
            self._look_at_clock(voice.client, pulse, heartbeat.time_us, clock_limit_s)

    def wrote(self, voice: Voice, stream: bytes) -> None:
        """A client delivered reports of a stream."""
        clone = self._of(voice.client).lineage.wrote(voice.process, stream, self._steady_s())
        self._tell_clone(voice.client, clone)

    def restored(self, voice: Voice, peer: str, stream: bytes, sequence: int) -> None:
        """A stream came from an earlier state of the agent; told once for each stream."""
        pulse = self._of(voice.client)
        if stream in pulse.restored:
            return
        pulse.restored = (*pulse.restored, stream)[-_STREAMS_REMEMBERED:]
        self._journal.raise_event(
            "AGENT_RESTORED",
            client=voice.client,
            peer=peer,
            boot_id=voice.process.boot_id,
            sequence=sequence,
        )

    def exit_claimed(self, voice: Voice, peer: str, last_us: int | None) -> None:
        """A new process says that the one before stopped in order, of which nothing has come.

        That an agent was killed could be hidden with it. So it is told as what it is, its word, and
        the reports that it brings along have to show it.

        Args:
            last_us: when the one before was last heard.
        """
        self._of(voice.client).is_exit_claimed = True
        self._journal.raise_event(
            "PRIOR_EXIT_CLAIMED",
            client=voice.client,
            peer=peer,
            last="" if last_us is None else format_time(last_us),
        )

    def reported(self, client: str, events: Sequence[Event]) -> None:
        """A client delivered these, in the order in which they happened."""
        pulse = self._pulses.get(client)
        if pulse is None or not pulse.is_exit_claimed:
            return
        for event in events:
            status = status_of(event.code)
            if says_goodbye(status):
                pulse.is_exit_claimed = False
                return
            if status is ClientStatus.STARTED and event.time_us >= pulse.started_us:
                # An earlier one may not have come before its process ended.
                self._tell_not_shown(client, pulse, "its own start came first")
                return

    # ---- what the time tells ---------------------------------------------------------------------

    def silent(self, registered: Iterable[str], limit_s: int) -> list[str]:
        """Return the clients that ``sweep`` would report as fallen silent."""
        now_s = self._steady_s()
        found = []
        # Asked every few seconds of a whole fleet: who never spoke has no state, and gets none here.
        states = self._fleet.states()
        for client in registered if limit_s else ():
            known = self._pulses.get(client)
            if known is not None and now_s - known.heard_s <= limit_s:
                # As nearly all are, and all that follows takes much longer.
                continue
            state = states.get(client)
            if state is None or state.last_seen_us is None:
                continue
            if state.is_overdue or says_goodbye(state.status):
                continue
            pulse = known or self._pulse_of_before(state, limit_s)
            if not pulse.is_missed and pulse.is_silent(now_s, limit_s):
                found.append(client)
        return found

    def heard_elsewhere(self, states: Iterable[ClientState], *, told: Collection[str] = ()) -> None:
        """Other servers have heard these clients, at the times that their states say.

        Who tells of silence tells of its end as well, wherever it ended.

        Args:
            told: of these the other server has told it, because they had been called dead.
        """
        now_s, now_us = self._steady_s(), self._clock_us()
        for state in states:
            assert state.last_seen_us is not None
            pulse = self._of(state.name)
            age_s = max(0.0, (now_us - state.last_seen_us) / _US_PER_S)
            pulse.heard_s = max(pulse.heard_s, now_s - age_s)
            # What it delivered there, nobody has told us.
            pulse.is_exit_claimed = False
            if pulse.is_missed and not state.is_overdue:
                pulse.is_missed = False
                if state.name not in told:
                    self._journal.raise_event("CLIENT_RETURNED", client=state.name)

    def leave_to_another(self) -> None:
        """Another server tells of silence from now on, and of its end."""
        for pulse in self._pulses.values():
            pulse.is_missed = False

    def tell_unsteady_clocks(self) -> None:
        """Report now and then how much was not told of clocks that move all the time."""
        now_s = self._steady_s()
        if now_s - self._clock_counted_s < _CLOCK_COUNTED_S:
            return
        self._clock_counted_s = now_s
        for each in self._clock_events.collect(now_s):
            client = None if each.source == PUSHED_OUT else each.source
            self._journal.raise_event("CLOCK_UNSTEADY", client=client, count=each.count)

    def look_at_own_clock(self, limit_s: int) -> None:
        """Report a jump of our own clock."""
        if not limit_s:
            return
        moved_us = self._own_clock.moved_us(
            self._clock_us(), int(self._steady_s() * _US_PER_S), limit_s * _US_PER_S
        )
        if moved_us is not None:
            self._journal.raise_event("SERVER_CLOCK_MOVED", seconds=whole_seconds(moved_us))

    def sweep(self, registered: Iterable[str], limit_s: int, *, told: Collection[str] = ()) -> None:
        """Report who has fallen silent without a goodbye, once each.

        Args:
            told: of these another server has told it.
        """
        for client in self.silent(registered, limit_s):
            pulse = self._pulses[client]
            if client in told:
                pulse.is_missed = True
            else:
                self._tell_silent(self._fleet.state(client), pulse)

    def _pulse_of_before(self, state: ClientState, limit_s: int) -> Pulse:
        """Return the pulse of a client that was not heard since the start of the server.

        It is measured from the start: the silence before was the server's. Who was silent already
        while others were still heard was reported then.
        """
        assert state.last_seen_us is not None
        silent_us = self._newest_before_us - state.last_seen_us
        pulse = Pulse(self._began_s, is_missed=silent_us > limit_s * _US_PER_S)
        self._pulses[state.name] = pulse
        return pulse

    def _tell_silent(self, state: ClientState, pulse: Pulse) -> None:
        assert state.last_seen_us is not None
        pulse.is_missed = True
        self._journal.raise_event(
            "STOPPED_WITHOUT_GOODBYE",
            client=state.name,
            silent_s=whole_seconds(self._clock_us() - state.last_seen_us),
            last=format_time(state.last_seen_us),
            connection="open" if pulse.open_voices else "closed",
        )

    def _look_at_clock(self, client: str, pulse: Pulse, time_us: int, limit_s: int) -> None:
        clock, limit_us = pulse.clock, limit_s * _US_PER_S
        moved_us = clock.moved_us(time_us, int(self._steady_s() * _US_PER_S), limit_us)
        if moved_us is not None and self._may_tell_of_clock(client):
            self._journal.raise_event("CLOCK_MOVED", client=client, seconds=whole_seconds(moved_us))
        clock.differs_us(time_us, self._clock_us(), limit_us)
        if clock.is_difference_told is pulse.is_difference_told:
            return
        if pulse.is_difference_told:
            # Always: whoever was told of the difference is told that it has ended.
            pulse.is_difference_told = False
            self._journal.raise_event("CLOCK_AGREES", client=client)
        elif self._may_tell_of_clock(client):
            assert clock.difference_us is not None
            pulse.is_difference_told = True
            differs_s = whole_seconds(clock.difference_us)
            self._journal.raise_event("CLOCK_DIFFERS", client=client, seconds=differs_s)

    def _tell_not_shown(self, client: str, pulse: Pulse, reason: str) -> None:
        pulse.is_exit_claimed = False
        self._journal.raise_event("PRIOR_EXIT_NOT_SHOWN", client=client, reason=reason)

    def _may_tell_of_clock(self, client: str) -> bool:
        return self._clock_events.admit(client, self._steady_s())

    def _tell_clone(self, client: str, clone: Clone | None) -> None:
        if clone is None:
            return
        self._journal.raise_event(
            "CLONE_DETECTED",
            client=client,
            address=clone.other.address,
            boot_id=clone.other.boot_id,
            other_address=clone.one.address,
            other_boot_id=clone.one.boot_id,
            reason=clone.reason,
        )

    def _of(self, client: str) -> Pulse:
        pulse = self._pulses.get(client)
        if pulse is None:
            pulse = self._pulses[client] = Pulse(self._steady_s())
        return pulse
