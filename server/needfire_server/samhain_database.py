r"""What a Samhain database (``samhain_file``) says: its records, one after the other. Pure.

Layout: anything, perhaps a line ``#Host … Version … Date …``, a line ``[SOF]``, then records.
Each is a C structure as the compiler of a 64-bit little-endian machine lays it out, a line with the
path, a line with the target of a link (or stored contents, or ``-``), and where its mark says so a
line with ACL and SELinux label. Newline and ``=`` in a line are written ``=0A`` and ``=3D``. Mark 21
is Samhain 2 and 3, mark 22 Samhain 4, whose structure is eight bytes longer.

The file may be anybody's: everything is bounded, nothing in it is believed but as data, and a
record that is damaged ends the reading with an error instead of with half a baseline. Samhain
itself stops there without a word.
"""

import re
import struct
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from needfire_protocol.errors import FormatError

__all__ = ["DatabaseReader", "DigestForm", "Readable", "Record", "StoredDigest", "is_usable_path"]

_START: Final = b"\n[SOF]\n"
_HEADER: Final = b"\n#Host "
_HEADER_BYTES_MAX: Final = 4096
_CHUNK_BYTES: Final = 256 * 1024
_LEADING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Before ``[SOF]``: Samhain can hide its database behind a picture."""
_LINE_BYTES_MAX: Final = 64 * 1024
"""A path has 4096 bytes, at most three times as many when quoted; stored contents have 9200 bytes
before base64; an ACL with a label has a few KiB."""
_NAME_BYTES_MAX: Final = 4096

_STRUCTURE: Final = struct.Struct("<IIQQIIQqqqIII16sH22s22s11s49s2x")
_TAIL: Final = {21: 0, 22: 8}
"""Bytes behind the structure that both have in common: mark 22 adds the flags of the policy."""
_MARK: Final = struct.Struct("<H")
_MARK_AT: Final = 92
_HAS_ATTRIBUTES: Final = 0x100
_MARK_BITS: Final = 0xFFFF & ~_HAS_ATTRIBUTES

assert _STRUCTURE.size == 200


class Readable(Protocol):
    """Where the bytes come from: a file, a pipe."""

    def read(self, size: int, /) -> bytes: ...


class DigestForm(Enum):
    """How a digest was written down. The algorithm itself is not recorded."""

    NONE = "none"
    """Only zeros: a directory, a link, a file that was not or could not be read."""
    HEX = "48 hexadecimal digits"
    """TIGER192; or SHA1 or MD5, filled up with zeros."""
    SHA256 = "base64"
    UNKNOWN = "unknown"


class StoredDigest(NamedTuple):
    """A digest as far as it can be understood."""

    form: DigestForm
    digest: bytes = b""
    """24 bytes of HEX, 32 of SHA256."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object."""

    mark: int
    """21 or 22."""
    path: bytes
    """As it was watched, or the name of something that is no file: see ``is_usable_path``."""
    mode: int
    device: int
    rdev: int
    nlink: int
    inode: int
    """The low 32 bits."""
    size: int
    atime_s: int
    mtime_s: int
    ctime_s: int
    uid: int
    gid: int
    digest: StoredDigest
    text: bytes
    """Target of a symbolic link; contents of a file that were stored; ``-``."""
    flags: int
    """Flags of the file in an ext file system, as chattr(1) sets them."""
    attributes: bytes
    """ACL and SELinux label, in Samhain's own words; usually none."""


