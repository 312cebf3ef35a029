"""What was found wrong with the audit log, until somebody accepts it: it outlives the process.

    DATA_DIR/audit/finding              what was found, as JSON
    DATA_DIR/audit/evidence-N.WHAT      the checkpoint, or the list of public keys, that the log of
                                        the store contradicts: what it showed before, signed

A log that was made anew, or put back, is consistent in itself as soon as it is signed again: only
what was kept beside it tells. So none of that is overwritten before there is a copy.
"""

import json
from dataclasses import replace
from typing import Final

from needfire_protocol.audit.verdict import Finding, Verdict
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import printable
from needfire_protocol.event import format_time, parse_time
from needfire_server.audit.keys import AuditFiles

__all__ = ["Standing"]

_TEXT_MAX: Final = 1_024
_HOW_TO_END_IT: Final = "needfire-admin audit accept ends this"


class Standing:
    """The finding that stands."""

    def __init__(self, files: AuditFiles) -> None:
        self._files = files
        self._kept: Finding | None = _parsed(files.kept_finding())
        self._unwritten: bytes | None = None

    @property
    def finding(self) -> Finding | None:
        """The first one that nobody has accepted; says when it was made, and what ends it."""
        kept = self._kept
        return None if kept is None else replace(kept, text=f"{kept.text}; {_HOW_TO_END_IT}")

    def note(self, finding: Finding, now_us: int) -> None:
        """Keep a finding, unless there is an earlier one already.

        Raises:
            StorageError: it cannot be written; it stands in this process only, until it is noted
                again.
        """
        if self._kept is None:
            made = format_time(now_us)
            self._kept = _since(finding, made)
            self._unwritten = _encoded(finding, made)
        if self._unwritten is not None:
            self._files.keep_finding(self._unwritten)
            self._unwritten = None

    def accept(self) -> Finding | None:
        """End the finding; return it, without what would end it. Evidence stays.

        Raises:
            StorageError: it cannot be removed, and stands.
        """
        ended = self._kept
        self._files.drop_finding()
        self._kept = self._unwritten = None
        return ended


def _encoded(finding: Finding, made: str) -> bytes:
    return json.dumps(
        {
            "verdict": finding.verdict.value,
            "record": finding.first,
            "record_last": finding.last,
            "reason": finding.text[:_TEXT_MAX],
            "time": made,
        }
    ).encode()


def _parsed(data: bytes | None) -> Finding | None:
    """Return a finding as it was kept: a file that is damaged says that there was one."""
    if data is None:
        return None
    try:
        kept = json.loads(data)
        found = Finding(
            Verdict(kept["verdict"]),
            _number(kept["record"]),
            _number(kept["record_last"]),
            0,
            printable(str(kept["reason"]), _TEXT_MAX),
        )
        return _since(found, format_time(parse_time(kept["time"])))
    except (ValueError, KeyError, TypeError, RecursionError, FormatError):
        return Finding(Verdict.CHANGED, 0, 0, 0, "what was found before cannot be read any more")


def _number(value: object) -> int:
    """Return the number of a record; what no event could hold would keep all of them from the store.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("it is not the number of a record")
    return value


def _since(finding: Finding, made: str) -> Finding:
    text = f"{finding.text} (found at {made})"
    return Finding(finding.verdict, finding.first, finding.last, 0, text)
