import re
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.compare import Change, ChangeKind, Names, change_code, compare
from needfire_client.policy import Decision, Ruleset
from needfire_protocol.baseline import FileEntry, Looked, State, Xattr
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import file_rule, settings_of

NAMES = Names(lambda uid: f"user{uid}", lambda gid: f"group{gid}", "sha256")
OLD = FileEntry(
    mode=0o100644,
    uid=1,
    gid=2,
    size=6,
    mtime_ns=1_000_000_000,
    ctime_ns=2_000_000_000,
    atime_ns=3_000_000_000,
    inode=40,
    device=0x801,
    nlink=1,
    rdev=0,
    link=None,
    digest=b"\1" * 32,
    state=0,
    reason="",
    birth_ns=5_000_000_000,
    flags=0,
    project=0,
    looked=int(Looked.EVERYTHING),
    xattrs=((b"user.a", 1, b"v"),),
)


def compared(
    old: FileEntry | None,
    new: FileEntry | None,
    policy: Policy = Policy.READ_ONLY,
    *,
    prefix: bytes | None = None,
    **others: Any,
) -> Change | None:
    settings = settings_of(file_rule(b"/x", policy), **others)
    decision = Ruleset(settings).decide(b"/x")
    assert decision is not None
    return compare(b"/x", old, new, decision, settings, NAMES, prefix=prefix)


entries = st.builds(
    FileEntry,
    mode=st.sampled_from([0o100644, 0o100600, 0o120777, 0o040755, 0o020600]),
    uid=st.integers(0, 1),
    gid=st.integers(0, 1),
    size=st.integers(0, 2),
    mtime_ns=st.integers(0, 1),
    ctime_ns=st.integers(0, 1),
    atime_ns=st.integers(0, 1),
    inode=st.integers(1, 2),
    device=st.just(1),
    nlink=st.integers(1, 2),
    rdev=st.integers(0, 1),
    link=st.sampled_from([None, b"a", b"b"]),
    digest=st.sampled_from([None, b"d" * 32, b"e" * 32]),
    state=st.just(0),
    reason=st.just(""),
    birth_ns=st.sampled_from([None, 1, 2]),
    flags=st.sampled_from([None, 0, 0x10]),
    project=st.sampled_from([None, 0, 1]),
    looked=st.integers(0, int(Looked.EVERYTHING)),
    xattrs=st.sampled_from([(), ((b"user.a", 1, b"v"),), ((b"security.selinux", 2, b"l\0"),)]),
)


@given(entries, st.sampled_from(Policy))
def test_an_object_that_is_as_it_was_is_no_change(entry: FileEntry, policy: Policy) -> None:
    assert compared(entry, entry, policy) is None


@given(entries, entries, st.sampled_from(Policy))
def test_a_letter_stands_in_its_place_or_not_at_all(
    old: FileEntry, new: FileEntry, policy: Policy
) -> None:
    code = change_code(old, new, DEFAULT_MASKS[policy])
    assert re.fullmatch("[C-][L-][D-][I-][H-][M-][U-][G-][T-][S-]", code)
    if policy is Policy.IGNORE_ALL:
        assert code == "-" * 10


@given(entries, entries)
def test_a_smaller_mask_never_finds_more(old: FileEntry, new: FileEntry) -> None:
    whole = change_code(old, new, DEFAULT_MASKS[Policy.USER0])
    part = change_code(old, new, DEFAULT_MASKS[Policy.ATTRIBUTES])
    assert all(small in ("-", large) for small, large in zip(part, whole, strict=True))


