"""A root that is a link: what it leads to is covered, the check says so, and nothing is weakened."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from needfire_client.cli import main
from needfire_client.policy import Ruleset
from needfire_client.roots import with_resolved_roots
from needfire_protocol.rc.policies import PathRule, Policy
from needfire_testkit.scanner import Scanned, dir_rule, file_rule, settings_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Merged as /bin and /usr are."""
    root = tmp_path / "tree"
    (root / "usr" / "bin" / "deep").mkdir(parents=True)
    (root / "usr" / "bin" / "ls").write_bytes(b"ls")
    (root / "bin").symlink_to("usr/bin")
    return root


def resolved(*rules: PathRule) -> list[tuple[bytes, Policy]]:
    return [(rule.path, rule.policy) for rule in with_resolved_roots(settings_of(*rules)).rules]


def test_what_a_root_leads_to_is_checked_and_said(root: Path, tmp_path: Path) -> None:
    scanned = Scanned(with_resolved_roots(settings_of(dir_rule(root / "bin"))), tmp_path)
    scanned.init()
    (said,) = scanned.take()
    assert said.code == "POLICY_ROOT_IS_LINK"
    assert said.fields == {
        "path": str(root / "bin"),
        "rule": "agentrc:7",
        "link": "usr/bin",
        "resolved": str(root / "usr" / "bin"),
    }
    checker = scanned.checker()
    checker.full_check()
    scanned.take()
    (root / "usr" / "bin" / "ls").write_bytes(b"a rootkit")
    (root / "usr" / "bin" / "deep" / "new").touch()
    checker.full_check()
    found = {path for _, path, _ in scanned.changes()}
    assert {bytes(root / "usr/bin/ls"), bytes(root / "usr/bin/deep/new")} <= found
    # And the link is an object as before.
    (root / "bin").unlink()
    (root / "bin").symlink_to("elsewhere")
    checker.full_check()
    assert bytes(root / "bin") in {path for _, path, _ in scanned.changes()}
    scanned.close()


def test_a_link_to_a_file_that_is_checked_leads_to_no_directory(root: Path, tmp_path: Path) -> None:
    (root / "file").symlink_to("usr/bin/ls")
    scanned = Scanned(settings_of(dir_rule(root / "usr"), dir_rule(root / "file")), tmp_path)
    scanned.init()
    assert [(event.code, event.path) for event in scanned.take()] == [
        ("POLICY_NODIRECTORY", bytes(root / "file"))
    ]


@pytest.mark.parametrize(("name", "depth"), [("ls", -1), ("l*", 99)])
def test_a_rule_that_asks_for_nothing_inside_and_a_wildcard_may_name_a_file(
    root: Path, tmp_path: Path, name: str, depth: int
) -> None:
    scanned = Scanned(settings_of(dir_rule(root / "usr" / "bin" / name, depth=depth)), tmp_path)
    scanned.init()
    assert scanned.take() == []


def test_a_link_to_nothing_or_to_a_file_is_no_root(root: Path, tmp_path: Path) -> None:
    (root / "dangling").symlink_to("nowhere")
    (root / "file").symlink_to("usr/bin/ls")
    rules = (dir_rule(root / "dangling"), dir_rule(root / "file"))
    assert len(resolved(*rules)) == 2
    scanned = Scanned(with_resolved_roots(settings_of(*rules)), tmp_path)
    scanned.init()
    assert [event.code for event in scanned.take()] == ["POLICY_NODIRECTORY"] * 2
    scanned.close()


def test_chains_of_links_and_links_on_the_way_are_followed_to_the_end(root: Path) -> None:
    (root / "first").symlink_to("bin")
    (root / "top").symlink_to("usr")
    (root / "usr" / "lib64").symlink_to("bin")
    for name in ("first", "top/lib64"):
        assert resolved(dir_rule(root / name))[1] == (bytes(root / "usr/bin"), Policy.READ_ONLY)


