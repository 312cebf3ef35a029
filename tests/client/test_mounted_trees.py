"""What a walk makes of mounts, of mounts that lead back, and of files with several names."""

import os
import subprocess
from pathlib import Path

import pytest

from needfire_client.attributes import Examiner
from needfire_client.inode import Inspector
from needfire_protocol.rc.policies import Policy
from needfire_testkit.mounting import autofs_point, mounted
from needfire_testkit.scanner import Make, Scanned, dir_rule, file_rule

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    return root


def changed(scanned: Scanned, root: Path) -> dict[str, str]:
    """Return the code of each path in the tree that was reported."""
    return {
        os.path.relpath(os.fsdecode(path), root): code.removeprefix("POLICY_")
        for code, path, _ in scanned.changes()
    }


@pytest.mark.root
@as_root
def test_what_is_mounted_in_a_tree_is_part_of_it(root: Path, make: Make) -> None:
    scanned = make(dir_rule(root))
    with mounted("-t", "tmpfs", "needfire-test", str(root / "sub")):
        (root / "sub" / "deep").mkdir()
        (root / "sub" / "deep" / "inside").write_bytes(b"x")
        scanned.init()
        checker = scanned.checker()
        scanned.take()
        checker.full_check()
        assert scanned.take() == []
        (root / "sub" / "deep" / "inside").write_bytes(b"y")
        checker.full_check()
        assert changed(scanned, root) == {"sub/deep/inside": "MODIFIED"}
    checker.full_check()
    # Another directory is there now, and what was in the other one is not.
    assert changed(scanned, root) == {
        "sub": "MODIFIED",
        "sub/deep": "MISSING",
        "sub/deep/inside": "MISSING",
    }


@pytest.mark.root
@as_root
def test_what_is_mounted_over_a_tree_does_not_hide_that_it_is_gone(
    root: Path, tmp_path: Path, make: Make
) -> None:
    (root / "sub" / "precious").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    with mounted("--bind", str(tmp_path / "other"), str(root / "sub")):
        checker.full_check()
        assert changed(scanned, root) == {"sub": "MODIFIED", "sub/precious": "MISSING"}


@pytest.mark.root
@as_root
def test_a_bind_mount_is_checked_under_each_path_that_leads_to_it(root: Path, make: Make) -> None:
    (root / "source").mkdir()
    (root / "source" / "both").write_bytes(b"x")
    with mounted("--bind", str(root / "source"), str(root / "sub")):
        scanned = make(dir_rule(root))
        scanned.init()
        checker = scanned.checker()
        scanned.take()
        (root / "source" / "both").write_bytes(b"y")
        checker.full_check()
        assert changed(scanned, root) == {"source/both": "MODIFIED", "sub/both": "MODIFIED"}


@pytest.mark.root
@as_root
def test_a_tree_that_is_mounted_in_itself_comes_to_an_end(root: Path, make: Make) -> None:
    with (
        mounted("--bind", str(root), str(root / "sub")),
        mounted("--bind", str(root), str(root / "sub" / "sub")),
    ):
        scanned = make(dir_rule(root))
        result = scanned.init()
        assert result.is_complete
        names = {"file", "sub/file", "sub/sub/file"}
        checker = scanned.checker()
        scanned.take()
        (root / "file").write_bytes(b"y")
        checker.full_check()
        assert changed(scanned, root) == dict.fromkeys(names, "MODIFIED")


@pytest.mark.root
@as_root
def test_a_file_that_another_one_is_mounted_over_is_another_file(
    root: Path, tmp_path: Path, make: Make
) -> None:
    (tmp_path / "evil").write_bytes(b"evil")
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    with mounted("--bind", str(tmp_path / "evil"), str(root / "file")):
        checker.full_check()
        assert changed(scanned, root) == {"file": "MODIFIED"}


