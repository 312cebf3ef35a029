"""What a check makes of trees that somebody turns about while it looks at them."""

import os
from pathlib import Path

import pytest

from needfire_client.commands.check import print_summary
from needfire_protocol.rc.policies import Policy
from needfire_testkit.scanner import MISSING, MODIFIED, Make, dir_rule, file_rule


def test_a_directory_is_told_once_of_all_that_was_seen_to_change_in_it(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    new = [root / f"new{number}" for number in range(5)]
    for path in new:
        path.touch()
    looked_at: set[bytes] = set()
    for number, path in enumerate(new):
        # Somebody goes on writing there while what was named before is looked at.
        (root / f"later{number}").touch()
        checker.check_path(bytes(path), looked_at=looked_at)
    told = [event.path for event in scanned.take()]
    assert sorted(told) == [bytes(root), *map(bytes, new)]
    # What came later was named later, and is another look.
    checker.check_path(bytes(root / "later4"), looked_at=set())
    assert {path for _, path, _ in scanned.changes()} == {bytes(root), bytes(root / "later4")}


def test_a_directory_that_is_gone_is_told_whole_by_a_look_at_what_was_in_it(
    root: Path, make: Make
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    whole, single = scanned.checker(), scanned.checker()
    scanned.take()
    # A file in it is written, and at once somebody moves the directory away.
    (root / "sub").rename(root.parent / "elsewhere")
    whole.full_check()
    found = scanned.changes()
    assert (MISSING, bytes(root / "sub" / "deep" / "d"), "") in found
    single.check_path(bytes(root / "sub" / "c"))
    single.check_path(bytes(root / "sub"))
    assert scanned.changes() == found


@pytest.mark.parametrize("looks_at", ["current", "."])
def test_a_link_that_leads_elsewhere_is_followed_to_what_rules_name_behind_it(
    root: Path, make: Make, looks_at: str
) -> None:
    for version in ("v1", "v2"):
        (root.parent / version / "bin").mkdir(parents=True)
        (root.parent / version / "bin" / "tool").write_text(version)
    link = root / "current"
    link.symlink_to(root.parent / "v1")
    scanned = make(dir_rule(root, depth=0), file_rule(link / "bin" / "tool"))
    scanned.init()
    whole, single = scanned.checker(), scanned.checker()
    scanned.take()
    link.unlink()
    link.symlink_to(root.parent / "v2")
    whole.full_check()
    found = scanned.changes()
    assert bytes(link / "bin" / "tool") in {path for _, path, _ in found}
    single.check_path(bytes((root / looks_at).absolute()))
    assert scanned.changes() == found


@pytest.mark.parametrize(("uid", "advice"), [(0, "the events say why"), (1000, "run it as root")])
def test_the_summary_advises_only_what_can_help(
    root: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    uid: int,
    advice: str,
) -> None:
    scanned = make(dir_rule(root))
    (root / "giant").touch()
    os.truncate(root / "giant", 2**42)
    scanned.init()
    result = scanned.checker().full_check()
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    print_summary(result, as_json=False)
    assert f"1 object could not be read, so nobody knows whether they differ: {advice}" in (
        capsys.readouterr().err
    )


def test_a_log_with_very_many_names_is_not_read_under_each_of_them(root: Path, make: Make) -> None:
    log = root / "a"
    log.write_bytes(b"old lines")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES), file_rule(log, Policy.GROWING_LOG_FILES))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    # Whose log directory it is cuts the old file short, gives it many names, and begins a new one.
    log.rename(root / "a.0")
    (root / "a.0").write_bytes(b"old")
    for number in range(1, 40):
        os.link(root / "a.0", root / f"a.{number}")
    log.write_bytes(b"new")
    result = checker.full_check()
    assert (MODIFIED, bytes(log), "C--I-----S") in scanned.changes()
    assert result.hashed <= 5
