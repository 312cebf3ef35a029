"""A Samhain database becomes a baseline, and what of it could not be carried over is said.

The objects come in any order and a baseline's rows must be sorted, so they are sorted in a scratch
database on disk that nobody but this process can open: memory stays the same for any number.
"""

import os
import re
import secrets
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final

from needfire_protocol import __version__
from needfire_protocol.baseline import (
    APPLICATION_ID,
    BASELINE_FORMAT,
    DIGEST_BYTES,
    ENTRIES_BYTES_MAX,
    ENTRIES_PER_DIRECTORY_MAX,
    SCHEMA,
    BaselineMeta,
    ContentDigest,
    FileEntry,
    State,
    clamped,
    decode_entries,
    encode_entries,
    key_of,
)
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.escape import printable
from needfire_server.samhain_database import (
    DatabaseReader,
    DigestForm,
    Readable,
    Record,
    StoredDigest,
    is_usable_path,
)

__all__ = ["ImportedBaseline", "import_samhain_database"]

_NS_PER_S: Final = 1_000_000_000
_TIGER: Final = "TIGER192"
_TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""
_EXTENTS: Final = 0x80000
"""How ext4 keeps a file's blocks: nearly every file has this flag, and nobody chose it."""
_SCRATCH: Final = "the scratch file"


@dataclass(frozen=True, slots=True)
class ImportedBaseline:
    """What came of it."""

    meta: BaselineMeta
    marks: tuple[int, ...]
    """Marks of the records: 21, 22 or both."""
    algorithm: str
    """Of Samhain's digests, as far as they tell; empty where there are none."""
    notes: tuple[str, ...]
    """What was not carried over, or not as it was: a sentence each, for people."""


def import_samhain_database(
    source: Readable, target: Path, *, host: str | None, modified_us: int
) -> ImportedBaseline:
    """Write the baseline that a Samhain database says; a file in its place is replaced.

    Args:
        host: name of the host that it is of; None: the one that the database names, if it does.
        modified_us: when the database was made, where it does not say so itself.

    Raises:
        FormatError: it is no database, it is damaged, or there is no object in it.
        StorageError: the baseline cannot be written.
    """
    reader = DatabaseReader(source)
    with _Objects() as objects:
        for record in reader:
            objects.add(record)
        tally = objects.tally()
        if not tally.objects:
            raise FormatError("the database has no object in it; nothing was written")
        algorithm = tally.algorithm()
        with _Target(target) as out:
            for directory, entries in objects.directories(algorithm):
                out.add(directory, entries)
            meta = out.finish(
                host=_host(reader.header) if host is None else host,
                algorithm=algorithm if algorithm in DIGEST_BYTES else "sha256",
                created_us=_created_us(reader.header) or min(max(0, modified_us), _TIME_US_MAX),
            )
        notes = tuple(_notes(tally, algorithm, objects, reader))
    return ImportedBaseline(meta, tally.marks, algorithm, notes)


# ---- the objects, sorted -------------------------------------------------------------------------


class _Form(Enum):
    """What a digest can be; the value stands in the scratch database."""

    NONE = 0
    SHA256 = 1
    HEX = 2
    """TIGER192."""
    HEX_4_ZEROS = 3
    """SHA1; or TIGER192, once in four thousand million."""
    HEX_8_ZEROS = 4
    """MD5; or SHA1 or TIGER192, hardly ever."""
    UNKNOWN = 5


_COMPARABLE_BYTES: Final = {"sha256": 32, "sha1": 20, "md5": 16, _TIGER: 0}


