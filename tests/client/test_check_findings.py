"""What a check says of what it cannot look at, or what is not as its rules expect."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from needfire_client import directory, memory, walk
from needfire_client.attributes import open_directory
from needfire_client.policy import Selection
from needfire_protocol.rc.policies import Policy
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import (
    ADDED,
    MISSING,
    MODIFIED,
    Make,
    Scanned,
    codes,
    dir_rule,
    file_rule,
    of_files,
    settings_of,
)


def test_odd_files_stop_nothing(root: Path, make: Make) -> None:
    raw = bytes(root)
    os.mkfifo(raw + b"/fifo")
    os.symlink(b"nowhere", raw + b"/dangling")
    os.symlink(b".", raw + b"/loop")
    os.symlink(b"..", raw + b"/sub/up")
    os.mkdir(raw + b"/\xff\xfe")
    for name in (
        b"\xff\xfe/x",
        b"new\nline",
        b"\x1b[31m",
        b"-rf",
        b" ",
        b"back\\slash",
        b"\xc3\xa9",
    ):
        with open(raw + b"/" + name, "wb"):
            pass
    with socket.socket(socket.AF_UNIX) as listener:
        fd = os.open(root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    scanned = make(dir_rule(root, Policy.IGNORE_NONE), severity_names=Severity.ALERT)
    result = scanned.init()
    assert result.files == 7 + 5 + 1 + 7
    weird = [event for event in scanned.take() if event.code == "WEIRD_FILENAME"]
    assert {event.path.removeprefix(raw + b"/") for event in weird} == {
        b"\xff\xfe",
        b"new\nline",
        b"\x1b[31m",
    }
    assert {event.severity for event in weird} == {Severity.ALERT}
    checker = scanned.checker()
    checker.full_check()
    assert {event.code for event in scanned.take()} == {"WEIRD_FILENAME"}
    checker.full_check()
    assert scanned.take() == []


def test_weird_names_are_not_told_under_ignore_all(root: Path, make: Make) -> None:
    (root / "\x01").touch()
    scanned = make(dir_rule(root), file_rule(bytes(root) + b"/\x01", Policy.IGNORE_ALL))
    scanned.init()
    assert scanned.take() == []


def test_a_rule_that_names_nothing_is_a_finding(root: Path, make: Make) -> None:
    scanned = make(
        dir_rule(root),
        file_rule(root / "nowhere"),
        dir_rule(root / "nowhere" / "else"),
        file_rule(bytes(root) + b"/*.none"),
        file_rule(bytes(root) + b"/?"),
    )
    scanned.init()
    found = scanned.take()
    assert codes(found) == ["RULE_MATCHES_NOTHING"] * 3
    assert {event.path for event in found} == {
        bytes(root / "nowhere"),
        bytes(root / "nowhere" / "else"),
        bytes(root) + b"/*.none",
    }
    assert found[0].fields["rule"] == "agentrc:7"


def test_a_named_file_that_is_gone_is_missing_and_its_rule_is_not_told(
    root: Path, make: Make
) -> None:
    scanned = make(file_rule(root / "a"), file_rule(bytes(root) + b"/b*"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "a").unlink()
    (root / "b").unlink()
    for _ in range(2):
        checker.full_check()
    assert codes(scanned.take()) == [MISSING, MISSING]


def test_no_rules_at_all_is_a_finding(make: Make) -> None:
    scanned = make()
    scanned.init()
    assert codes(scanned.take()) == ["NOTHING_TO_CHECK"]
    scanned.init(settings_of(dir_rule(scanned.directory)))
    scanned.take()
    scanned.checker().full_check()
    assert codes(scanned.take()) == ["NOTHING_TO_CHECK"]


def test_a_dir_rule_for_a_link_says_where_it_leads_and_checks_the_link_itself(
    root: Path, make: Make
) -> None:
    (root / "link").symlink_to("sub")
    scanned = make(dir_rule(root / "link"), dir_rule(root / "a"))
    scanned.init()
    first, second = sorted(scanned.take(), key=lambda event: event.path)
    assert first.code == second.code == "POLICY_NODIRECTORY"
    assert (second.path, second.fields["link"]) == (bytes(root / "link"), "sub")
    assert "link" not in first.fields
    checker = scanned.checker()
    checker.full_check()
    scanned.take()
    (root / "sub" / "c").write_bytes(b"not followed")
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    checker.full_check()
    (event,) = scanned.take()
    assert (event.path, event.fields["link_old"], event.fields["link_new"]) == (
        bytes(root / "link"),
        "sub",
        "elsewhere",
    )


def test_a_link_on_the_way_to_a_named_file_is_passed(root: Path, make: Make) -> None:
    (root / "link").symlink_to("sub")
    scanned = make(dir_rule(root, Policy.ATTRIBUTES), file_rule(root / "link" / "c"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    (root / "sub" / "c").write_bytes(b"changed")
    checker.full_check()
    assert of_files(scanned.changes(), root) == {"link/c": (MODIFIED, "C-------TS")}
    (root / "sub" / "c").unlink()
    (root / "sub" / "e").touch()
    checker.check_path(bytes(root / "link" / "c"))
    checker.check_path(bytes(root / "link" / "e"))
    assert of_files(scanned.changes(), root) == {"link/c": (MISSING, "")}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Names of directories that cannot be opened."""
    names: set[bytes] = set()
    real = open_directory

    def refusing(name: bytes, dir_fd: int | None, **others: bool) -> int:
        if name in names:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, dir_fd, **others)

    monkeypatch.setattr(walk, "open_directory", refusing)
    return names


