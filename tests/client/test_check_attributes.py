"""What a check says of an inode besides its mode, owner and times: lists, flags, its generation."""

import os
import sqlite3
import struct
import subprocess
from pathlib import Path

import pytest

from needfire_client.attributes import owner_name
from needfire_client.baseline import BaselineReader
from needfire_client.inode import Inspector, Times
from needfire_protocol.baseline import ContentDigest, decode_entries
from needfire_protocol.codec import encode
from needfire_protocol.rc.policies import Policy
from needfire_testkit.scanner import MODIFIED, Make, codes, dir_rule, of_files, settings_of

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0), (2, 6, 65534), (4, 4, 0), (16, 4, 0), (32, 4, 0))
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.fixture
def with_xattrs(root: Path) -> Path:
    try:
        os.setxattr(root / "a", "user.probe", b"")
    except OSError:
        pytest.skip("the file system of the tests has no extended attributes")
    os.removexattr(root / "a", "user.probe")
    return root


def test_acls_and_extended_attributes_are_told_and_only_once(with_xattrs: Path, make: Make) -> None:
    root = with_xattrs
    os.setxattr(root / "b", "user.same", b"1")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    checker.full_check()
    assert scanned.take() == []
    os.setxattr(root / "a", "system.posix_acl_access", ACL)
    os.setxattr(root / "b", "user.note", b"new")
    os.setxattr(root / "sub", "system.posix_acl_default", ACL)
    checker.full_check()
    found = {event.path: event for event in scanned.take()}
    assert {event.change for event in found.values()} == {"-----M----"}
    assert found.keys() == {bytes(root / name) for name in ("a", "b", "sub")}
    name = owner_name(65534)
    shown = f"user::rw-,user:{name}:rw-,group::r--,mask::r--,other::r--"
    assert found[bytes(root / "a")].fields["acl_new"] == shown
    assert found[bytes(root / "sub")].fields["acl_default_new"] == shown
    assert found[bytes(root / "b")].fields["xattr_new"] == 'user.note="new"'
    checker.full_check()
    assert scanned.take() == []
    os.removexattr(root / "b", "user.note")
    checker.check_path(bytes(root / "b"))
    (event,) = scanned.take()
    assert (event.fields["xattr_old"], event.fields["xattr_new"]) == ('user.note="new"', None)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives capabilities and flags")
def test_capabilities_and_flags_are_told(with_xattrs: Path, make: Make) -> None:
    root = with_xattrs
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    os.setxattr(root / "a", "security.capability", CAPABILITY)
    switched = subprocess.run(["chattr", "+ia", root / "b"], check=False, capture_output=True)
    try:
        checker.full_check()
    finally:
        subprocess.run(["chattr", "-ia", root / "b"], check=False, capture_output=True)
    found = {event.path: event for event in scanned.take()}
    assert found[bytes(root / "a")].change == "-----M----"
    assert found[bytes(root / "a")].fields["caps_new"] == "cap_net_raw=ep"
    if switched.returncode == 0:
        flags = found[bytes(root / "b")].fields
        assert (flags["attr_old"], flags["attr_new"]) == ("------------", "---ia-------")
        assert (flags["iattr_old"], flags["iattr_new"]) == (0, 0x30)


@pytest.mark.parametrize(
    ("switch", "silent"), [("acl_check", "a"), ("xattr_check", "b"), ("selinux_check", "")]
)
def test_what_is_switched_off_is_not_told(
    with_xattrs: Path, make: Make, switch: str, silent: str
) -> None:
    root = with_xattrs
    scanned = make(dir_rule(root, Policy.ATTRIBUTES), **{switch: False})
    scanned.init(settings_of(dir_rule(root, Policy.ATTRIBUTES)))
    scanned.take()
    os.setxattr(root / "a", "system.posix_acl_access", ACL)
    os.setxattr(root / "b", "user.note", b"new")
    scanned.checker().full_check()
    assert {event.path for event in scanned.take()} == {
        bytes(root / name) for name in "ab" if name != silent
    }


def test_a_baseline_that_knows_less_is_used_and_said_to_know_less(
    with_xattrs: Path, make: Make
) -> None:
    root = with_xattrs
    os.setxattr(root / "a", "user.note", b"was there")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES))
    scanned.init(settings_of(dir_rule(root, Policy.ATTRIBUTES), xattr_check=False))
    scanned.take()
    checker = scanned.checker()
    for told in (["BASELINE_LACKS_ATTRIBUTES"], []):
        checker.full_check()
        assert codes(scanned.take()) == told


@pytest.mark.parametrize(("format", "fields"), [(1, 15), (2, 20)])
def test_a_baseline_of_an_old_format_is_compared_in_what_it_has(
    root: Path, make: Make, format: int, fields: int
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    scanned.take()
    with sqlite3.connect(scanned.baseline) as connection:
        digest = ContentDigest()
        rows = connection.execute("SELECT key, entries FROM directories ORDER BY key").fetchall()
        for key, entries in rows:
            found = decode_entries(entries)
            old = encode([[name, entry[:fields]] for name, entry in found.items()])
            digest.add(key, old)
            connection.execute("UPDATE directories SET entries = ? WHERE key = ?", (old, key))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (format,))
        connection.execute(
            "UPDATE meta SET value = ? WHERE name = 'content_sha256'", (digest.hexdigest(),)
        )
    connection.close()
    checker = scanned.checker()
    checker.full_check()
    assert codes(scanned.take()) == (["BASELINE_LACKS_ATTRIBUTES"] if format == 1 else [])
    (root / "a").chmod(0o600)
    checker.full_check()
    assert of_files(scanned.changes(), root) == {"a": (MODIFIED, "-----M--T-")}
    checker.update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    with BaselineReader(scanned.baseline) as reader:
        assert reader.meta.format == 3
        assert reader.directory(bytes(root))[b"a"].looked


def test_another_inode_under_the_same_number_is_another_inode(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root, Policy.LOG_FILES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    real = Inspector.times

    def times(self: Inspector, fd: int, device: int) -> Times:
        return real(self, fd, device)._replace(birth_ns=1)

    monkeypatch.setattr(Inspector, "times", times)
    checker.check_path(bytes(root / "b"))
    if any(event.path == bytes(root / "b") for event in scanned.raised):
        assert ("POLICY_MODIFIED", bytes(root / "b"), "---I------") in scanned.changes()