@pytest.mark.root
@as_root
@pytest.mark.parametrize(
    ("rule", "is_opened"), [("file", False), ("above", False), ("out", False), ("in", True)]
)
def test_only_who_goes_into_it_lets_an_automounter_mount_something(
    root: Path, make: Make, rule: str, is_opened: bool
) -> None:
    point = root / "sub"
    rules = {
        "file": [file_rule(point)],
        "above": [dir_rule(root, depth=0)],
        "out": [dir_rule(root), dir_rule(point, Policy.IGNORE_ALL, -1)],
        "in": [dir_rule(root)],
    }
    scanned = make(*rules[rule])
    with autofs_point(point) as was_opened:
        assert scanned.init().is_complete
        scanned.take()
        checker = scanned.checker()
        assert checker.full_check().is_complete
        assert checker.check_path(bytes(point)) == 0
        found = scanned.take()
        assert was_opened() == is_opened
    assert found == []


@pytest.mark.root
@as_root
def test_what_the_kernel_mounts_by_itself_is_no_more_opened_than_that(tmp_path: Path) -> None:
    place = tmp_path / "debug"
    place.mkdir()
    with mounted("-t", "debugfs", "needfire-test", str(place)):
        fd = os.open(place, os.O_RDONLY)
        try:
            if not (place / "tracing").is_dir():
                pytest.skip("debugfs has no directory here that is mounted when it is opened")
            device = os.stat(place / "tracing").st_dev
            inspector = Inspector()
            assert inspector.is_automount(fd, b"tracing", device)
            assert not inspector.is_automount(fd, b".", device)
            entry = Examiner("sha256").examine(fd, b"tracing", hashes=True)
        finally:
            os.close(fd)
        assert entry is not None
        assert entry.device == device
        assert f"{place}/tracing" not in Path("/proc/self/mounts").read_text()


def test_a_set_of_hard_links_is_reported_under_each_of_its_covered_names(
    root: Path, tmp_path: Path, make: Make
) -> None:
    for name in ("sub/one", "two"):
        os.link(root / "file", root / name)
    os.link(root / "file", tmp_path / "outside")
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (tmp_path / "outside").write_bytes(b"changed through a name that nobody watches")
    checker.full_check()
    everywhere = dict.fromkeys(("file", "sub/one", "two"), "MODIFIED")
    assert changed(scanned, root) == everywhere
    # A link more, far away, is a change of each of them as well.
    os.link(root / "file", tmp_path / "one-more")
    checker.full_check()
    assert {event.change for event in scanned.raised if event.change} == {"----H---T-"}
    assert changed(scanned, root) == everywhere


def test_links_that_lead_round_are_walked_once(root: Path, make: Make) -> None:
    (root / "sub" / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "here").symlink_to(".")
    scanned = make(dir_rule(root))
    result = scanned.init()
    # The tree, two files of two names, and the three links.
    assert result.files == 6
    scanned.checker().full_check()
    assert {event.code for event in scanned.take()} <= {"WEIRD_FILENAME"}


def test_what_a_pattern_matches_only_later_is_covered_from_then_on(root: Path, make: Make) -> None:
    scanned = make(file_rule(bytes(root) + b"/*/authorized_keys"), dir_rule(bytes(root) + b"/s?b"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "new").mkdir()
    (root / "new" / "authorized_keys").touch()
    (root / "new" / "other").touch()
    (root / "sab").mkdir()
    checker.full_check()
    assert changed(scanned, root) == {"new/authorized_keys": "ADDED", "sab": "ADDED"}


@pytest.mark.root
@as_root
def test_a_mount_that_a_namespace_of_its_own_sees_is_not_ours(root: Path, make: Make) -> None:
    """The agent sees what its own view has: mounts of others are neither walked nor a change."""
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    script = f"mount -t tmpfs x {root}/sub && touch {root}/sub/theirs && echo ready && read _"
    with subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            pytest.skip("cannot make a mount namespace here")
        checker.full_check()
        assert scanned.take() == []
        process.stdin.write("\n")