def test_an_unreadable_directory_is_told_and_its_contents_are_not_missing(
    root: Path, make: Make, refused: set[bytes]
) -> None:
    inner = file_rule(root / "sub" / "c")
    scanned = make(dir_rule(root), inner, severity_dirs=Severity.WARN)
    scanned.init()
    checker = scanned.checker()
    checker.full_check()
    assert scanned.take() == []
    refused.add(b"sub")
    result = checker.full_check()
    assert (result.unreadable, result.changes) == (1, 0)
    (event,) = scanned.take()
    assert (event.code, event.path) == ("FILE_UNREADABLE", bytes(root / "sub"))
    assert event.fields["reason"] == "Permission denied"
    assert event.severity is Severity.WARN
    for path in (root / "sub", root / "sub" / "c", root / "sub" / "deep"):
        assert checker.check_path(bytes(path)) == 0
    checker.full_check()
    assert scanned.take() == []
    refused.clear()
    (root / "sub" / "c").write_bytes(b"changed meanwhile")
    checker.full_check()
    assert (MODIFIED, bytes(root / "sub" / "c"), "C-------TS") in {
        (event.code, event.path, event.change) for event in scanned.take()
    }
    refused.add(b"sub")
    checker.full_check()
    assert codes(scanned.take()) == ["FILE_UNREADABLE"]


@pytest.mark.parametrize(
    ("depth", "policy", "levels", "excluded", "told"),
    [
        (99, Policy.READ_ONLY, 99, (), 0),
        (99, Policy.READ_ONLY, 100, (), 1),
        (99, Policy.READ_ONLY, 101, ("out",), 1),
        (98, Policy.READ_ONLY, 101, (), 0),
        (99, Policy.IGNORE_ALL, 101, (), 0),
    ],
)
def test_directories_deeper_than_any_rule_can_say_are_told(
    tmp_path: Path,
    make: Make,
    depth: int,
    policy: Policy,
    levels: int,
    excluded: tuple[str, ...],
    told: int,
) -> None:
    root = tmp_path / "tree"
    deepest, cut = (Path(root, *["d"] * count) for count in (levels, 100))
    deepest.mkdir(parents=True)
    (deepest / "hidden").touch()
    # An exclusion is the administrator's word, wherever it stands.
    for name in excluded:
        (cut.parent / name).mkdir()
    rules = [dir_rule(cut.parent / name, Policy.IGNORE_ALL, -1) for name in excluded]
    scanned = make(dir_rule(root, policy, depth), *rules)
    assert scanned.init().unreadable == told
    for quick in (frozenset[str](), frozenset({""})):
        scanned.take()
        result = scanned.checker().full_check(selection=Selection(quick=quick))
        receipt = scanned.receipt()
        found = [event.path for event in scanned.take() if event.code == "FILE_UNREADABLE"]
        assert found == [bytes(cut)] * told
        assert (result.unreadable, receipt.fields["skipped"]) == (told, told)
        said = f"deeper than the 99 levels that a rule can enter: {told}"
        assert receipt.fields.get("skipped_why") == (said if told else None)


