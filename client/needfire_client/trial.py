"""Which way of watching the agent would choose here if it started now, and what it lacks.

Tried with what the agent itself uses, and taken back at once. Nothing is written: not even the
canary, whose time says until when the agent watched.
"""

import os
from pathlib import Path
from typing import Final

from needfire_client.processes import Writer
from needfire_client.realtime import RealTime
from needfire_protocol.escape import escape_bytes
from needfire_protocol.plain_classes import dataclass, field
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import PathRule, Policy, RuleKind

__all__ = ["Trial", "try_watching"]

_RIGHTS: Final = {
    21: ("CAP_SYS_ADMIN", "to watch file systems with fanotify"),
    2: ("CAP_DAC_READ_SEARCH", "to read every file, and to learn the paths of fanotify's events"),
    19: ("CAP_SYS_PTRACE", "to learn which program of another user a process runs"),
}
"""By their bit, see capabilities(7)."""

_ROOT_ALONE: Final = PathRule(RuleKind.DIR, b"/", Policy.READ_ONLY, 0, False, "", 0)


@dataclass(slots=True)
class Trial:
    """What came of it."""

    method: str = "none"
    reason: str = ""
    """Why nothing better; empty for the best."""
    watched: int = 0
    polled: int = 0
    losses: list[str] = field(default_factory=list)
    """What would not be watched, with the reason."""
    lacking: tuple[tuple[str, str], ...] = ()
    """Rights that the agent makes use of and this process does not have: name and use."""

    def changed(self, _path: bytes, *, below: bool = False) -> None:
        """Hear of a change, which is none of a trial's."""

    def wrote(self, _path: bytes, _writer: Writer | None, *, below: bool = False) -> None:
        """Hear who made it."""

    def lost(self, reason: str, scope: bytes, _since_us: int | None = None) -> None:
        """Note it."""
        self.losses.append(f"{escape_bytes(scope)}: {reason}")

    def answered(self, _path: bytes) -> None:
        pass

    def silent(self, _method: str, _path: bytes, _scope: bytes, _since_us: int) -> None:
        """Hear nothing: no canary is written."""

    def chosen(self, method: str, reason: str, watched: int, polled: int) -> None:
        """Note it."""
        self.method, self.reason = method, reason
        self.watched, self.polled = watched, polled


def try_watching(settings: AgentSettings | None) -> Trial:
    """Choose a way of watching what the rules cover; without rules, ``/`` alone."""
    if settings is None or not settings.rules:
        settings = AgentSettings(rules=(_ROOT_ALONE,))
    trial = Trial(lacking=_lacking())
    RealTime(settings, Path("/"), trial).try_out()
    return trial


def _lacking() -> tuple[tuple[str, str], ...]:
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        held = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
    except (OSError, StopIteration, ValueError, IndexError):
        held = -1 if os.geteuid() == 0 else 0
    return tuple(right for bit, right in _RIGHTS.items() if not held >> bit & 1)
