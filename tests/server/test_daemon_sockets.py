"""What the server listens on: both families, or the one that the host has, or an error."""

import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from needfire_server import daemon as daemon_module
from needfire_server.config import ServerSettings
from needfire_server.daemon import ServeOptions


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


def test_nobody_is_accepted_before_the_rights_are_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it is root it has its port, and the kernel refuses everybody who comes."""
    ports: list[int] = []

    def bind(addresses: object) -> list[socket.socket]:
        sockets = real_bind((("127.0.0.1", 0),))
        ports.append(sockets[0].getsockname()[1])
        return sockets

    def drop(user: object, directory: object) -> None:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[0]), timeout=5)
        raise ZeroDivisionError("far enough")

    real_bind = daemon_module._bind
    monkeypatch.setattr(daemon_module, "_bind", bind)
    monkeypatch.setattr(daemon_module, "drop_privileges", drop)
    options = ServeOptions(ServerSettings, str(tmp_path), (("127.0.0.1", 0),), is_foreground=True)
    with pytest.raises(ZeroDivisionError):
        daemon_module.serve(options, ServerSettings())
