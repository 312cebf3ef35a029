"""Who may do what through the admin socket: three roles, given to the system's users and groups.

The roles are those of a key recovery authority (spec/events.md 4). They divide power: who
administers the server does not read the log that watches the administrators, unless the
configuration says so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["Access", "Role", "target_of"]


class Role(Enum):
    """What a user is to the server; a user may have several roles."""

    ADMINISTRATORS = "Administrators"
    AGENTS = "Agents"
    """Those who approve what agents propose."""
    AUDITORS = "Auditors"


def target_of(verb: str) -> tuple[str, str]:
    """Return resource and operation of a verb, as refusals name them."""
    resource, _, operation = verb.partition("-")
    return (resource, operation) if operation else ("server", verb)


@dataclass(frozen=True, slots=True)
class Access:
    """Which users and groups have which role, all as numbers.

    Attributes:
        users: uids by role.
        groups: gids by role.
    """

    users: Mapping[Role, frozenset[int]]
    groups: Mapping[Role, frozenset[int]]

    def roles_of(self, uid: int, gids: Collection[int]) -> frozenset[Role]:
        """Return the roles of somebody, none for a stranger."""
        return frozenset(
            role
            for role in Role
            if uid in self.users.get(role, ())
            or not self.groups.get(role, _NOBODY).isdisjoint(gids)
        )

    def others_than(self, uids: Collection[int]) -> bool:
        """Tell whether anybody else than these users has a role."""
        return any(self.groups.values()) or any(
            members.difference(uids) for members in self.users.values()
        )


_NOBODY: Final[frozenset[int]] = frozenset()
