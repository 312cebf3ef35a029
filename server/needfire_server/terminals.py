"""How everybody who is logged in on this host is told something: on their terminals, as wall(1) does.

Who is logged in stands in utmp(5). What it says is believed only as far as a name of a terminal, and
what is opened must be one. Who has said ``mesg n`` is root's to disturb only; nobody is waited for.
"""

import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from needfire_protocol.escape import printable

__all__ = ["logged_in_lines", "tell_terminals"]

_UTMP: Final = "/run/utmp"
_UTMP_BYTES_MAX: Final = 4 * 1024 * 1024
_USER_PROCESS: Final = 7
_TYPES: Final = range(10)
_RECORD_BYTES: Final = (384, 400)
"""glibc, bits/utmp.h: with times of 32 bits, as on x86-64, and of 64 bits, as on AArch64."""
_HEAD: Final = struct.Struct("hxxi32s")
"""Type, process and line; the same everywhere."""
_LINE: Final = re.compile(rb"(pts/[0-9]{1,7}|tty[A-Za-z0-9]{1,10}|console|hvc[0-9]{1,3})\Z")
_TEXT_MAX: Final = 1_000
_FLAGS: Final = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def tell_terminals(text: str, *, utmp: str = _UTMP, devices: str = "/dev") -> int:
    """Write a line on every terminal where somebody is logged in; return how many it reached."""
    message = (
        f"\r\n\aneedfire-server on {printable(socket.gethostname(), 64)}: "
        f"{printable(text, _TEXT_MAX)}\r\n"
    )
    lines = logged_in_lines(_read(utmp))
    return sum(_write(os.path.join(devices, line), message.encode()) for line in sorted(set(lines)))


def logged_in_lines(data: bytes) -> Iterator[str]:
    """Yield the terminals of those who are logged in, as a file of utmp(5) has them."""
    for size in _RECORD_BYTES:
        if len(data) % size:
            continue
        heads = [_HEAD.unpack_from(data, at) for at in range(0, len(data), size)]
        if all(kind in _TYPES for kind, _, _ in heads):
            for kind, _, line in heads:
                name = line.partition(b"\0")[0]
                if kind == _USER_PROCESS and _LINE.match(name):
                    yield name.decode("ascii")
            return


def _read(path: str) -> bytes:
    """Return what the file holds; nothing where there is none, as in most containers."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(_UTMP_BYTES_MAX)
    return b""


def _write(path: str, message: bytes) -> bool:
    with suppress(OSError):
        terminal = os.open(path, _FLAGS)
        try:
            if stat.S_ISCHR(os.fstat(terminal).st_mode) and os.isatty(terminal):
                return os.write(terminal, message) == len(message)
        finally:
            os.close(terminal)
    return False