class _Objects:
    """The objects of a database, by directory and name. A context manager."""

    def __init__(self) -> None:
        self.modules = 0
        """Records that are no files."""
        self.unusable = 0
        self.twice = 0
        # Without a name: SQLite makes the file where temporary files go and unlinks it at once.
        self._connection = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -8192",
            """CREATE TABLE objects(
               directory BLOB, name BLOB, entry BLOB,
               mark INT, form INT, has_flags INT, has_attributes INT, has_contents INT,
               PRIMARY KEY (directory, name)) WITHOUT ROWID""",
            "BEGIN",
        ):
            self._connection.execute(statement)

    def add(self, record: Record) -> None:
        """Take in an object; of two with the same path the last counts, as in Samhain."""
        if not record.path.startswith(b"/"):
            self.modules += 1
        elif not is_usable_path(record.path):
            self.unusable += 1
        elif not self._insert("INSERT OR IGNORE", record):
            self._insert("INSERT OR REPLACE", record)
            self.twice += 1

    def _insert(self, verb: str, record: Record) -> int:
        directory, name = _split(record.path)
        is_link = stat.S_ISLNK(record.mode)
        values = (
            key_of(directory),
            name,
            encode_entries([(b"e", clamped(_entry(record)))]),
            record.mark,
            _form(record.digest).value,
            record.flags & ~_EXTENTS != 0,
            bool(record.attributes),
            not is_link and record.text not in (b"-", b""),
        )
        with _disk(_SCRATCH):
            return self._connection.execute(
                f"{verb} INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values
            ).rowcount

    def tally(self) -> "_Tally":
        """Count what there is."""
        with _disk(_SCRATCH):
            run = self._connection.execute
            sums = run(
                """SELECT count(*), total(has_flags), total(has_attributes), total(has_contents)
                   FROM objects"""
            ).fetchone()
            forms = run("SELECT form, count(*) FROM objects GROUP BY form").fetchall()
            marks = run("SELECT DISTINCT mark FROM objects ORDER BY mark").fetchall()
        objects, with_flags, with_attributes, with_contents = map(int, sums)
        return _Tally(
            objects=objects,
            with_flags=with_flags,
            with_attributes=with_attributes,
            with_contents=with_contents,
            marks=tuple(mark for (mark,) in marks),
            forms=Counter({_Form(form): count for form, count in forms}),
        )

    def directories(self, algorithm: str) -> Iterator[tuple[bytes, list[tuple[bytes, FileEntry]]]]:
        """Yield the key of each directory and its entries, in order."""
        size = _COMPARABLE_BYTES.get(algorithm, 0)
        with _disk(_SCRATCH):
            rows = self._connection.execute(
                "SELECT directory, name, form, entry FROM objects ORDER BY directory, name"
            )
            for directory, group in groupby(rows, key=itemgetter(0)):
                entries: list[tuple[bytes, FileEntry]] = []
                for _, name, form, packed in group:
                    if len(entries) >= ENTRIES_PER_DIRECTORY_MAX:
                        raise FormatError(
                            "a directory of the database has more than "
                            f"{ENTRIES_PER_DIRECTORY_MAX} objects"
                        )
                    entry = decode_entries(packed)[b"e"]
                    is_sha256 = form == _Form.SHA256.value
                    if entry.digest is not None and is_sha256 == (algorithm == "sha256"):
                        entry = entry._replace(digest=entry.digest[:size] or None)
                    else:
                        entry = entry._replace(digest=None)
                    entries.append((name, entry))
                yield directory, entries

    def __enter__(self) -> "_Objects":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _Tally:
    objects: int
    with_flags: int
    with_attributes: int
    with_contents: int
    marks: tuple[int, ...]
    forms: Mapping[_Form, int]

    @property
    def hexadecimal(self) -> int:
        return sum(self.forms[form] for form in (_Form.HEX, _Form.HEX_4_ZEROS, _Form.HEX_8_ZEROS))

    def algorithm(self) -> str:
        """Return the algorithm of the digests, told from their form; empty where there is none."""
        if self.forms[_Form.SHA256]:
            return "sha256"
        if not self.hexadecimal:
            return ""
        if self.forms[_Form.HEX]:
            return _TIGER
        return "sha1" if self.forms[_Form.HEX_4_ZEROS] else "md5"


def _form(stored: StoredDigest) -> _Form:
    if stored.form is not DigestForm.HEX:
        return _Form[stored.form.name]
    if any(stored.digest[20:]):
        return _Form.HEX
    return _Form.HEX_4_ZEROS if any(stored.digest[16:20]) else _Form.HEX_8_ZEROS


def _split(path: bytes) -> tuple[bytes, bytes]:
    if path == b"/":
        return b"", b"/"
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name


def _entry(record: Record) -> FileEntry:
    is_device = stat.S_ISCHR(record.mode) or stat.S_ISBLK(record.mode)
    return FileEntry(
        mode=record.mode,
        uid=record.uid,
        gid=record.gid,
        size=record.size,
        mtime_ns=record.mtime_s * _NS_PER_S,
        ctime_ns=record.ctime_s * _NS_PER_S,
        atime_ns=record.atime_s * _NS_PER_S,
        inode=record.inode,
        device=record.device,
        nlink=record.nlink,
        rdev=record.rdev if is_device else 0,
        link=record.text if stat.S_ISLNK(record.mode) else None,
        digest=record.digest.digest or None,
        state=int(State.IMPORTED),
        reason="",
    )


