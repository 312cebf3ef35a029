"""What does an inode say beyond stat: birth, flags, project, ACLs, labels, extended attributes.

All of it comes from a descriptor that is open already, or, for what must not be opened (links,
FIFOs, devices) or cannot be, by name through ``/proc/self/fd``. Whatever a file system does not
have, or does not tell, is "not known": never an error, and never the same as "none".

The owner of a file decides how many extended attributes it has, how they are called and how large
they are. So names and values are read up to a limit and kept up to a smaller one; what does not
fit becomes part of one digest, and those that decide about rights are read first, so that nobody
can crowd them out.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from needfire_protocol.baseline import INLINE_BYTES_MAX, XATTRS_MAX, FileEntry, Looked, Xattr

__all__ = [
    "AT_EMPTY_PATH",
    "STABLE_FLAGS",
    "STATX_WANTED",
    "Inode",
    "Inspector",
    "Times",
    "group_of",
    "statx_buffer",
]

# ---- what is known -------------------------------------------------------------------------------


class Inode(NamedTuple):
    """The last attributes of a ``FileEntry``, by the same names."""

    birth_ns: int | None = None
    flags: int | None = None
    project: int | None = None
    looked: int = 0
    xattrs: tuple[Xattr, ...] = ()

    def into(self, entry: FileEntry) -> FileEntry:
        """Return the entry with these attributes."""
        return FileEntry._make(entry[:_SAID_BY_STAT] + self)


_SAID_BY_STAT: Final = FileEntry._fields.index(Inode._fields[0])


class Times(NamedTuple):
    """What tells whether a file changed, and what only statx knows."""

    size: int
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    birth_ns: int | None


STABLE_FLAGS: Final = (
    0x00000001  # s  secure deletion
    | 0x00000002  # u  undeletable
    | 0x00000004  # c  compressed
    | 0x00000008  # S  synchronous
    | 0x00000010  # i  immutable
    | 0x00000020  # a  append only
    | 0x00000040  # d  no dump
    | 0x00000080  # A  no access times
    | 0x00000800  # E  encrypted
    | 0x00004000  # j  data journalling
    | 0x00008000  # t  no tail merging
    | 0x00010000  # D  synchronous directory
    | 0x00020000  # T  top of directory hierarchy
    | 0x00100000  # V  verity
    | 0x00800000  # C  no copy on write
    | 0x02000000  # x  direct access
    | 0x20000000  # P  project is inherited
    | 0x40000000  # F  names without case
)
"""Flags that only somebody's hand sets (linux/fs.h). The others move by themselves: a directory
that grows gets an index, a small file moves into its inode, data that does not shrink stays
uncompressed."""

_IGNORED: Final = (
    "trusted.overlay.",  # bookkeeping of overlayfs: counters, origins, opaque marks
    "trusted.glusterfs.",
    "trusted.afr.",
    "trusted.SGI_ACL_",  # XFS shows its ACLs twice
    "ceph.",  # sizes and counts of a whole tree, made up at the moment
    "lustre.",
)
_ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_LABEL: Final = "security.selinux"
_FIRST: Final = (*_ACLS, _LABEL, "security.capability", "security.ima", "security.evm")
"""Read before all others, and even where the list of names is too long to be read."""

_READS_MAX: Final = 256
_READ_BYTES_MAX: Final = 1024 * 1024
"""Values that are read of one object, and their bytes; of others only the names count."""
_KEPT_BYTES_MAX: Final = 1024
"""Bytes of names and values that are kept of one object. All of _FIRST but IMA's always fit."""

_NONE_ERRORS: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})
"""The file system has no extended attributes at all: that is known, and is none."""
_TOO_LONG_ERRORS: Final = frozenset({errno.E2BIG, errno.ERANGE})


def group_of(name: bytes) -> Looked:
    """Return which directive decides about an extended attribute."""
    if name.startswith(b"system.") and b"acl" in name:
        return Looked.ACL
    if name == _LABEL.encode():
        return Looked.LABEL
    return Looked.TRUSTED if name.startswith(b"trusted.") else Looked.OTHER


