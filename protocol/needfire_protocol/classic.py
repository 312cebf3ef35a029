"""The classic log line: Samhain's XML and text forms, so that scripts that read its logs go on.

    <log sev="CRIT" tstamp="2026-11-21T19:40:47+0000" msg="POLICY MISSING" path="/etc/x" />
    CRIT   :  [2026-11-21T19:40:47+0000] msg=<POLICY MISSING>, path=</etc/x>

One event is one line, whatever a file name holds: values reach this module printable, and what
could end a value early (quotes and angle brackets) is escaped as each form does it.
"""

from datetime import UTC, datetime
from functools import lru_cache

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue

__all__ = ["text_line", "xml_line"]

_OURS = frozenset({"sev", "tstamp", "msg", "remote_host"})
"""Names that a record has already. A field of an agent's event must not pass for one of them."""
_OURS_WITH_CLIENT = _OURS | {"client"}
_TEXT_MAX = 20_000
"""Characters of one value; an event has made it so already."""
_XML_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})
_TEXT_LABELS = {"ERRO": "ERROR", "DEBG": "DEBUG", "NOTE": "NOTICE", "ALRT": "ALERT"}


def xml_line(event: Event) -> str:
    """Return the event in Samhain's XML form, one line without the newline.

    A client's report, on the server, is wrapped in a record of its receipt as Yule does it:
    ``<log sev="RCVT" tstamp="…" remote_host="NAME" > <log … /> </log>``.
    """
    if event.client is None or event.received_us is None:
        return _xml_record(event)
    return (
        f'<log sev="RCVT" tstamp="{_stamp(event.received_us)}" '
        f'remote_host="{_xml(event.client)}" > {_xml_record(event, with_client=False)} </log>'
    )


def text_line(event: Event) -> str:
    """Return the event in Samhain's text form, one line without the newline."""
    label = _TEXT_LABELS.get(event.severity.label, event.severity.label)
    pairs = [("msg", event.msg), *_pairs(event, with_client=True)]
    fields = ", ".join(f"{name}=<{_text(value)}>" for name, value in pairs)
    return f"{label:<7}:  [{_stamp(event.time_us)}] {fields}"


def _xml_record(event: Event, *, with_client: bool = True) -> str:
    pairs = [("msg", event.msg), *_pairs(event, with_client)]
    texts = [value if type(value) is str else _plain(value) for _, value in pairs]
    # One look at all of them: hardly a line has anything to escape.
    together = "".join(texts)
    if len(together) > _TEXT_MAX or not together.isprintable():
        texts = [_plain(text) for text in texts]
    if "&" in together or "<" in together or ">" in together or '"' in together:
        texts = [text.translate(_XML_ENTITIES) for text in texts]
    fields = " ".join([f'{name}="{text}"' for (name, _), text in zip(pairs, texts, strict=True)])
    return f'<log sev="{event.severity.label}" tstamp="{_stamp(event.time_us)}" {fields} />'


def _pairs(event: Event, with_client: bool) -> list[tuple[str, FieldValue]]:
    entry = CATALOGUE.get(event.code)
    told = frozenset() if entry is None else entry.msg_fields()
    ours = _OURS if event.client is None else _OURS_WITH_CLIENT
    pairs = [
        (f"{name}_" if name in ours else name, value)
        for name, value in event.fields.items()
        if name not in told
    ]
    if with_client and event.client is not None:
        pairs.insert(0, ("client", event.client))
    return pairs


def _plain(value: FieldValue) -> str:
    if type(value) is str:
        return printable(value, _TEXT_MAX)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _xml(value: FieldValue) -> str:
    return _plain(value).translate(_XML_ENTITIES)


def _text(value: FieldValue) -> str:
    return _plain(value).replace(">", "\\x3e").replace("<", "\\x3c")


def _stamp(time_us: int) -> str:
    return _stamp_of_second(time_us // 1_000_000)


@lru_cache(maxsize=64)
def _stamp_of_second(time_s: int) -> str:
    """UTC with a numeric zone: Samhain writes local time, which no two hosts agree on.

    Kept, because lines come many in a second.
    """
    moment = datetime.fromtimestamp(time_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}+0000"
