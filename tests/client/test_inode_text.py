import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.inode_text import (
    acl_text,
    capability_text,
    flags_text,
    label_text,
    value_text,
    xattrs_text,
)
from needfire_protocol.baseline import INLINE_BYTES_MAX, Xattr
from needfire_protocol.escape import escape_bytes

NOBODY = 2**32 - 1
ENTRIES = [
    (0x01, 6, NOBODY),
    (0x02, 4, 7),
    (0x04, 5, NOBODY),
    (0x08, 1, 9),
    (0x10, 7, NOBODY),
    (0x20, 0, NOBODY),
]


def xattr(data: bytes, name: bytes = b"x") -> Xattr:
    return (name, len(data), data)


def acl(entries: list[tuple[int, int, int]], version: int = 2) -> Xattr:
    return xattr(
        struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    )


def shown(found: Xattr | None) -> str | None:
    return acl_text(found, lambda uid: f"u{uid}", lambda gid: f"g{gid}")


def test_flags_are_samhains_twelve_letters_in_its_order() -> None:
    assert flags_text(0) == "------------"
    assert flags_text(0x10) == "---i--------"
    assert flags_text(0xFFFFFFFF) == "suSiadAcTDtj"
    assert flags_text(None) is None


def test_an_acl_is_what_getfacl_shows() -> None:
    assert shown(acl(ENTRIES)) == (
        "user::rw-,user:u7:r--,group::r-x,group:g9:--x,mask::rwx,other::---"
    )
    assert shown(None) is None


@pytest.mark.parametrize(
    "found",
    [
        acl(ENTRIES, version=3),
        acl([(0x03, 6, 1)]),
        acl([(0x01, 8, 1)]),
        xattr(b""),
        xattr(b"\2\0\0"),
        xattr(b"\2\0\0\0" + b"\1" * 7),
    ],
)
def test_what_is_no_acl_is_shown_as_its_bytes(found: Xattr) -> None:
    assert shown(found) == value_text(found)


def test_a_long_acl_is_its_digest_and_its_length() -> None:
    size = 4 + 8 * 100
    assert shown((b"x", size, b"d" * 32)) == f"100 entries, sha256:{'64' * 32} ({size} bytes)"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0), "cap_net_raw=ep"),
        (struct.pack("<5I", 0x02000000, 1 << 13, 1 << 13, 0, 0), "cap_net_raw=ip"),
        (struct.pack("<5I", 0x02000001, 1, 1 << 1, 0, 0), "cap_chown=ep cap_dac_override=ei"),
        (
            struct.pack("<6I", 0x03000001, 1 << 21, 0, 1 << 8, 0, 1000),
            "cap_sys_admin,cap_checkpoint_restore=ep [rootid=1000]",
        ),
        (struct.pack("<6I", 0x03000000, 0, 0, 1 << 31, 0, 0), "63=p"),
        (struct.pack("<3I", 0x01000001, 1, 0), "cap_chown=ep"),
        (struct.pack("<5I", 0x02000000, 0, 0, 0, 0), "="),
    ],
)
def test_capabilities_are_what_getcap_shows(data: bytes, text: str) -> None:
    assert capability_text(xattr(data)) == text


@given(st.binary(max_size=INLINE_BYTES_MAX))
def test_any_bytes_have_a_printable_text(data: bytes) -> None:
    for text in (
        shown(xattr(data)),
        capability_text(xattr(data)),
        value_text(xattr(data)),
        label_text(xattr(data)),
        xattrs_text([xattr(data, b"user." + data)]),
    ):
        assert text is not None
        assert text.isprintable()


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_different_values_look_different(one: bytes, two: bytes) -> None:
    assert (value_text(xattr(one)) == value_text(xattr(two))) is (one == two)


def test_values_are_text_or_hex_or_a_digest() -> None:
    assert value_text(xattr(b"plain")) == '"plain"'
    assert value_text(xattr(b'a"\\')) == '"a\\x22\\\\"'
    assert value_text(xattr(b"a\0")) == "0x6100"
    assert value_text(xattr("ü".encode())) == "0xc3bc"
    assert value_text((b"x", 300, b"\1" * 32)) == f"sha256:{'01' * 32} (300 bytes)"


def test_a_label_is_bare() -> None:
    assert label_text(xattr(b"system_u:object_r:bin_t:s0\0")) == "system_u:object_r:bin_t:s0"


def test_other_attributes_stand_in_one_line_and_those_with_a_field_do_not() -> None:
    found = [
        (b"", 3, b"\2" * 32),
        xattr(b"1", b"security.selinux"),
        xattr(b"1", b"user.a, b"),
        xattr(b"2", b"user.\xff"),
    ]
    assert xattrs_text(found) == (
        f'and 3 more (sha256:{"02" * 32}), user.a,\\x20b="1", {escape_bytes(b"user.")}\\xff="2"'
    )
    assert xattrs_text([xattr(b"1", b"security.selinux")]) is None
