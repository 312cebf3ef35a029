"""What the command line asked for, as one frozen value."""

from pathlib import Path
from typing import Final

from needfire_client.address import ServerAddress
from needfire_client.statedir import DEFAULT_STATE_DIR
from needfire_protocol.plain_classes import dataclass

__all__ = ["DEFAULT_RC", "REQ_FROM_SERVER", "Options"]

REQ_FROM_SERVER: Final = "REQ_FROM_SERVER"
"""Instead of a file: ask the server for it. Samhain's word, in options and in START events."""

DEFAULT_RC: Final = "/etc/needfire/agentrc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, checked."""

    verb: str = "run"
    arguments: tuple[str, ...] = ()
    rc: str | None = None
    servers: tuple[ServerAddress, ...] = ()
    name: str | None = None
    bind_address: str | None = None
    state_dir: Path = DEFAULT_STATE_DIR
    baseline: str | None = None
    output: Path | None = None
    upload: bool = False
    password_file: str | None = None
    log_format: str | None = None
    as_json: bool = False
    explain_path: str | None = None
    quick: bool = False
    resume: bool = False

    @property
    def rc_source(self) -> str:
        """Where the configuration comes from: a path or REQ_FROM_SERVER."""
        if self.rc is not None:
            return self.rc
        return REQ_FROM_SERVER if self.servers else DEFAULT_RC
