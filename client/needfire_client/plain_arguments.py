"""What a plain command line asks for: a verb and whole words, as scripts and timers write them.

argparse takes as long to load, and to be told of all options, as a thousand files take to be
checked. What is understood here means the same to it (a test compares the two); all else, and
everything that is wrong, is left to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from needfire_client.options import Options

__all__ = ["plainly"]

_VERBS: Final = frozenset({"check", "init", "update"})
_VALUES: Final[Mapping[str, tuple[str, type]]] = MappingProxyType(
    {
        "--rc": ("rc", str),
        "--state-dir": ("state_dir", Path),
        "--baseline": ("baseline", str),
        "--name": ("name", str),
    }
)
_SWITCHES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"quick": frozenset({"check"}), "resume": frozenset({"check"})}
)
"""Options without a value, and the verbs that take them."""


def plainly(arguments: Sequence[str]) -> Options | None:
    """Return what a command line asks for; None where argparse has to say."""
    if not arguments or arguments[0] not in _VERBS:
        return None
    verb, given = arguments[0], dict[str, Any]()
    words = iter(arguments[1:])
    for word in words:
        switch = word.removeprefix("--")
        if word in _VALUES:
            value = next(words, "")
            # Nothing, or perhaps another option, in its place.
            if not value or value.startswith("-"):
                return None
            name, kind = _VALUES[word]
            given[name] = kind(value)
        elif word.startswith("--") and verb in _SWITCHES.get(switch, ()):
            given[switch] = True
        elif word == "--json":
            given.update(as_json=True, log_format="json")
        else:
            return None
    return Options(verb=verb, **given)