# ---- system calls --------------------------------------------------------------------------------

AT_EMPTY_PATH: Final = 0x1000
_AT_BY_NAME: Final = 0x100 | 0x800
"""AT_SYMLINK_NOFOLLOW and AT_NO_AUTOMOUNT."""
STATX_WANTED: Final = 0xFFF
"""What stat has, and the birth."""
_STATX_BTIME: Final = 0x800
_ATTR_AUTOMOUNT: Final = 0x1000
_NS: Final = 1_000_000_000
_STATX: Final = struct.Struct("=I4xQ24xQ16xqI4xqI4xqI4xqI")
"""stx_mask, attributes, size, and atime, btime, ctime, mtime as seconds and nanoseconds."""
_STATX_BYTES: Final = 256
_DEVICE: Final = struct.Struct("=II")

_OVERLAYFS: Final = 0x794C7630
_AUTOFS: Final = 0x0187

# Asked for the size of a long, the kernel gives an int (linux/fs.h).
_GETFLAGS: Final = (2 << 30) | (ctypes.sizeof(ctypes.c_long) << 16) | (ord("f") << 8) | 1
_FSGETXATTR: Final = (2 << 30) | (28 << 16) | (ord("X") << 8) | 31
_U32: Final = struct.Struct("=I")
_FSX_PROJECT: Final = 12


