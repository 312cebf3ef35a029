"""The rows of files: which contents a client gets, and the contents piece by piece.

Contents are written first, each piece in a commit of its own, and count once a file names them; so
a baseline of gigabytes holds up no report. They are never changed. What nothing names any more is
removed some time later, in small bites, for somebody may still be reading it.
"""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from needfire_server.storage import tables

__all__ = [
    "CHUNK_BYTES",
    "PROPOSAL_PREFIX",
    "Content",
    "add_chunk",
    "begin_content",
    "chunk",
    "content",
    "digests",
    "drop_unused",
    "find_file",
    "finish_content",
    "give_up",
    "has_files",
    "list_files",
    "put_content",
    "put_known",
]

CHUNK_BYTES: Final = 1024 * 1024
PROPOSAL_PREFIX: Final = "store:"
"""Before the number of contents in the column ``path`` of proposals."""

_BITE_CHUNKS: Final = 64
_CONTENTS: Final = tables.file_contents
_CHUNKS: Final = tables.file_chunks
_FILES: Final = tables.files


@dataclass(frozen=True, slots=True)
class Content:
    """Contents that are complete."""

    id: int
    size_bytes: int
    sha256: bytes


def begin_content(connection: sa.Connection, now_us: int) -> int:
    """Return the number of new contents, which nothing can name before they are finished."""
    made = sa.insert(_CONTENTS).values(touched_us=now_us).returning(_CONTENTS.c.id)
    return int(connection.execute(made).scalar_one())


def add_chunk(
    connection: sa.Connection, content_id: int, position: int, data: bytes, now_us: int
) -> None:
    """Append a piece. It also says that somebody is still at work on it."""
    connection.execute(sa.insert(_CHUNKS).values(content=content_id, position=position, data=data))
    _touch(connection, content_id, now_us)


def finish_content(
    connection: sa.Connection, content_id: int, size_bytes: int, sha256: bytes, now_us: int
) -> bool:
    """Say that all pieces are there; False where it took so long that they were removed."""
    done = connection.execute(
        sa.update(_CONTENTS)
        .where(_CONTENTS.c.id == content_id)
        .values(size_bytes=size_bytes, sha256=sha256, touched_us=now_us)
    )
    return done.rowcount > 0


def put_known(
    connection: sa.Connection, kind: str, name: str, size_bytes: int, sha256: bytes, now_us: int
) -> bool:
    """Let a file have contents that the store has already; False where it has none like that."""
    found = connection.execute(
        sa.select(_CONTENTS.c.id)
        .where(_CONTENTS.c.sha256 == sha256, _CONTENTS.c.size_bytes == size_bytes)
        .limit(1)
    ).scalar()
    return found is not None and put_content(connection, kind, name, int(found), now_us)


def put_content(
    connection: sa.Connection, kind: str, name: str, content_id: int, now_us: int
) -> bool:
    """Let a file have contents from now on; False where they are not complete.

    Args:
        name: the client's; empty for the file of all others.
    """
    if content(connection, content_id) is None:
        return False
    is_it = sa.and_(_FILES.c.kind == kind, _FILES.c.name == name)
    before = connection.execute(sa.select(_FILES.c.content).where(is_it)).scalar()
    if before is not None:
        connection.execute(sa.delete(_FILES).where(is_it))
        # Those who read it now have this long to come to its end.
        _touch(connection, before, now_us)
    connection.execute(
        sa.insert(_FILES).values(kind=kind, name=name, content=content_id, put_us=now_us)
    )
    return True


def find_file(connection: sa.Connection, kind: str, name: str) -> Content | None:
    """Return the contents of a file."""
    query = _complete().join(_FILES, _FILES.c.content == _CONTENTS.c.id)
    row = connection.execute(query.where(_FILES.c.kind == kind, _FILES.c.name == name)).first()
    return None if row is None else Content(*row)


def list_files(connection: sa.Connection, kind: str) -> list[str]:
    """Return the names that have a file of this kind, sorted."""
    query = sa.select(_FILES.c.name).where(_FILES.c.kind == kind).order_by(_FILES.c.name)
    return list(connection.execute(query).scalars())


def has_files(connection: sa.Connection) -> bool:
    """Return whether there is any file."""
    return connection.execute(sa.select(_FILES.c.kind).limit(1)).first() is not None


def content(connection: sa.Connection, content_id: int) -> Content | None:
    """Return contents by their number."""
    row = connection.execute(_complete().where(_CONTENTS.c.id == content_id)).first()
    return None if row is None else Content(*row)


def chunk(connection: sa.Connection, content_id: int, position: int) -> bytes | None:
    """Return one piece; None where there is none, or no longer."""
    found = connection.execute(
        sa.select(_CHUNKS.c.data).where(
            _CHUNKS.c.content == content_id, _CHUNKS.c.position == position
        )
    ).scalar()
    return None if found is None else bytes(found)


def give_up(connection: sa.Connection, content_id: int) -> None:
    """Say that nobody needs contents any more; what still names them keeps them."""
    _touch(connection, content_id, 0)


def digests(connection: sa.Connection) -> frozenset[bytes]:
    """Return the SHA-256 of all contents."""
    query = sa.select(_CONTENTS.c.sha256).where(_CONTENTS.c.sha256.is_not(None))
    return frozenset(bytes(each) for each in connection.execute(query).scalars())


def drop_unused(connection: sa.Connection, before_us: int) -> bool:
    """Remove a bite of what nothing names since before_us; True while more may be left."""
    proposed = sa.select(tables.proposals.c.path)
    unused = (
        sa.select(_CONTENTS.c.id)
        .where(
            _CONTENTS.c.touched_us < before_us,
            _CONTENTS.c.id.not_in(sa.select(_FILES.c.content)),
            (PROPOSAL_PREFIX + sa.cast(_CONTENTS.c.id, tables.Text)).not_in(proposed),
        )
        .limit(1)
    )
    # First the row, so that nobody can name half of its pieces.
    gone = connection.execute(sa.delete(_CONTENTS).where(_CONTENTS.c.id.in_(unused))).rowcount
    bite = [
        tuple(row)
        for row in connection.execute(
            sa.select(_CHUNKS.c.content, _CHUNKS.c.position)
            .where(_CHUNKS.c.content.not_in(sa.select(_CONTENTS.c.id)))
            .limit(_BITE_CHUNKS)
        )
    ]
    for content_id, position in bite:
        connection.execute(
            sa.delete(_CHUNKS).where(
                _CHUNKS.c.content == content_id, _CHUNKS.c.position == position
            )
        )
    return bool(gone or bite)


def _complete() -> sa.Select[Any]:
    columns = _CONTENTS.c
    return sa.select(columns.id, columns.size_bytes, columns.sha256).where(
        columns.sha256.is_not(None)
    )


def _touch(connection: sa.Connection, content_id: int, now_us: int) -> None:
    connection.execute(
        sa.update(_CONTENTS).where(_CONTENTS.c.id == content_id).values(touched_us=now_us)
    )
