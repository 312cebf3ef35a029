"""By which key the verifiers in the store are sealed, and how all of them change it at once.

Each function that changes something is to be one transaction with its caller's: a crash leaves every
row under the key of before, or every row under the new one, and the check says which.
"""

from collections.abc import Callable

import sqlalchemy as sa

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.srp import Verifier
from needfire_server.seal_key import SealKeyError, key_check, key_id
from needfire_server.session_seal import SessionSeal
from needfire_server.storage import session_rows, tables
from needfire_server.verifier_seal import SEALED_BYTES, VerifierSeal

__all__ = ["begin", "check_key", "forget", "reseal", "stored_check"]

_CLIENTS = tables.clients
_ROW = 1


def stored_check(connection: sa.Connection) -> bytes | None:
    """Return the check of the key that seals the store; None where nothing is sealed yet."""
    found = connection.execute(
        sa.select(tables.seal.c.key_check).where(tables.seal.c.id == _ROW)
    ).scalar()
    return None if found is None else bytes(found)


def check_key(connection: sa.Connection, check: bytes | None) -> None:
    """Do nothing where the store is sealed with this key, or neither has one.

    Raises:
        SealKeyError: it is sealed with another one.
    """
    stored = stored_check(connection)
    if stored == check:
        return
    theirs = "nothing" if stored is None else f"the key {key_id(stored)}"
    ours = "no key" if check is None else f"the key {key_id(check)}"
    raise SealKeyError(
        f"the store is sealed with {theirs}, and this process has {ours}; what to do: "
        "needfire-admin seal check"
    )


def begin(connection: sa.Connection, seal: VerifierSeal) -> int:
    """Seal everything that is plain, and keep the check; return how many that were.

    Where the store is sealed with this key already, nothing is done. From then on nothing plain is
    believed: who can write the database must not be able to let himself in.

    Raises:
        SealKeyError: it is sealed with another key.
        StorageError: there are sealed rows, and no check.
    """
    if stored_check(connection) is not None:
        check_key(connection, seal.check)
        return 0
    rows = connection.execute(sa.select(_CLIENTS)).fetchall()
    sealed = [row.name for row in rows if len(row.verifier) == SEALED_BYTES]
    if sealed:
        raise StorageError(
            f"{len(sealed)} verifiers in the store are sealed, but which key sealed them (the table "
            "seal) is gone: somebody has changed the database. Put a backup of it back"
        )
    _put(connection, [(row.name, _plain(row)) for row in rows], seal)
    connection.execute(sa.insert(tables.seal).values(id=_ROW, key_check=seal.check))
    return len(rows)


def reseal(
    connection: sa.Connection, old_key: bytes, new_key: bytes, random_bytes: Callable[[int], bytes]
) -> int:
    """Seal with another key what the old one opens, sessions too; return how many verifiers.

    What the old key does not open stays as it is: it could not be used before.

    Raises:
        SealKeyError: the store is not sealed with the old key.
    """
    old, new = VerifierSeal(old_key), VerifierSeal(new_key, random_bytes=random_bytes)
    check_key(connection, old.check)
    opened = [
        (row.name, verifier)
        for row in connection.execute(sa.select(_CLIENTS)).fetchall()
        if (verifier := _opened(row, old)) is not None
    ]
    _put(connection, opened, new)
    _reseal_sessions(
        connection, SessionSeal(old_key, random_bytes), SessionSeal(new_key, random_bytes)
    )
    connection.execute(sa.update(tables.seal).values(key_check=new.check))
    return len(opened)


def forget(connection: sa.Connection, new_key: bytes) -> list[str]:
    """Let a new key count although the old one is lost; return who has to be registered anew."""
    connection.execute(sa.delete(tables.seal))
    connection.execute(sa.insert(tables.seal).values(id=_ROW, key_check=key_check(new_key)))
    connection.execute(sa.delete(tables.sessions))
    return list(connection.execute(sa.select(_CLIENTS.c.name).order_by(_CLIENTS.c.name)).scalars())


def _put(
    connection: sa.Connection, verifiers: list[tuple[str, Verifier]], seal: VerifierSeal
) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        # Else the old bytes would stay in the file until their room is used again.
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    if verifiers:
        sealed = [{"of": name, "to": seal.seal(name, verifier)} for name, verifier in verifiers]
        which = _CLIENTS.c.name == sa.bindparam("of")
        connection.execute(
            sa.update(_CLIENTS).where(which).values(verifier=sa.bindparam("to")), sealed
        )
    if is_sqlite:
        connection.exec_driver_sql("PRAGMA secure_delete=OFF")


def _reseal_sessions(connection: sa.Connection, old: SessionSeal, new: SessionSeal) -> None:
    table = tables.sessions
    for row in session_rows.load_sessions(connection):
        session, is_this = old.open(row), table.c.session_id == row.session_id
        if session is None:
            connection.execute(sa.delete(table).where(is_this))
        else:
            connection.execute(
                sa.update(table).where(is_this).values(sealed=new.seal(session).sealed)
            )


def _plain(row: sa.Row[tuple[object, ...]]) -> Verifier:
    try:
        return Verifier(row.salt, row.verifier)
    except FormatError as error:
        raise StorageError(f"the registration of {row.name} is damaged: {error}") from error


def _opened(row: sa.Row[tuple[object, ...]], seal: VerifierSeal) -> Verifier | None:
    try:
        return seal.open(row.name, row.salt, row.verifier)
    except FormatError:
        return None
