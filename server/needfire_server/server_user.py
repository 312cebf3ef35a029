"""Who the server runs as, and what that user may do: the same answer whoever asks.

A configuration is judged by root before the rights are dropped, by the server's user at a reload,
and by anybody with ``check-config``. So nothing here asks what *this* process may do: what counts
is the user that the configuration names.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from typing import Final

from needfire_protocol.errors import ConfigError, FormatError, Problem
from needfire_protocol.escape import printable

__all__ = [
    "USERS",
    "Account",
    "check_way",
    "find_account",
    "find_user",
    "no_such_user",
    "user_name",
]

USERS: Final = ("needfire", "yule", "daemon", "nobody")
"""Who the server becomes unless it is told: the first of these that exists."""

_ACCESS_LIST: Final = "system.posix_acl_access"
_HINT: Final = "useradd --system --home-dir /var/lib/needfire --shell /usr/sbin/nologin needfire"


@dataclass(frozen=True, slots=True)
class Account:
    """A user as far as rights on files go.

    Attributes:
        gids: all groups, also ``gid``.
    """

    uid: int
    gid: int
    gids: frozenset[int]

    @classmethod
    def of_process(cls) -> "Account":
        """Return who this process is at this moment."""
        return cls(os.geteuid(), os.getegid(), frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def of_user(cls, user: pwd.struct_passwd) -> "Account":
        """Return somebody of the user database."""
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return cls(user.pw_uid, user.pw_gid, frozenset(groups))

    def may(self, right: int, status: os.stat_result, *, has_access_list: bool = False) -> bool:
        """Tell whether the mode gives a right.

        Args:
            right: one of ``os.R_OK``, ``os.W_OK``, ``os.X_OK``.
            has_access_list: then the group's bits are the most that anybody named there has, and
                the user is taken for one of those.
        """
        mode = stat.S_IMODE(status.st_mode)
        if self.uid == 0:
            # Root is asked for no bit, but to run a file, for which there must be one.
            return right != os.X_OK or stat.S_ISDIR(status.st_mode) or mode & 0o111 != 0
        if self.uid == status.st_uid:
            return mode >> 6 & right == right
        if status.st_gid in self.gids or (has_access_list and mode >> 3 & right == right):
            return mode >> 3 & right == right
        return mode & right == right


def check_way(path: str, account: Account, right: int) -> None:
    """Make sure that a user comes to a file, and has a right on it.

    Raises:
        FormatError: not so, and where it ends.
        OSError: this process cannot look.
    """
    real = os.path.realpath(path, strict=True)
    if not _may(account, right, real):
        what = {os.R_OK: "read", os.W_OK: "write", os.X_OK: "run"}[right]
        raise FormatError(_lacks(account, f"{what} {printable(path, 200)}"))
    while real != "/":
        real = os.path.dirname(real)
        if not _may(account, os.X_OK, real):
            raise FormatError(_lacks(account, f"enter {printable(real, 200)}"))


def _may(account: Account, right: int, path: str) -> bool:
    status = os.stat(path)
    return account.may(right, status) or (
        _has_access_list(path) and account.may(right, status, has_access_list=True)
    )


def _has_access_list(path: str) -> bool:
    try:
        return bool(os.getxattr(path, _ACCESS_LIST))
    except OSError:
        return False


def _lacks(account: Account, what: str) -> str:
    return f"the server's user ({user_name(account.uid)}) may not {what}"


def user_name(uid: int) -> str:
    """Return what a user is called, or the number where nobody has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def find_account(user: str | None) -> pwd.struct_passwd:
    """Return whom a server becomes that root starts.

    Args:
        user: ServerUser; None for the first of USERS that exists.

    Raises:
        ConfigError: there is no such user.
    """
    if user is not None:
        account = find_user(user)
        if account is None:
            raise ConfigError([Problem("ServerUser", None, no_such_user(user), _HINT)])
        return account
    found = next((a for a in map(find_user, USERS) if a is not None and a.pw_uid != 0), None)
    if found is None:
        raise ConfigError(
            [
                Problem(
                    "ServerUser",
                    None,
                    "the server does not run as root, and none of the users "
                    f"{', '.join(USERS)} exists",
                    "ServerUser=NAME, or ServerUser=root to stay root",
                )
            ]
        )
    return found


def find_user(user: str) -> pwd.struct_passwd | None:
    """Return a user by name or number, or None where there is none on this host."""
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        return None


def no_such_user(user: str) -> str:
    """Return what to say of a user that does not exist."""
    return f"there is no user {user[:64]!r} on this host"
