"""What the server listens on: both families, or the one that the host has, or an error."""

import errno
import socket
from typing import Any

import pytest

from needfire_server import daemon as daemon_module


def without_ipv6(monkeypatch: pytest.MonkeyPatch, number: int = errno.EAFNOSUPPORT) -> None:
    real = socket.socket

    def make(family: int = socket.AF_INET, *rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, "no such family")
        return real(family, *rest)

    monkeypatch.setattr("needfire_server.daemon.socket.socket", make)


def test_a_host_without_ipv6_still_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)
    (bound,) = daemon_module._bind((("127.0.0.1", 0), ("::", 0)))
    with bound:
        assert bound.family == socket.AF_INET
        assert bound.fileno() >= 0, "still open"


def test_ipv6_alone_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)
    with pytest.raises(OSError, match="cannot listen on :: port 0"):
        daemon_module._bind((("::", 0),))


def test_a_port_in_use_is_an_error_for_either_family() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            daemon_module._bind((("127.0.0.1", port), ("::", port)))
