"""Which key opens the store, and how the store comes under a key: first, moved, new, or lost.

The store knows its key by a check value, so a wrong key is told at the start and not by every log-in
that fails. Whoever opens a store that others use as well must bring the key that they have.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from needfire_protocol.audit.record import Draft
from needfire_protocol.event import FieldValue
from needfire_server.seal_key import (
    CREDENTIAL,
    FILE,
    NEXT_FILE,
    OLD_FILE,
    SealKeyError,
    find_seal_key,
    key_check,
    key_id,
    make_seal_key,
    promote_next_key,
)
from needfire_server.storage import seal_rows
from needfire_server.storage.store import DatabaseStore
from needfire_server.verifier_seal import VerifierSeal

__all__ = [
    "Exchanged",
    "KeysAtHand",
    "Opened",
    "exchange_key",
    "give_up_key",
    "keys_at_hand",
    "open_seal",
    "usable_key",
]


@dataclass(frozen=True, slots=True)
class KeysAtHand:
    """The keys of one host; None where there is none.

    Attributes:
        directory: the data directory, where the files are.
        credential: what the service manager gave.
        file, next, old: ``seal.key``, ``seal.key.next`` and ``seal.key.old``.
    """

    directory: str
    credential: bytes | None
    file: bytes | None
    next: bytes | None
    old: bytes | None

    def named(self) -> list[tuple[str, bytes]]:
        """Return those there are, with their names, the one that should count first."""
        names = f"the credential {CREDENTIAL}", FILE, NEXT_FILE, OLD_FILE
        keys = self.credential, self.file, self.next, self.old
        return [(name, key) for name, key in zip(names, keys, strict=True) if key is not None]


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of the store when its key was found.

    Attributes:
        key: seals sessions as well.
        sealed: verifiers that were plain until now.
        moved: the credential took the place of another key, so all is sealed anew.
    """

    key: bytes
    sealed: int = 0
    moved: "Exchanged | None" = None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One key in place of another one.

    Attributes:
        count: verifiers that are sealed anew; where the key was lost, those that are of no use.
    """

    before: str
    after: str
    count: int


def keys_at_hand(data_directory: str, credential: bytes | None) -> KeysAtHand:
    """Return the keys of this host.

    Raises:
        StorageError: one is there and cannot be used.
    """
    files = (find_seal_key(data_directory, name) for name in (FILE, NEXT_FILE, OLD_FILE))
    return KeysAtHand(data_directory, credential, *files)


def usable_key(check: bytes, keys: KeysAtHand) -> bytes:
    """Return the key with this check; the one before the last does not count.

    Raises:
        SealKeyError: it is not at hand.
    """
    for key in (keys.credential, keys.file, keys.next):
        if key is not None and key_check(key) == check:
            return key
    raise SealKeyError(_missing(check, keys))


async def open_seal(
    store: DatabaseStore,
    keys: KeysAtHand,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Opened:
    """Let a store use its verifiers; what is plain is sealed, and what was begun is finished.

    Raises:
        SealKeyError: the store's key is not at hand. Nothing was changed.
        StorageError: a key cannot be written, or the database not be read or written.
    """
    check = await store.seal_check()
    if check is None:
        key = keys.credential or keys.file or make_seal_key(keys.directory, random_bytes)
        return Opened(key, sealed=await _begin(store, key, random_bytes))
    key = usable_key(check, keys)
    if key not in (keys.credential, keys.file):
        # The store was sealed with it, and then came the crash.
        promote_next_key(keys.directory)
    moved = None
    if keys.credential not in (None, key):
        moved = await _exchange(store, key, keys.credential, "", random_bytes)
        key = keys.credential
    store.use_verifier_seal(VerifierSeal(key, random_bytes=random_bytes))
    return Opened(key, moved=moved)


async def exchange_key(
    store: DatabaseStore,
    keys: KeysAtHand,
    user: str,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Exchanged:
    """Make a new key in the data directory, and seal everything with it.

    Raises:
        SealKeyError: the store's key is not at hand, or the service manager's.
        StorageError: a key cannot be written, or the database not be read or written.
    """
    opened = await open_seal(store, keys, random_bytes=random_bytes)
    if opened.key == keys.credential:
        raise SealKeyError(
            f"the key is the credential {CREDENTIAL}, which only you can exchange; how, stands in "
            "docs/operate.md (The seal key)"
        )
    new_key = make_seal_key(keys.directory, random_bytes, NEXT_FILE)
    exchanged = await _exchange(store, opened.key, new_key, user, random_bytes)
    promote_next_key(keys.directory)
    return exchanged


async def give_up_key(
    store: DatabaseStore,
    keys: KeysAtHand,
    user: str,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> tuple[Exchanged, list[str]]:
    """Begin with a new key where the store's is lost; return who has to be registered anew.

    Raises:
        SealKeyError: the store's key is here.
        StorageError: a key cannot be written, or the database not be read or written.
    """
    check = await store.seal_check()
    if check is None or any(key_check(key) == check for _, key in keys.named()):
        raise SealKeyError("the key that opens this store is here; nothing is lost")
    new_key = keys.credential or make_seal_key(keys.directory, random_bytes, NEXT_FILE)
    before, after = key_id(check), key_id(key_check(new_key))

    def told(names: list[str]) -> Draft:
        done = Exchanged(before, after, len(names))
        return _draft("SEAL_KEY_LOST", done, user)._replace(is_success=False)

    names = await store.change_seal(lambda c: seal_rows.forget(c, new_key), told)
    if keys.credential is None:
        promote_next_key(keys.directory)
    return Exchanged(before, after, len(names)), names


async def _begin(store: DatabaseStore, key: bytes, random_bytes: Callable[[int], bytes]) -> int:
    seal = VerifierSeal(key, random_bytes=random_bytes)

    def told(count: int) -> Draft | None:
        if not count:
            return None
        return Draft("VERIFIERS_SEALED", fields={"key": key_id(seal.check), "count": count})

    count = await store.change_seal(lambda connection: seal_rows.begin(connection, seal), told)
    store.use_verifier_seal(seal)
    return count


async def _exchange(
    store: DatabaseStore,
    old_key: bytes,
    new_key: bytes,
    user: str,
    random_bytes: Callable[[int], bytes],
) -> Exchanged:
    before, after = key_id(key_check(old_key)), key_id(key_check(new_key))

    def told(count: int) -> Draft:
        return _draft("SEAL_KEY_CHANGED", Exchanged(before, after, count), user)

    change: Callable[[sa.Connection], int] = partial(
        seal_rows.reseal, old_key=old_key, new_key=new_key, random_bytes=random_bytes
    )
    return Exchanged(before, after, await store.change_seal(change, told))


def _draft(code: str, done: Exchanged, user: str) -> Draft:
    fields: Mapping[str, FieldValue] = {
        "key": done.after,
        "before": done.before,
        "count": done.count,
    }
    return Draft(code, subject=user, fields=fields)


def _missing(check: bytes, keys: KeysAtHand) -> str:
    wanted = key_id(check)
    theirs = [
        f"{name} is the key {key_id(key_check(key))}"
        for name, key in keys.named()
        if key_check(key) != check
    ]
    if keys.old is not None and key_check(keys.old) == check:
        advice = f"{OLD_FILE} is that key, as after putting an older store back: name it {FILE}"
    else:
        advice = (
            "put it there (mode 0600, the server's user), from another server on this store or from "
            "where you keep a copy; needfire-admin seal check FILE says whether it is the right one. "
            "Where it is lost for good: needfire-admin seal reset"
        )
    found = "; ".join(theirs) if theirs else f"there is no {FILE}, and no credential {CREDENTIAL}"
    return (
        f"the store is sealed with the key {wanted}, which is not in {keys.directory}: "
        f"{found}. What to do: {advice}"
    )
