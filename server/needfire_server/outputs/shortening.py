"""How an event is made to fit where a message has a limit: long texts are cut, and it says so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue

__all__ = ["fitting"]

_STEPS: Final = (2_000, 500, 120, 40, 8)
"""Characters that each text keeps, one try after another."""


def fitting(event: Event, render: Callable[[Event], bytes], size_max: int) -> bytes:
    """Return the rendered event in at most size_max bytes, where that is possible at all.

    Texts are cut with an ellipsis and the field ``shortened`` is added, so the form stays whole (a
    JSON object is still one) and the reader knows to look the event up by its id. Where even
    that is too long, the other fields are left out.
    """
    data = render(event)
    for length in _STEPS:
        if len(data) <= size_max:
            return data
        data = render(_shortened(event, length))
    if len(data) <= size_max:
        return data
    bare: dict[str, FieldValue] = {"shortened": True}
    return render(replace(event, msg=printable(event.msg, 120), fields=bare))


def _shortened(event: Event, length: int) -> Event:
    fields: dict[str, FieldValue] = {
        name: printable(value, length) if isinstance(value, str) else value
        for name, value in event.fields.items()
    }
    return replace(
        event, msg=printable(event.msg, max(length, 40)), fields={**fields, "shortened": True}
    )
