"""When what an output holds is due: at once, or for mail when a summary is."""

from collections.abc import Sequence
from typing import Final

from needfire_protocol.event import Event
from needfire_server.outputs.settings import MailSettings
from needfire_server.outputs.shortening import text_size
from needfire_server.storage.output_cursors import StoredEvent

__all__ = ["delivery_size", "due_in_s", "leading"]

_BATCH: Final = 200
_BATCH_TEXT_MAX: Final = 4 * 1024 * 1024
"""Characters that go together: hostile events must not make a body of hundreds of megabytes."""


def delivery_size(mail: MailSettings | None) -> int:
    """Return how many events go in one delivery at most."""
    return _BATCH if mail is None else mail.summary_count


def leading(held: Sequence[StoredEvent], most: int) -> int:
    """Return how many of the held events go together: at least one, and no more than most."""
    size = 0
    for count, (_, event) in enumerate(held[:most]):
        size += text_size(event)
        if size > _BATCH_TEXT_MAX and count:
            return count
    return min(len(held), most)


def due_in_s(mail: MailSettings | None, held: Sequence[StoredEvent], now_us: int) -> float:
    """Return the seconds until the held events (at least one) are due; 0 for at once."""
    if mail is None or len(held) >= mail.summary_count:
        return 0.0
    if any(event.severity in mail.immediate for _, event in held):
        return 0.0
    waited_s = (now_us - _since_us(held[0][1])) / 1_000_000
    # No more than one interval, wherever the clock has jumped.
    return min(max(mail.summary_interval_s - waited_s, 0.0), float(mail.summary_interval_s))


def _since_us(event: Event) -> int:
    """When the server had it: the clock of a client must not decide about mail."""
    return event.time_us if event.received_us is None else event.received_us
