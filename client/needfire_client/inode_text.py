"""How do flags, ACLs, capabilities, labels and extended attributes look in a report? Pure.

What is in them was chosen by whoever owns the file: everything that is not what the kernel's own
form allows is shown as bytes, and everything shown is printable.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final

from needfire_client.inode import group_of
from needfire_protocol.baseline import INLINE_BYTES_MAX, FileEntry, Xattr
from needfire_protocol.escape import escape_bytes

__all__ = [
    "ACL_ACCESS",
    "ACL_DEFAULT",
    "CAPABILITY",
    "LABEL",
    "acl_text",
    "capability_text",
    "differing_names",
    "flags_text",
    "label_text",
    "only_differing",
    "value_text",
    "xattr_value",
    "xattrs_text",
]

ACL_ACCESS: Final = b"system.posix_acl_access"
ACL_DEFAULT: Final = b"system.posix_acl_default"
CAPABILITY: Final = b"security.capability"
LABEL: Final = b"security.selinux"
_APART: Final = frozenset({ACL_ACCESS, ACL_DEFAULT, CAPABILITY, LABEL})

_FLAG_LETTERS: Final = (
    ("s", 0x00000001),
    ("u", 0x00000002),
    ("S", 0x00000008),
    ("i", 0x00000010),
    ("a", 0x00000020),
    ("d", 0x00000040),
    ("A", 0x00000080),
    ("c", 0x00000004),
    ("T", 0x00020000),
    ("D", 0x00010000),
    ("t", 0x00008000),
    ("j", 0x00004000),
)
"""Samhain's twelve, in Samhain's order."""

_ACL_VERSION: Final = 2
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_TAGS: Final = {
    0x01: ("user", False),
    0x02: ("user", True),
    0x04: ("group", False),
    0x08: ("group", True),
    0x10: ("mask", False),
    0x20: ("other", False),
}
"""Name as getfacl has it, and whether it speaks of somebody by number (linux/posix_acl.h)."""

_CAPABILITIES: Final = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""By number (linux/capability.h)."""
_CAPABILITY_FORMS: Final = {0x01000000: "<3I", 0x02000000: "<5I", 0x03000000: "<6I"}
_CAPABILITY_EFFECTIVE: Final = 1

Namer = Callable[[int], str]
"""Gives the name of a user or of a group."""


def flags_text(flags: int | None) -> str | None:
    """Return inode flags in Samhain's twelve letters; None for not known."""
    if flags is None:
        return None
    return "".join(letter if flags & bit else "-" for letter, bit in _FLAG_LETTERS)


def xattr_value(entry: FileEntry, name: bytes) -> Xattr | None:
    """Return one extended attribute of an object; None where it is not there."""
    return next((found for found in entry.xattrs if found[0] == name), None)


def acl_text(found: Xattr | None, owner: Namer, group: Namer) -> str | None:
    """Return an ACL in the short form of getfacl; its bytes where it is none."""
    if found is None:
        return None
    _, size, data = found
    if size > INLINE_BYTES_MAX:
        return f"{(size - 4) // _ACL_ENTRY.size} entries, {value_text(found)}"
    if size < 4 or (size - 4) % _ACL_ENTRY.size or data[:4] != _ACL_VERSION.to_bytes(4, "little"):
        return value_text(found)
    shown = []
    for tag, bits, number in _ACL_ENTRY.iter_unpack(data[4:]):
        if tag not in _ACL_TAGS or bits > 7:
            return value_text(found)
        word, has_number = _ACL_TAGS[tag]
        who = (owner if word == "user" else group)(number) if has_number else ""
        rights = "".join(
            letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
        shown.append(f"{word}:{who}:{rights}")
    return ",".join(shown)


def capability_text(found: Xattr | None) -> str | None:
    """Return a file's capabilities as getcap shows them; the bytes where they are none."""
    if found is None:
        return None
    _, size, data = found
    form = _CAPABILITY_FORMS.get(int.from_bytes(data[:4], "little") & 0xFF000000)
    if form is None or struct.calcsize(form) != size:
        return value_text(found)
    head, *words = struct.unpack(form, data)
    permitted, inheritable = words[0], words[1]
    if len(words) >= 4:
        permitted |= words[2] << 32
        inheritable |= words[3] << 32
    clauses: dict[str, list[str]] = {}
    for number in range(64):
        how = _how(number, permitted, inheritable, is_effective=bool(head & _CAPABILITY_EFFECTIVE))
        if how:
            clauses.setdefault(how, []).append(_capability_name(number))
    shown = " ".join(f"{','.join(found)}={how}" for how, found in clauses.items()) or "="
    root = words[4] if len(words) == 5 else 0
    return f"{shown} [rootid={root}]" if root else shown


def _how(number: int, permitted: int, inheritable: int, *, is_effective: bool) -> str:
    is_permitted, is_inheritable = permitted >> number & 1, inheritable >> number & 1
    if not (is_permitted or is_inheritable):
        return ""
    return "e" * is_effective + "i" * is_inheritable + "p" * is_permitted


def _capability_name(number: int) -> str:
    return f"cap_{_CAPABILITIES[number]}" if number < len(_CAPABILITIES) else str(number)


def value_text(found: Xattr | None) -> str | None:
    """Return a value: text in quotes, other bytes in hex, a large one as its digest."""
    if found is None:
        return None
    _, size, data = found
    if size > INLINE_BYTES_MAX:
        return f"sha256:{data.hex()} ({size} bytes)"
    if data.isascii() and data.decode("ascii").isprintable():
        return '"' + escape_bytes(data).replace('"', "\\x22") + '"'
    return f"0x{data.hex()}"


def label_text(found: Xattr | None) -> str | None:
    """Return an SELinux label without its quotes."""
    if found is None:
        return None
    name, size, data = found
    # Where it comes from the policy it ends in a NUL that is not part of it.
    shown = value_text((name, size, data.removesuffix(b"\0")))
    return None if shown is None else shown.strip('"')


def xattrs_text(found: Iterable[Xattr]) -> str | None:
    """Return the extended attributes that have no field of their own; None for none."""
    shown = [_named(each) for each in found if each[0] not in _APART]
    return ", ".join(shown) or None


def _named(found: Xattr) -> str:
    name, size, data = found
    if name in (b"", b"trusted."):
        kind = name.decode() + "* " if name else ""
        return f"and {size} more {kind}(sha256:{data.hex()})"
    # A comma with a blank then stands between two attributes and nowhere else.
    shown = escape_bytes(name).replace(" ", "\\x20")
    return f"{shown}={value_text(found)}"


def only_differing(entry: FileEntry, other: FileEntry) -> FileEntry:
    """Return the entry without the extended attributes that are the same, or not known, in both."""
    both = entry.looked & other.looked
    theirs = set(other.xattrs)
    kept = (each for each in entry.xattrs if each not in theirs and group_of(each[0]) & both)
    return entry._replace(xattrs=tuple(kept))


def differing_names(old: FileEntry, new: FileEntry) -> set[bytes]:
    """Return the names of the extended attributes that are known of both and not the same."""
    if old.xattrs == new.xattrs:
        return set()
    both = old.looked & new.looked
    differing = set(old.xattrs) ^ set(new.xattrs)
    return {name for name, _, _ in differing if group_of(name) & both}