class DatabaseReader:
    """Reads a database from its beginning; iterate over it once.

    Raises:
        FormatError: from the iteration: it is no database, or it is damaged. The text says where.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        """How much of the buffer is used up."""
        self._offset = 0
        """Where the buffer begins in the file."""
        self._count = 0
        self.header = ""
        """What ``VersionString`` wrote, printable or not; empty where it is not set."""
        self.has_second = False
        """Another database was appended (``samhain -t init`` twice); Samhain never used it."""

    def __iter__(self) -> Iterator[Record]:
        self._find_start()
        while (record := self._record()) is not None:
            self._count += 1
            yield record

    # ---- the beginning ---------------------------------------------------------------------------

    def _find_start(self) -> None:
        # A database that begins with the line itself has lost a line end, and nothing else.
        self._buffer = b"\n" + self._stream.read(_CHUNK_BYTES)
        self._offset = -1
        while (found := self._buffer.find(_START)) < 0:
            self._forbid_signature(self._buffer)
            if self._offset > _LEADING_BYTES_MAX:
                raise FormatError(
                    f"no line [SOF] in the first {_LEADING_BYTES_MAX} bytes: no Samhain database"
                )
            kept = min(len(self._buffer), _HEADER_BYTES_MAX)
            self._at = len(self._buffer) - kept
            self._fill(kept + 1)
            if len(self._buffer) == kept:
                raise FormatError(
                    "no line [SOF] in the file: no Samhain database, or one of a stealth build, "
                    "which writes it unreadable"
                )
        self._forbid_signature(self._buffer[:found])
        self._at = found + len(_START)
        self.header = _header_before(self._buffer[:found])

    def _forbid_signature(self, leading: bytes) -> None:
        if b"-----BEGIN PGP SIGNED MESSAGE-----" in leading:
            raise FormatError(
                "the database is signed, which changes its bytes; "
                "gpg --output PLAIN --decrypt FILE makes a plain one"
            )

    # ---- records ---------------------------------------------------------------------------------

    def _record(self) -> Record | None:
        self._fill(len(_START))
        rest = self._buffer[self._at : self._at + len(_START)]
        if rest in (_START, _HEADER):
            self.has_second = True
            return None
        # Samhain 3 may end with a structure of zeros, or with line ends of an editor's making.
        if not rest.strip(b"\r\n"):
            return None
        values, mark = self._structure()
        if values is None:
            return None
        path = _unquoted(self._line("the path"))
        text = _unquoted(self._line("the link"))
        if path == b"-":
            return None
        attributes = self._line("the attributes") if mark & _HAS_ATTRIBUTES else b""
        (mode, _link_mode, device, rdev, nlink, inode, size, atime, mtime, ctime) = values[:10]
        return Record(
            mark=mark & 0xFF,
            path=path,
            mode=mode,
            device=device,
            rdev=rdev,
            nlink=nlink,
            inode=inode,
            size=size,
            atime_s=atime,
            mtime_s=mtime,
            ctime_s=ctime,
            uid=values[10],
            gid=values[11],
            digest=_stored_digest(values[18]),
            text=text,
            flags=values[12],
            attributes=_unquoted(attributes),
        )

    def _structure(self) -> tuple[tuple[Any, ...] | None, int]:
        size = _STRUCTURE.size
        self._fill(size + max(_TAIL.values()))
        found = self._buffer[self._at : self._at + size]
        if len(found) < size:
            raise self._damage("is cut off")
        mark: int = _MARK.unpack_from(found, _MARK_AT)[0]
        if mark == 0 and not found.strip(b"\0"):
            return None, 0
        if mark & _MARK_BITS not in _TAIL:
            raise self._damage(
                f"has the mark {mark}; known are 21 and 22, written on a 64-bit little-endian machine"
            )
        self._at += size + _TAIL[mark & _MARK_BITS]
        return _STRUCTURE.unpack(found), mark

    def _line(self, what: str) -> bytes:
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            self._fill(_LINE_BYTES_MAX + 1)
            end = self._buffer.find(b"\n", self._at)
        if end < 0 and len(self._buffer) - self._at <= _LINE_BYTES_MAX:
            raise self._damage(f"is cut off in {what}")
        if not 0 <= end - self._at <= _LINE_BYTES_MAX:
            raise self._damage(f"has more than {_LINE_BYTES_MAX} bytes in {what}")
        line = self._buffer[self._at : end]
        self._at = end + 1
        return line

    def _damage(self, what: str) -> FormatError:
        place = self._offset + self._at
        return FormatError(
            f"the database is damaged: record {self._count + 1}, near byte {place}, {what}"
        )

    def _fill(self, size: int) -> None:
        """Have at least ``size`` bytes at hand, if there are as many."""
        if len(self._buffer) - self._at >= size:
            return
        parts = [self._buffer[self._at :]]
        self._offset += self._at
        self._at, have = 0, len(parts[0])
        while have < size and (data := self._stream.read(max(_CHUNK_BYTES, size - have))):
            parts.append(data)
            have += len(data)
        self._buffer = b"".join(parts)


def is_usable_path(path: bytes) -> bool:
    """Return whether a path is one of a file: absolute, normalised, of possible names.

    What modules keep (kernel, log files, registry) has names that do not begin with a slash.
    """
    if path == b"/":
        return True
    if not path.startswith(b"/") or b"\0" in path:
        return False
    return all(
        0 < len(name) <= _NAME_BYTES_MAX and name not in (b".", b"..")
        for name in path[1:].split(b"/")
    )


def _header_before(leading: bytes) -> str:
    """Return the line about host and version that ends what stands before ``[SOF]``."""
    text = leading.rstrip(b"\n").rpartition(b"\n")[2]
    return text.decode("utf-8", "replace") if text.startswith(_HEADER[1:]) else ""


_QUOTED: Final = re.compile(rb"=(0A|3D)")


def _unquoted(line: bytes) -> bytes:
    return _QUOTED.sub(lambda match: b"\n" if match[1] == b"0A" else b"=", line)


_HEX: Final = re.compile(rb"[0-9A-Fa-f]{48}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9()]{43}\?")
_ALPHABET: Final = bytes.maketrans(b"()?", b"+/=")


def _stored_digest(field: bytes) -> StoredDigest:
    text = field.split(b"\0", 1)[0]
    if not text.strip(b"0"):
        return StoredDigest(DigestForm.NONE)
    if _HEX.fullmatch(text) is not None:
        return StoredDigest(DigestForm.HEX, bytes.fromhex(text.decode("ascii")))
    if _BASE64.fullmatch(text) is not None:
        return StoredDigest(DigestForm.SHA256, a2b_base64(text.translate(_ALPHABET)))
    return StoredDigest(DigestForm.UNKNOWN)