def test_an_update_keeps_what_the_old_baseline_says_of_the_unreadable(
    root: Path, make: Make, refused: set[bytes]
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    refused.add(b"sub")
    (root / "a").write_bytes(b"changed")
    result = checker.update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    assert result.modified == 1
    assert result.baseline_sha256 is not None
    refused.clear()
    scanned.take()
    scanned.checker().full_check()
    assert scanned.take() == []


def test_an_update_keeps_what_the_old_baseline_says_of_a_file_that_cannot_be_asked(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(name: Any, *given: Any, **named: Any) -> Any:
        if name == b"b":
            raise OSError(errno.EIO, "Input/output error")
        return real[named.pop("call")](name, *given, **named)

    real: dict[str, Any] = {"stat": os.stat, "open": os.open}
    scanned = make(dir_rule(root))
    scanned.init()
    scanned.take()
    (root / "a").write_bytes(b"changed")
    with monkeypatch.context() as patched:
        for call in real:
            patched.setattr(os, call, partial(refusing, call=call))
        scanned.checker().update(scanned.baseline, host="h", configuration_sha256="", created_us=2)
    assert sorted(codes(scanned.take())) == ["FILE_UNREADABLE", MODIFIED]
    scanned.checker().full_check()
    assert scanned.take() == []


def test_a_directory_that_is_not_looked_into_leaves_no_trace_of_what_is_in_it(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "weird\n").touch()
    (root / "large").write_bytes(bytes(9 * 2**20))
    scanned = make(dir_rule(root), file_rule(root / "not there"))
    monkeypatch.setattr(directory, "ENTRIES_BYTES_MAX", 200)
    result = scanned.init()
    # Nor that a rule inside of it names nothing, which nobody can know.
    found = [(event.code, event.path) for event in scanned.take()]
    assert found == [("FILE_UNREADABLE", bytes(root))]
    assert (result.files, result.is_complete) == (1, True)


def test_extended_attributes_have_their_weight(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "ENTRIES_BYTES_MAX", 300)
    deep = root / "sub" / "deep"
    scanned = make(dir_rule(deep))
    scanned.init()
    assert scanned.take() == []
    os.setxattr(deep / "d", "user.x", b"x" * 200)
    scanned.init()
    assert codes(scanned.take()) == ["FILE_UNREADABLE"]


def test_a_directory_that_cannot_be_listed_to_its_end_is_unreadable(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    for module in (memory, directory, walk):
        monkeypatch.setattr(module, "ENTRIES_PER_DIRECTORY_MAX", 2)
    checker.full_check()
    (event,) = scanned.take()
    assert (event.path, event.fields["reason"]) == (bytes(root), "more than 2 entries")
    for module in (memory, directory, walk):
        monkeypatch.setattr(module, "ENTRIES_PER_DIRECTORY_MAX", 3)
    checker.full_check()
    assert scanned.take() == []


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A tree of our own, seen by a user without any rights; files are made before it is used."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o777)
        yield Path(place)


def test_without_rights_everything_unreadable_is_told_and_nothing_else(nobody: Path) -> None:
    root = nobody / "tree"
    (root / "closed" / "inner").mkdir(parents=True)
    (root / "listed" / "inner").mkdir(parents=True)
    (root / "named" / "inner").mkdir(parents=True)
    for name in [
        "secret",
        "open",
        "closed/x",
        "listed/x",
        "listed/inner/y",
        "named/x",
        "named/inner/y",
    ]:
        (root / name).write_bytes(b"x")
    uid = os.geteuid()
    # One in which no rule names anything, and one in which a rule does.
    named = file_rule(root / "named" / "x")
    scanned = Scanned(settings_of(dir_rule(root, Policy.IGNORE_NONE), named), nobody)
    scanned.init()
    (nobody / "baseline").chmod(0o644)
    (root / "secret").chmod(0)
    (root / "closed").chmod(0)
    (root / "listed").chmod(0o444)
    (root / "named").chmod(0o444)
    os.seteuid(65534 if uid == 0 else uid)
    try:
        checker = scanned.checker()
        scanned.take()
        checker.full_check()
        found = scanned.take()
        scanned.close()
    finally:
        os.seteuid(uid)
        for name in ("closed", "listed", "named"):
            (root / name).chmod(0o755)
    unreadable = {
        os.fsdecode(event.path.removeprefix(bytes(root) + b"/"))
        for event in found
        if event.code == "FILE_UNREADABLE"
    }
    assert unreadable == {
        "secret",
        "closed",
        "listed/x",
        "listed/inner",
        "named/x",
        "named/inner",
    }
    assert not {ADDED, MISSING}.intersection(codes(found))


def test_a_directory_that_becomes_a_link_during_the_walk_is_not_followed(
    root: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"")
    real = open_directory

    def swapped(name: bytes, dir_fd: int | None, **others: bool) -> int:
        if name == b"sub" and not (root / "sub").is_symlink():
            (root / "sub").rename(root / "aside")
            (root / "sub").symlink_to(outside)
        return real(name, dir_fd, **others)

    scanned = make(dir_rule(root))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    monkeypatch.setattr(walk, "open_directory", swapped)
    checker.full_check()
    assert not any(b"secret" in path for _, path, _ in scanned.changes())
    checker.full_check()
    found = of_files(scanned.changes(), root)
    assert found["sub"][1].startswith("-L")
    assert found["sub/c"] == (MISSING, "")
    assert not any("secret" in path for path in found)


def test_a_file_that_keeps_changing_is_told_and_its_attributes_are_compared(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned = make(file_rule(root / "a"))
    scanned.init()
    checker = scanned.checker()
    scanned.take()
    real, clock = os.readv, iter(range(1, 100))

    def readv(fd: int, buffers: Any) -> int:
        os.utime(root / "a", ns=(1, next(clock)))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    result = checker.full_check()
    assert (result.unstable, result.modified) == (1, 1)
    assert set(codes(scanned.take())) == {"FILE_UNSTABLE", MODIFIED}
