"""A baseline that was made of a Samhain database: nothing is reported but what changed."""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needfire_client.baseline import BaselineReader
from needfire_client.compare import is_same_inode
from needfire_protocol.baseline import State
from needfire_protocol.rc.policies import Policy
from needfire_server.baseline_import import import_samhain_database
from needfire_testkit.baselines import FILE
from needfire_testkit.samhain import (
    database,
    record,
    run_samhain,
    samhain_rc,
    sha256_text,
    why_not,
)
from needfire_testkit.scanner import Scanned, dir_rule, settings_of

ADDED, MISSING, MODIFIED = "POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED"

# Evaluated once: it starts processes.
_WHY_NOT = why_not()
needs_samhain = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"aaa")
    (root / "b").write_bytes(b"b")
    (root / "hard").hardlink_to(root / "b")
    (root / "sub" / "c").write_bytes(b"c" * 300_000)
    (root / "sub" / "empty").touch()
    (root / "sub" / "odd=\n\xe9").write_bytes(b"odd")
    (root / "relative").symlink_to("sub/../a")
    (root / "absolute").symlink_to(root / "a")
    (root / "sub" / "up").symlink_to("../b")
    os.mkfifo(root / "fifo")
    # Some file systems give no more than whole seconds by chance.
    os.utime(root / "a", ns=(1_700_000_000_123_456_789, 1_700_000_001_987_654_321))
    return root


Make = Callable[..., Scanned]


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Iterator[Make]:
    made: list[Scanned] = []

    def make(policy: Policy = Policy.READ_ONLY, **others: object) -> Scanned:
        made.append(Scanned(settings_of(dir_rule(root, policy), **others), tmp_path))
        return made[-1]

    yield make
    for scanned in made:
        scanned.close()


def as_samhain_record(path: Path, *, digests: bool = True) -> bytes:
    """Return the record that Samhain would write, by what it was seen to write."""
    raw = bytes(path)
    text, digest = b"-", b"0" * 48
    if path.is_symlink():
        text = os.path.join(os.path.dirname(raw), os.readlink(raw))
    elif path.is_file() and digests:
        digest = sha256_text(hashlib.sha256(path.read_bytes()).digest())
    # After reading, which moves the access time.
    status = path.lstat()
    return record(
        raw,
        mode=status.st_mode,
        device=status.st_dev,
        nlink=status.st_nlink,
        inode=status.st_ino,
        size=status.st_size,
        times_s=(int(status.st_atime), int(status.st_mtime), int(status.st_ctime)),
        uid=status.st_uid,
        gid=status.st_gid,
        text=text,
        digest=digest,
    )


def import_tree(scanned: Scanned, root: Path, *, digests: bool = True) -> None:
    paths = [root, *root.rglob("*")]
    put(scanned, database(*(as_samhain_record(path, digests=digests) for path in paths)))


def put(scanned: Scanned, data: bytes) -> None:
    import_samhain_database(io.BytesIO(data), scanned.baseline, host="h", modified_us=1)


@pytest.mark.parametrize("policy", Policy)
def test_an_unchanged_tree_gives_no_report_under_any_policy(
    root: Path, make: Make, policy: Policy
) -> None:
    scanned = make(policy)
    import_tree(scanned, root)
    checker = scanned.checker()
    scanned.take()
    # Twice: reading must not move what the first check saw.
    for _ in range(2):
        checker.full_check()
    for path in (root, root / "a", root / "sub", root / "relative"):
        checker.check_path(bytes(path))
    assert [event for event in scanned.take() if event.code != "WEIRD_FILENAME"] == []


CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "contents of the same size": (lambda root: (root / "a").write_bytes(b"AAA"), "a", "C"),
    "contents": (lambda root: (root / "a").write_bytes(b"AAAA"), "a", "CS"),
    "mode": (lambda root: (root / "a").chmod(0o777), "a", "M"),
    "hard link": (lambda root: (root / "a2").hardlink_to(root / "a"), "a", "H"),
    "a later second": (lambda root: os.utime(root / "a", (1, 1_700_000_002)), "a", "T"),
    "another target": (lambda root: relink(root / "relative", "sub/../b"), "relative", "LI"),
    "another file": (lambda root: replace(root / "a", b"aaa"), "a", "IT"),
    "another type": (lambda root: replace(root / "fifo", b""), "fifo", "CLIM"),
}
"""What is done, to which object, and the letters that are told, but for the times: whether those
move by a second is chance."""


def relink(path: Path, target: str) -> None:
    (path.parent / "new").symlink_to(target)
    (path.parent / "new").replace(path)


def replace(path: Path, data: bytes) -> None:
    (path.parent / "new").write_bytes(data)
    (path.parent / "new").replace(path)


@pytest.mark.parametrize("name", CHANGES)
def test_real_changes_are_found(root: Path, make: Make, name: str) -> None:
    change, path, letters = CHANGES[name]
    scanned = make()
    import_tree(scanned, root)
    checker = scanned.checker()
    checker.full_check()
    scanned.take()
    change(root)
    checker.full_check()
    found = {event.path: event.change for event in scanned.take() if event.code == MODIFIED}
    assert set(letters) | {"T"} == set(found[bytes(root / path)]) - {"-"} | {"T"}
    # From here on the full entry counts, not the imported one.
    os.utime(root / path, ns=(5, 6), follow_symlinks=False)
    checker.full_check()
    scanned.take()
    os.utime(root / path, ns=(5, 7), follow_symlinks=False)
    checker.full_check()
    assert (bytes(root / path), "--------T-") in {
        (event.path, event.change) for event in scanned.take()
    }


