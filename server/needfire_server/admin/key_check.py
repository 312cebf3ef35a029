"""Which key seals a store, and which of the keys at hand that is; beside a running server, too."""

import os
from dataclasses import dataclass

from needfire_server.admin.owner import become_owner
from needfire_server.seal_key import key_check, key_id, read_credential, read_seal_key
from needfire_server.sealing import keys_at_hand
from needfire_server.storage import seal_rows
from needfire_server.storage.opening import load_drivers, reading_engine
from needfire_server.storage.reading import read_now

__all__ = ["KeyFound", "Look", "look_at_keys"]


@dataclass(frozen=True, slots=True)
class KeyFound:
    """A key: where it is, what it is called, and whether the store is sealed with it."""

    place: str
    id: str
    opens: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at store and keys found.

    Attributes:
        store: what the store's key is called; None where nothing is sealed yet.
        keys: those at hand, or the one that was asked for.
    """

    store: str | None
    keys: tuple[KeyFound, ...]


def look_at_keys(data_directory: str, file: str | None) -> Look:
    """Compare the key in a file, or those of this host, with the store's.

    Raises:
        StorageError: a key or the store cannot be read.
    """
    load_drivers(data_directory)
    # With the caller's own rights: a backup is where the server's user cannot read it.
    given = None if file is None else read_seal_key(file)
    credential = read_credential(os.environ)
    become_owner(data_directory)
    engine = reading_engine(data_directory)
    try:
        check = read_now(engine, seal_rows.stored_check)
    finally:
        engine.close()
    named = (
        keys_at_hand(data_directory, credential).named()
        if file is None or given is None
        else [(file, given)]
    )
    found = tuple(
        KeyFound(place, key_id(key_check(key)), key_check(key) == check) for place, key in named
    )
    return Look(None if check is None else key_id(check), found)
