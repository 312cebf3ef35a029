"""What an agent makes of the checkpoints that its server shows it: the log may only grow.

An agent keeps the latest checkpoint and the key that signed it. The next one must be of the same
log, signed by the same key or by one that it handed over to, not smaller, and consistent with what
is kept (RFC 9162 2.1.4). So a server whose history was rewritten or cut off, or that shows one log
to some and another to others, is caught by the first agent that had seen the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from needfire_protocol.audit.merkle import is_consistent
from needfire_protocol.audit.note import (
    Checkpoint,
    Note,
    PublicKey,
    parse_checkpoint,
    parse_handover,
    parse_note,
)
from needfire_protocol.errors import FormatError
from needfire_protocol.limits import AUDIT_HANDOVERS_MAX

__all__ = ["Offer", "Sighting", "is_grown", "judge", "parse_offer"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A checkpoint that was believed, and the key that signed it."""

    note: str
    key: PublicKey

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says."""
        return parse_checkpoint(parse_note(self.note))


@dataclass(frozen=True, slots=True)
class Offer:
    """A checkpoint as it came from the server, well formed and signed by the key that it names."""

    sighting: Sighting
    handovers: tuple[Note, ...]


def parse_offer(note: str, key: str, handovers: Sequence[str]) -> Offer:
    """Return what a server shows.

    Raises:
        FormatError: something of it is not well formed, or the key did not sign it.
    """
    parsed, public = parse_note(note), PublicKey.parse(key)
    checkpoint = parse_checkpoint(parsed)
    if public.name != checkpoint.origin:
        raise FormatError("the checkpoint is of another log than its key")
    if not public.verifies(parsed):
        raise FormatError("the checkpoint is not signed by the key that it came with")
    if len(handovers) > AUDIT_HANDOVERS_MAX:
        raise FormatError(f"{len(handovers)} handovers of keys exceed {AUDIT_HANDOVERS_MAX}")
    return Offer(Sighting(note, public), tuple(parse_note(each) for each in handovers))


def judge(kept: Sighting, offer: Offer) -> str | None:
    """Return why the offer cannot be of the log that was seen, or None where it may be.

    Where it is larger, its server still has to prove that it grew out of the one that is kept.
    """
    old, new = kept.checkpoint, offer.sighting.checkpoint
    if old.origin != new.origin:
        return f"it is another log: {new.origin} instead of {old.origin}"
    if not _is_successor(kept.key, offer):
        return "it is signed by a key that the key of before did not hand over to"
    if new.size < old.size:
        return f"it was cut off: it has {new.size} records and had {old.size}"
    if new.size == old.size and new.root != old.root:
        return f"it was rewritten: its {new.size} records are other ones than before"
    return None


def is_grown(kept: Sighting, offered: Sighting, proof: Sequence[bytes]) -> bool:
    """True where the proof shows that the log that was seen is the beginning of the other."""
    old, new = kept.checkpoint, offered.checkpoint
    return is_consistent(old.size, old.root, new.size, new.root, proof)


def _is_successor(key: PublicKey, offer: Offer) -> bool:
    for note in offer.handovers:
        if key == offer.sighting.key:
            return True
        if key.verifies(note):
            try:
                named = parse_handover(note)
            except FormatError:
                continue
            if key.name == named.name:
                key = named
    return key == offer.sighting.key
