"""A PostgreSQL server of the tests' own: in a temporary directory, on a Unix socket, never as root."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from needfire_server.storage.tables import metadata

__all__ = ["PostgresServer", "find_postgres", "postgres_or_skip", "running_postgres"]

_UP_LIMIT_S = 60.0
_SCRAM_USER = "scram_user"
_names = count(1)


class PostgresServer:
    """One server; ``kill`` and ``start`` make it go and come back with what it had."""

    def __init__(
        self, directory: Path, bindir: Path, user: str | None, *, is_durable: bool
    ) -> None:
        self._fsync = "on" if is_durable else "off"
        self.directory = directory
        self._bindir = bindir
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._shared: str | None = None

    def initialise(self) -> None:
        self._run("initdb", "--auth=trust", "--username=needfire", "--encoding=UTF8", "--no-sync")
        (self.directory / "data" / "pg_hba.conf").write_text(
            f"local all {_SCRAM_USER} scram-sha-256\nlocal all all trust\n"
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        deadline = time.monotonic() + _UP_LIMIT_S
        while True:
            if self._process is None or self._process.poll() is not None:
                # After SIGKILL its children may need a moment before it may start again.
                self._process = self._popen(
                    "postgres", "-D", str(self.directory / "data"), "-k", str(self.directory),
                    "-c", f"fsync={self._fsync}", "-c", "listen_addresses=", "-c", "max_connections=60",
                    "-c", "shared_buffers=16MB",
                )  # fmt: skip
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, without writing what it could write."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def connect(self, database: str, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True, **options)

    def url(self, database: str, user: str = "needfire") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"

    def new_database(self, *options: str) -> str:
        """Make an empty database; return its URL."""
        name = f"test{next(_names)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} {' '.join(options)}".encode())
        return self.url(name)

    def emptied_database(self) -> str:
        """Empty a database that is shared by tests that leave no other traces than rows."""
        if self._shared is None:
            self._shared = self.new_database()
            return self._shared
        with psycopg.connect(self._shared) as connection:
            tables = ", ".join(name for name in metadata.tables)
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())
            connection.execute(
                "INSERT INTO counters VALUES "
                "('events', 0), ('event_summaries', 0), ('audit_summaries', -1)"
            )
        return self._shared

    def database_of_scram_user(self, password: str) -> str:
        """Make a database whose owner has a password; return its URL, without the password."""
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE ROLE {_SCRAM_USER} LOGIN PASSWORD '{password}'".encode())
            name = f"test{next(_names)}"
            connection.execute(f"CREATE DATABASE {name} OWNER {_SCRAM_USER}".encode())
        return self.url(name, _SCRAM_USER)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_UP_LIMIT_S)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        process = self._popen(program, "-D", str(self.directory / "data"), *arguments)
        assert process.wait(120) == 0, (self.directory / "log").read_text()

    def _popen(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with open(self.directory / "log", "ab") as log:
            return subprocess.Popen(
                [str(self._bindir / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            )


@contextmanager
def running_postgres(bindir: Path, *, is_durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server of our own until the end of the context.

    Args:
        is_durable: it flushes its commits. Killing processes loses nothing without; only a crash of
            the host would.
    """
    # Not below pytest's directories: only root may enter them, and their paths can be too long.
    directory = Path(tempfile.mkdtemp(prefix="needfire-pg-"))
    user = _other_user() if os.geteuid() == 0 else None
    try:
        if user is not None:
            shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
        server = PostgresServer(directory, bindir, user, is_durable=is_durable)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def find_postgres() -> Path | None:
    """Return where PostgreSQL's programs are, the newest ones; None where there are none."""
    found = [shutil.which("postgres"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))]
    for program in filter(None, reversed(found)):
        bindir = Path(os.path.realpath(program)).parent
        if (bindir / "initdb").exists():
            return bindir
    return None


def postgres_or_skip() -> Path:
    """Return where PostgreSQL's programs are; without them skip, but fail where CI runs."""
    bindir = find_postgres()
    if bindir is not None:
        return bindir
    reason = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _other_user() -> str:
    """PostgreSQL refuses to run as root."""
    known = {account.pw_name for account in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)
