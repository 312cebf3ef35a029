"""Samhain databases: made byte by byte, and made by the real program.

The program reads no other configuration than /etc/samhain/samhainrc. So it runs in a mount
namespace of its own, with an /etc in memory that holds that file and the few that the C library
needs: the machine's own /etc is not touched, whatever happens.
"""

import os
import shutil
import struct
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "database",
    "record",
    "run_samhain",
    "samhain_command",
    "samhain_program",
    "samhain_rc",
    "sha256_text",
    "why_not",
]

_STRUCTURE = struct.Struct("<IIQQIIQqqqIII16sH22s22s11s49s2x")
_NO_DIGEST = b"0" * 48
_PRIVATE_ETC = """
set -eu
kept=$(mktemp -d)
for file in passwd group nsswitch.conf ld.so.cache hosts; do
    if [ -e /etc/$file ]; then cp /etc/$file "$kept/"; fi
done
mount -t tmpfs -o mode=755 none /etc
cp "$kept"/* /etc/
rm -r "$kept"
mkdir /etc/samhain
cp "$1" /etc/samhain/samhainrc
shift
exec "$@"
"""


def record(
    path: bytes,
    *,
    mark: int = 22,
    mode: int = 0o100644,
    device: int = 65_024,
    rdev: int = 0,
    nlink: int = 1,
    inode: int = 7,
    size: int = 6,
    times_s: tuple[int, int, int] = (1, 2, 3),
    uid: int = 0,
    gid: int = 0,
    flags: int = 0,
    digest: bytes = _NO_DIGEST,
    text: bytes = b"-",
    attributes: bytes | None = None,
) -> bytes:
    """Return one record; ``times_s`` are access, modification and change."""
    written = mark if attributes is None else mark | 0x100
    names = (b"root", b"root", b"-rw-r--r--")
    values = (mode, 0, device, rdev, nlink, inode & 0xFFFFFFFF, size, *times_s, uid, gid, flags)
    packed = _STRUCTURE.pack(*values, b"-" * 12, written, *names, digest)
    tail = b"\x7f\x0f\0\xd1\0\0\0\0" if mark == 22 else b""
    lines = [path, text] if attributes is None else [path, text, attributes]
    return packed + tail + b"".join(_quoted(line) + b"\n" for line in lines)


def database(*records: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a whole database."""
    return before + b"\n[SOF]\n" + b"".join(records) + after


def sha256_text(digest: bytes) -> bytes:
    """Return a SHA-256 digest as Samhain writes it."""
    return b64encode(digest).translate(bytes.maketrans(b"+/=", b"()?"))


def _quoted(line: bytes) -> bytes:
    return line.replace(b"=", b"=3D").replace(b"\n", b"=0A")


# ---- the real program ----------------------------------------------------------------------------


def samhain_program() -> Path:
    """Return where the program of Debian's package is; scripts/test unpacks it."""
    return Path(os.environ.get("NEEDFIRE_SAMHAIN", "/usr/sbin/samhain"))


def why_not() -> str | None:
    """Return why the program cannot run here; None if it can."""
    program = samhain_program()
    if os.geteuid() != 0:
        return "needs root: mount namespaces"
    if not program.is_file():
        return "no samhain: unpack Debian's package samhain, set NEEDFIRE_SAMHAIN"
    if b"not found" in subprocess.run(["ldd", program], capture_output=True, check=True).stdout:
        return "samhain needs the packages libpcre3 libauparse0 libprelude28"
    if shutil.which("unshare") is None:
        return "needs unshare(1)"
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "mount namespaces are not allowed here"
    return None


def samhain_rc(work: Path, rules: str, *, digest: str, misc: str = "") -> Path:
    """Write a configuration whose files all lie in ``work``, every module but files off."""
    path = work / "samhainrc"
    path.write_text(
        f"""
[Misc]
{misc}
DigestAlgo = {digest}
Daemon = no
SetDatabasePath = {work}/samhain_file
SetLogfilePath = {work}/log
SetLockfilePath = {work}/pid
{rules}
[SuidCheck]
SuidCheckActive = no
[PortCheck]
PortCheckActive = no
[ProcessCheck]
ProcessCheckActive = no
[Utmp]
LoginCheckActive = no
[Log]
PrintSeverity = err
MailSeverity = none
"""
    )
    return path


def samhain_command(rc: Path, action: str, *, program: Sequence[str] = ()) -> list[str]:
    """Return what runs ``samhain -t ACTION`` with this configuration."""
    command = [*program, str(samhain_program()), "-t", action, "--foreground"]
    return ["unshare", "-m", "sh", "-c", _PRIVATE_ETC, "sh", str(rc), *command]


def run_samhain(rc: Path, action: str, *, program: Sequence[str] = ()) -> str:
    """Run ``samhain -t ACTION`` with this configuration; return what it printed."""
    done = subprocess.run(
        samhain_command(rc, action, program=program),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
