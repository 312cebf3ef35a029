"""Which configuration and which baseline hold, wherever they come from.

A file from the server takes the place of the one before only when it can be used: what lies in
the cache is always good enough to start with while the server is away.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from needfire_client.address import ServerAddress
from needfire_client.baseline import BaselineReader
from needfire_client.downloads import SIZE_MAX_BYTES, FileRefusedError
from needfire_client.durable import put_in_place
from needfire_client.facts import HostFacts
from needfire_client.failures import CommandError
from needfire_client.options import REQ_FROM_SERVER, Options
from needfire_client.reporter import PROGRAM, Reporter
from needfire_client.roots import with_resolved_roots
from needfire_client.statedir import StateDir
from needfire_protocol import __version__
from needfire_protocol.errors import ConfigError, NeedfireError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.file_kind import FileKind
from needfire_protocol.plain_classes import dataclass, replace
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc

if TYPE_CHECKING:
    from needfire_client.session import Session

__all__ = ["Baseline", "Configuration", "Provider", "read_rc", "start_fields"]

_RC_BYTES_MAX: Final = SIZE_MAX_BYTES[FileKind.CONFIGURATION]


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, and what START says of them."""

    settings: AgentSettings
    path: str
    """The file, or REQ_FROM_SERVER."""
    digest: str
    """``sha256:`` and hexadecimal digits."""
    data: bytes = b""
    """What stands in the file."""

    @property
    def is_from_server(self) -> bool:
        """Whether somebody on another host decides what stands in it."""
        return self.path == REQ_FROM_SERVER


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline that can be opened, and what START says of it."""

    path: Path
    shown_path: str
    """The file, or REQ_FROM_SERVER."""
    digest: str
    """``sha256:`` and hexadecimal digits."""
    entries: int = 0
    """Objects in it."""
    reader: BaselineReader | None = None
    """It, open and verified, where that was asked for: whoever takes it has to close it."""


class Provider:
    """Gets configuration and baseline for one run of a verb.

    Args:
        name: the name that this agent claims; conditions in the configuration compare it.
    """

    def __init__(
        self, options: Options, state: StateDir, reporter: Reporter, *, name: Callable[[], str]
    ) -> None:
        self._options = options
        self._state = state
        self._reporter = reporter
        self._name = name

    @property
    def is_rc_from_server(self) -> bool:
        return self._options.rc_source == REQ_FROM_SERVER

    def servers(self, settings: AgentSettings | None) -> tuple[ServerAddress, ...]:
        """Return the servers to report to: the command line's, else the configuration's."""
        if self._options.servers or settings is None:
            return self._options.servers
        return tuple(
            ServerAddress(host, settings.server_port if port is None else port)
            for host, port in settings.log_servers
        )

    def is_baseline_from_server(self, settings: AgentSettings) -> bool:
        if self._options.baseline is not None:
            return self._options.baseline == REQ_FROM_SERVER
        return bool(self.servers(settings))

    def local_rc(self) -> Configuration:
        """Return the configuration of the local file.

        Raises:
            ConfigError, CommandError: it cannot be used.
        """
        source = self._options.rc_source
        return self._parse(read_rc(Path(source)), source)

    async def fetch_rc(self, session: "Session") -> Configuration:
        """Fetch the configuration; keep it for times without a server.

        Raises:
            FileRefusedError: the server has none; it has been told.
            ConfigError: it has an error; the one before stays.
            LinkError, StorageError: as they say.
        """
        self._reporter.report("DOWNLOADING_CONFIGURATION")
        arriving = self._state.cached_rc.with_suffix(".new")
        await self._fetch(session, FileKind.CONFIGURATION, arriving)
        configuration = self._parse(read_rc(arriving), REQ_FROM_SERVER)
        _keep(arriving, self._state.cached_rc)
        return configuration

    def cached_rc(self) -> Configuration | None:
        """Return the configuration that the server gave last; None where there is none."""
        path = self._state.cached_rc
        try:
            configuration = self._parse(read_rc(path), REQ_FROM_SERVER)
        except (CommandError, ConfigError):
            return None
        self._reporter.report("NO_FILE_FROM_SERVER", path=str(path))
        return configuration

    def local_baseline(self, *, stays_open: bool = False) -> Baseline:
        """Return the local baseline.

        Args:
            stays_open: its reader comes with it, so that it is not read to the end once more.

        Raises:
            CommandError: there is none.
            FormatError, StorageError: it cannot be used.
        """
        chosen = self._options.baseline
        path = self._state.baseline if chosen is None else Path(chosen)
        try:
            return _open_baseline(path, str(path), stays_open=stays_open)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise CommandError(
                ExitStatus.LOCAL,
                f"there is no baseline: {path} does not exist",
                hint="record one with needfire-agent init",
            ) from None

    async def fetch_baseline(self, session: "Session") -> Baseline:
        """Fetch the baseline; keep it for times without a server.

        Raises:
            FileRefusedError: the server has none; it has been told.
            FormatError: it is none; the one before stays.
            LinkError, StorageError: as they say.
        """
        self._reporter.report("DOWNLOADING_BASELINE")
        arriving = self._state.cached_baseline.with_suffix(".new")
        await self._fetch(session, FileKind.BASELINE, arriving)
        # Here, because most checks have no server, and none of what comes with it.
        import asyncio

        baseline = await asyncio.to_thread(_open_baseline, arriving, REQ_FROM_SERVER)
        _keep(arriving, self._state.cached_baseline)
        return replace(baseline, path=self._state.cached_baseline)

    def cached_baseline(self) -> Baseline | None:
        """Return the baseline that the server gave last; None where there is none."""
        path = self._state.cached_baseline
        if not path.exists():
            return None
        baseline = _open_baseline(path, REQ_FROM_SERVER)
        self._reporter.report("NO_FILE_FROM_SERVER", path=str(path))
        return baseline

    def tell_unusable(self, error: NeedfireError) -> None:
        """Say that a new configuration is not used, and why."""
        first = error.problems[0] if isinstance(error, ConfigError) else error
        self._reporter.report(
            "CONFIGURATION_UNUSABLE", path=self._options.rc_source, reason=str(first)
        )

    async def _fetch(self, session: "Session", kind: FileKind, path: Path) -> None:
        try:
            download = await session.fetch(kind, path)
        except FileRefusedError as error:
            self._reporter.report("FILE_DOWNLOAD_FAILED", kind=kind.value, reason=str(error))
            raise
        self._reporter.report(
            "FILE_DOWNLOAD_COMPLETED",
            kind=kind.value,
            bytes=download.size_bytes,
            hash=f"sha256:{download.sha256}",
        )

    def _parse(self, data: bytes, source: str) -> Configuration:
        settings = parse_agent_rc(data, source=source, facts=HostFacts(self._name))
        settings = with_resolved_roots(settings)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return Configuration(settings, source, digest, data)


def _keep(arriving: Path, place: Path) -> None:
    try:
        put_in_place(arriving, place)
    except OSError as error:
        raise StorageError(f"{place}: {error.strerror or error}") from error


def read_rc(path: Path) -> bytes:
    """Return the bytes of a configuration file.

    Raises:
        CommandError: it cannot be read, is no regular file, has more than 4 MiB, or others than
            root and this process's user can change it.
    """
    try:
        # Non-blocking: a FIFO in its place must not hang the agent.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise CommandError(ExitStatus.CONFIGURATION, f"{path} is not a regular file")
            _check_trust(path, info)
            data = file.read(_RC_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(
            ExitStatus.CONFIGURATION,
            f"the configuration {path} cannot be read: {error.strerror}",
            hint="name the file with --rc FILE, or a server with --server HOST:PORT"
            if error.errno == errno.ENOENT
            else None,
        ) from None
    if len(data) > _RC_BYTES_MAX:
        raise CommandError(ExitStatus.CONFIGURATION, f"{path} has more than {_RC_BYTES_MAX} bytes")
    return data


def _check_trust(path: Path, info: os.stat_result) -> None:
    """Refuse a file with which somebody else could tell the agent what not to look at."""
    if info.st_uid not in (0, os.geteuid()):
        raise CommandError(
            ExitStatus.CONFIGURATION,
            f"the configuration {path} belongs to uid {info.st_uid}; expected root"
            + (f" or uid {os.geteuid()}" if os.geteuid() else "")
            + ": its owner could switch the watch off",
            hint=f"look through it, then: chown root {path}",
        )
    is_shared = bool(info.st_mode & stat.S_IWGRP) and info.st_gid not in (0, os.getegid())
    if is_shared or info.st_mode & stat.S_IWOTH:
        raise CommandError(
            ExitStatus.CONFIGURATION,
            f"the configuration {path} can be written by others than its owner "
            f"(mode {stat.S_IMODE(info.st_mode):o}, gid {info.st_gid})",
            hint=f"look through it, then: chmod go-w {path}",
        )


def _open_baseline(path: Path, shown_path: str, *, stays_open: bool = False) -> Baseline:
    with ExitStack() as opened:
        reader = opened.enter_context(BaselineReader(path))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = reader if stays_open else None
        baseline = Baseline(path, shown_path, f"sha256:{digest}", reader.meta.entries, kept)
        if stays_open:
            opened.pop_all()
    return baseline


def start_fields(configuration: Configuration, baseline: Baseline | None) -> dict[str, str | int]:
    """Return the fields of the START event: what this run works with."""
    fields: dict[str, str | int] = {
        "program": PROGRAM,
        "userid": os.geteuid(),
        "path": configuration.path,
        "hash": configuration.digest,
    }
    if baseline is not None:
        fields |= {"path_data": baseline.shown_path, "hash_data": baseline.digest}
    return fields | {"version": __version__}
