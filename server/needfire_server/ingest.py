"""How a batch of reports is taken: read, stored, then acknowledged, in this order."""

from needfire_protocol.codec import decode
from needfire_protocol.errors import FormatError
from needfire_protocol.event import unpack_event
from needfire_protocol.limits import EVENT_DECODING
from needfire_protocol.messages import EVENT_REPORT, Acknowledge, Report, ReportBatch
from needfire_server.clock import now_us
from needfire_server.runtime import Runtime
from needfire_server.storage.base import IncomingReport

__all__ = ["take_batch"]


async def take_batch(runtime: Runtime, client: str, batch: ReportBatch) -> Acknowledge | None:
    """Store a batch whose signatures have been verified; return the acknowledgement to send.

    When it returns, every report of the batch is on disk, whatever happens next. A report that
    came before is not stored again. One that is no event is kept raw, and its client is told that
    it arrived: otherwise it would come for ever and hold up all that follow.

    Raises:
        StorageError: nothing of the batch is promised; do not acknowledge.
    """
    if not batch.reports:
        return None
    received_us = now_us()
    incoming = [_read(report, client, received_us) for report in batch.reports]
    # Its state goes into the same commit: an agent that was told that its EXIT arrived must not be
    # called killed after a crash of the server, and it will not send it twice.
    result = await runtime.store.ingest(
        client,
        batch.stream,
        incoming,
        received_us=received_us,
        state=runtime.fleet.state(client),
    )
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
    if result.gap is not None:
        last, following = result.gap
        runtime.journal.raise_event("SEQUENCE_GAP", client=client, last=last, next=following)
    runtime.fleet.heard(client, result.accepted, saved=result.saved)
    runtime.logbook.write_reports(result.accepted)
    if result.accepted:
        runtime.on_new_events()
    # The last one has the highest number: a batch in another order is no message.
    return Acknowledge(batch.stream, batch.reports[-1].sequence)


def _read(report: Report, client: str, received_us: int) -> IncomingReport:
    if report.type != EVENT_REPORT:
        problem = f"type {report.type} is not known; expected {EVENT_REPORT}"
        return IncomingReport(report.sequence, None, report.body, problem)
    try:
        data = decode(report.body, limits=EVENT_DECODING)
        event = unpack_event(data, client=client, received_us=received_us)
        return IncomingReport(report.sequence, event, report.body, None)
    except FormatError as error:
        return IncomingReport(report.sequence, None, report.body, str(error))
