"""What is mounted where, and which of it a rule can concern.

Pure, but for ``read_mounts``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from needfire_client.policy import Ruleset
from needfire_protocol.escape import escape_bytes
from needfire_protocol.plain_classes import dataclass

__all__ = [
    "MOUNTINFO",
    "NETWORK_KINDS",
    "VIRTUAL_KINDS",
    "Mount",
    "concerned",
    "is_below",
    "is_by_anybody",
    "is_network",
    "may_hang",
    "parse_mountinfo",
    "read_mounts",
]

MOUNTINFO: Final = Path("/proc/self/mountinfo")

MOUNTS_MAX: Final = 20_000
"""Mounts that are looked at; a host full of containers has some thousands."""

NETWORK_KINDS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "gfs2",
        "ocfs2",
        "beegfs",
        "orangefs",
        "coda",
        "virtiofs",
        "fuse",
        "fuseblk",
        "vboxsf",
        "prl_fs",
    }
)
"""Others write there, or a process answers for it: the kernel does not tell of every change, and
a look may hang. ``fuse.*`` counts as well."""

VIRTUAL_KINDS: Final = frozenset(
    {
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devpts",
        "debugfs",
        "tracefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "bpf",
        "pstore",
        "configfs",
        "fusectl",
        "mqueue",
        "hugetlbfs",
        "efivarfs",
        "binfmt_misc",
        "rpc_pipefs",
        "nsfs",
        "autofs",
    }
)
"""Made up by the kernel as it is read: nobody tells of changes, and there is nothing to guard."""

_KIND_BYTES_MAX: Final = 64

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    mount_id: int
    device: bytes
    """``major:minor``."""
    root: bytes
    """The directory of the file system that is seen at ``point``."""
    point: bytes
    kind: str
    """Type of the file system, printable: who mounts by FUSE chooses what stands behind ``fuse.``."""


def parse_mountinfo(data: bytes) -> tuple[Mount, ...]:
    """Return the mounts in the kernel's order; lines that are none are left out."""
    mounts = []
    # Not splitlines(): the kernel leaves a carriage return in the name of a mount point as it is.
    for line in data.split(b"\n")[:MOUNTS_MAX]:
        words = line.split(b" ")
        try:
            kind = escape_bytes(words[words.index(b"-", 6) + 1][:_KIND_BYTES_MAX])
            number = int(words[0])
        except (ValueError, IndexError):
            continue
        root, point = _plain(words[3]), _plain(words[4])
        if point.startswith(b"/"):
            mounts.append(Mount(number, words[2], root, point, kind))
    return tuple(mounts)


def read_mounts() -> tuple[Mount, ...]:
    """Return what is mounted in this process's view; nothing where /proc does not say it."""
    try:
        return parse_mountinfo(MOUNTINFO.read_bytes())
    except OSError:
        return ()


def is_network(mount: Mount) -> bool:
    """True where changes may be made that this kernel does not see."""
    return mount.kind in NETWORK_KINDS or mount.kind.startswith("fuse.")


def is_by_anybody(mount: Mount) -> bool:
    """True where an account without privileges may have mounted it, and a process answers for it."""
    return mount.kind == "fuse" or mount.kind.startswith("fuse.")


def may_hang(mount: Mount) -> bool:
    """True where the system may be waiting for others before it answers."""
    return is_network(mount) or mount.kind == "autofs"


def is_below(path: bytes, directory: bytes) -> bool:
    """True where the path is the directory or something in it."""
    return directory == b"/" or path == directory or path.startswith(directory + b"/")


def concerned(mounts: Iterable[Mount], ruleset: Ruleset) -> tuple[Mount, ...]:
    """Return the mounts in which something is, or may come to be, that a rule covers."""
    return tuple(mount for mount in mounts if _concerns(ruleset, mount.point))


def _concerns(ruleset: Ruleset, point: bytes) -> bool:
    decision, place = ruleset.locate(point)
    return decision is not None or place.is_open


def _plain(word: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), word)
