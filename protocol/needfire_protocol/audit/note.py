r"""Signed notes and checkpoints: the text that says what the log is, and who says so.

The forms are C2SP's signed-note and tlog-checkpoint, so that other people's tools read them:

    needfire.audit/5d0c…      the log's name, its origin
    4711                      how many records it has
    CsUYapGGPo4d…=            the root of their Merkle tree, base64
    checkpoint 17             extension: its number, without gaps
    time 2026-11-21T19:40:47.123456Z

    — needfire.audit/5d0c… Az3grlgt…=     base64 of key id (4 bytes) and Ed25519 signature

Everything before the blank line, its newline included, is what is signed.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from needfire_protocol.audit.merkle import HASH_BYTES
from needfire_protocol.errors import FormatError
from needfire_protocol.event import format_time, parse_time
from needfire_protocol.limits import AUDIT_NOTE_BYTES_MAX

__all__ = [
    "NOTE_BYTES_MAX",
    "Checkpoint",
    "Note",
    "PublicKey",
    "handover_note",
    "handover_text",
    "parse_checkpoint",
    "parse_handover",
    "parse_note",
    "public_key_of",
    "sign_note",
]

NOTE_BYTES_MAX: Final = AUDIT_NOTE_BYTES_MAX
"""Co-signatures of others may stand below our own."""

_SIGNATURES_MAX: Final = 16
_ED25519: Final = b"\x01"
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_NAME: Final = re.compile(r"[!-*,-~]{1,128}")
"""Printable ASCII without blank and plus: those two separate names from what follows."""
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_COUNT_MAX: Final = 2**63 - 1
"""Of records and of checkpoints: what a database can be asked for, and no log ever comes to."""
_HANDOVER: Final = "needfire audit key handover"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may sign: ``NAME+KEYID+BASE64`` in text, as C2SP and Go write it."""

    name: str
    raw: bytes

    @property
    def key_id(self) -> bytes:
        """4 bytes that say which key a signature is by; they prove nothing."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[
            :_KEY_ID_BYTES
        ]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.raw)}"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """Return the key of its text.

        Raises:
            FormatError: the text is no Ed25519 key, or its key id belongs to another one.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _from_base64(encoded, "key") if encoded else b""
        if _NAME.fullmatch(name) is None or len(data) != 1 + _KEY_BYTES or data[:1] != _ED25519:
            raise FormatError("a public key is NAME+KEYID+BASE64, and of the kind Ed25519")
        key = cls(name, data[1:])
        if key_id != key.key_id.hex():
            raise FormatError(f"the key id {key_id[:16]!r} is not that of the key")
        return key

    def verifies(self, note: "Note") -> bool:
        """True where one of the note's signatures is by this key."""
        public = Ed25519PublicKey.from_public_bytes(self.raw)
        for signature in note.signatures:
            if signature.name == self.name and signature.key_id == self.key_id:
                try:
                    public.verify(signature.data, note.text.encode())
                except InvalidSignature:
                    continue
                return True
        return False

    def is_named_by(self, note: "Note") -> bool:
        """True where the note says that this key signed it, whether that holds or not."""
        return any((each.name, each.key_id) == (self.name, self.key_id) for each in note.signatures)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures; nothing of it is true before a key verifies it."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log was at one moment.

    Attributes:
        origin: the log's name.
        size: its records.
        root: the hash of their tree.
        number: of the checkpoint, from 1 without gaps; 0 where a note of others has none.
        time_us: when it was made, by the server's clock; 0 where none is told.
    """

    origin: str
    size: int
    root: bytes
    number: int = 0
    time_us: int = 0

    def text(self) -> str:
        """Return the text that is signed."""
        lines = [self.origin, str(self.size), _base64(self.root)]
        if self.number:
            lines.append(f"checkpoint {self.number}")
        if self.time_us:
            lines.append(f"time {format_time(self.time_us)}")
        return "\n".join(lines) + "\n"


def public_key_of(name: str, private: Ed25519PrivateKey) -> PublicKey:
    """Return the public half of a key, under the name of its log."""
    return PublicKey(name, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def sign_note(text: str, name: str, private: Ed25519PrivateKey) -> str:
    """Return the note: the text, a blank line, and the signature of the key."""
    assert text.endswith("\n")
    assert "\n\n" not in text
    key_id = public_key_of(name, private).key_id
    return f"{text}\n\u2014 {name} {_base64(key_id + private.sign(text.encode()))}\n"


def parse_note(data: str) -> Note:
    """Return text and signatures of a note, none of them verified.

    Raises:
        FormatError: it is no note.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise FormatError(f"a note of {len(data)} characters exceeds {NOTE_BYTES_MAX}")
    text, separator, below = data.rpartition("\n\n")
    lines = below.split("\n")
    if not separator or lines.pop() != "" or not 1 <= len(lines) <= _SIGNATURES_MAX:
        raise FormatError("a note is a text, an empty line, and signatures")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def parse_checkpoint(note: Note) -> Checkpoint:
    """Return what a checkpoint says.

    Raises:
        FormatError: the note is none.
    """
    lines = note.text.split("\n")[:-1]
    if len(lines) < 3 or not all(lines) or _SIZE.fullmatch(lines[1]) is None:
        raise FormatError("a checkpoint has at least three lines: origin, size, root")
    root = _from_base64(lines[2], "root")
    if len(root) != HASH_BYTES:
        raise FormatError(f"a root has {HASH_BYTES} bytes, not {len(root)}")
    number, time_us = 0, 0
    for line in lines[3:]:
        word, _, value = line.partition(" ")
        if word == "checkpoint" and _SIZE.fullmatch(value):
            number = int(value)
        elif word == "time":
            time_us = parse_time(value)
    size = int(lines[1])
    if max(size, number) > _COUNT_MAX:
        raise FormatError(
            f"a checkpoint counts to {max(size, number)}; expected at most {_COUNT_MAX}"
        )
    return Checkpoint(lines[0], size, root, number, time_us)


def handover_text(new: PublicKey) -> str:
    """Return what the old key signs when it gives the log to a new one of the same name."""
    return f"{_HANDOVER}\n{new}\n"


def handover_note(new: PublicKey, signature: str) -> str:
    """Return the note of a handover; a record keeps only the line of its signature."""
    return f"{handover_text(new)}\n{signature}\n"


def parse_handover(note: Note) -> PublicKey:
    """Return the new key of a handover.

    Raises:
        FormatError: the note is none.
    """
    lines = note.text.split("\n")[:-1]
    if len(lines) != 2 or lines[0] != _HANDOVER:
        raise FormatError("the note hands no key over")
    return PublicKey.parse(lines[1])


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    data = _from_base64(encoded, "signature")
    if dash != "\u2014" or _NAME.fullmatch(name) is None or len(data) <= _KEY_ID_BYTES:
        raise FormatError("a signature's line is a dash, a name, and base64")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str, what: str) -> bytes:
    """Decode strictly: one text for each value, or a signed note could be changed unnoticed."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"the {what} is not base64") from None
    if _base64(data) != text:
        raise FormatError(f"the {what} is not written in the one way that base64 has")
    return data
