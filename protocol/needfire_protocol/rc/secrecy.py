"""What of a line of a configuration may be shown: no password, no verifier. Pure.

Our own directives keep secrets in files of their own, but a samhainrc that is used as it is may
hold SetDBPassword and its like, a comment the password of yesterday, a URL a user's or the token
of a web hook, and a line of ``[Clients]`` a verifier, with which passwords can be guessed. Masked
is what stands behind a name or an option that says so, behind the host of a web address, what has
the form of a verifier, and the arguments of a program that records go to; a secret under an
innocent name cannot be told from a word.
"""

import re
from typing import Final

__all__ = ["MASK", "masked_line"]

MASK: Final = b"***"

_WORDS: Final = (
    rb"pass(?:w(?:or)?[dt]|phrase|code)?|kennwort|pwd|secret|token|bearer|credentials?|authorization|"
    rb"api[-_]?key|access[-_]?key|private[-_]?key|auth[-_]?key|signing[-_]?key|cookie|psk"
)
_ASSIGNED: Final = re.compile(
    rb"(?:(?:" + _WORDS + rb")[-_.A-Za-z0-9]{0,32}|(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,32}[-_.])?"
    rb"(?:key|pin|otp|salt|verifier))[\"']?\s{0,16}[=:]\s{0,16}(?=\S)",
    re.IGNORECASE,
)
"""A name with a secret's word in it, or that is one, up to its value."""
_OPTION: Final = re.compile(
    rb"(?<!\S)--?[A-Za-z0-9._-]{0,32}?(?:" + _WORDS + rb")[-_A-Za-z0-9]{0,32}\s{1,16}(?=\S)",
    re.IGNORECASE,
)
_SHORT_OPTION: Final = re.compile(
    rb"(?<!\S)-p\s{1,16}(?=\S)"  # of many a program
    rb"|\b(?:mysql|mysqldump|mysqladmin|mariadb|sshpass)\b[^|;]{0,500}?\s-p(?=\S)"
    rb"|(?<!\S)(?:-[uU]|--user|--proxy-user)[\s=]{0,16}(?=[^\s:=-][^\s:]{0,255}:\S)"  # curl
)
_SAID: Final = re.compile(
    rb"(?<![A-Za-z0-9./-])(?:" + _WORDS + rb"|pin)\s{1,16}"
    rb"(?:(?:is|was|ist|war)\s{1,16}(?=\S)|(?=\S{1,512}\s{0,16}$)|(?=[A-Za-z]{0,255}[^A-Za-z\s.,;:!?()=]))",
    re.IGNORECASE,
)
"""A secret's word and then what is no word of a sentence: the last one, or one with more than letters."""
_BASIC: Final = re.compile(rb"\bBasic\s{1,16}(?=[A-Za-z]{0,255}[0-9=+/])(?=\S{6})")
_OUTPUT_COMMAND: Final = re.compile(
    rb"outputtarget\s{0,16}=\s{0,16}command\s{1,16}(?:\"[^\"]{0,512}\"|'[^']{0,512}'|\S{1,512})\s{1,16}(?=\S)",
    re.IGNORECASE,
)
_URL: Final = re.compile(rb"(//)[^\s\"'<>]{1,1024}@")
"""Up to the last at sign: a password may hold a slash that should have been escaped."""
_WEB_PATH: Final = re.compile(
    rb"((?:https?|wss?)://(?:\*\*\*@)?[^/?#\s@]*[/?#])[^\s\"'@]*(@?)[^\s\"']*", re.IGNORECASE
)
"""Behind the host: whoever knows the whole address of a web hook may post to it. With an at sign there,
what looks like the host may be the beginning of a password."""
_VERIFIER: Final = re.compile(rb"(\bclient\s{0,16}=\s{0,16}[^@\s]{1,255}@)\S.*", re.IGNORECASE)
_BARE_VERIFIER: Final = re.compile(
    rb"((?<![^\s=\"'])[^@\s=\"']{1,255}@)[0-9A-Za-z+/=]{4,2048}@\S.*"
)
"""NAME@SALT@VERIFIER, as registration prints it, where the directive before it is missing."""
_TO_THE_END: Final = (_ASSIGNED, _OPTION, _SHORT_OPTION, _SAID, _BASIC, _OUTPUT_COMMAND)


def masked_line(line: bytes) -> bytes:
    """Return a line of a configuration, or of a comment in it, without what must stay secret."""
    for pattern in (_VERIFIER, _BARE_VERIFIER):
        line = pattern.sub(rb"\1" + MASK, line)
    # Web addresses twice. Before a user is masked: what stands before an at sign in a path would
    # pass for one, and what stands behind it for a host. And after it: of an address with a user
    # the path is known only then, https://USER@HOST/TOKEN.
    line = _URL.sub(rb"\1" + MASK + b"@", _WEB_PATH.sub(_web_address, line))
    line = _WEB_PATH.sub(_web_address, line)
    starts = [
        found.end()
        for pattern in _TO_THE_END
        for found in pattern.finditer(line)
        if not _names_a_file(found)
    ]
    return line[: min(starts)] + MASK if starts else line


def _web_address(found: re.Match[bytes]) -> bytes:
    if found[2]:
        return found[1].partition(b"//")[0] + b"//" + MASK
    return found[1] + MASK if len(found[0]) > len(found[1]) else found[0]


def _names_a_file(found: re.Match[bytes]) -> bool:
    """StorePasswordFile and its like say where a secret is, not which."""
    return found[0].rstrip(b" \t=:\"'").lower().endswith(b"file")
