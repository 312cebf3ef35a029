"""What of a command line may be written into an event: no passwords, no tokens, bounded. Pure.

Masks where a secret usually stands: behind a name that says so (``--password=x``, ``--token x``,
``PGPASSWORD=x``, ``Authorization: x``), in a URL or before an @, behind the short options of some
well-known programs or as the last of their words, what a line for a shell gives to one that asks for
a password, and what looks like the tokens of some well-known services. The same in such a line.
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
    r"cookie|x-auth|(?<![a-z])pw"
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

_SAID: Final = re.compile(
    r"(?:\w+[._-])?(?:password|passphrase|secret[-_](?:access[-_])?key|(?:access|auth)[-_]token)",
    re.IGNORECASE,
)
"""Words of their own behind which a secret stands, as nmcli and ``aws configure set`` have it."""

_SHAPED: Final = re.compile(
    r"\b(?:eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|gh[opsur]_\w{16,}[\w+/=]*|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|[sr]k_live_\w{10,})"
)
"""Tokens that can be told by their form: JSON web tokens, GitHub, GitLab, Slack, Stripe."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/?#\s]*@")

_LOGIN: Final = re.compile(r"((?<![\w./:+%-])[\w.+%-]+:)[^\s@/]{1,256}(?=@(?!sha\d)[\w\[])")
"""``user:password@host`` without a scheme. An image of containers may have a digest behind the @.
Bounded, as whoever runs a program chooses its arguments: nothing here may take quadratic time."""

_SAYS: Final = re.compile(rf"\b(?:echo|printf){_BLANK}")
_READS: Final = re.compile(r"\b(?:chpasswd|smbpasswd|cryptsetup|stdin)\b|\bsudo\b")
"""In a line for a shell: what is said on one side of ``|``, and who takes it for a password."""

_OPTIONS: Final = {
    **dict.fromkeys(
        (
            *("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlshow"),
            *("mysqlpump", "mysqlbinlog", "mysqlslap", "mysqlsh"),
            *("mariadb", "mariadb-dump", "mariadb-admin", "mariadb-import", "mariadb-check"),
            *("mariadb-show", "mariadb-binlog", "mariadb-slap"),
        ),
        ("p", ""),
    ),
    "mongo": ("p", ""),
    "mongosh": ("p", ""),
    "mongodump": ("p", ""),
    "sqlcmd": ("P", ""),
    "sshpass": ("p", ""),
    "ssh-keygen": ("NP", ""),
    "openssl": ("", r"-(?:[kK]|hmac|psk|macopt)"),
    "curl": ("uUbE", r"--(?:(?:proxy-)?(?:user|cert))"),
    "wget": ("u", ""),
    "lftp": ("u", ""),
    **dict.fromkeys(("docker", "podman", "nerdctl", "buildah", "helm", "oras", "crane"), ("p", "")),
    "skopeo": ("p", r"--(?:src-|dest-)?creds"),
    "kubectl": ("", r"--from-literal"),
    "az": ("p", ""),
    **dict.fromkeys(
        (
            *("ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapmodrdn", "ldapcompare"),
            *("ldapexop", "ldapwhoami"),
        ),
        ("wy", ""),
    ),
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
    "7zz": ("p", ""),
    "rar": ("p", ""),
    "unrar": ("p", ""),
    "pdftk": ("", r"(?:user|owner|input)_pw"),
    "ipmitool": ("P", ""),
    **dict.fromkeys(
        ("snmpget", "snmpset", "snmpwalk", "snmpbulkwalk", "snmpbulkget", "snmptrap"), ("AXc", "")
    ),
    **dict.fromkeys(("ncftp", "ncftpget", "ncftpput"), ("p", "")),
    "iwconfig": ("", r"key"),
}
"""Letters of options, and long options, of well-known programs behind which a secret stands."""

_BARE: Final = {
    **dict.fromkeys(("htpasswd", "htdbm"), (r"-\w*b\w*", 1)),
    "chpasswd": ("", 0),
    "mkpasswd": ("", 0),
    "wpa_passphrase": ("", 1),
    "sqlplus": ("", 0),
    "openssl": (r"passwd", 0),
    "vault": (r"login|put|write|patch", 0),
    "rabbitmqctl": (r"add_user|change_password|authenticate_user", 1),
    "qpdf": (r"--encrypt", 0),
    "smbclient": (r"//.*", 0),
}
"""Programs that take secrets without any option, behind a word such as this one (without one: behind
their own name), and so many other words. What comes then goes up to the end of the command."""

_ENDS: Final = (";", "|", "&")
"""Of a command in a line for a shell."""


def command_text(command: bytes) -> str:
    """Return the command line as an event shows it.

    Args:
        command: arguments with NUL behind each, as /proc/PID/cmdline has them.
    """
    arguments = command[:_BYTES_MAX].rstrip(b"\0").split(b"\0")
    secrets: re.Pattern[str] | None = None
    bare = _Bare()
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
            elif bare.is_secret(part):
                parts.append(MASK)
            else:
                parts.append(part)
                is_next_secret = is_next_secret or found is not None
        is_said = _SAID.fullmatch(word) is not None and word not in _BARE
        is_named = is_said or _OPTION.fullmatch(word) is not None
        is_next_secret = is_next_secret or is_named
        shown.append(_masked("".join(parts)))
    return _bounded(" ".join(shown), is_cut=len(command) > _BYTES_MAX)


class _Bare:
    """Whether words are secrets that stand without an option; told of each word in its order."""

    __slots__ = ("_begins", "_first", "_left")

    def __init__(self) -> None:
        self._begins: str | None = None
        """What the word is like behind which they stand; None: no program that takes any."""
        self._first = 0
        self._left: int | None = None
        """Other words that come before them; None: they are not due yet."""

    def is_secret(self, word: str) -> bool:
        if not word.strip():
            return False
        program = word.rpartition("/")[2]
        if program in _BARE and self._left is None:
            self._begins, self._first = _BARE[program]
            self._left = None if self._begins else self._first
            return False
        is_last, is_found = word.endswith(_ENDS), self._counts(word)
        if is_last:
            self._begins = self._left = None
        return is_found

    def _counts(self, word: str) -> bool:
        if self._left is None:
            if self._begins and re.fullmatch(self._begins, word):
                self._left = self._first
            return False
        if word.startswith("-") or word in _ENDS:
            return False
        self._left -= 1
        return self._left < 0


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
    word = _LOGIN.sub(rf"\g<1>{MASK}", _URL.sub(rf"\g<1>{MASK}@", word))
    word = _without_piped(word)
    word = _SHAPED.sub(MASK, _SPOKEN.sub(rf"\g<1> {MASK}", word))
    return _ASSIGNED.sub(rf"\g<1>{MASK}", word)


def _without_piped(line: str) -> str:
    """Return a line for a shell without what it gives to a program that reads a password."""
    said = _SAYS.search(line)
    readers = list(_READS.finditer(line)) if said is not None else []
    end = line.rfind("|", 0, readers[-1].start()) if readers else -1
    if said is None or end < said.end():
        return line
    return f"{line[: said.end()]}{MASK} {line[end:]}"


def _bounded(text: str, *, is_cut: bool) -> str:
    if len(text) <= COMMAND_CHARACTERS_MAX and not is_cut:
        return text
    return text[: COMMAND_CHARACTERS_MAX - len(_CUT)] + _CUT
