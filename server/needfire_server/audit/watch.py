"""What the running server does for its audit log: check it, sign it, and say when it is not right."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Final

from needfire_protocol.audit.verdict import Finding
from needfire_protocol.errors import StorageError, StorageFullError
from needfire_protocol.severity import Severity
from needfire_server.runtime import Runtime
from needfire_server.storage.audit_base import StoredCheckpoint

__all__ = ["watch_audit_log"]

_AGAIN_S: Final = 5
"""How often what could not be signed is tried again: people are told until it works."""
_REST: Final = 20
"""How much longer than it took the whole log is left alone before it is read again, while something
is wrong with it: of millions of records that takes a minute."""
_SHORT_S: Final = 2.0
"""What takes no longer is done at each interval."""
_ROUNDS: Final = 3
"""Where servers share a store, one that has no key waits so long before it says that none signs."""


async def watch_audit_log(runtime: Runtime) -> None:
    """Check the whole log once, then sign and check what is new at each interval; for ever.

    The interval is that of a clock that does not jump. A log that is not right goes on: what
    happens from here on is worth recording too, and whoever holds an older checkpoint can tell
    what was changed.
    """
    signer = _Signer(runtime)
    await signer.tell_of_key()
    checker = _Checker(runtime)
    await checker.check_all()
    while True:
        await checker.check_recent()
        interval_s = runtime.settings.audit_checkpoint_interval_s
        await asyncio.sleep(interval_s if await signer.sign() else min(interval_s, _AGAIN_S))


class _Signer:
    """Signs what is new, and knows whether anybody does."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: str | None = None
        self._reached: deque[int] = deque(maxlen=_ROUNDS)
        """How many records there were in the last rounds in which this server could not sign."""

    async def tell_of_key(self) -> None:
        """Say, unless it was said, that the key is not here. Where others may sign, that is all."""
        reason = self._runtime.audit.key_trouble
        if reason == self._told:
            return
        self._told = reason
        if reason is None:
            return
        # Before it is told: whoever ends this server in between finds an alarm that the next one ends.
        await self._runtime.provisioning.audit_log_signed(False, is_told=False)
        if self._runtime.store.is_shared:
            self._runtime.journal.raise_event("AUDIT_KEY_MISSING", Severity.ERR, reason=reason)
        else:
            self._runtime.journal.signing_failed(reason)

    async def sign(self) -> bool:
        """Sign; False where it failed, which is told until it works."""
        journal = self._runtime.journal
        try:
            latest = await self._runtime.audit.checkpoint()
            # Another server may have made a key that is not here.
            await self.tell_of_key()
            reason = await self._trouble(latest)
        except StorageError as error:
            if isinstance(error, StorageFullError):
                journal.store_failed(error)
            reason = str(error)
        provisioning = self._runtime.provisioning
        if reason is not None:
            await provisioning.audit_log_signed(False, is_told=False)
            journal.signing_failed(reason)
            return False
        was_told = journal.signing_works()
        # Where others sign, the missing key is an alarm all the same.
        has_key = self._runtime.audit.key_trouble is None
        await provisioning.audit_log_signed(has_key, is_told=was_told)
        return True

    async def _trouble(self, latest: StoredCheckpoint | None) -> str | None:
        """Return why nothing is signed; None where this server or another one does it."""
        runtime = self._runtime
        if runtime.audit.key_trouble is None:
            self._reached.clear()
            return None
        if not runtime.store.is_shared:
            return runtime.audit.key_trouble
        signed = 0 if latest is None else latest.size
        is_overdue = len(self._reached) == _ROUNDS and signed < self._reached[0]
        self._reached.append((await runtime.store.audit.head()).size)
        return runtime.audit.key_trouble if is_overdue else None


class _Checker:
    """Checks, and knows what of it was told."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: Finding | None = None
        self._again_at = 0.0
        self._has_read_all = False

    async def check_all(self) -> None:
        """Read the whole log, and tell what is wrong with it."""
        audit = self._runtime.audit
        self._has_read_all = await self._tell(audit.check_all())
        if self._has_read_all and audit.finding is None and audit.standing is not None:
            # Found before this start; what was signed since may hide it from any check but this.
            self._say(audit.standing)

    async def check_recent(self) -> None:
        """Read on; where something is wrong, look whether it still is."""
        audit, now = self._runtime.audit, asyncio.get_running_loop().time
        if audit.finding is None and not self._has_read_all:
            # The store failed meanwhile. What is read on from is not known to be right.
            await self.check_all()
        elif audit.finding is None:
            await self._tell(audit.check_recent())
        elif now() >= self._again_at:
            began = now()
            await self._tell(audit.check_again())
            took = now() - began
            self._again_at = now() + (_REST * took if took > _SHORT_S else 0)

    async def _tell(self, checking: Awaitable[object]) -> bool:
        """Check, and tell what is new; False where the store failed."""
        is_done = True
        try:
            await checking
        except StorageError as error:
            self._runtime.journal.store_failed(error)
            is_done = False
        audit = self._runtime.audit
        if (accepted := audit.take_accepted()) is not None and accepted == self._told:
            # A person has ended it, and with it the alarm. It is not mended for that, and what is
            # found again is news.
            self._told = None
        finding, told, self._told = audit.finding, self._told, audit.finding
        if finding is None and told is not None:
            self._runtime.journal.raise_event("AUDIT_LOG_INTACT", record=told.first)
        elif finding is not None and finding != told:
            self._say(finding)
        return is_done

    def _say(self, finding: Finding) -> None:
        self._runtime.journal.raise_event(
            "AUDIT_LOG_TAMPERED",
            verdict=finding.verdict.value,
            record=finding.first,
            record_last=finding.last,
            reason=finding.text,
        )