@pytest.mark.parametrize(
    ("changed", "code", "shown"),
    [
        ({"digest": b"\2" * 32}, "C---------", {"chksum"}),
        ({"inode": 41}, "---I------", {"inode", "dev", "btime"}),
        ({"birth_ns": 6}, "---I------", {"inode", "dev", "btime"}),
        ({"flags": 0x10}, "-----M----", {"mode", "attr", "imode", "iattr"}),
        ({"project": 9}, "-----M----", {"mode", "attr", "imode", "iattr", "project"}),
        ({"nlink": 2}, "----H-----", {"hardlinks"}),
        ({"mode": 0o100600}, "-----M----", {"mode", "attr", "imode", "iattr"}),
        ({"uid": 9}, "------U---", {"owner", "iowner"}),
        ({"gid": 9}, "-------G--", {"group", "igroup"}),
        ({"mtime_ns": 9}, "--------T-", {"mtime"}),
        ({"ctime_ns": 9}, "--------T-", {"ctime"}),
        ({"size": 9}, "---------S", {"size"}),
        (
            {"mode": 0o120777, "link": b"t"},
            "CL---M----",
            {"chksum", "mode", "attr", "imode", "iattr", "link"},
        ),
    ],
)
def test_each_change_has_its_letter_and_shows_its_attributes(
    changed: dict[str, Any], code: str, shown: set[str]
) -> None:
    change = compared(OLD, OLD._replace(**changed))
    assert change is not None
    assert change.kind is ChangeKind.MODIFIED
    assert change.code == code
    names = {name.removesuffix("_old") for name in change.fields if name.endswith("_old")}
    assert names == shown
    assert {f"{name}_new" for name in names} <= change.fields.keys()


def with_xattrs(*found: Xattr) -> FileEntry:
    return OLD._replace(xattrs=tuple(sorted(found)))


ACL = (b"system.posix_acl_access", 12, b"\2\0\0\0" + b"\2\0\6\0" + (7).to_bytes(4, "little"))
DEFAULT_ACL = (b"system.posix_acl_default", *ACL[1:])
CAPABILITY = (b"security.capability", 20, bytes([1, 0, 0, 2, 0, 0x20]) + bytes(14))
LABEL = (b"security.selinux", 6, b"bin_t\0")
OTHER = (b"user.b", 1, b"w")


@pytest.mark.parametrize(
    ("found", "field", "text"),
    [
        (ACL, "acl", "user:user7:rw-"),
        (DEFAULT_ACL, "acl_default", "user:user7:rw-"),
        (CAPABILITY, "caps", "cap_net_raw=ep"),
        (LABEL, "selinux", "bin_t"),
        (OTHER, "xattr", 'user.b="w"'),
        ((b"trusted.x", 1, b"t"), "xattr", 'trusted.x="t"'),
    ],
)
def test_what_else_decides_about_rights_is_a_changed_mode(
    found: Xattr, field: str, text: str
) -> None:
    change = compared(OLD, with_xattrs(*OLD.xattrs, found), Policy.ATTRIBUTES)
    assert change is not None
    assert change.code == "-----M----"
    names = {"policy", "change", "path"}
    for name in ("mode", "attr", "imode", "iattr", field):
        names |= {f"{name}_old", f"{name}_new"}
    assert change.fields.keys() == names
    assert (change.fields[f"{field}_old"], change.fields[f"{field}_new"]) == (None, text)
    assert compared(OLD, with_xattrs(*OLD.xattrs, found), Policy.IGNORE_ALL) is None


@pytest.mark.parametrize("found", [ACL, CAPABILITY, LABEL, OTHER, (b"trusted.x", 1, b"t")])
def test_what_is_not_known_of_one_side_is_not_compared(found: Xattr) -> None:
    now = with_xattrs(*OLD.xattrs, found)
    group = next(
        group
        for group in (Looked.ACL, Looked.LABEL, Looked.OTHER, Looked.TRUSTED)
        if compared(OLD._replace(looked=int(Looked.EVERYTHING & ~group)), now) is None
    )
    assert compared(now, OLD._replace(looked=int(Looked.EVERYTHING & ~group))) is None
    assert compared(OLD, now) is not None


def test_an_object_of_an_old_baseline_is_compared_in_what_it_has() -> None:
    old = FileEntry(*OLD[:15])
    assert compared(old, OLD) is None
    assert compared(old, OLD._replace(mode=0o100755)) is not None