# ---- the baseline --------------------------------------------------------------------------------


class _Target:
    """A new baseline beside the place where it goes in the end. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = ContentDigest()
        self._entries = 0
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with _disk(str(path)):
            # Made by us with its mode, before SQLite sees it: nobody else can ever read it.
            os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            try:
                self._connection = _connect(self._temporary)
            except BaseException:
                self._temporary.unlink(missing_ok=True)
                raise

    def add(self, key: bytes, entries: list[tuple[bytes, FileEntry]]) -> None:
        packed = encode_entries(entries)
        if len(packed) > ENTRIES_BYTES_MAX:
            raise FormatError(
                f"a directory of the database needs {len(packed)} bytes; "
                f"a baseline has at most {ENTRIES_BYTES_MAX} for one"
            )
        with _disk(str(self._path)):
            self._connection.execute("INSERT INTO directories VALUES (?, ?)", (key, packed))
        self._digest.add(key, packed)
        self._entries += len(entries)

    def finish(self, *, host: str, algorithm: str, created_us: int) -> BaselineMeta:
        meta = BaselineMeta(
            format=BASELINE_FORMAT,
            created_us=created_us,
            host=host,
            version=f"{__version__}, from Samhain",
            algorithm=algorithm,
            configuration_sha256="",
            entries=self._entries,
            content_sha256=self._digest.hexdigest(),
        )
        with _disk(str(self._path)):
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.rows())
            self._connection.execute("COMMIT")
            self._connection.close()
            fd = os.open(self._temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._temporary.rename(self._path)
        return meta

    def __enter__(self) -> "_Target":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        with suppress(OSError):
            # Nothing is there any more after finish.
            self._temporary.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # No journal: until the rename nobody knows the file, and a crash leaves only rubbish.
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA page_size = 16384",
            f"PRAGMA application_id = {APPLICATION_ID}",
            "BEGIN",
            *SCHEMA,
        ):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """Turn the errors of the system and of SQLite into ours."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StorageError(f"{what}: {error}") from error


# ---- what is said of it --------------------------------------------------------------------------

_HEADER_HOST: Final = re.compile(r"#Host (\S{1,255}) ")
_HEADER_DATE: Final = re.compile(r"Date \[([0-9T:+-]{19,25})\]")


def _host(header: str) -> str:
    match = _HEADER_HOST.match(header)
    return "" if match is None else printable(match[1], 255)


def _created_us(header: str) -> int | None:
    match = _HEADER_DATE.search(header)
    if match is None:
        return None
    try:
        moment = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None
    return max(0, int(moment.timestamp()) * 1_000_000)


def _notes(
    tally: _Tally, algorithm: str, objects: _Objects, reader: DatabaseReader
) -> Iterator[str]:
    yield (
        "times are whole seconds, inode numbers have 32 bits, and targets of links are absolute "
        "in Samhain's database; checks compare as much"
    )
    yield (
        "what Samhain does not record at all is not compared, until needfire-agent update "
        "has recorded it"
    )
    yield from _notes_of_digests(tally, algorithm)
    for count, text in (
        (tally.with_flags, "objects have flags of the file system (chattr); they are left out"),
        (tally.with_attributes, "objects have an ACL or a SELinux label; they are left out"),
        (tally.with_contents, "objects have their contents stored (TXT); they are left out"),
        (objects.twice, "objects stand there twice; like in Samhain, the last record counts"),
        (objects.modules, "records of Samhain's modules are no files; they are left out"),
        (objects.unusable, "records have paths that no file can have; they are left out"),
    ):
        if count:
            yield f"{count} {text}"
    if reader.has_second:
        yield (
            "a second database was appended to the first (samhain -t init does that); "
            "like in Samhain, only the first counts"
        )


def _notes_of_digests(tally: _Tally, algorithm: str) -> Iterator[str]:
    if algorithm == _TIGER:
        yield (
            f"{tally.hexadecimal} files have digests of TIGER192, which is not available here: "
            "their contents are not compared, until needfire-agent update has digested them"
        )
    elif algorithm:
        yield f"the algorithm is not recorded; from the form of the digests it is {algorithm}"
    if algorithm == "sha256" and tally.hexadecimal:
        yield f"{tally.hexadecimal} digests are of another algorithm; they are left out"
    if unknown := tally.forms[_Form.UNKNOWN]:
        yield f"{unknown} digests have an unknown form; they are left out"
