"""Giving up root for good, before the first byte of a stranger is read.

The server is started as root only where it needs a port below 1024, or where no service manager
gives it a user of its own. Afterwards no way leads back: no saved ids, no groups, no capabilities,
and no program that it might start can gain any (no_new_privs).
"""

import ctypes
import os
import pwd
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from needfire_protocol.errors import NeedfireError, StorageError
from needfire_protocol.escape import printable
from needfire_server.server_user import find_account

__all__ = ["PrivilegeError", "drop_privileges", "forbid_new_privileges"]

_OWN_DIRECTORIES: Final = ("audit", "cache", "proposals")

OWN_FILES: Final = (
    *("needfire.sqlite", "store.json", "seal.key", "lock", "log"),
    *_OWN_DIRECTORIES,
)
"""What the server writes in its data directory, with whatever is appended to the names."""

CLIENT_FILES: Final = ("rc", "file")
"""What an administrator puts there for clients, alone or with a dot and a name."""

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39


class PrivilegeError(NeedfireError):
    """Root could not be given up, so the server must not go on."""


def drop_privileges(user: str | None, data_directory: str) -> str | None:
    """Become an ordinary user for good; return its name, or None where we were not root.

    The data directory, and what the server writes in it, are handed over to the user. What an
    administrator put there (``rc.NAME``, ``file.NAME``) keeps its owner; where that is root, the
    user's group may read it.

    Must be called while there is one thread only.

    Args:
        user: ServerUser; None for the first of USERS that exists. ``root`` means to stay root.

    Raises:
        ConfigError: there is no such user.
        PrivilegeError: the rights could not be given up, or could be taken back, or the user cannot
            read the program. In this last case nothing has been handed over.
        StorageError: the data directory cannot be handed over, or be reached, or is not one.
    """
    if os.geteuid() != 0:
        forbid_new_privileges()
        return None
    account = find_account(user)
    if account.pw_uid == 0:
        # Told so by name; the server would never choose root by itself.
        forbid_new_privileges()
        return None
    _check_program_is_readable(account)
    _hand_over(Path(data_directory), account)
    _become(account)
    forbid_new_privileges()
    _verify(account)
    if not os.access(data_directory, os.R_OK | os.W_OK | os.X_OK):
        shown = printable(data_directory, 200)
        raise StorageError(
            f"the user {account.pw_name} cannot use {shown}; it needs the right to enter every "
            "directory above it"
        )
    return account.pw_name


def forbid_new_privileges() -> None:
    """Nothing that this process starts can have more rights than it: prctl(2).

    Raises:
        PrivilegeError: the kernel does not do it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise PrivilegeError(f"no_new_privs cannot be set: {os.strerror(ctypes.get_errno())}")


def _check_program_is_readable(account: pwd.struct_passwd) -> None:
    """Let a child take the identity and open the program's files: what counts is what it can do.

    Modes alone do not tell it; there are access lists, mounts and security modules.
    """
    paths = _program_paths()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _report_unreadable(account, paths, writer)
    os.close(writer)
    with open(reader, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if answer.startswith(_UNREADABLE):
        shown = printable(os.fsdecode(answer.removeprefix(_UNREADABLE)), 200)
        raise PrivilegeError(
            f"the user {account.pw_name} cannot read Python in {shown}; install it where every "
            "user can read, see docs/install.md, or set ServerUser"
        )
    if status != 0:
        raise PrivilegeError(f"cannot become the user {account.pw_name}: a trial of it failed")


_UNREADABLE: Final = b"unreadable "


def _program_paths() -> list[str]:
    """Return the prefixes of Python, and every file of it and of ours that is loaded already.

    Not what was loaded from anywhere else: a ``sitecustomize`` of root is not needed again.
    """
    folders = sysconfig.get_paths()
    places = tuple(folders[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    loaded = (
        (name, getattr(module, "__dict__", {}).get("__file__"))
        for name, module in list(sys.modules.items())
    )
    files = sorted(
        file
        for name, file in loaded
        if isinstance(file, str) and (name.startswith("needfire_") or file.startswith(places))
    )
    return [sys.base_prefix, sys.prefix, *files]


def _report_unreadable(account: pwd.struct_passwd, paths: list[str], writer: int) -> NoReturn:
    """Runs in the child; writes the first path that cannot be opened. Imports nothing more."""
    status = 1
    try:
        _become(account)
        for path in paths:
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except PermissionError:
                os.write(writer, _UNREADABLE + os.fsencode(path))
                break
            except OSError:
                continue  # Not there for root either: part of an archive, or gone.
        status = 0
    finally:
        # Nothing of the parent's is flushed, closed or cleaned up here.
        os._exit(status)


def _become(account: pwd.struct_passwd) -> None:
    uid, gid = account.pw_uid, account.pw_gid
    try:
        # Groups while we may still set them; the user last, because it ends all that.
        os.initgroups(account.pw_name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PrivilegeError(
            f"cannot become the user {account.pw_name}: {error.strerror}"
        ) from None


def _verify(account: pwd.struct_passwd) -> None:
    """Believe nothing: a container or a security module may have done something else."""
    uid, gid = account.pw_uid, account.pw_gid
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PrivilegeError("the user or group is not the one that was asked for")
    if 0 in os.getgroups() and gid != 0:
        raise PrivilegeError("the group root was kept")
    for regain in (lambda: os.setresuid(0, 0, 0), lambda: os.setresgid(0, 0, 0)):
        if _succeeds(regain):
            raise PrivilegeError("root could be taken back")
    if _capabilities() != 0:
        raise PrivilegeError("capabilities were kept")


def _succeeds(action: Callable[[], None]) -> bool:
    try:
        action()
    except OSError:
        return False
    return True


def _capabilities() -> int:
    """Return all that is permitted, effective or ambient; 0 where /proc is not."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        return 0
    fields = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
    return sum(int(fields.get(name, b"0"), 16) for name in (b"CapPrm", b"CapEff", b"CapAmb"))


