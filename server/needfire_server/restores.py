"""Is what came twice the same report, or does an earlier state of the agent speak?

Reports are numbered, and one that comes again with its number is not stored again. But where a
machine was set back to a snapshot, the agent gives numbers again that stand for other reports.
Taking those for copies would lose them; so the last one that counts as a copy is compared with what
is stored under its identifier. From the point where two histories part, all that follows differs.
"""

from collections.abc import Sequence

from needfire_protocol.event import Event
from needfire_server.storage.base import IncomingReport, Store

__all__ = ["first_of_another_history"]


async def first_of_another_history(
    store: Store, client: str, reports: Sequence[IncomingReport], accepted: Sequence[Event]
) -> int | None:
    """Return the number of the first report that is no copy, though its number came before.

    Args:
        reports: a batch that has been stored.
        accepted: what was new in it.

    Raises:
        StorageError: the store cannot be read.
    """
    new = {event.id for event in accepted}
    copies = [each for each in reports if each.event is not None and each.event.id not in new]
    if not copies or await _is_stored(store, client, copies[-1]):
        return None
    for copy in copies:
        if not await _is_stored(store, client, copy):
            return copy.sequence
    return None


async def _is_stored(store: Store, client: str, report: IncomingReport) -> bool:
    event = report.event
    assert event is not None
    return await store.has_report(event.client or client, event.id, event.time_us)