def test_a_loop_of_links_is_no_root(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    assert len(resolved(dir_rule(root / "one"))) == 1


@pytest.mark.parametrize("depth", [0, 1, 99])
def test_what_another_line_covers_stays_covered_as_that_line_says(root: Path, depth: int) -> None:
    rules = (dir_rule(root / "bin", Policy.ATTRIBUTES, depth), dir_rule(root / "usr"))
    assert len(resolved(*rules)) == 2
    decision = Ruleset(settings_of(*rules)).decide(bytes(root / "usr/bin/deep"))
    assert decision is not None
    assert decision.policy is Policy.READ_ONLY


def test_an_exclusion_excludes_nothing_behind_a_link(root: Path) -> None:
    (root / "not").symlink_to("usr")
    rules = (dir_rule(root / "not", Policy.IGNORE_ALL, -1), dir_rule(root))
    assert len(resolved(*rules)) == 2


def test_files_and_patterns_stay_as_they_are(root: Path) -> None:
    assert len(resolved(file_rule(root / "bin"), dir_rule(bytes(root) + b"/b*"))) == 2


def test_two_links_to_one_directory_make_one_rule(root: Path) -> None:
    (root / "sbin").symlink_to("usr/bin")
    assert len(resolved(dir_rule(root / "bin"), dir_rule(root / "sbin"))) == 3


def test_the_agent_and_its_explanation_use_it(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rc = tmp_path / "rc"
    rc.write_text(f"[ReadOnly]\ndir=9{root}/bin\n")
    assert main(["check-config", str(rc), "--explain", str(root / "usr/bin/ls")]) == 0
    assert f"{rc}:2" in capsys.readouterr().out
    state = ["--rc", str(rc), "--state-dir", str(tmp_path / "state")]
    assert main(["init", *state]) == 0
    (root / "usr" / "bin" / "ls").write_bytes(b"a rootkit")
    capsys.readouterr()
    main(["check", *state])
    assert str(root / "usr/bin/ls") in capsys.readouterr().out


def test_an_explanation_of_a_path_through_a_link_is_that_of_what_it_leads_to(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody looks at /bin/ls where /bin is a link, so no rule for /usr would be named for it."""
    rc = tmp_path / "rc"
    rc.write_text(f"[ReadOnly]\ndir=9{root}/usr\ndir=1{root}/bin\n")
    explain = ["check-config", str(rc), "--explain", str(root / "bin/ls")]
    assert main(explain) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{root}/bin/ls: {root}/bin is a link; the object is {root}/usr/bin/ls"
    assert second.startswith(f"{root}/usr/bin/ls: [ReadOnly] by {rc}:2 ")
    assert main([*explain, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["path"], data["line"]) == (f"{root}/usr/bin/ls", 2)
    assert (data["asked"], data["links"]) == (f"{root}/bin/ls", [f"{root}/bin"])


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ("file={}/bin/ls", "bin/ls"),
        ("dir=9{}/bin/deep", "bin/deep/x"),
        ("dir=9{}/bin", "bin"),
    ],
)
def test_a_rule_that_names_an_object_through_a_link_decides_about_that_path(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, asked: str
) -> None:
    rc = tmp_path / "rc"
    rc.write_text(f"[ReadOnly]\n{rule.format(root)}\n")
    assert main(["check-config", str(rc), "--explain", str(root / asked)]) == 0
    assert capsys.readouterr().out.startswith(f"{root / asked}: [ReadOnly] by {rc}:2 ")


def test_the_rules_are_otherwise_untouched(root: Path) -> None:
    settings = settings_of(dir_rule(root / "usr"))
    assert with_resolved_roots(settings) is settings
    added = with_resolved_roots(settings_of(dir_rule(root / "bin"))).rules[1]
    assert added == replace(dir_rule(root / "bin"), path=os.path.realpath(bytes(root / "bin")))
