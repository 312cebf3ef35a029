"""What mountinfo says, and what of it concerns the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client import dead_mounts
from needfire_client.mounts import (
    Mount,
    concerned,
    is_below,
    is_network,
    may_hang,
    parse_mountinfo,
    read_mounts,
)
from needfire_client.policy import Ruleset
from needfire_testkit.scanner import dir_rule, settings_of

TEXT = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 254:0 /srv/real /srv/a\040b\134 rw shared:1 master:2 - ext4 /dev/vda rw
31 27 0:99 / /home rw - nfs4 server:/home rw
32 27 0:98 / /media/x rw - fuse.sshfs me@host rw
not a mount at all
33 27 0:97 / nowhere rw - tmpfs tmpfs rw
34 27 0:97 / /cut rw
"""


def test_lines_become_mounts_and_others_are_left_out() -> None:
    mounts = parse_mountinfo(TEXT)
    assert [mount.point for mount in mounts] == [
        b"/proc",
        b"/",
        rb"/srv/a b" + b"\\",
        b"/home",
        b"/media/x",
    ]
    assert mounts[2] == Mount(30, b"254:0", b"/srv/real", b"/srv/a b\\", "ext4")
    assert [mount.point for mount in mounts if is_network(mount)] == [b"/home", b"/media/x"]


@pytest.mark.parametrize(
    ("kind", "is_asked", "is_careful"),
    [
        *[(kind, True, True) for kind in ("nfs4", "fuse", "fuse.sshfs")],
        ("autofs", False, True),
        *[(kind, False, False) for kind in ("ext4", "tmpfs", "fusectl")],
    ],
)
def test_who_asks_an_automounter_may_wait_and_has_something_mounted(
    kind: str, is_asked: bool, is_careful: bool
) -> None:
    mount = Mount(1, b"", b"/", b"/net", kind)
    assert (is_network(mount), may_hang(mount)) == (is_asked, is_careful)


@pytest.mark.parametrize("odd", [b"\r", b"\x0b", b"\x0c", b"\x85", b"\x1c", b"\xff"])
def test_a_mount_point_that_is_named_like_the_end_of_a_line_is_seen(odd: bytes) -> None:
    line = b"33 27 0:97 / /srv/a" + odd + b"b rw,relatime - tmpfs none rw\n"
    assert [mount.point for mount in parse_mountinfo(line)] == [b"/srv/a" + odd + b"b"]


@pytest.mark.parametrize("name", [b"\xff", b"\x1b[31m", b"\r", b"x" * 10_000])
def test_a_file_system_of_whatever_type_is_seen_and_its_type_is_printable(name: bytes) -> None:
    line = b"33 27 0:97 / /srv/a rw,relatime - fuse." + name + b" none rw\n"
    (mount,) = parse_mountinfo(line)
    assert is_network(mount)
    assert mount.kind.isprintable()
    assert len(mount.kind) < 300


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    for mount in parse_mountinfo(data):
        assert mount.point.startswith(b"/")


def test_mounts_on_the_way_and_below_a_rule_concern_it() -> None:
    ruleset = Ruleset(settings_of(dir_rule(b"/srv/www")))
    points = (b"/", b"/srv", b"/srv/www", b"/srv/www/x", b"/srv/other", b"/home")
    mounts = [Mount(1, b"", b"/", point, "ext4") for point in points]
    assert [mount.point for mount in concerned(mounts, ruleset)] == list(points[:4])


def test_what_may_not_answer_is_the_innermost_mount_around_a_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = {b"/": "nfs4", b"/home": "nfs4", b"/home/me": "fuse.sshfs", b"/home/me/x": "ext4"}
    mounts = [Mount(1, b"", b"/", point, kind) for point, kind in kinds.items()]
    monkeypatch.setattr(dead_mounts, "read_mounts", lambda: mounts)
    around = {b"/srv": None, b"/home/you": b"/home", b"/home/me": b"/home/me"}
    around |= {b"/home/me/x/y": b"/home/me"}
    assert {path: dead_mounts.mount_around(path) for path in around} == around


def test_those_are_suspected_that_are_around_or_inside_and_each_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = {b"/": "nfs4", b"/net/a/deep/er": "fuse.x", b"/net": "nfs4", b"/net/b": "cifs"}
    kinds |= {b"/net/a": "9p", b"/net/a/auto": "autofs", b"/net/a/disk": "ext4", b"/other": "nfs"}
    mounts = [Mount(1, b"", b"/", point, kind) for point, kind in kinds.items()]
    asked: list[list[bytes]] = []

    def unanswered(mounts: list[Mount], _stop: object) -> frozenset[bytes]:
        asked.append([mount.point for mount in mounts])
        return frozenset((b"/net/b",)).intersection(asked[-1])

    monkeypatch.setattr(dead_mounts, "read_mounts", lambda: mounts)
    monkeypatch.setattr(dead_mounts, "unanswered", unanswered)
    suspects = dead_mounts.Suspects(lambda: False)
    assert suspects.silent(b"/net", [b"/net/a", b"/net/c"], frozenset()) == frozenset()
    assert suspects.silent(b"/", [b"/net"], frozenset((b"/net/b",))) == frozenset()
    assert suspects.silent(b"/", [b"/net"], frozenset()) == {b"/net/b"}
    assert asked == [[b"/net", b"/net/a", b"/net/a/deep/er"], [], [b"/net/b"]]
    # Another one that has come to stand there is none of which anything is known.
    mounts.append(Mount(2, b"", b"/", b"/net/b", "cifs"))
    assert suspects.silent(b"/net/b", [], frozenset()) == {b"/net/b"}
    # First those that anybody may mount.
    by_anybody = frozenset((b"/net/a/deep/er",))
    assert dead_mounts.mounts_inside(b"/net/a", frozenset()) == by_anybody
    assert dead_mounts.mounts_inside(b"/net/a", by_anybody) == {b"/net/a", b"/net/a/auto"}


def test_a_suspect_for_whom_there_was_no_room_in_a_question_is_asked_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = dead_mounts.ASKED_MAX
    # Whoever may mount by FUSE has as many of them as they like, and nearer to the root.
    mounts = [Mount(each, b"", b"/", b"/net/%d" % each, "fuse.x") for each in range(most)]
    dead = Mount(most, b"", b"/", b"/net/far/dead", "nfs4")
    asked: list[list[Mount]] = []

    def silent(mounts: list[Mount], _stop: object) -> frozenset[Mount]:
        asked.append(mounts)
        return frozenset((dead,)).intersection(mounts)

    monkeypatch.setattr(dead_mounts, "read_mounts", lambda: [*mounts, dead])
    monkeypatch.setattr(dead_mounts, "_silent", silent)
    suspects = dead_mounts.Suspects(lambda: False)
    assert suspects.silent(b"/", [b"/net"], frozenset()) == frozenset()
    assert suspects.silent(b"/", [b"/net"], frozenset()) == {dead.point}
    assert asked == [mounts, [dead]]


def test_below_goes_by_components() -> None:
    assert is_below(b"/a/b", b"/a")
    assert is_below(b"/a", b"/")
    assert not is_below(b"/ab", b"/a")


def test_this_host_has_a_root() -> None:
    assert any(mount.point == b"/" for mount in read_mounts())
