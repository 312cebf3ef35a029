"""A store and its key: begun, found, moved, exchanged, lost; and killed in the middle of each."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from needfire_protocol.errors import StorageError
from needfire_protocol.keys import SessionKeys
from needfire_server.seal_key import (
    FILE,
    NEXT_FILE,
    OLD_FILE,
    SealKeyError,
    find_seal_key,
    key_check,
    key_id,
)
from needfire_server.sealing import (
    KeysAtHand,
    Opened,
    exchange_key,
    give_up_key,
    keys_at_hand,
    open_seal,
)
from needfire_server.session_seal import SessionSeal, StoredSession
from needfire_server.storage.store import DatabaseStore
from needfire_server.verifier_seal import SEALED_BYTES, VerifierSeal
from needfire_testkit.server_store import verifier
from needfire_testkit.stores import StorePlace

KEY, OTHER_KEY, THIRD_KEY = (bytes(range(first, first + 32)) for first in (0, 1, 2))
CLIENTS = 12


def keys(
    *, credential: bytes | None = None, file: bytes | None = None, directory: str = "/nowhere"
) -> KeysAtHand:
    return KeysAtHand(directory, credential, file, None, None)


def stored(place: StorePlace) -> dict[str, bytes]:
    return {name: bytes(each) for name, each in place.rows("SELECT name, verifier FROM clients")}


def on_record(place: StorePlace, code: str) -> list[bytes]:
    records = (bytes(row) for (row,) in place.rows("SELECT record FROM audit_records"))
    return [record for record in records if code.encode() in record]


def is_sealed(place: StorePlace) -> bool:
    """Whether all verifiers are sealed; fails where it is some."""
    (answer,) = {len(each) == SEALED_BYTES for each in stored(place).values()}
    return answer


async def register_all(store: DatabaseStore) -> None:
    for number in range(CLIENTS):
        await store.register(f"web{number}", verifier("a"), now_us=1, user="root")


async def usable(store: DatabaseStore) -> int:
    return sum(record.verifier == verifier("a") for record in await store.clients())


async def opens(place: StorePlace, key: bytes) -> int:
    store = place.open()
    store.use_verifier_seal(VerifierSeal(key))
    try:
        return await usable(store)
    finally:
        store.close()


# ---- the beginning -------------------------------------------------------------------------------


async def test_a_new_store_gets_a_key_and_shows_no_verifier_from_then_on(place: StorePlace) -> None:
    store = place.open()
    opened = await open_seal(store, keys_at_hand(str(place.directory), None))
    assert opened == Opened(find_seal_key(str(place.directory)) or b"")
    await store.register("web1", verifier("a"), now_us=1, user="root")
    record = await store.client_record("web1")
    assert record is not None
    assert record.verifier == verifier("a")
    assert await store.clients() == [record]
    assert is_sealed(place)
    store.close()


async def test_plain_verifiers_are_sealed_once_with_a_record_and_stay_usable(
    place: StorePlace,
) -> None:
    store = place.open()
    await register_all(store)
    assert (await open_seal(store, keys(file=KEY))).sealed == CLIENTS
    before = stored(place)
    assert is_sealed(place)
    assert await usable(store) == CLIENTS
    assert (await open_seal(store, keys(file=KEY))).sealed == 0
    assert stored(place) == before
    store.close()
    (told,) = on_record(place, "VERIFIERS_SEALED")
    assert key_id(key_check(KEY)).encode() in told


async def test_nothing_plain_stays_behind_in_the_file(tmp_path: Path) -> None:
    place = StorePlace(tmp_path)
    store = place.open()
    await register_all(store)
    plain = set(stored(place).values())
    store.close()
    assert all(each in place.path.read_bytes() for each in plain)
    store = place.open()
    await open_seal(store, keys(file=KEY))
    store.close()
    left = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    assert not [each for each in plain if each[:32] in left or each[-32:] in left]


async def test_of_two_servers_that_begin_with_different_keys_the_second_is_refused(
    store: DatabaseStore,
) -> None:
    await open_seal(store, keys(file=KEY))
    with pytest.raises(SealKeyError, match=key_id(key_check(KEY))) as caught:
        await open_seal(store, keys(file=OTHER_KEY))
    assert key_id(key_check(OTHER_KEY)) in str(caught.value)
    assert "seal.key is the key" in str(caught.value)


async def test_a_missing_key_is_told_and_none_is_made(store: DatabaseStore, tmp_path: Path) -> None:
    await open_seal(store, keys(file=KEY))
    (tmp_path / "other").mkdir()
    at_hand = keys_at_hand(str(tmp_path / "other"), None)
    with pytest.raises(SealKeyError, match=r"there is no seal\.key, and no credential"):
        await open_seal(store, at_hand)
    assert not list((tmp_path / "other").iterdir())


# ---- who can write the database ------------------------------------------------------------------


async def test_a_verifier_that_is_planted_plain_or_taken_from_another_row_lets_nobody_in(
    place: StorePlace,
) -> None:
    store = place.open()
    await open_seal(store, keys(file=KEY))
    for name in ("web1", "web2", "web3"):
        await store.register(name, verifier(name), now_us=1, user="root")
    store.close()
    swapped = "(SELECT {0} FROM (SELECT * FROM clients) AS other WHERE name = 'web2')"
    for column in ("salt", "verifier"):
        change(place, f"UPDATE clients SET {column} = {swapped.format(column)} WHERE name = 'web1'")
    plain = verifier("mine")
    for column, value in (("salt", plain.salt), ("verifier", plain.verifier)):
        shown = f"x'{value.hex()}'" if place.is_sqlite else f"'\\x{value.hex()}'"
        change(place, f"UPDATE clients SET {column} = {shown} WHERE name = 'web3'")
    store = place.open()
    await open_seal(store, keys(file=KEY))
    believed = {record.name: record.verifier for record in await store.clients()}
    assert believed == {"web1": None, "web2": verifier("web2"), "web3": None}
    store.close()


async def test_who_removes_the_check_does_not_get_everything_sealed_anew(place: StorePlace) -> None:
    store = place.open()
    await open_seal(store, keys(file=KEY))
    await store.register("web1", verifier("a"), now_us=1, user="root")
    before = stored(place)
    store.close()
    change(place, "DELETE FROM seal")
    store = place.open()
    with pytest.raises(StorageError, match="somebody has changed the database"):
        await open_seal(store, keys(file=KEY))
    store.close()
    assert stored(place) == before


def change(place: StorePlace, sql: str) -> None:
    if not place.is_sqlite:
        place.run(sql)
        return
    with closing(sqlite3.connect(place.path)) as database, database:
        database.execute(sql)


# ---- another key ---------------------------------------------------------------------------------


async def test_all_is_sealed_with_a_new_key_and_the_old_one_is_kept_aside(
    place: StorePlace,
) -> None:
    directory = str(place.directory)
    store = place.open()
    old = (await open_seal(store, keys_at_hand(directory, None))).key
    await register_all(store)
    await store.keep_session(SessionSeal(old, os.urandom).seal(session(b"s" * 16)), ())
    done = await exchange_key(store, keys_at_hand(directory, None), "root")
    store.close()
    new = find_seal_key(directory) or b""
    assert done.count == CLIENTS
    assert (done.before, done.after) == (key_id(key_check(old)), key_id(key_check(new)))
    assert find_seal_key(directory, OLD_FILE) == old
    assert find_seal_key(directory, NEXT_FILE) is None
    assert await opens(place, new) == CLIENTS
    assert await opens(place, old) == 0
    store = place.open()
    (row,) = await store.load_sessions()
    assert SessionSeal(new, os.urandom).open(row) == session(b"s" * 16)
    store.close()
    assert len(on_record(place, "SEAL_KEY_CHANGED")) == 1


def session(session_id: bytes) -> StoredSession:
    of_session = SessionKeys(session_id, bytes(32), bytes(32), 1, 1, 0)
    return StoredSession("web1", of_session, b"i" * 16, b"r" * 16, 2_000_000_000_000_000)


async def test_the_key_moves_from_the_file_to_the_service_manager(store: DatabaseStore) -> None:
    await open_seal(store, keys(file=KEY))
    await register_all(store)
    opened = await open_seal(store, keys(file=KEY, credential=OTHER_KEY))
    assert opened.key == OTHER_KEY
    assert opened.moved is not None
    assert opened.moved.count == CLIENTS
    assert await usable(store) == CLIENTS
    assert await open_seal(store, keys(credential=OTHER_KEY)) == Opened(OTHER_KEY)
    assert await open_seal(store, keys(file=KEY, credential=OTHER_KEY)) == Opened(OTHER_KEY)
    with pytest.raises(SealKeyError, match="only you can exchange"):
        await exchange_key(store, keys(credential=OTHER_KEY), "root")


async def test_a_server_with_the_key_of_before_neither_registers_nor_looks_silently_in_vain(
    place: StorePlace, tmp_path: Path
) -> None:
    store = place.open()
    await open_seal(store, keys(file=KEY))
    await store.register("web1", verifier("a"), now_us=1, user="root")
    await open_seal(store, keys(file=KEY, credential=OTHER_KEY))
    for seal in (VerifierSeal(KEY), None):
        store._verifier_seal = seal
        with pytest.raises(SealKeyError, match="seal check"):
            await store.register("web2", verifier("a"), now_us=1, user="root")
        with pytest.raises(SealKeyError):
            await store.check_seal()
    store.use_verifier_seal(VerifierSeal(KEY))
    with pytest.raises(SealKeyError):
        await store.client_facts("web1")
    store.use_verifier_seal(VerifierSeal(OTHER_KEY))
    await store.check_seal()
    assert (await store.client_facts("web1")).record is not None
    store.close()


async def test_a_store_that_was_put_back_says_that_the_key_of_before_is_the_one(
    store: DatabaseStore,
) -> None:
    await open_seal(store, keys(file=KEY))
    at_hand = KeysAtHand("/nowhere", None, OTHER_KEY, None, KEY)
    with pytest.raises(SealKeyError, match=r"seal\.key\.old is that key"):
        await open_seal(store, at_hand)
    with pytest.raises(SealKeyError, match="nothing is lost"):
        await give_up_key(store, at_hand, "root")


async def test_where_the_key_is_lost_a_new_one_begins_and_all_are_registered_anew(
    place: StorePlace,
) -> None:
    directory = str(place.directory)
    store = place.open()
    with pytest.raises(SealKeyError, match="nothing is lost"):
        await give_up_key(store, keys_at_hand(directory, None), "root")
    await open_seal(store, keys(file=KEY))
    await register_all(store)
    await store.keep_session(SessionSeal(KEY, os.urandom).seal(session(b"s" * 16)), ())
    done, names = await give_up_key(store, keys_at_hand(directory, None), "root")
    assert done.count == len(names) == CLIENTS
    opened = await open_seal(store, keys_at_hand(directory, None))
    assert key_id(key_check(opened.key)) == done.after
    assert await usable(store) == 0
    assert await store.load_sessions() == []
    record = (await store.clients())[0]
    assert record == replace(record, verifier=None)
    await store.register(names[0], verifier("a"), now_us=1, user="root")
    assert await usable(store) == 1
    store.close()


# ---- killed --------------------------------------------------------------------------------------


def killed(place: StorePlace, what: str, when: str) -> None:
    """Let a process seal the store and die."""
    command = [sys.executable, "-m", "needfire_testkit.seal_killer", what, when, *place.arguments]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


async def test_who_is_killed_while_sealing_leaves_everything_plain(place: StorePlace) -> None:
    store = place.open()
    await register_all(store)
    store.close()
    killed(place, "begin", str(CLIENTS // 2))
    assert not is_sealed(place)
    assert place.rows("SELECT * FROM seal") == []
    store = place.open()
    opened = await open_seal(store, keys_at_hand(str(place.directory), None))
    assert opened.sealed == CLIENTS
    assert await usable(store) == CLIENTS
    store.close()


@pytest.mark.parametrize("when", [str(CLIENTS // 2), "commit"])
async def test_who_is_killed_while_exchanging_the_key_leaves_one_of_the_two_that_opens_all(
    place: StorePlace, when: str
) -> None:
    directory = str(place.directory)
    store = place.open()
    old = (await open_seal(store, keys_at_hand(directory, None))).key
    await register_all(store)
    await store.keep_session(SessionSeal(old, os.urandom).seal(session(b"s" * 16)), ())
    store.close()
    killed(place, "exchange", when)
    assert (find_seal_key(directory), find_seal_key(directory, NEXT_FILE) is None) == (old, False)
    store = place.open()
    opened = await open_seal(store, keys_at_hand(directory, None))
    assert (opened.key != old) == (when == "commit")
    assert find_seal_key(directory) == opened.key
    assert await usable(store) == CLIENTS
    # And once more, to the end.
    await exchange_key(store, keys_at_hand(directory, None), "root")
    await open_seal(store, keys_at_hand(directory, None))
    assert await usable(store) == CLIENTS
    store.close()


async def test_between_the_two_names_of_the_new_key_nothing_is_lost_either(
    place: StorePlace,
) -> None:
    store = place.open()
    key = (await open_seal(store, keys_at_hand(str(place.directory), None))).key
    shutil.move(place.directory / FILE, place.directory / NEXT_FILE)
    assert (await open_seal(store, keys_at_hand(str(place.directory), None))).key == key
    assert find_seal_key(str(place.directory)) == key
    store.close()
