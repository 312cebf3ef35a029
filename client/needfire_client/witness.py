"""Holds the server to its audit log: what it showed once must be in what it shows next.

    state directory/audit-checkpoint     the last checkpoint that was believed, as the server signed it
    state directory/audit-keys           the keys that may have signed it, one a line
    state directory/audit-evidence/      both sides of each contradiction, a file each

The first log that a server shows is believed: it came over a connection on which the server proved
itself. After a contradiction the new log is followed, so that each rewriting is told once and the
next one is noticed too; the evidence stays.

A server that proves nothing has not contradicted itself: it does not vouch for what it knows to be
wrong, and may do so again once that is mended. So what was kept stays, each new checkpoint asks
again, and it is told once and then at an interval, until a proof comes or a contradiction; across
restarts, for evidence about the checkpoint that is kept says that it was told. What is no
checkpoint at all is told as seldom.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from needfire_protocol.audit.note import PublicKey, parse_checkpoint, parse_note
from needfire_protocol.audit.witness import Offer, Sighting, is_grown, judge, parse_offer
from needfire_protocol.errors import FormatError
from needfire_protocol.messages import AuditCheckpoint, AuditProof, AuditProofRequest

__all__ = ["Witness"]

_EVIDENCE_FILES_MAX: Final = 16
_FILE_BYTES_MAX: Final = 16 * 1024
_UNANSWERED_MAX: Final = 3
"""Proofs that a server may owe before that counts as having none."""
_REMIND_S: Final = 24 * 3600.0
"""How often it is told again that a server proves nothing, or shows what is no checkpoint."""
_UNANSWERED: Final = "the server does not prove that it goes on from the one that was kept"
_NO_PROOF: Final = "the server has no proof that it goes on from the one that was kept"


class Witness:
    """One for a state directory. Used from one thread at a time.

    Args:
        path: where the checkpoint is kept.
        report: raises an event of the agent.
        clock: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        path: Path,
        report: Callable[..., object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._path = path
        self._keys_path = path.with_name("audit-keys")
        self._evidence = path.with_name("audit-evidence")
        self._report = report
        self._kept = self._load()
        self._unproven_told_at = clock() if self._is_evident() else None
        self._none_told_at: float | None = None
        self._offer: Offer | None = None
        self._unanswered = 0

    def hear(self, message: AuditCheckpoint | AuditProof) -> AuditProofRequest | None:
        """Take what the server says of its log; return what to ask it for, if anything."""
        if isinstance(message, AuditProof):
            self._proved(message)
            return None
        return self._shown(message)

    def _shown(self, message: AuditCheckpoint) -> AuditProofRequest | None:
        try:
            offer = parse_offer(
                message.note.decode(),
                message.key.decode(),
                [each.decode() for each in message.handovers],
            )
        except (FormatError, UnicodeDecodeError) as error:
            if self._is_due(self._none_told_at):
                self._none_told_at = self._clock()
                self._tell(f"its checkpoint is none: {error}", None)
            self._offer, self._unanswered = None, 0
            return None
        kept = self._kept
        if kept is None:
            self._keep(offer.sighting)
            return None
        reason = judge(kept, offer)
        old, new = kept.checkpoint.size, offer.sighting.checkpoint.size
        if reason is None and old < new:
            if self._unanswered < _UNANSWERED_MAX:
                self._unanswered += 1
                self._offer = offer
                return AuditProofRequest(old, new)
            self._offer, self._unanswered = None, 0
            self._unproven(_UNANSWERED, offer.sighting)
            return None
        if reason is not None:
            self._contradicted(reason, offer.sighting)
        return None

    def _proved(self, proof: AuditProof) -> None:
        kept, offer = self._kept, self._offer
        if kept is None or offer is None:
            return
        wanted = (kept.checkpoint.size, offer.sighting.checkpoint.size)
        if (proof.old, proof.new) != wanted:
            # The answer to an earlier question; that to the last one follows.
            return
        self._offer, self._unanswered = None, 0
        if is_grown(kept, offer.sighting, proof.hashes):
            self._proven(kept, offer.sighting)
        elif proof.hashes:
            reason = "nothing proves that it goes on from the one that was kept"
            self._contradicted(reason, offer.sighting)
        else:
            self._unproven(_NO_PROOF, offer.sighting)

    def _proven(self, kept: Sighting, offered: Sighting) -> None:
        self._keep(offered)
        if (self._unproven_told_at, self._none_told_at) != (None, None):
            self._unproven_told_at = self._none_told_at = None
            self._report(
                "AUDIT_LOG_CONSISTENT",
                size=offered.checkpoint.size,
                kept_size=kept.checkpoint.size,
            )

    def _unproven(self, reason: str, offered: Sighting) -> None:
        """Tell that there is no proof, now and at an interval; what is kept may be proved yet."""
        if self._is_due(self._unproven_told_at):
            self._unproven_told_at = self._clock()
            self._tell(reason, offered)

    def _is_due(self, told_at: float | None) -> bool:
        return told_at is None or self._clock() - told_at >= _REMIND_S

    def _contradicted(self, reason: str, offered: Sighting) -> None:
        self._tell(reason, offered)
        self._offer, self._unanswered = None, 0
        self._unproven_told_at = None
        self._keep(offered)

    def _tell(self, reason: str, offered: Sighting | None) -> None:
        kept = self._kept
        evidence = self._write_evidence(reason, offered)
        self._report(
            "AUDIT_LOG_INCONSISTENT",
            reason=reason,
            size=None if offered is None else offered.checkpoint.size,
            kept_size=None if kept is None else kept.checkpoint.size,
            evidence=evidence,
        )

    def _keep(self, sighting: Sighting) -> None:
        before = self._kept
        self._kept = sighting
        keys = [sighting.key] if before is None else [before.key, sighting.key]
        listed = "".join(f"{key}\n" for key in dict.fromkeys(keys))
        # The keys first: whichever checkpoint a crash leaves, its key is there. What the disk
        # refuses is known to this process all the same.
        with contextlib.suppress(OSError):
            _write(self._keys_path, listed)
            _write(self._path, sighting.note)

    def _load(self) -> Sighting | None:
        try:
            note = self._path.read_bytes()[:_FILE_BYTES_MAX].decode()
            parsed = parse_note(note)
            for line in self._keys_path.read_bytes()[:_FILE_BYTES_MAX].decode().splitlines():
                key = PublicKey.parse(line)
                if key.verifies(parsed):
                    parse_checkpoint(parsed)
                    return Sighting(note, key)
        except (OSError, UnicodeDecodeError, FormatError):
            return None
        return None

    def _is_evident(self) -> bool:
        """Whether it was told already that nothing goes on from what is kept."""
        if self._kept is None:
            return False
        wanted = {(self._kept.note, reason) for reason in (_UNANSWERED, _NO_PROOF)}
        numbers = range(1, _EVIDENCE_FILES_MAX + 1)
        return any(_of_file(self._evidence / f"{each}.json") in wanted for each in numbers)

    def _write_evidence(self, reason: str, offered: Sighting | None) -> str | None:
        data = {
            "reason": reason,
            "kept": None if self._kept is None else self._kept.note,
            "kept_key": None if self._kept is None else str(self._kept.key),
            "shown": None if offered is None else offered.note,
            "shown_key": None if offered is None else str(offered.key),
        }
        try:
            self._evidence.mkdir(mode=0o700, exist_ok=True)
            for number in range(1, _EVIDENCE_FILES_MAX + 1):
                path = self._evidence / f"{number}.json"
                if path.exists():
                    # What is told again has its evidence already.
                    if _of_file(path) == (str(data["kept"]), reason):
                        return str(path)
                else:
                    _write(path, json.dumps(data, indent=2) + "\n")
                    return str(path)
        except OSError:
            return None
        return None


def _of_file(path: Path) -> tuple[str, str] | None:
    """Return which checkpoint evidence is about, and what does not fit."""
    try:
        found = json.loads(path.read_bytes()[:_FILE_BYTES_MAX])
        return str(found["kept"]), str(found["reason"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(path: Path, text: str) -> None:
    """Put a file in place, whole or not at all, for its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
