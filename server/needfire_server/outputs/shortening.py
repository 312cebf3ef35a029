"""How an event is made to fit where a message has a limit: long texts are cut, and it says so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue

__all__ = ["fitting", "text_size"]

_STEPS: Final = (2_000, 500, 120, 40, 8)
"""Characters that each text keeps, one try after another."""


def fitting(event: Event, render: Callable[[Event], bytes], size_max: int) -> bytes:
    """Return the rendered event in at most size_max bytes, where that is possible at all.

    Texts are cut with an ellipsis and the field ``shortened`` is added, so the form stays whole (a
    JSON object is still one) and the reader knows to look the event up by its id. Where even
    that is too long, the other fields are left out. What cannot fit is not even tried: rendering two
    megabytes takes a quarter of a second.
    """
    weights = [len(value) for value in event.fields.values() if isinstance(value, str)]
    is_hopeless = sum(weights) > size_max
    data = b"" if is_hopeless else render(event)
    for length in _STEPS:
        if data and len(data) <= size_max:
            return data
        if length == _STEPS[-1] or sum(min(each, length) for each in weights) <= size_max:
            data = render(_shortened(event, length))
    if len(data) <= size_max:
        return data
    bare: dict[str, FieldValue] = {"shortened": True}
    return render(replace(event, msg=printable(event.msg, 120), fields=bare))


def text_size(event: Event) -> int:
    """Return about how much there is to render, in characters."""
    texts = [len(value) for value in event.fields.values() if isinstance(value, str)]
    return len(event.msg) + sum(texts)


def _cut(text: str, length: int) -> str:
    """Return what ``printable`` does, at the price of a copy where nothing is to be escaped."""
    head = text[: length - 1]
    return f"{head}…" if len(text) > length and head.isprintable() else printable(text, length)


def _shortened(event: Event, length: int) -> Event:
    fields: dict[str, FieldValue] = {
        name: _cut(value, length) if isinstance(value, str) else value
        for name, value in event.fields.items()
    }
    return replace(
        event, msg=printable(event.msg, max(length, 40)), fields={**fields, "shortened": True}
    )