def test_only_the_attributes_that_differ_are_shown_unless_all_are_wanted() -> None:
    now = with_xattrs((b"user.a", 1, b"w"), OTHER, LABEL)
    before = with_xattrs((b"user.a", 1, b"v"), OTHER, LABEL)
    change = compared(before, now)
    assert change is not None
    assert (change.fields["xattr_old"], change.fields["xattr_new"]) == ('user.a="v"', 'user.a="w"')
    assert "selinux_old" not in change.fields
    change = compared(before, now, report_full_detail=True)
    assert change is not None
    assert change.fields["xattr_new"] == 'user.a="w", user.b="w"'
    assert change.fields["selinux_old"] == "bin_t"


def test_device_nodes_are_compared_by_their_numbers() -> None:
    old = OLD._replace(mode=stat.S_IFCHR | 0o600, rdev=0x103, digest=None)
    change = compared(old, old._replace(rdev=0x105))
    assert change is not None
    assert change.code == "--D-------"
    assert (change.fields["idevice_old"], change.fields["idevice_new"]) == (0x103, 0x105)


def test_the_fields_are_those_of_samhain() -> None:
    change = compared(OLD, OLD._replace(mode=0o100600, size=14, mtime_ns=1_700_000_000 * 10**9))
    assert change is not None
    assert change.fields == {
        "policy": "ReadOnly",
        "change": "-----M--TS",
        "path": "/x",
        "mode_old": "-rw-r--r--",
        "mode_new": "-rw-------",
        "attr_old": "------------",
        "attr_new": "------------",
        "imode_old": 33188,
        "imode_new": 33152,
        "iattr_old": 0,
        "iattr_new": 0,
        "size_old": 6,
        "size_new": 14,
        "mtime_old": "1970-01-01T00:00:01",
        "mtime_new": "2023-11-14T22:13:20",
    }


def test_times_within_the_same_second_are_shown_with_nanoseconds() -> None:
    change = compared(OLD, OLD._replace(mtime_ns=1_000_000_007))
    assert change is not None
    assert change.fields["mtime_old"] == "1970-01-01T00:00:01.000000000"
    assert change.fields["mtime_new"] == "1970-01-01T00:00:01.000000007"


def test_a_time_beyond_the_calendar_is_shown_as_seconds() -> None:
    change = compared(OLD, OLD._replace(mtime_ns=(2**63) * 10**9))
    assert change is not None
    assert change.fields["mtime_new"] == f"@{2**63}"


def test_added_and_missing_show_everything_on_their_side() -> None:
    added, missing = compared(None, OLD), compared(OLD, None)
    assert added is not None
    assert missing is not None
    assert added.fields["size_old"] == 0
    assert missing.fields["size_new"] == 0
    assert added.fields["chksum_new"] == "sha256:" + "01" * 32
    for name in [
        "mode",
        "imode",
        "hardlinks",
        "idevice",
        "inode",
        "owner",
        "iowner",
        "group",
        "igroup",
        "size",
    ]:
        assert f"{name}_new" in added.fields
        assert f"{name}_old" in missing.fields
    assert "link_new" not in added.fields


def test_severities_come_from_the_policy_and_from_severity_files() -> None:
    severities = dict.fromkeys(Policy, Severity.WARN)
    severities[Policy.IGNORE_ALL] = Severity.INFO
    others: dict[str, Any] = {"policy_severities": severities, "severity_files": Severity.ERR}
    cases = [
        (None, OLD, Policy.READ_ONLY, Severity.WARN),
        (OLD, None, Policy.READ_ONLY, Severity.ERR),
        (OLD, OLD._replace(size=7), Policy.READ_ONLY, Severity.WARN),
        (None, OLD, Policy.IGNORE_ALL, Severity.INFO),
        (OLD, None, Policy.IGNORE_ALL, Severity.INFO),
    ]
    for old, new, policy, severity in cases:
        change = compared(old, new, policy, **others)
        assert change is not None
        assert change.severity is severity


