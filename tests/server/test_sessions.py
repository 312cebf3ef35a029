"""The session table: one valid key a client, and proof for those who were superseded."""

import os

from needfire_protocol.keys import SessionKeys
from needfire_server.sessions import Session, SessionTable


def make_session(
    client: str = "web1", instance: bytes = b"a" * 16, expires_s: float = 100
) -> Session:
    keys = SessionKeys(
        session_id=os.urandom(16),
        resumption_key=bytes(32),
        signing_key=bytes(32),
        version=1,
        suite=1,
        features=0,
    )
    return Session(client, keys, instance, expires_s)


def test_a_new_negotiation_replaces_the_key_of_its_name() -> None:
    table = SessionTable()
    first, second = make_session(), make_session(instance=b"b" * 16)
    assert table.install(first) is None
    assert table.install(second) is first
    assert table.current("web1") is second
    assert not table.is_current(first)


def test_a_superseded_session_is_still_found_so_that_its_agent_can_be_told_with_proof() -> None:
    table = SessionTable()
    first, second = make_session(), make_session(instance=b"b" * 16)
    table.install(first)
    table.install(second)
    assert table.find(first.keys.session_id) is first


def test_the_old_key_of_the_same_process_is_forgotten() -> None:
    table = SessionTable()
    first, second = make_session(), make_session()
    table.install(first)
    table.install(second)
    assert table.find(first.keys.session_id) is None
    assert table.find(second.keys.session_id) is second


def test_goodbye_ends_only_the_current_session() -> None:
    table = SessionTable()
    first, second = make_session(), make_session(instance=b"b" * 16)
    table.install(first)
    table.install(second)
    table.end(first)
    assert table.current("web1") is second
    table.end(second)
    assert table.current("web1") is None
    assert table.find(second.keys.session_id) is None


def test_one_client_cannot_make_us_remember_without_bound() -> None:
    table = SessionTable()
    sessions = [make_session(instance=bytes([number]) * 16) for number in range(50)]
    for session in sessions:
        table.install(session)
    assert sum(table.find(s.keys.session_id) is not None for s in sessions) == 5


def test_superseded_sessions_are_forgotten_when_they_expire() -> None:
    table = SessionTable()
    first = make_session(expires_s=10)
    table.install(first)
    table.install(make_session(instance=b"b" * 16, expires_s=20))
    table.sweep(9.9)
    assert table.find(first.keys.session_id) is first
    table.sweep(10)
    assert table.find(first.keys.session_id) is None


def test_a_removed_client_has_no_session_left() -> None:
    table = SessionTable()
    first, second = make_session(), make_session(instance=b"b" * 16)
    other = make_session("web2")
    for session in (first, second, other):
        table.install(session)
    table.drop_client("web1")
    assert table.find(first.keys.session_id) is None
    assert table.find(second.keys.session_id) is None
    assert table.current("web2") is other


def test_a_session_is_held_until_it_expires_or_its_process_says_goodbye() -> None:
    table = SessionTable()
    session = make_session(instance=b"a" * 16, expires_s=10)
    table.install(session)
    assert table.is_held_by_another("web1", b"b" * 16, 9.9)
    assert not table.is_held_by_another("web1", b"a" * 16, 9.9)
    assert not table.is_held_by_another("web1", b"b" * 16, 10)
    assert not table.is_held_by_another("web2", b"b" * 16, 0)
    table.end(session)
    assert not table.is_held_by_another("web1", b"b" * 16, 9.9)
