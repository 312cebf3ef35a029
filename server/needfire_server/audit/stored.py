"""Whether the audit log in a store is whole: its lines, what the server goes on from, and nothing else.

The same answer for a running server and for ``audit verify --store``. Lines alone do not tell of a
record that stands behind those which the server has written, nor whether the state that it goes on
from is that of its lines. Blocking: for threads and for programs of their own.
"""

from collections.abc import Sequence
from dataclasses import replace

from needfire_protocol.audit.note import Note, PublicKey
from needfire_protocol.audit.verdict import Finding, Verdict, Verification
from needfire_protocol.audit.verify import verify
from needfire_server.audit.export import log_lines
from needfire_server.storage.audit_base import AuditHead, AuditPages, StoredCheckpoint

__all__ = ["check_stored", "stray_finding"]


def check_stored(
    tables: AuditPages,
    stored_keys: Sequence[PublicKey],
    keys: Sequence[PublicKey],
    closing: StoredCheckpoint,
    head: AuditHead,
    anchor: Note | None = None,
    *,
    kept: Note | None = None,
) -> Verification:
    """Check the log of a store beside a server that may be writing it.

    Args:
        stored_keys: those that the store names.
        keys: those that may have signed.
        closing: the latest checkpoint, read before ``head``.
        anchor: a checkpoint that was kept elsewhere.
        kept: the one that the server has kept beside the store, read before all of this.
    """
    lines = log_lines(tables, stored_keys, closing, size=max(head.size, closing.size))
    tip = head.previous if head.size >= closing.size else b""
    result = verify(lines, keys, anchor=anchor, kept=kept, is_live=True, size=head.size, tip=tip)
    if result.finding is None:
        result = replace(result, finding=_of_state(result, closing, head) or stray_finding(tables))
    return result


def stray_finding(tables: AuditPages) -> Finding | None:
    """Return what is wrong where a record stands outside of those that the server has written."""
    stray = tables.stray_now()
    if stray is None:
        return None
    text = f"the server has written {stray.size} records, and this one is not among them"
    return Finding(Verdict.INSERTED, stray.number, stray.number, 0, text)


def _of_state(result: Verification, closing: StoredCheckpoint, head: AuditHead) -> Finding | None:
    """Hold what the server goes on from against the lines, which are right."""
    if head.size < closing.size:
        text = (
            f"the state of the log (audit_head) says {head.size} records, and {closing.size} "
            "are signed"
        )
    elif result.root != head.frontier.root():
        text = "the state of the log (audit_head) is not that of its records"
    else:
        return None
    return Finding(Verdict.CHANGED, head.size, head.size, 0, text)
