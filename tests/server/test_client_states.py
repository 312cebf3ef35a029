"""The states of clients: by codes alone, illegal restarts, silence."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.catalogue import CATALOGUE
from needfire_server.states import (
    ClientState,
    ClientStatus,
    is_illegal_restart,
    overdue,
    status_of,
    status_of_server_event,
)

A, B = b"a" * 16, b"b" * 16
S = 1_000_000
AT_REST = (ClientStatus.INACTIVE, ClientStatus.EXITED, ClientStatus.SUSPENDED)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("START", "Started"),
        ("EXIT", "Exited"),
        ("SUSPEND", "Suspended"),
        ("WAKEUP", "Message"),
        ("CHECK_COMPLETED", "Filecheck"),
        ("CHECK_STARTED", "Message"),
        ("POLICY_ADDED", "POLICY"),
        ("POLICY_MISSING", "POLICY"),
        ("POLICY_MODIFIED", "POLICY"),
        ("AGENT_INTERNAL_ERROR", "PANIC"),
        ("FILE_UNREADABLE", "Message"),
    ],
)
def test_the_code_of_a_report_decides(code: str, status: str) -> None:
    assert status_of(code).value == status


@pytest.mark.parametrize("code", ["RESTART_WITHOUT_EXIT", "TIME_EXCEEDED", "SESSION_KEY_MISMATCH"])
def test_a_client_cannot_speak_for_the_server(code: str) -> None:
    assert status_of(code) is ClientStatus.MESSAGE
    assert status_of_server_event(code) is not None


@given(st.text())
def test_every_unknown_code_is_a_message(code: str) -> None:
    if code not in CATALOGUE:
        assert status_of(code) is ClientStatus.MESSAGE
        assert status_of_server_event(code) is None


@pytest.mark.parametrize("status", list(ClientStatus))
def test_another_process_is_illegal_unless_the_one_before_said_goodbye(
    status: ClientStatus,
) -> None:
    state = ClientState("web1", status, instance=A)
    assert is_illegal_restart(state, B, prior_exit_pending=False) is (status not in AT_REST)


@pytest.mark.parametrize("status", list(ClientStatus))
def test_the_same_process_may_always_come_back(status: ClientStatus) -> None:
    assert not is_illegal_restart(ClientState("web1", status, instance=A), A, False)


def test_an_exit_that_is_still_in_the_spool_is_an_exit() -> None:
    state = ClientState("web1", ClientStatus.MESSAGE, instance=A)
    assert not is_illegal_restart(state, B, prior_exit_pending=True)


def test_a_client_that_was_never_heard_may_start() -> None:
    assert not is_illegal_restart(None, A, False)
    # A stranger's failed log-in must not make the first start of a client illegal.
    assert not is_illegal_restart(ClientState("web1", ClientStatus.FAILED), A, False)


def test_who_only_speaks_changes_only_when_and_from_where_it_was_heard() -> None:
    before = ClientState(
        "web1", ClientStatus.POLICY, A, 5, "192.0.2.1", True, {ClientStatus.STARTED: 3}
    )
    is_given = [getattr(before, each.name) != each.default for each in fields(ClientState)]

    assert all(is_given), "what is new is to be kept as well"
    after = before.heard_from("192.0.2.2", 7)
    assert after == replace(before, last_seen_us=7, address="192.0.2.2")


def test_a_status_keeps_when_each_was_last_entered() -> None:
    state = ClientState.initial("web1").with_status(ClientStatus.STARTED, 1)
    state = state.with_status(ClientStatus.POLICY, 2).with_status(ClientStatus.POLICY, 3)
    assert state.status is ClientStatus.POLICY
    assert dict(state.latest) == {ClientStatus.STARTED: 1, ClientStatus.POLICY: 3}
    assert state.last_seen_us is None


@pytest.mark.parametrize(("silence_us", "is_late"), [(60 * S - 1, 0), (60 * S, 0), (60 * S + 1, 1)])
def test_silence_beyond_the_limit_is_reported(silence_us: int, is_late: int) -> None:
    state = ClientState("web1", ClientStatus.MESSAGE, last_seen_us=1_000 * S)
    late = overdue([state], now_us=1_000 * S + silence_us, limit_s=60)
    assert len(late) == is_late


@pytest.mark.parametrize("status", AT_REST)
def test_who_said_goodbye_is_never_overdue(status: ClientStatus) -> None:
    assert overdue([ClientState("web1", status, last_seen_us=0)], now_us=10**15, limit_s=1) == []


def test_silence_is_reported_once() -> None:
    state = ClientState("web1", ClientStatus.MESSAGE, last_seen_us=0)
    [late] = overdue([state], now_us=10**15, limit_s=1)
    told = replace(late.with_status(ClientStatus.TIMEOUT_EXCEEDED, 10**15), is_overdue=True)
    assert overdue([told], now_us=10**16, limit_s=1) == []


def test_the_silence_of_the_server_itself_does_not_count() -> None:
    state = ClientState("web1", ClientStatus.MESSAGE, last_seen_us=0)
    assert not overdue([state], 100 * S, 60, listening_since_us=40 * S)
    assert overdue([state], 101 * S, 60, listening_since_us=40 * S)
