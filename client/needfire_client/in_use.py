"""Which configuration and baseline this agent used last, kept on disk: what is new then is told.

    state directory/in-use     digests, and what of the configuration was in force, without secrets

So a change is told whoever made it, and whether this agent ran then or not. Of a file that is new
here, or cannot be read, nothing is told: START has the digests.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from needfire_client.configuration import Baseline, Configuration
from needfire_client.durable import put_in_place
from needfire_client.facts import HostFacts
from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.limits import DecodingLimits
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.changes import InForce, in_force, settings_changes
from needfire_protocol.rc.directives import Program
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.syntax import parse_lines

__all__ = ["InUse", "InUseFile", "in_use", "taken"]

_FORMAT: Final = 1
_LIMITS: Final = DecodingLimits(
    size_bytes_max=32 * 2**20,
    text_bytes_max=64 * 1024,
    binary_bytes_max=0,
    array_items_max=1_000_000,
    map_items_max=1_000_000,
    depth_max=4,
)
"""A configuration has at most 4 MiB; escaped, a line of it may have four times its length."""


@dataclass(frozen=True, slots=True)
class InUse:
    """What an agent works with.

    Attributes:
        configuration, baseline: digests, ``sha256:`` and hexadecimal digits.
        in_force: directives and their values.
        entries: objects in the baseline.
    """

    configuration: str
    in_force: InForce
    baseline: str
    entries: int


def in_use(configuration: Configuration, baseline: Baseline, name: str) -> InUse:
    """Return what is in use now.

    Args:
        name: the name that this agent claims; conditions in the configuration compare it.
    """
    # A second time, and without a word about what is wrong: that was told when it was loaded.
    findings = Findings(configuration.path)
    directives = parse_lines(configuration.data, facts=HostFacts(name), findings=findings)
    directed = in_force(directives, Program.AGENT)
    return InUse(configuration.digest, directed, baseline.digest, baseline.entries)


def taken(
    before: InUse, now: InUse, configuration: Configuration, baseline: Baseline
) -> Iterator[tuple[str, Mapping[str, FieldValue]]]:
    """Yield code and fields of the events that tell what is another than before."""
    if now.configuration != before.configuration:
        changes = settings_changes(before.in_force, now.in_force)
        yield (
            "CONFIGURATION_TAKEN",
            {
                "path": configuration.path,
                "hash": now.configuration,
                "hash_old": before.configuration,
                "changed": changes.count,
                "changes": changes.text,
                "changes_left_out": changes.left_out,
            },
        )
    if now.baseline != before.baseline:
        yield (
            "BASELINE_TAKEN",
            {
                "path": baseline.shown_path,
                "hash": now.baseline,
                "hash_old": before.baseline,
                "files": now.entries,
                "files_old": before.entries,
            },
        )


class InUseFile:
    """The file. Every method blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> InUse | None:
        """Return what was in use last; None where that is not known."""
        try:
            with self._path.open("rb") as file:
                return _decoded(file.read(_LIMITS.size_bytes_max + 1))
        except (OSError, FormatError):
            return None

    def save(self, now: InUse) -> None:
        """Keep what is in use now.

        Raises:
            StorageError: the disk refuses.
        """
        data = encode([_FORMAT, now.configuration, _plain(now.in_force), now.baseline, now.entries])
        unfinished = self._path.with_name(self._path.name + ".new")
        try:
            with open(
                unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(unfinished, self._path)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error


def _plain(directed: InForce) -> dict[str, list[str]]:
    return {name: list(values) for name, values in directed.items()}


def _decoded(data: bytes) -> InUse:
    """Return what a file says; raise FormatError where it is none that this version wrote."""
    fields: Any = decode(data, limits=_LIMITS)
    try:
        number, configuration, directed, baseline, entries = fields
        texts = [configuration, baseline, *directed]
        for values in directed.values():
            texts += values
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"it has another form: {error}") from None
    if (
        number != _FORMAT
        or type(entries) is not int
        or any(type(each) is not str for each in texts)
    ):
        raise FormatError("it is of another version")
    return InUse(configuration, directed, baseline, entries)
