"""Whose rights a program of root's works with on a data directory: those of its owner."""

import os

__all__ = ["become_owner"]


def become_owner(directory: str) -> None:
    """Work with the rights of whom the directory belongs to, where root was called.

    So every file gets the owner that the server's user can read, and somebody who has only that
    user's rights cannot lead root astray with links in its directory.
    """
    owner = os.stat(directory)
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
