"""What of a command line may be written into an event: no passwords, no tokens, bounded. Pure.

Masks where a secret usually stands: behind a name that says so (``--password=x``, ``--token x``,
``PGPASSWORD=x``, ``Authorization: x``), in a URL, behind the short options of some well-known
programs. It is a help and no promise: a secret under an innocent name cannot be told from a word.
"""

import re
from typing import Final

from needfire_protocol.escape import escape_bytes

__all__ = ["COMMAND_CHARACTERS_MAX", "MASK", "command_text"]

COMMAND_CHARACTERS_MAX: Final = 512
MASK: Final = "***"

_CUT: Final = "..."
_BYTES_MAX: Final = 4_096

_WORDS: Final = (
    r"pass(?:w(?:or)?d|phrase|code)?|pwd|secret|token|bearer|credentials?|authorization|"
    r"api[-_]?key|access[-_]?key|private[-_]?key|secret[-_]?key|auth[-_]?key|session[-_]?key|"
    r"cookie"
)
_ASSIGNED: Final = re.compile(
    rf"((?:{_WORDS})(?:[-_.]?[A-Za-z0-9]{{0,16}})?[\"']?\s?[=:]).+", re.IGNORECASE | re.DOTALL
)
"""A name with a secret's word in it, and a value: the rest of the argument goes."""

_OPTION: Final = re.compile(
    rf"--?[A-Za-z0-9._-]*?(?:{_WORDS})(?:[-_][a-z0-9]{{0,16}})?", re.IGNORECASE
)
"""The same as an option of its own: the next argument goes."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/?#\s]*@")

_SHORT_OPTIONS: Final = {
    "mysql": "-p",
    "mysqldump": "-p",
    "mysqladmin": "-p",
    "mariadb": "-p",
    "mariadb-dump": "-p",
    "sshpass": "-p",
    "curl": "-u",
    "wget": "-u",
    "ldapsearch": "-w",
    "ldapmodify": "-w",
    "redis-cli": "-a",
    "smbclient": "-U",
}


def command_text(command: bytes) -> str:
    """Return the command line as an event shows it.

    Args:
        command: arguments with NUL behind each, as /proc/PID/cmdline has them.
    """
    arguments = command[:_BYTES_MAX].rstrip(b"\0").split(b"\0")
    words = [escape_bytes(each) for each in arguments]
    short = _SHORT_OPTIONS.get(words[0].rpartition("/")[2])
    shown = []
    is_next_secret = False
    for word in words:
        if is_next_secret:
            shown.append(MASK)
            is_next_secret = False
            continue
        is_next_secret = _OPTION.fullmatch(word) is not None or word == short
        if short is not None and word.startswith(short) and word != short:
            shown.append(short + MASK)
        else:
            shown.append(_masked(word))
    return _bounded(" ".join(shown), is_cut=len(command) > _BYTES_MAX)


def _masked(word: str) -> str:
    word = _URL.sub(rf"\g<1>{MASK}@", word)
    return _ASSIGNED.sub(rf"\g<1>{MASK}", word)


def _bounded(text: str, *, is_cut: bool) -> str:
    if len(text) <= COMMAND_CHARACTERS_MAX and not is_cut:
        return text
    return text[: COMMAND_CHARACTERS_MAX - len(_CUT)] + _CUT
