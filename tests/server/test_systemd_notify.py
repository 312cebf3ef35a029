"""What the service manager is told, over real sockets."""

import os
import socket
from pathlib import Path

import pytest

from needfire_server.systemd_notify import notify, notify_reloading, watchdog_interval_s


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    return listener


def test_a_message_reaches_the_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path) as listener:
        assert notify("READY=1", {"NOTIFY_SOCKET": path})
        assert listener.recv(100) == b"READY=1"


def test_abstract_sockets_work() -> None:
    name = f"needfire-test-{os.getpid()}"
    with _listen("\0" + name) as listener:
        assert notify_reloading({"NOTIFY_SOCKET": "@" + name})
        first, second = listener.recv(100).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()


@pytest.mark.parametrize("socket_name", ["", "relative", "/nonexistent/socket", "/" + "x" * 200])
def test_where_nobody_listens_nothing_happens(socket_name: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": socket_name})


def test_without_a_service_manager_nothing_happens() -> None:
    assert not notify("READY=1", {})


def test_a_service_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with _listen(path):
        outcomes = [notify("WATCHDOG=1", {"NOTIFY_SOCKET": path}) for _ in range(5000)]

    assert not outcomes[-1]


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(7, environment) == interval_s
