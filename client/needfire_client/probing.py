"""Which directories a watcher must be able to hear something of, and how they are made to be heard.

A canary under each root of the rules must not be a file there: in a tree whose changes are
reported, it would be one. Opening a directory changes nothing, not even its access time, as
nothing is read from it; and the kernel tells whoever asks that it was opened.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from needfire_client.policy import Ruleset
from needfire_protocol.rc.policies import RuleKind

__all__ = ["ROOTS_MAX", "held", "open_audibly", "probe_roots"]

ROOTS_MAX: Final = 256
"""Roots that are probed, the first ones of the configuration: each costs some microseconds."""

_WILDCARDS: Final = frozenset(b"*?[")


def probe_roots(ruleset: Ruleset) -> tuple[bytes, ...]:
    """Return the directories that the rules begin at, as far as they are there.

    Of a rule for anything but a directory it is the directory in which that is named; of a
    pattern the last one before the first wildcard; of an exclusion none.
    """
    found: dict[bytes, None] = {}
    for decision in ruleset.decisions:
        rule = decision.rule
        path = rule.path
        if rule.kind is RuleKind.DIR and decision.levels < 0:
            continue
        if rule.is_glob:
            path = _literal(path)
        elif rule.kind is RuleKind.FILE or os.path.islink(path) or not os.path.isdir(path):
            path = path.rpartition(b"/")[0] or b"/"
        if os.path.isdir(path):
            found[path] = None
    return tuple(found)[:ROOTS_MAX]


@contextmanager
def held(path: bytes) -> Iterator[bytes]:
    """Hold a directory, which nobody hears; give a path that leads to that very one.

    Raises:
        OSError: it is none, or is gone.
    """
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


def open_audibly(path: bytes) -> None:
    """Open and close a directory. Raises OSError."""
    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _literal(path: bytes) -> bytes:
    """Return the part of a pattern before the first component with a wildcard."""
    components: list[bytes] = []
    for component in path.split(b"/"):
        if _WILDCARDS & set(component):
            break
        components.append(component)
    return b"/".join(components) or b"/"
