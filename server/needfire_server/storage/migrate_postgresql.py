"""How a PostgreSQL database comes to the schema of this version: in one transaction.

Copies are the administrator's: a server has no place for a dump, and no right to make one.
"""

from typing import Final

import sqlalchemy as sa

from needfire_protocol.errors import StorageError
from needfire_server.storage import tables
from needfire_server.storage.migrations import Steps

__all__ = ["migrate"]

_LOCK: Final = 0x4E664972_4D494752
"""Servers that start at the same time must not do it twice."""


def migrate(connection: sa.Connection, name: str, steps: Steps) -> None:
    """Bring the database to the last step.

    Raises:
        StorageError: the database belongs to a newer version or to another program, or cannot hold
            every text.
        sqlalchemy.exc.SQLAlchemyError: it could not be read or written.
    """
    with connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise StorageError(
                f"{name} has the encoding {encoding}, which cannot hold every text; expected UTF8: "
                "createdb --encoding=UTF8 --template=template0"
            )
        taken = steps.taken(connection)
        if taken is None:
            raise StorageError(
                f"{name} was written by a newer version of Needfire; this one knows schemas up to "
                f"{steps.latest}. Run the newer version, or restore the dump from before its update"
            )
        if taken == 0:
            _refuse_strangers(connection, name)
        steps.take(connection)


def _refuse_strangers(connection: sa.Connection, name: str) -> None:
    theirs = sorted(set(sa.inspect(connection).get_table_names()) & set(tables.metadata.tables))
    if theirs:
        raise StorageError(
            f"{name} has tables of another program ({', '.join(theirs)}); give Needfire a database "
            "of its own"
        )
