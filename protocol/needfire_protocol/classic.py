"""The classic log line: Samhain's XML and text forms, so that scripts that read its logs go on.

    <log sev="CRIT" tstamp="2026-11-21T19:40:47+0000" msg="POLICY MISSING" path="/etc/x" />
    CRIT   :  [2026-11-21T19:40:47+0000] msg=<POLICY MISSING>, path=</etc/x>

One event is one line, whatever a file name holds: values reach this module printable, and what
could end a value early (quotes and angle brackets) is escaped as each form does it.
"""

from datetime import UTC, datetime
from functools import lru_cache
from itertools import compress

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue

__all__ = ["plain", "receipt_text", "record_form", "stamp", "text_line", "xml_line"]

_OURS = frozenset({"sev", "tstamp", "msg", "remote_host", "xmlns"})
"""Names that a record has already, and the one that XML gives a meaning. A field of an agent's event
must not pass for one of them."""
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
    receipt = receipt_text(event.client, event.received_us // 1_000_000)
    return f"{receipt}{_xml_record(event, with_client=False)} </log>"


def text_line(event: Event) -> str:
    """Return the event in Samhain's text form, one line without the newline.

    A client's report has the name twice: ``client``, as the server's own events name the one that
    they are about, and ``remote_host``, which says that it came from there.
    """
    label = _TEXT_LABELS.get(event.severity.label, event.severity.label)
    pairs = [("msg", event.msg), *_text_pairs(event)]
    fields = ", ".join(f"{name}=<{_text(value)}>" for name, value in pairs)
    return f"{label:<7}:  [{stamp(event.time_us)}] {fields}"


def _xml_record(event: Event, *, with_client: bool = True) -> str:
    names, kept, form = record_form(event.code, tuple(event.fields), event.client is not None)
    fields = event.fields.values()
    values = [event.msg, *(fields if kept is None else compress(fields, kept))]
    if with_client and event.client is not None:
        names, form = ("msg", "client", *names[1:]), f'msg="%s" client="%s"{form[8:]}'
        values.insert(1, event.client)
    for place, value in enumerate(values):
        if type(value) is not str and type(value) is not int:
            values[place] = plain(value)
    filled = form % tuple(values)
    # One look at all of them: hardly a line has anything to escape.
    if (
        len(filled) > _TEXT_MAX
        or filled.count('"') != 2 * len(names)
        or "&" in filled
        or "<" in filled
        or ">" in filled
        or not filled.isprintable()
    ):
        pairs = zip(names, values, strict=True)
        filled = " ".join([f'{name}="{_xml(value)}"' for name, value in pairs])
    return f'<log sev="{event.severity.label}" tstamp="{stamp(event.time_us)}" {filled} />'


@lru_cache(maxsize=256)
def record_form(
    code: str, names: tuple[str, ...], has_client: bool
) -> tuple[tuple[str, ...], tuple[bool, ...] | None, str]:
    """Return the names of a record's values, which fields are among them (None: all), and its form.

    The same few come again and again. An agent cannot make more of it than 256 times 96 names.
    """
    told = _told(code)
    ours = _OURS_WITH_CLIENT if has_client else _OURS
    kept = tuple([name not in told for name in names])
    shown = ["msg"]
    for name in compress(names, kept):
        own = f"{name}_" if name in ours else name
        while own in shown or (own != name and own in names):
            # An agent that sends both msg and msg_ must not make a record that no parser takes.
            own += "_"
        shown.append(own)
    form = " ".join([f'{name}="%s"' for name in shown])
    return tuple(shown), None if all(kept) else kept, form


def _told(code: str) -> frozenset[str]:
    entry = CATALOGUE.get(code)
    return frozenset() if entry is None else entry.msg_fields()


def _text_pairs(event: Event) -> list[tuple[str, FieldValue]]:
    shown, kept, _ = record_form(event.code, tuple(event.fields), event.client is not None)
    fields = event.fields.values()
    pairs = list(zip(shown[1:], fields if kept is None else compress(fields, kept), strict=True))
    if event.client is None:
        return pairs
    return [("client", event.client), ("remote_host", event.client), *pairs]


def plain(value: FieldValue) -> str:
    if type(value) is str:
        return printable(value, _TEXT_MAX)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _xml(value: FieldValue) -> str:
    return plain(value).translate(_XML_ENTITIES)


def _text(value: FieldValue) -> str:
    return plain(value).replace(">", "\\x3e").replace("<", "\\x3c")


@lru_cache(maxsize=64)
def receipt_text(client: str, received_s: int) -> str:
    """What stands before a client's record. Its reports come many at once."""
    return (
        f'<log sev="RCVT" tstamp="{_stamp_of_second(received_s)}" remote_host="{_xml(client)}" > '
    )


def stamp(time_us: int) -> str:
    return _stamp_of_second(time_us // 1_000_000)


@lru_cache(maxsize=64)
def _stamp_of_second(time_s: int) -> str:
    """UTC with a numeric zone: Samhain writes local time, which no two hosts agree on.

    Kept, because lines come many in a second.
    """
    moment = datetime.fromtimestamp(time_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}+0000"
