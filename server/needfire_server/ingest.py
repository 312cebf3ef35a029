"""How a batch of reports is taken: stored, told, then acknowledged, in this order."""

from collections.abc import Sequence
from typing import Final

from needfire_protocol.errors import StorageError
from needfire_protocol.messages import RELAYED_REPORT, Acknowledge, ReportBatch
from needfire_server.clock import now_us
from needfire_server.fleet import BEHIND_RELAY_MAX
from needfire_server.relays import Way
from needfire_server.restores import first_of_another_history
from needfire_server.runtime import Runtime
from needfire_server.storage.base import IncomingReport, IngestResult
from needfire_server.vitals import Voice

__all__ = ["take_batch"]

_NEVER_GIVEN: Final = 2**63 - 1
"""The highest number there is."""


async def take_batch(
    runtime: Runtime, client: str, batch: ReportBatch, voice: Voice, peer: str
) -> tuple[Acknowledge, ...]:
    """Store a batch whose signatures have been verified; return the acknowledgements to send.

    When it returns, every report of the batch is on disk, whatever happens next. A report that
    came before is not stored again. One that is no event is kept raw, and its client is told that
    it arrived: otherwise it would come for ever and hold up all that follow.

    Raises:
        StorageError: nothing of the batch is promised; do not acknowledge.
    """
    if not batch.reports:
        return ()
    runtime.vitals.wrote(voice, batch.stream)
    way = Way(client, voice.process.instance, runtime.relays.identity)
    relayed = None
    if any(report.type == RELAYED_REPORT for report in batch.reports):
        # Read before its turn: which way it came has to be on disk before it is.
        relayed = way.read_all(batch.reports, now_us())
    try:
        if relayed is not None:
            await runtime.fleet.relayed_by(way.relays)
        with runtime.metrics.commit():
            taken = await runtime.intake.take(client, batch, relayed)
    except StorageError:
        runtime.metrics.reports("refused", len(batch.reports))
        raise
    incoming, result = taken.reports, taken.result
    runtime.journal.store_works()
    unusable = [report for report in incoming if report.problem is not None]
    if unusable:
        # One event a batch: a client must not be able to crowd out events about others.
        runtime.journal.raise_event(
            "REPORT_UNUSABLE",
            client=client,
            reason=unusable[0].problem,
            sequence=unusable[0].sequence,
            count=len(unusable),
        )
    runtime.throttle.odd(client, bool(unusable) + result.new_gaps)
    if result.gap is not None:
        last, following = result.gap
        runtime.journal.raise_event("SEQUENCE_GAP", client=client, last=last, next=following)
    if relayed is None:
        runtime.fleet.heard(client, result.accepted, saved=result.saved)
        runtime.vitals.reported(client, result.accepted)
    else:
        _heard_through(runtime, client, result, way)
    runtime.logbook.write_reports(result.accepted, taken.lines)
    if result.accepted:
        runtime.on_new_events()
    _count(runtime, incoming, result, len(unusable), way.refused.total())
    other = await first_of_another_history(runtime.store, client, incoming, result.accepted)
    if other is None:
        # The last one has the highest number: a batch in another order is no message.
        return (Acknowledge(batch.stream, batch.reports[-1].sequence),)
    runtime.vitals.restored(voice, peer, batch.stream, other)
    # What came before the histories parted is ours. A number that was never given tells the agent
    # that its numbering is an old one: it sends all that it still has in a new stream.
    known = [Acknowledge(batch.stream, other - 1)] if other > batch.reports[0].sequence else []
    return (*known, Acknowledge(batch.stream, _NEVER_GIVEN))


def _heard_through(runtime: Runtime, relay: str, result: IngestResult, way: Way) -> None:
    """Note what a relay's reports say of itself, and of those behind it."""
    own = [event for event in result.accepted if event.client == relay]
    runtime.fleet.heard(relay, own, saved=result.saved)
    if not runtime.fleet.heard_through(relay, result.accepted):
        runtime.relays.too_many(relay, BEHIND_RELAY_MAX)
    runtime.relays.refused(relay, way.refused)


def _count(
    runtime: Runtime,
    incoming: Sequence[IncomingReport],
    result: IngestResult,
    unusable: int,
    refused: int,
) -> None:
    accepted = len(result.accepted)
    runtime.metrics.reports("accepted", accepted)
    runtime.metrics.reports("unusable", unusable)
    runtime.metrics.reports("refused", refused)
    runtime.metrics.reports("duplicate", len(incoming) - unusable - refused - accepted)