def _hand_over(directory: Path, account: pwd.struct_passwd) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(directory) as handle:
            _check_is_ours(handle, directory)
            _give(handle, account)
            for name in os.listdir(handle):
                if _is_named(name, OWN_FILES):
                    _give_entry(handle, name, account)
                elif _is_client_file(name):
                    _give_file(handle, name, account, _let_read)
    except OSError as error:
        shown = printable(str(error.filename or directory), 200)
        raise StorageError(
            f"{shown} cannot be handed over to the user {account.pw_name}: {error.strerror}"
        ) from None


def _check_is_ours(handle: int, directory: Path) -> None:
    """Refuse a directory of something else: a slip such as ``--data-dir /etc`` would give it away.

    The database says whose it is. Before the first start there may be files for clients, but no
    directory of another kind: a system's /etc may well have a file ``rc.local``.

    Raises:
        StorageError: it holds other files.
    """
    entries = {
        name: stat.S_IFMT(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)
        for name in os.listdir(handle)
        if name != "lost+found"
    }
    if not entries or entries.get("needfire.sqlite") == stat.S_IFREG:
        return
    is_own = {name: _is_own_entry(name, kind) for name, kind in entries.items()}
    has_foreign_directory = any(
        kind == stat.S_IFDIR and not is_own[name] for name, kind in entries.items()
    )
    if has_foreign_directory or not any(is_own.values()):
        shown = printable(str(directory), 200)
        raise StorageError(
            f"{shown} is not a Needfire data directory (it holds other files); use an empty one"
        )


def _is_own_entry(name: str, kind: int) -> bool:
    if name in _OWN_DIRECTORIES:
        return kind == stat.S_IFDIR
    return kind == stat.S_IFREG and (_is_named(name, OWN_FILES) or _is_client_file(name))


def _is_named(name: str, owns: tuple[str, ...]) -> bool:
    return any(name == own or name.startswith((f"{own}.", f"{own}-")) for own in owns)


def _is_client_file(name: str) -> bool:
    return any(name == own or name.startswith(f"{own}.") for own in CLIENT_FILES)


def _give(handle: int, account: pwd.struct_passwd) -> None:
    if os.fstat(handle).st_uid == 0:
        os.fchown(handle, account.pw_uid, account.pw_gid)


def _let_read(handle: int, account: pwd.struct_passwd) -> None:
    """Let the user's group read a file that stays root's."""
    status = os.fstat(handle)
    if status.st_uid == 0:
        os.fchown(handle, -1, account.pw_gid)
        # The group of before may have had more than that; this one gets no more.
        os.fchmod(handle, stat.S_IMODE(status.st_mode) & ~stat.S_IRWXG | stat.S_IRGRP)


def _give_entry(handle: int, name: str, account: pwd.struct_passwd) -> None:
    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        with _opened(name, handle) as inner:
            _give(inner, account)
            for each in os.listdir(inner):
                _give_file(inner, each, account)
    else:
        _give_file(handle, name, account)


def _give_file(
    handle: int,
    name: str,
    account: pwd.struct_passwd,
    give: Callable[[int, pwd.struct_passwd], None] = _give,
) -> None:
    """Give away a regular file that has no other name.

    The user who owns the directory may have put links there to files of root, in the hope that
    the next start gives those away.
    """
    try:
        file = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle
        )
    except OSError:
        return  # A symbolic link or a socket: nothing that we write through.
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            give(file, account)
    finally:
        os.close(file)


@contextmanager
def _opened(path: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory. The data directory itself may be a link: root made its parent."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(path, flags if dir_fd is None else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield handle
    finally:
        os.close(handle)
