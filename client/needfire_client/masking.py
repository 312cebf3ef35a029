"""What of a command line may be written into an event: no passwords, no tokens, bounded. Pure.

Masks where a secret usually stands: behind a name that says so (``--password=x``, ``--token x``,
``PGPASSWORD=x``, ``Authorization: x``), in a URL, behind the short options of some well-known
programs, and what looks like the tokens of some well-known services. The same in a line for a shell.
It is a help and no promise: a secret under an innocent name cannot be told from a word.
"""

import re
from functools import lru_cache
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

_BLANK: Final = r"(?:\s|\\x0[9a-d])"
"""The end of a line is escaped by now."""
_SPACE: Final = re.compile(rf"({_BLANK}+)")

_SPOKEN: Final = re.compile(rf"((?:^|[;|&(]|{_BLANK}){_OPTION.pattern}){_BLANK}+.+", re.IGNORECASE)
"""The same in a line for a shell: the rest goes, as nobody can say where a quoted word ends."""

_SAID: Final = frozenset({"password", "passphrase"})
"""Words of their own behind which a secret stands, as nmcli has it."""

_SHAPED: Final = re.compile(
    r"\b(?:eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|gh[opsur]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|[sr]k_live_\w{10,})"
)
"""Tokens that can be told by their form: JSON web tokens, GitHub, GitLab, Slack, Stripe."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/?#\s]*@")

_OPTIONS: Final = {
    "mysql": ("p", ""),
    "mysqldump": ("p", ""),
    "mysqladmin": ("p", ""),
    "mariadb": ("p", ""),
    "mariadb-dump": ("p", ""),
    "mongo": ("p", ""),
    "mongosh": ("p", ""),
    "mongodump": ("p", ""),
    "sqlcmd": ("P", ""),
    "sshpass": ("p", ""),
    "ssh-keygen": ("NP", ""),
    "openssl": ("", r"-[kK]"),
    "curl": ("uUb", r"--(?:proxy-)?user"),
    "wget": ("u", ""),
    "docker": ("p", ""),
    "podman": ("p", ""),
    "ldapsearch": ("wy", ""),
    "ldapmodify": ("wy", ""),
    "ldapadd": ("wy", ""),
    "ldapdelete": ("wy", ""),
    "ldappasswd": ("wyas", ""),
    "redis-cli": ("a", ""),
    "smbclient": ("U", r"--user"),
    "rpcclient": ("U", r"--user"),
    "net": ("U", r"--user"),
    "useradd": ("p", ""),
    "usermod": ("p", ""),
    "zip": ("P", ""),
    "unzip": ("P", ""),
    "7z": ("p", ""),
    "7za": ("p", ""),
}
"""Letters of options, and long options, of well-known programs behind which a secret stands."""


def command_text(command: bytes) -> str:
    """Return the command line as an event shows it.

    Args:
        command: arguments with NUL behind each, as /proc/PID/cmdline has them.
    """
    arguments = command[:_BYTES_MAX].rstrip(b"\0").split(b"\0")
    secrets: re.Pattern[str] | None = None
    shown = []
    is_next_secret = False
    for word in map(escape_bytes, arguments):
        if is_next_secret:
            shown.append(MASK)
            is_next_secret = False
            continue
        # The program may be behind another one (sudo), or in a line for a shell.
        parts = []
        for part in _SPACE.split(word):
            secrets = _secrets(part) or secrets
            found = secrets.fullmatch(part) if secrets is not None else None
            if is_next_secret and part.strip():
                parts.append(MASK)
                is_next_secret = False
            elif found is not None and found[2]:
                parts.append(found[1] + MASK)
            else:
                parts.append(part)
                is_next_secret = is_next_secret or found is not None
        is_named = word in _SAID or _OPTION.fullmatch(word) is not None
        is_next_secret = is_next_secret or is_named
        shown.append(_masked("".join(parts)))
    return _bounded(" ".join(shown), is_cut=len(command) > _BYTES_MAX)


@lru_cache(maxsize=64)
def _pattern(program: str) -> re.Pattern[str]:
    letters, long = _OPTIONS[program]
    # Of a cluster of letters the first of these takes the rest, or else the next argument.
    forms = [rf"-(?:(?![{letters}])[A-Za-z0-9#])*[{letters}]"] if letters else []
    forms += [f"{long}(?:=|$)"] if long else []
    return re.compile(f"({'|'.join(forms)})(.*)", re.DOTALL)


def _secrets(word: str) -> re.Pattern[str] | None:
    """Return what to look for behind a word that names a program; None where it names none."""
    program = word.rpartition("/")[2]
    return _pattern(program) if program in _OPTIONS else None


def _masked(word: str) -> str:
    word = _URL.sub(rf"\g<1>{MASK}@", word)
    word = _SHAPED.sub(MASK, _SPOKEN.sub(rf"\g<1> {MASK}", word))
    return _ASSIGNED.sub(rf"\g<1>{MASK}", word)


def _bounded(text: str, *, is_cut: bool) -> str:
    if len(text) <= COMMAND_CHARACTERS_MAX and not is_cut:
        return text
    return text[: COMMAND_CHARACTERS_MAX - len(_CUT)] + _CUT
