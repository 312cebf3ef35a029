"""The classic lines of a whole batch of reports: what ``xml_line`` writes of each, in half the time."""

from itertools import compress
from typing import Final

from needfire_protocol.classic import plain, receipt_text, record_form, stamp, xml_line
from needfire_protocol.event_batch import Alike, UsualEvents

__all__ = ["xml_lines"]

_NEED_NO_WORDS: Final = frozenset({str, int})


def xml_lines(batch: UsualEvents, client: str) -> list[str]:
    """Return the line of each event.

    Args:
        client: what the client is called in it.
    """
    if not batch.is_plain:
        return [xml_line(each.received(client, batch.received_us)) for each in batch.events]
    lines = [""] * len(batch.events)
    # All of them came at the same moment from the same client.
    receipt = receipt_text(client, batch.received_us // 1_000_000)
    for alike in batch.alike:
        for place, filled in zip(alike.places, _filled(batch, alike), strict=True):
            event = batch.events[place]
            head = f'<log sev="{event.severity.label}" tstamp="{stamp(event.time_us)}"'
            lines[place] = f"{receipt}{head} {filled} /> </log>"
    return lines


def _filled(batch: UsualEvents, alike: Alike) -> list[str]:
    """Return what differs between the records of events that are alike."""
    _, kept, form = record_form(alike.code, alike.names, True)
    columns = [
        column if kinds <= _NEED_NO_WORDS else tuple(map(plain, column))
        for column, kinds in zip(alike.columns, alike.kinds, strict=True)
    ]
    msgs = [batch.events[place].msg for place in alike.places]
    shown = columns if kept is None else compress(columns, kept)
    return [form % values for values in zip(msgs, *shown, strict=True)]
