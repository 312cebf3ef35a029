"""Scanning processes that are threads: the same code over the same sockets, started in no time."""

import socket
import threading
from contextlib import suppress

import pytest

from needfire_client import attributes, beginning, scan_pool, scan_worker
from needfire_client.attributes import ScanStoppedError

__all__ = ["ThreadWorker", "share_out_everything", "start_thread_worker"]


class ThreadWorker:
    """Stands in for a process."""

    pid = 0
    """None that there is."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._connection, suppress(ScanStoppedError, OSError):
            scan_worker.serve(self._connection)

    def kill(self) -> None:
        """End it, as far as a thread can be ended: its socket is closed by whoever calls."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._thread.join(timeout)
        return 0


def start_thread_worker() -> tuple[socket.socket, ThreadWorker]:
    """Do what ``scan_pool.start_worker`` does, with a thread."""
    ours, theirs = socket.socketpair()
    return ours, ThreadWorker(theirs)


def share_out_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parent do nothing itself, and every directory and file be a unit of its own."""
    monkeypatch.setattr(scan_pool, "start_worker", start_thread_worker)
    monkeypatch.setattr(beginning, "EFFORT", 0)
    monkeypatch.setattr(scan_worker, "EFFORT_MAX", 4)
    monkeypatch.setattr(scan_worker, "DEFER_ABOVE_BYTES", 0)
    monkeypatch.setattr(attributes, "_ONE_READ_BYTES", 0)
