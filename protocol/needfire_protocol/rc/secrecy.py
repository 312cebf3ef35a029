"""What of a line of a configuration may be shown: no password, no verifier. Pure.

Our own directives keep secrets in files of their own, but a samhainrc that is used as it is may
hold SetDBPassword and its like, a comment the password of yesterday, a URL a user's or the token
of a web hook, and a line of ``[Clients]`` a verifier, with which passwords can be guessed. Masked
is what stands behind a name that says so, and behind the host of a web address; a secret under an
innocent name cannot be told from a word.
"""

import re
from typing import Final

__all__ = ["MASK", "masked_line"]

MASK: Final = b"***"

_WORDS: Final = (
    rb"pass(?:w(?:or)?d|phrase|code)?|pwd|secret|token|bearer|credentials?|authorization|"
    rb"api[-_]?key|access[-_]?key|private[-_]?key|auth[-_]?key|signing[-_]?key|cookie"
)
_ASSIGNED: Final = re.compile(
    rb"(?:" + _WORDS + rb")([-_.A-Za-z0-9]{0,32})[\"']?\s{0,16}[=:]\s{0,16}(?=\S)", re.IGNORECASE
)
"""A name with a secret's word in it, up to its value."""
_OPTION: Final = re.compile(
    rb"(?<!\S)--?[A-Za-z0-9._-]{0,32}?(?:" + _WORDS + rb")[-_A-Za-z0-9]{0,32}\s{1,16}(?=\S)",
    re.IGNORECASE,
)
_URL: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/?#\s]*@")
_WEB_PATH: Final = re.compile(rb"(https?://[^/?#\s]*[/?#])[^\s\"']+", re.IGNORECASE)
"""Behind the host: whoever knows the whole address of a web hook may post to it."""
_VERIFIER: Final = re.compile(rb"(\bclient\s{0,16}=\s{0,16}[^@\s]{1,255}@)\S.*", re.IGNORECASE)


def masked_line(line: bytes) -> bytes:
    """Return a line of a configuration, or of a comment in it, without what must stay secret."""
    line = _VERIFIER.sub(rb"\1" + MASK, line)
    line = _URL.sub(rb"\1" + MASK + b"@", line)
    line = _WEB_PATH.sub(rb"\1" + MASK, line)
    starts = [found.end() for found in _ASSIGNED.finditer(line) if not _names_a_file(found)] + [
        found.end() for found in _OPTION.finditer(line) if not _names_a_file(found)
    ]
    return line[: min(starts)] + MASK if starts else line


def _names_a_file(found: re.Match[bytes]) -> bool:
    """StorePasswordFile and its like say where a secret is, not which."""
    return found[0].rstrip(b" \t=:\"'").lower().endswith(b"file")
