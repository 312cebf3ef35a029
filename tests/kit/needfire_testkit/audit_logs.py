"""Audit logs made in memory: what a server would export, and what somebody could do to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from needfire_protocol.audit.export import checkpoint_line, header_line
from needfire_protocol.audit.merkle import Frontier, leaf_hash
from needfire_protocol.audit.note import (
    Checkpoint,
    PublicKey,
    handover_text,
    public_key_of,
    sign_note,
)
from needfire_protocol.audit.record import (
    FIRST_PREVIOUS,
    KEY_HANDED_OVER,
    KEY_MADE,
    Draft,
    Moment,
    encode_record,
)

ORIGIN = "needfire.audit/00112233445566778899aabbccddeeff"
BEGIN_US = 1_763_754_047_000_000


def private_key(number: int) -> Ed25519PrivateKey:
    """Return always the same key for a number."""
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


@dataclass
class AuditLog:
    """A log that grows in memory, line by line as an export has it."""

    origin: str = ORIGIN
    private: Ed25519PrivateKey = field(default_factory=lambda: private_key(1))
    word: str = "event"
    lines: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: list[PublicKey] = field(default_factory=list)
    handovers: list[str] = field(default_factory=list)
    frontier: Frontier = field(default_factory=Frontier)
    previous: bytes = FIRST_PREVIOUS

    def __post_init__(self) -> None:
        self.keys.append(public_key_of(self.origin, self.private))
        self.add(KEY_MADE, key=str(self.keys[-1]))

    @property
    def key(self) -> PublicKey:
        return self.keys[-1]

    def add(self, code: str = "CLIENT_REGISTERED", **fields: str | int) -> None:
        number = self.frontier.size
        moment = Moment(BEGIN_US + number * 1_000, 5_000_000 + number * 1_000)
        draft = Draft(code, True, "root", "web1", None, fields or {"what": f"{self.word} {number}"})
        self.append_line(encode_record(number, self.previous, moment, draft))

    def append_line(self, line: bytes) -> None:
        self.previous = leaf_hash(line)
        self.frontier.append(self.previous)
        self.records.append(line)
        self.lines.append(line)

    def checkpoint(self) -> str:
        number = len(self.notes) + 1
        text = Checkpoint(
            self.origin, self.frontier.size, self.frontier.root(), number, BEGIN_US + number
        ).text()
        self.notes.append(sign_note(text, self.origin, self.private))
        self.lines.append(checkpoint_line(self.notes[-1]))
        return self.notes[-1]

    def hand_over(self, private: Ed25519PrivateKey) -> None:
        new = public_key_of(self.origin, private)
        handover = sign_note(handover_text(new), self.origin, self.private)
        signature = handover.rstrip("\n").rpartition("\n")[2]
        self.add(KEY_HANDED_OVER, key=str(new), signature=signature)
        self.private = private
        self.keys.append(new)
        self.handovers.append(handover)

    def export(self, *, closing: str | None = None) -> list[bytes]:
        """Return the lines of a whole file, each with its newline."""
        note = self.notes[-1] if closing is None else closing
        return with_newlines([header_line(self.keys, note), *self.lines])


def with_newlines(lines: Sequence[bytes]) -> list[bytes]:
    return [line + b"\n" for line in lines]


def lines_of(data: bytes) -> list[bytes]:
    """Split a file into lines as a reader does."""
    return data.splitlines(keepends=True)


def grown_log(records: int, *, every: int = 50, hand_over_at: int = 0) -> AuditLog:
    """Return a log of so many records with a checkpoint behind each ``every``, and at the end."""
    log = AuditLog()
    while log.frontier.size < records:
        if log.frontier.size == hand_over_at:
            log.hand_over(private_key(2))
        else:
            log.add()
        if log.frontier.size % every == 0 and log.frontier.size < records:
            log.checkpoint()
    log.checkpoint()
    return log


def subtree_of(records: Sequence[bytes]) -> Callable[[int, int], bytes]:
    """Return what gives the hash of a full subtree of these records."""

    def subtree(level: int, position: int) -> bytes:
        frontier = Frontier()
        for line in records[position << level : (position + 1) << level]:
            frontier.append(leaf_hash(line))
        assert frontier.size == 1 << level
        return frontier.root()

    return subtree
