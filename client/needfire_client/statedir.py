"""The agent's own directory: what lies where, who may see it, and who uses it now."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from needfire_client.failures import CommandError
from needfire_protocol.errors import StorageError
from needfire_protocol.exit_status import ExitStatus

__all__ = ["DEFAULT_STATE_DIR", "StateDir"]

DEFAULT_STATE_DIR: Final = Path("/var/lib/needfire-agent")


class StateDir:
    """Paths inside the state directory (spec/interfaces.md 1: password, spool, local baseline)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.password = root / "password"
        self.baseline = root / "baseline"
        self.spool = root / "spool.sqlite"
        self.oneshot_spool = root / "oneshot-spool.sqlite"
        self.cache = root / "cache"
        self.proposal = self.cache / "proposal"
        self.cached_rc = self.cache / "rc"
        self.cached_baseline = self.cache / "baseline"
        self.overlay = root / "overlay.sqlite"
        self.oneshot_overlay = root / "oneshot-overlay.sqlite"
        self.position = root / "scan-position"
        self.oneshot_position = root / "oneshot-scan-position"
        self.witness = root / "audit-checkpoint"
        self.in_use = root / "in-use"
        self.lock = root / "run.lock"
        self.oneshot_lock = root / "oneshot.lock"
        self.internal_errors = root / "internal-errors.log"

    def prepare(self) -> None:
        """Make the directory where it is missing, for its owner only.

        Raises:
            StorageError: it cannot be made, belongs to somebody else, or others may write in it.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.cache.mkdir(mode=0o700, exist_ok=True)
            info = os.stat(self.root)
        except OSError as error:
            raise StorageError(f"{self.root}: {error.strerror or error}") from error
        if not stat.S_ISDIR(info.st_mode):
            raise StorageError(f"{self.root} is not a directory")
        if info.st_uid not in (os.geteuid(), 0):
            raise StorageError(
                f"{self.root} belongs to uid {info.st_uid}; expected {os.geteuid()}: its owner "
                "could replace the password and the baseline"
            )
        if info.st_mode & 0o022:
            raise StorageError(
                f"{self.root} can be written by others than its owner "
                f"(mode {stat.S_IMODE(info.st_mode):o}); expected 700"
            )

    @contextlib.contextmanager
    def exclusive(self, lock: Path, what: str) -> Iterator[None]:
        """Hold the lock; it goes with the process, however that ends.

        Raises:
            CommandError: another process holds it; the text names its process id.
            StorageError: the lock file cannot be made.
        """
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{lock}: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
                raise CommandError(
                    ExitStatus.LOCAL,
                    f"{what} runs already on {self.root} (process {holder})",
                    hint=f"stop it first (kill {holder}), or give this one another --state-dir"
                    if holder.isdecimal()
                    else None,
                ) from None
            # On a full disk the lock holds all the same; it only says not who holds it.
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode("ascii"))
            yield
        finally:
            os.close(handle)
