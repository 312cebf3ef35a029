"""Registrations in the store: who, since when, and the verifier, sealed once the store has a key."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.srp import Verifier
from needfire_server.storage import seal_rows, tables
from needfire_server.storage.base import ClientRecord
from needfire_server.storage.reading import among
from needfire_server.verifier_seal import SEALED_BYTES, VerifierSeal

__all__ = ["client_records", "clients", "stored_form"]


def client_records(
    connection: sa.Connection, names: Sequence[str], seal: VerifierSeal | None
) -> dict[str, ClientRecord | StorageError]:
    """Return the registrations of some names; of one that is damaged, what is wrong with it.

    Raises:
        SealKeyError: one cannot be opened because the store's key has been exchanged.
    """
    table = tables.clients
    found: dict[str, ClientRecord | StorageError] = {}
    is_any_closed = False
    for row in connection.execute(sa.select(table).where(among(table.c.name, names))):
        try:
            record = found[row[0]] = _client_record(row, seal)
        except StorageError as error:
            found[row[0]] = error
        else:
            is_any_closed |= record.verifier is None
    if is_any_closed and seal is not None:
        seal_rows.check_key(connection, seal.check)
    return found


def clients(connection: sa.Connection, seal: VerifierSeal | None) -> list[ClientRecord]:
    """Return all registrations by name."""
    rows = connection.execute(sa.select(tables.clients).order_by(tables.clients.c.name))
    return [_client_record(row, seal) for row in rows]


def stored_form(
    connection: sa.Connection, name: str, verifier: Verifier, seal: VerifierSeal | None
) -> bytes:
    """Return what a row holds of a verifier; to be called in the transaction that writes it.

    Raises:
        SealKeyError: the store is sealed with another key: nobody could use the row.
    """
    seal_rows.check_key(connection, None if seal is None else seal.check)
    return verifier.verifier if seal is None else seal.seal(name, verifier)


def _client_record(row: Sequence[Any], seal: VerifierSeal | None) -> ClientRecord:
    name, salt, stored, registered_us, registered_by = row
    return ClientRecord(name, _verifier(name, salt, stored, seal), registered_us, registered_by)


def _verifier(name: str, salt: bytes, stored: bytes, seal: VerifierSeal | None) -> Verifier | None:
    try:
        if seal is not None:
            return seal.open(name, salt, stored)
        return None if len(stored) == SEALED_BYTES else Verifier(salt, stored)
    except FormatError as error:
        raise StorageError(f"the registration of {name} is damaged: {error}") from error
