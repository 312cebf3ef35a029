"""Which users and groups of this system the configuration means by their names."""

import grp
import os
import pwd
from collections.abc import Iterable, Iterator, Mapping

from needfire_protocol.errors import Problem
from needfire_protocol.escape import printable
from needfire_server.admin.roles import Access, Role
from needfire_server.config import ServerSettings
from needfire_server.lockout import LockLimits
from needfire_server.outputs.settings import TargetKind

__all__ = ["access_of", "lockout_of", "notices_of_host", "unknown_members"]


def access_of(settings: ServerSettings) -> Access:
    """Return who has which role; names that this system does not know are left out.

    The user that the server runs as owns its store, and root can become everybody, so refusing them
    anything but the audit log would only look like protection. Users of ``SetSocketAllowUid`` are administrators, as they
    were before there were roles.
    """
    listed = _listed(settings)
    users = {role: _uids(members) for role, members in listed.items()}
    own = frozenset({os.geteuid()})
    users[Role.ADMINISTRATORS] |= own | {0} | frozenset(settings.socket_allow_uids)
    users[Role.AGENTS] |= own | {0}
    return Access(users, {role: _gids(members) for role, members in listed.items()})


def lockout_of(settings: ServerSettings) -> LockLimits:
    """Return when users are locked out."""
    return LockLimits(settings.admin_failures_max, settings.admin_lock_s * 1_000_000)


def notices_of_host(settings: ServerSettings) -> Iterator[Problem]:
    """Yield what of the settings this host does not have; the file itself is right."""
    for name in unknown_members(settings):
        what = "group" if name.startswith("@") else "user"
        text = f"a role is given to the {what} {name}, which this system does not know"
        yield Problem(settings.source, None, text)
    for output in settings.outputs:
        directory = os.path.dirname(output.where)
        if output.kind is TargetKind.FILE and not os.path.isdir(directory):
            text = (
                f"output {output.name}: there is no directory {printable(directory)}; make it, "
                "writable for the user of the server: nothing is written until then"
            )
            yield Problem(settings.source, None, text)


def unknown_members(settings: ServerSettings) -> tuple[str, ...]:
    """Return what the configuration names and this system does not know, sorted."""
    names = {name for members in _listed(settings).values() for name in members}
    return tuple(sorted(name for name in names if not _uids([name]) and not _gids([name])))


def _listed(settings: ServerSettings) -> Mapping[Role, tuple[str, ...]]:
    return {
        Role.ADMINISTRATORS: settings.administrators,
        Role.AGENTS: settings.approvers,
        Role.AUDITORS: settings.auditors,
    }


def _uids(members: Iterable[str]) -> frozenset[int]:
    found = (_uid(name) for name in members if not name.startswith("@"))
    return frozenset(uid for uid in found if uid is not None)


def _gids(members: Iterable[str]) -> frozenset[int]:
    found = (_gid(name[1:]) for name in members if name.startswith("@"))
    return frozenset(gid for gid in found if gid is not None)


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