@pytest.mark.parametrize(
    ("directive", "old", "new"),
    [
        ("ignore_added", None, OLD),
        ("ignore_missing", OLD, None),
        ("ignore_modified", OLD, OLD._replace(size=9)),
    ],
)
def test_ignored_changes_must_match_the_whole_path(
    directive: str, old: FileEntry | None, new: FileEntry | None
) -> None:
    whole: dict[str, Any] = {directive: (re.compile(rb"/x"),)}
    part: dict[str, Any] = {directive: (re.compile(rb"/"),)}
    assert compared(old, new, **whole) is None
    assert compared(old, new, **part) is not None


def test_loose_directories_may_change_size_and_times_and_nothing_else() -> None:
    old = OLD._replace(mode=0o040755, digest=None)
    busy = old._replace(size=9, mtime_ns=9, ctime_ns=9)
    assert compared(old, busy, loose_dir_check=True) is None
    change = compared(old, busy._replace(mode=0o040777), loose_dir_check=True)
    assert change is not None
    assert change.code == "-----M--TS"
    assert compared(OLD, OLD._replace(size=9), loose_dir_check=True) is not None


def test_full_detail_shows_what_did_not_change_too() -> None:
    change = compared(OLD, OLD._replace(size=9), report_full_detail=True)
    assert change is not None
    assert change.fields["owner_old"] == change.fields["owner_new"] == "user1"


def test_a_growing_file_may_grow_if_what_was_there_stayed() -> None:
    grown = OLD._replace(size=60, digest=b"\3" * 32, mtime_ns=9)
    policy = Policy.GROWING_LOG_FILES
    assert compared(OLD, grown, policy, prefix=OLD.digest) is None
    changed = compared(OLD, grown, policy, prefix=b"\4" * 32)
    assert changed is not None
    assert changed.code == "C---------"
    shrunk = compared(OLD, OLD._replace(size=1, digest=b"\5" * 32), policy)
    assert shrunk is not None
    assert shrunk.code == "C--------S"


def test_what_cannot_be_examined_is_neither_changed_nor_gone() -> None:
    unknown = OLD._replace(mode=0, state=int(State.UNREADABLE))
    assert compared(OLD, unknown) is None
    assert compared(None, unknown) is None
    appeared = compared(unknown, OLD)
    assert appeared is not None
    assert appeared.kind is ChangeKind.ADDED
    assert compared(unknown, None) is None


def test_contents_that_were_not_read_are_not_compared() -> None:
    assert compared(OLD, OLD._replace(digest=None, state=int(State.UNSTABLE))) is None
    assert compared(OLD._replace(digest=None), OLD) is None


def test_access_times_of_links_are_no_news() -> None:
    link = OLD._replace(mode=0o120777, link=b"t", digest=None)
    assert compared(link, link._replace(atime_ns=9), Policy.USER0) is None
    assert compared(OLD, OLD._replace(atime_ns=9), Policy.USER0) is not None


def test_a_mask_of_contents_alone_sees_a_file_become_a_link() -> None:
    settings = settings_of(file_rule(b"/x"), masks={Policy.READ_ONLY: Check.CHK})
    decision = Ruleset(settings).decide(b"/x")
    assert isinstance(decision, Decision)
    link = OLD._replace(mode=0o120777, link=b"t", digest=None)
    change = compare(b"/x", OLD, link, decision, settings, NAMES)
    assert change is not None
    assert change.code == "C---------"


def test_weird_paths_and_targets_are_shown_escaped() -> None:
    link = OLD._replace(mode=0o120777, link=b"\x1b[2J", digest=None)
    change = compared(link, link._replace(link=b"\xff"))
    assert change is not None
    assert change.fields["link_old"] == r"\x1b[2J"
    assert change.fields["link_new"] == r"\xff"