class Inspector:
    """Asks inodes. Not for two threads at a time: its buffers are used again and again.

    Args:
        groups: which extended attributes are looked at; without any, no inode is asked for them.
    """

    def __init__(self, groups: Looked = Looked.EVERYTHING) -> None:
        if groups & Looked.TRUSTED and not _sees_trusted():
            groups &= ~Looked.TRUSTED
        self._groups = groups
        self.looked = int(groups)
        """Those of the groups that can be seen."""
        self._flags = bytearray(8)
        self._fsx = bytearray(28)
        self._statx, self._statx_at = statx_buffer()
        library = ctypes.CDLL(None)
        self.statx: Callable[..., int] = getattr(library, "statx", _no_statx)
        """The system's own: descriptor of a directory, name, flags, mask, place; 0 on success."""
        self._call_fstatfs: Callable[..., int] = library.fstatfs
        self._births: dict[int, bool] = {}
        self._autofs: dict[int, bool] = {}
        self._devices: dict[bytes, tuple[int, bool]] = {}
        self.unread = 0
        """Objects whose extended attributes could not be read."""

    def times(self, fd: int, device: int) -> Times:
        """Return an open file's times: what fstat says and its birth, in one call."""
        if self.statx(fd, b"", AT_EMPTY_PATH, STATX_WANTED, self._statx_at):
            status = os.fstat(fd)
            return Times(
                status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns, None
            )
        mask, _, size, a_s, a_ns, b_s, b_ns, c_s, c_ns, m_s, m_ns = _STATX.unpack_from(self._statx)
        keeps = self._births.get(device)
        if keeps is None:
            keeps = self._births[device] = self._keeps_birth(fd)
        birth_ns = b_s * _NS + b_ns if keeps and mask & _STATX_BTIME else None
        return Times(size, m_s * _NS + m_ns, c_s * _NS + c_ns, a_s * _NS + a_ns, birth_ns)

    def file_system(self, fd: int, device: bytes) -> tuple[int, bool]:
        """Return st_dev of a device as statx gives it, and whether it keeps births."""
        found = self._devices.get(device)
        if found is None:
            number = os.makedev(*_DEVICE.unpack(device))
            found = self._devices[device] = number, self._keeps_birth(fd)
        return found

    def of_open(self, fd: int) -> tuple[int | None, int | None, int, tuple[Xattr, ...]]:
        """Return flags, project, ``looked`` and ``xattrs`` of an open file or directory."""
        flags = project = None
        try:
            fcntl.ioctl(fd, _GETFLAGS, self._flags)
            flags = _U32.unpack_from(self._flags)[0] & STABLE_FLAGS
            fcntl.ioctl(fd, _FSGETXATTR, self._fsx)
            project = _U32.unpack_from(self._fsx, _FSX_PROJECT)[0]
        except OSError:
            # Most file systems without a disk have neither, and say so with many different errors.
            pass
        if not self.looked:
            return flags, project, 0, ()
        try:
            names = os.listxattr(fd)
        except OSError as error:
            return flags, project, *self._unlisted(fd, error)
        if not names:
            return flags, project, self.looked, ()
        return flags, project, *self._gather(fd, names)

    def of_name(self, dir_fd: int, name: bytes, device: int) -> Inode:
        """Return what an object says that is not opened: no flags, no project."""
        birth_ns = self._birth(dir_fd, name, device)
        if not self.looked:
            return Inode(birth_ns)
        path = name if name.startswith(b"/") else b"/proc/self/fd/%d/%s" % (dir_fd, name)
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            return Inode(birth_ns, None, None, *self._unlisted(path, error))
        return Inode(birth_ns, None, None, *self._gather(path, names))

    def is_automount(self, dir_fd: int, name: bytes, device: int) -> bool:
        """True where opening a directory would mount something.

        Args:
            device: st_dev of the directory.
        """
        # The kernel marks what it mounts by itself (NFS, debugfs), and not what it asks an
        # automounter for.
        return self._is_on_autofs(dir_fd, name, device) or (
            self._statx_name(dir_fd, name)
            and bool(_STATX.unpack_from(self._statx)[1] & _ATTR_AUTOMOUNT)
        )

    def _is_on_autofs(self, dir_fd: int, name: bytes, device: int) -> bool:
        is_autofs = self._autofs.get(device)
        if is_autofs is None:
            is_autofs = _is_autofs(self._call_fstatfs, dir_fd, name)
            if is_autofs is not None:
                self._autofs[device] = is_autofs
        return bool(is_autofs)

    # ---- birth -----------------------------------------------------------------------------------

    def _birth(self, dir_fd: int, name: bytes, device: int) -> int | None:
        keeps = self._births.get(device)
        if keeps is None:
            keeps = self._keeps_birth(dir_fd)
        if not (keeps and self._statx_name(dir_fd, name)):
            return None
        mask, _, _, _, _, seconds, nanoseconds, *_ = _STATX.unpack_from(self._statx)
        return seconds * _NS + nanoseconds if mask & _STATX_BTIME else None

    def _statx_name(self, dir_fd: int, name: bytes) -> bool:
        return not self.statx(dir_fd, name, _AT_BY_NAME, STATX_WANTED, self._statx_at)

    def _keeps_birth(self, fd: int) -> bool:
        """False on overlayfs: the first write to a file of a lower layer makes a new inode."""
        return _kind_of(self._call_fstatfs, fd) != _OVERLAYFS

    # ---- extended attributes ---------------------------------------------------------------------

    def _unlisted(self, place: int | bytes, error: OSError) -> tuple[int, tuple[Xattr, ...]]:
        if error.errno in _NONE_ERRORS:
            return self.looked, ()
        if error.errno in _TOO_LONG_ERRORS:
            # 64 KiB of names: whoever made them must not get rid of our look at the ACL by that.
            return self._gather(place, _FIRST, is_whole=False)
        self.unread += 1
        return 0, ()

    def _gather(
        self, place: int | bytes, names: Iterable[str], *, is_whole: bool = True
    ) -> tuple[int, tuple[Xattr, ...]]:
        """Return ``looked`` and ``xattrs``; nothing is known where one of them cannot be read."""
        gathered = _Gathered()
        if not is_whole:
            gathered.fold(b"", b"more names than can be listed")
        try:
            for name in sorted(names, key=_reading_order):
                raw = os.fsencode(name)
                if group_of(raw) & self._groups and not name.startswith(_IGNORED):
                    gathered.add(raw, self._value(place, name, gathered))
        except OSError:
            self.unread += 1
            return 0, ()
        return self.looked, gathered.xattrs()

    def _value(self, place: int | bytes, name: str, gathered: "_Gathered") -> bytes | None:
        """Return a value; None where it has gone, or too many were read already."""
        if not gathered.may_read:
            gathered.fold(os.fsencode(name), b"")
            return None
        try:
            if isinstance(place, int):
                return os.getxattr(place, name)
            return os.getxattr(place, name, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENODATA, *_NONE_ERRORS):
                return None
            raise


