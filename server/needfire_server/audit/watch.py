"""What the running server does for its audit log: check it, sign it, and say when it is not right."""

import asyncio

from needfire_protocol.audit.verify import Finding
from needfire_protocol.errors import StorageError
from needfire_server.runtime import Runtime

__all__ = ["watch_audit_log"]


async def watch_audit_log(runtime: Runtime) -> None:
    """Check the whole log once, then sign and check what is new at each interval; for ever.

    The interval is that of a clock that does not jump. A log that is not right goes on: what
    happens from here on is worth recording too, and whoever holds an older checkpoint can tell
    what was changed.
    """
    if runtime.audit.key_trouble is not None:
        runtime.journal.raise_event("AUDIT_KEY_MISSING", reason=runtime.audit.key_trouble)
    await runtime.provisioning.audit_key_seen(is_there=runtime.audit.key_trouble is None)
    told = await _check(runtime, None, is_first=True)
    while True:
        told = await _check(runtime, told, is_first=False)
        try:
            await runtime.audit.checkpoint()
        except StorageError as error:
            runtime.journal.store_failed(error)
        await asyncio.sleep(runtime.settings.audit_checkpoint_interval_s)


async def _check(runtime: Runtime, told: Finding | None, *, is_first: bool) -> Finding | None:
    """Check, and tell what is found unless that was told already; return what was told."""
    try:
        if is_first:
            await runtime.audit.check_all()
        else:
            await runtime.audit.check_recent()
    except StorageError as error:
        runtime.journal.store_failed(error)
    finding = runtime.audit.finding
    if finding is not None and finding != told:
        runtime.journal.raise_event(
            "AUDIT_LOG_TAMPERED",
            verdict=finding.verdict.value,
            record=finding.first,
            record_last=finding.last,
            reason=finding.text,
        )
    return finding
