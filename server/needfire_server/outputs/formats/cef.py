r"""The event in ArcSight's Common Event Format (Implementation Standard, version 0).

    CEF:0|Needfire|Needfire|1.0|POLICY_MISSING|POLICY MISSING|8|rt=1795… externalId=01… filePath=/etc/x

In the header ``\`` and ``|`` are escaped with a backslash, in the extension ``\`` and ``=``. The
fields of the event follow those of the format, under their own names with ``nf_`` before them.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol import __version__
from needfire_protocol.escape import printable
from needfire_protocol.event import Event, FieldValue
from needfire_protocol.severity import Severity

__all__ = ["cef_line"]

_TEXT_MAX: Final = 80_000
_HEADER: Final = str.maketrans({"\\": "\\\\", "|": "\\|"})
_EXTENSION: Final = str.maketrans({"\\": "\\\\", "=": "\\="})
_SEVERITY: Final[Mapping[Severity, int]] = MappingProxyType(
    {
        Severity.DEBUG: 0,
        Severity.INFO: 1,
        Severity.NOTICE: 3,
        Severity.WARN: 5,
        Severity.MARK: 3,
        Severity.ERR: 6,
        Severity.CRIT: 8,
        Severity.ALERT: 10,
    }
)
_KNOWN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "path": "filePath",
        "size_new": "fsize",
        "size_old": "oldFileSize",
        "mode_new": "filePermission",
        "mode_old": "oldFilePermission",
        "chksum_new": "fileHash",
        "chksum_old": "oldFileHash",
        "who_user": "suser",
        "who_program": "sproc",
        "who_pid": "spid",
    }
)
"""Keys of the format's dictionary by the names of our fields; these stand there only."""


def cef_line(event: Event) -> str:
    """Return the event as one line of CEF without its end."""
    header = "|".join(
        _plain(part).translate(_HEADER)
        for part in ("Needfire", "Needfire", __version__, event.code, event.msg)
    )
    pairs = " ".join(
        f"{key}={_plain(value).translate(_EXTENSION)}" for key, value in _extension(event)
    )
    return f"CEF:0|{header}|{_SEVERITY[event.severity]}|{pairs}"


def _extension(event: Event) -> Iterator[tuple[str, FieldValue]]:
    yield "rt", event.time_us // 1_000
    yield "externalId", event.id
    yield "cat", event.event_class.value
    if event.client is not None:
        yield "dvchost", event.client
    if event.received_us is not None:
        yield "end", event.received_us // 1_000
    for name, value in event.fields.items():
        yield _KNOWN.get(name, f"nf_{name}"), value


def _plain(value: FieldValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return printable(str(value), _TEXT_MAX)