def _kind_of(fstatfs: Callable[..., int], fd: int) -> int | None:
    """Return the number of the kind of file system (statfs(2)); None where it is not told."""
    buffer = ctypes.create_string_buffer(256)
    if fstatfs(fd, buffer):
        return None
    kind: int = ctypes.c_long.from_buffer(buffer).value
    return kind & 0xFFFFFFFF


def _is_autofs(fstatfs: Callable[..., int], dir_fd: int, name: bytes) -> bool | None:
    """Return whether an object is an automounter's; None where it is gone, which says nothing."""
    try:
        # With O_DIRECTORY even O_PATH would let it mount.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        return _kind_of(fstatfs, fd) == _AUTOFS
    finally:
        os.close(fd)


def _no_statx(*_arguments: object) -> int:
    """Stand in for a C library older than 2018."""
    return -1


def statx_buffer() -> tuple[bytearray, ctypes.c_void_p]:
    """Return a buffer for statx, which compares at once, and where it is."""
    buffer = bytearray(_STATX_BYTES)
    return buffer, ctypes.c_void_p(
        ctypes.addressof((ctypes.c_char * _STATX_BYTES).from_buffer(buffer))
    )


def _reading_order(name: str) -> tuple[bool, str]:
    return name not in _FIRST, name


class _Gathered:
    """Extended attributes of one object, within the limits."""

    def __init__(self) -> None:
        self._kept: list[Xattr] = []
        self._kept_bytes = 0
        self._rest: dict[bytes, tuple[int, hashlib._Hash]] = {}
        self._reads = 0
        self._read_bytes = 0

    @property
    def may_read(self) -> bool:
        return self._reads < _READS_MAX and self._read_bytes < _READ_BYTES_MAX

    def add(self, name: bytes, value: bytes | None) -> None:
        if value is None:
            return
        self._reads += 1
        self._read_bytes += len(value)
        data = value if len(value) <= INLINE_BYTES_MAX else hashlib.sha256(value).digest()
        size = len(name) + len(data)
        # Two places are for what stands for the rest.
        if len(self._kept) < XATTRS_MAX - 2 and self._kept_bytes + size <= _KEPT_BYTES_MAX:
            self._kept.append((name, len(value), data))
            self._kept_bytes += size
        else:
            self.fold(name, data)

    def fold(self, name: bytes, data: bytes) -> None:
        """Let an attribute be part of the digest over those that are not kept."""
        # Who sees no trusted.* must get the same digest of the others.
        key = b"trusted." if group_of(name) is Looked.TRUSTED else b""
        count, digest = self._rest.get(key) or (0, hashlib.sha256())
        digest.update(b"%d %d " % (len(name), len(data)) + name + data)
        self._rest[key] = (count + 1, digest)

    def xattrs(self) -> tuple[Xattr, ...]:
        rest = [(key, count, digest.digest()) for key, (count, digest) in self._rest.items()]
        return tuple(sorted(self._kept + rest))


def _sees_trusted() -> bool:
    """True where this process has CAP_SYS_ADMIN; others are not even shown ``trusted.*``."""
    try:
        with open("/proc/self/status", "rb") as status:
            lines = status.read().splitlines()
        for line in lines:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> 21 & 1)
    except (OSError, ValueError, IndexError):
        pass
    return False