def test_what_is_new_and_what_is_gone_is_found(root: Path, make: Make) -> None:
    scanned = make(Policy.ATTRIBUTES)
    import_tree(scanned, root)
    checker = scanned.checker()
    (root / "sub" / "c").unlink()
    (root / "new").touch()
    checker.full_check()
    assert {(ADDED, bytes(root / "new"), ""), (MISSING, bytes(root / "sub" / "c"), "")} <= {
        (event.code, event.path, event.change) for event in scanned.take()
    }


def test_a_link_that_leads_elsewhere_from_the_same_text_is_another(root: Path, make: Make) -> None:
    """Only the link's own directory may stand before a target that was relative."""
    scanned = make()
    path = root / "relative"
    elsewhere = record(
        bytes(path), mode=path.lstat().st_mode, text=b"/elsewhere/" + os.readlink(bytes(path))
    )
    put(scanned, database(elsewhere))
    scanned.checker().full_check()
    (found,) = [event for event in scanned.take() if event.code == MODIFIED]
    assert found.change[1] == "L"


def test_inode_numbers_are_compared_in_their_low_32_bits() -> None:
    old = FILE._replace(inode=5, state=int(State.IMPORTED))
    assert is_same_inode(old, 5)
    assert is_same_inode(old, 5 + 2**32)
    assert not is_same_inode(old, 6 + 2**32)
    assert not is_same_inode(old._replace(state=int(State.OK)), 5 + 2**32)


def test_a_log_that_grew_or_was_rotated_since_then_is_no_change(root: Path, make: Make) -> None:
    scanned = make(Policy.GROWING_LOG_FILES, ignore_added=(re.compile(rb".*\.1"),))
    import_tree(scanned, root)
    checker = scanned.checker()
    scanned.take()
    with (root / "a").open("ab") as log:
        log.write(b"more")
    checker.full_check()
    (root / "a").rename(root / "a.1")
    (root / "a").write_bytes(b"")
    checker.full_check()
    assert [event for event in scanned.take() if event.code != "WEIRD_FILENAME"] == []


def test_without_digests_the_check_says_once_how_many_are_lacking(root: Path, make: Make) -> None:
    scanned = make()
    import_tree(scanned, root, digests=False)
    checker = scanned.checker()
    scanned.take()
    for _ in range(2):
        checker.full_check()
    found = [event for event in scanned.take() if event.code != "WEIRD_FILENAME"]
    assert [(event.code, event.fields["files"]) for event in found] == [("BASELINE_INCOMPLETE", 6)]


def test_an_update_makes_it_a_baseline_like_any_other(root: Path, make: Make) -> None:
    scanned = make()
    import_tree(scanned, root, digests=False)
    scanned.checker().update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    with BaselineReader(scanned.baseline) as reader:
        found = [reader.directory(bytes(path)) for path in (root, root / "sub")]
    assert {entry.state for entries in found for entry in entries.values()} == {State.OK}
    assert found[0][b"a"].mtime_ns == 1_700_000_001_987_654_321
    scanned.take()
    scanned.checker().full_check()
    assert {event.code for event in scanned.take()} == {"WEIRD_FILENAME"}


# ---- what the real program writes ----------------------------------------------------------------


@pytest.mark.debian
@pytest.mark.root
@needs_samhain
@pytest.mark.parametrize("digest", ["SHA256", "TIGER192", "MD5"])
def test_a_tree_that_samhain_recorded_is_unchanged_and_changes_are_found(
    root: Path, make: Make, tmp_path: Path, digest: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    rc = samhain_rc(work, f"[ReadOnly]\ndir = 99{root}\n", digest=digest)
    run_samhain(rc, "init")
    scanned = make()
    put(scanned, (work / "samhain_file").read_bytes())
    checker = scanned.checker()
    scanned.take()
    result = checker.full_check()
    assert (result.files, result.changes) == (12, 0)
    lacking = ["BASELINE_INCOMPLETE"] if digest == "TIGER192" else []
    codes = [event.code for event in scanned.take()]
    assert [code for code in codes if code != "WEIRD_FILENAME"] == lacking
    (root / "a").write_bytes(b"AAA")
    (root / "sub" / "c").unlink()
    (root / "new").touch()
    relink(root / "sub" / "up", "../a")
    checker.full_check()
    found = {event.path.removeprefix(bytes(root)): event for event in scanned.take()}
    contents = "-" if lacking else "C"
    assert found[b"/a"].change == f"{contents}-------T-"
    assert found[b"/sub/c"].code == MISSING
    assert found[b"/new"].code == ADDED
    assert found[b"/sub/up"].change.startswith("-L-I")


@pytest.mark.debian
@pytest.mark.root
@needs_samhain
def test_samhain_and_we_agree_on_what_changed(root: Path, make: Make, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    rc = samhain_rc(work, f"[ReadOnly]\ndir = 99{root}\n", digest="SHA256")
    run_samhain(rc, "init")
    scanned = make()
    put(scanned, (work / "samhain_file").read_bytes())
    (root / "a").chmod(0o600)
    (root / "sub" / "c").write_bytes(b"other")
    (root / "sub" / "new").touch()
    (root / "hard").unlink()
    scanned.checker().full_check()
    ours = {event.path for event in scanned.take() if event.code.startswith("POLICY_")}
    told = run_samhain(rc, "check")
    theirs = {
        match[1].encode() for match in re.finditer(r"msg=<POLICY [^>]*>, path=<([^>]*)>", told)
    }
    assert ours == theirs
