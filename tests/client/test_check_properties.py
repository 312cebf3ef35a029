"""What a check reports is what an independent, slow comparison finds, whatever was changed.

The oracle shares nothing with the scanner but the table of policies: it lists the tree with its
own loop, finds the rule of each path by trying all of them, and keeps everything in memory.
"""

import fnmatch
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from needfire_client import directory, overlay, reference
from needfire_client import pieces as client_pieces
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.watch import InotifyWatcher
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, PathRule, Policy, RuleKind
from needfire_testkit.realtime import Ears
from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import Scanned, dir_rule, file_rule, settings_of

pytestmark = pytest.mark.timeout(240)
NAMES = [b"a", b"b", b"a-", b"c\xff", b"n\nl"]
Seen = tuple[os.stat_result, bytes | None, dict[str, bytes]]
"""Status, contents or target, extended attributes."""
State = dict[bytes, Seen]
Operation = tuple[str, bytes | int, Any]

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
deep_paths = st.lists(names, min_size=4, max_size=12).map(b"/".join)
globs = st.sampled_from([b"*", b"?", b"a*", b"[ab]", b"*/b", b"a/?", b"*/*", b"b/[!a]", b"a/*/a"])
contents = st.sampled_from([b"", b"x", b"y", b"xx"])
devices = st.sampled_from(
    [(kind, os.makedev(1, minor)) for kind, minor in [(stat.S_IFCHR, 3), (stat.S_IFCHR, 5)]]
    + [(stat.S_IFBLK, os.makedev(1, 3))]
)
numbers = st.integers(0, 15)
places = st.one_of(st.integers(0, 15), st.integers(0, 15), paths)
"""A path, or the number of one that is there: else most changes would be of what is not there."""
operations = st.one_of(
    st.tuples(st.just("write"), places, contents),
    st.tuples(st.just("append"), places, contents),
    st.tuples(st.just("chmod"), places, st.sampled_from([0o600, 0o644, 0o755])),
    st.tuples(st.just("utime"), places, st.integers(0, 2)),
    st.tuples(st.just("mkdir"), paths, st.none()),
    st.tuples(st.just("remove"), places, st.none()),
    st.tuples(st.just("rename"), places, paths),
    st.tuples(st.just("symlink"), paths, paths),
    st.tuples(st.just("link"), places, paths),
    st.tuples(st.just("fifo"), paths, st.none()),
    st.tuples(st.just("deep"), deep_paths, contents),
    st.tuples(st.just("chown"), places, st.tuples(st.integers(0, 1), st.integers(0, 1))),
    st.tuples(st.just("attribute"), places, st.sampled_from([b"", b"1", b"2"])),
    st.tuples(st.just("retype"), places, st.sampled_from(["file", "directory", "link", "fifo"])),
    st.tuples(st.just("device"), paths, devices),
    st.tuples(st.just("renumber"), numbers, devices),
    st.tuples(st.just("rewrite"), numbers, st.sampled_from([b"x", b"y", b"xxy", b"yx", b"yxxxx"])),
)
changes = st.lists(operations, min_size=3, max_size=10)
policies = st.sampled_from(Policy)
Rules = list[tuple[RuleKind, bytes, Policy, int]]
single_rules = st.tuples(
    st.sampled_from(RuleKind),
    st.one_of(st.just(b""), paths, globs),
    policies,
    st.one_of(st.integers(-1, 3), st.just(99)),
)
rules: st.SearchStrategy[Rules] = st.builds(
    # In most worlds everything is covered: what no rule covers is never told.
    lambda some, policy: [*some, *([] if policy is None else [(RuleKind.DIR, b"", policy, 99)])],
    st.lists(single_rules, min_size=1, max_size=4),
    st.sampled_from([*Policy, None]),
)
expressions = st.sampled_from([rb".*/a", rb".*/b/.*", rb".*", rb".*[^a]"]).map(
    lambda text: re.compile(text, re.DOTALL)
)
FLAGS = [Check.CHK, Check.LNK, Check.INO, Check.USR, Check.GRP, Check.MTM, Check.CTM, Check.ATM]
FLAGS += [Check.SIZ, Check.MOD, Check.HLN, Check.RDEV, Check.SGROW]
masks = st.dictionaries(
    st.sampled_from(Policy),
    st.sets(st.sampled_from(FLAGS)).map(lambda flags: reduce(or_, flags, Check(0))),
).map(lambda redefined: {**DEFAULT_MASKS, **redefined})
ignored = st.fixed_dictionaries(
    {},
    optional={
        "masks": masks,
        "ignore_added": expressions.map(lambda one: (one,)),
        "ignore_missing": expressions.map(lambda one: (one,)),
        "ignore_modified": expressions.map(lambda one: (one,)),
        "loose_dir_check": st.booleans(),
    },
)


GROWN: list[Operation] = [
    ("deep", b"a/b/a/a", b"x"),
    ("deep", b"a/a/b", b"x"),
    ("deep", b"b/a/b", b"x"),
    ("write", b"a/a-", b"xx"),
    ("device", b"b/a-", (stat.S_IFCHR, os.makedev(1, 3))),
]
"""A tree to begin with, so that most of the changes can be done."""

QUICK = Selection(quick=frozenset({""}))


def await_tick(root: bytes) -> None:
    """Wait until the clock of the file system has moved, which takes some milliseconds: a quick
    check cannot tell apart two writes between which it has not."""
    probe = root + b"-clock"
    os.close(os.open(probe, os.O_CREAT | os.O_WRONLY))
    before = os.stat(probe).st_ctime_ns
    while os.stat(probe).st_ctime_ns == before:
        os.utime(probe)


HELD: list[int] = []
"""Descriptors of what was removed. The number of an inode is not given to another one before they
are closed, which the oracle could not tell: it knows no times of birth."""


def hold(path: bytes) -> None:
    """Keep the inodes of a path, and of everything below it, until the world ends."""
    with suppress(OSError):
        HELD.extend(os.open(inner, os.O_PATH | os.O_NOFOLLOW) for inner in listed(path))


def apply(root: bytes, operation: Operation) -> set[bytes]:
    """Do one change as far as it can be done; return the paths that it touched."""
    verb, place, argument = operation
    name = place if isinstance(place, bytes) else there(root, place, OF_KIND.get(verb, anything))
    path = root + b"/" + name
    touched = {path, behind_links(path)}
    if verb in ("rename", "link"):
        touched.add(behind_links(root + b"/" + argument))
    with suppress(OSError):
        if verb in ("write", "append"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            flags |= os.O_APPEND if verb == "append" else os.O_TRUNC
            fd = os.open(path, flags, 0o644)
            os.write(fd, argument)
            os.close(fd)
            touched |= same_inode(root, path)
        elif verb == "chmod":
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                os.chmod(path, argument)
                touched |= same_inode(root, path)
        elif verb == "utime":
            os.utime(path, ns=(argument, argument), follow_symlinks=False)
            touched |= same_inode(root, path)
        elif verb == "chown":
            os.chown(path, *argument, follow_symlinks=False)
            touched |= same_inode(root, path)
        elif verb == "attribute":
            if argument:
                os.setxattr(path, b"user.x", argument, follow_symlinks=False)
            else:
                os.removexattr(path, b"user.x", follow_symlinks=False)
            touched |= same_inode(root, path)
        elif verb == "device":
            kind, device = argument
            os.mknod(path, kind | 0o600, device)
        elif verb == "mkdir":
            os.mkdir(path)
        elif verb == "remove":
            touched |= same_inode(root, path)
            hold(path)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                for inner in listed(path):
                    touched |= same_inode(root, inner)
                shutil.rmtree(path)
            else:
                os.unlink(path)
        elif verb == "rename":
            target = root + b"/" + argument
            touched |= {target} | same_inode(root, target) | same_inode(root, path)
            hold(target)
            os.rename(path, target)
        elif verb == "deep":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            touched |= {root + b"/" + name[:n] for n, byte in enumerate(name) if byte == 0x2F}
            touched |= apply(root, ("write", name, argument))
        elif verb == "retype":
            touched |= apply(root, ("remove", name, None))
            made = {"file": "write", "directory": "mkdir", "link": "symlink"}
            made |= {"fifo": "fifo"}
            touched |= apply(root, (made[argument], name, b"x"))
        elif verb == "renumber":
            touched |= apply(root, ("remove", name, None)) | apply(root, ("device", name, argument))
        elif verb == "rewrite":
            # In place, as one who edits what a log says of him, and lets it grow.
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            os.write(fd, argument)
            os.close(fd)
            touched |= same_inode(root, path)
        elif verb == "symlink":
            os.symlink(argument, path)
        elif verb == "link":
            target = root + b"/" + argument
            os.link(path, target, follow_symlinks=False)
            touched |= same_inode(root, path)
        else:
            os.mkfifo(path)
    return touched | set(map(behind_links, touched))


def behind_links(path: bytes) -> bytes:
    """Return where an object is whose path may lead through links: its name is told there."""
    directory, _, name = path.rpartition(b"/")
    return os.path.realpath(directory) + b"/" + name


def there(root: bytes, number: int, is_kind: Callable[[int], bool]) -> bytes:
    """Return the name of one of the objects in the tree, of those of a kind if there are any."""
    inner = sorted(listed(root))[1:]
    if not inner:
        return b"a"
    inner = [path for path in inner if is_kind(os.lstat(path).st_mode)] or inner
    return inner[number % len(inner)].removeprefix(root + b"/")


def anything(_mode: int) -> bool:
    return True


def is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


OF_KIND: dict[str, Callable[[int], bool]] = {"rewrite": stat.S_ISREG, "renumber": is_device}


def same_inode(root: bytes, path: bytes) -> set[bytes]:
    """All names of an object in the tree: inotify tells only of the one that was used."""
    with suppress(OSError):
        inode = os.lstat(path).st_ino
        return {inner for inner in listed(root) if os.lstat(inner).st_ino == inode}
    return set()


def listed(path: bytes) -> Iterator[bytes]:
    """Yield a path and everything below it, without moving an access time."""
    yield path
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    inner = [os.fsencode(name) for name in os.listdir(fd)]
    os.close(fd)
    for name in inner:
        yield from listed(path + b"/" + name)


def snapshot(root: bytes) -> State:
    found: State = {}
    for path in listed(root):
        status = os.lstat(path)
        content: bytes | None = None
        if stat.S_ISREG(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            content = os.read(fd, 100)
            os.close(fd)
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[path] = (status, content, attributes(path))
    return found


def attributes(path: bytes) -> dict[str, bytes]:
    with suppress(OSError):
        return {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
    return {}


def reaches(rule: PathRule, path: bytes) -> int | None:
    """Return how many levels a path is below what a rule names; None: it is not there."""
    named, given = rule.path.split(b"/"), path.split(b"/")
    if len(given) < len(named):
        return None
    for pattern, name in zip(named, given, strict=False):
        is_like = fnmatch.fnmatchcase(name, pattern) if rule.is_glob else name == pattern
        if not is_like:
            return None
    return len(given) - len(named)


def rule_of(path: bytes, all_rules: tuple[PathRule, ...]) -> PathRule | None:
    files = [rule for rule in all_rules if rule.kind is RuleKind.FILE and reaches(rule, path) == 0]
    if files:
        return min(files, key=lambda rule: rule.is_glob)
    best: tuple[int, bool] | None = None
    found = None
    for rule in all_rules:
        level = reaches(rule, path)
        if rule.kind is not RuleKind.DIR or level is None:
            continue
        # The fewest levels above, then what is spelt out, then what stands first.
        if best is None or (level, rule.is_glob) < best:
            best, found = (level, rule.is_glob), rule
    if found is None or best is None:
        return None
    assert found.depth is not None
    return found if best[0] <= found.depth + 1 else None


def letters(old: Seen, new: Seen, mask: Check) -> str:
    (a, a_content, a_attributes), (b, b_content, b_attributes) = old, new
    same_type = stat.S_IFMT(a.st_mode) == stat.S_IFMT(b.st_mode)
    regular = stat.S_ISREG(a.st_mode), stat.S_ISREG(b.st_mode)
    grew = Check.SGROW in mask and same_type and b.st_size > a.st_size
    if grew and all(regular):
        b_content = (b_content or b"")[: a.st_size]
    tests = [
        ("C", Check.CHK, any(regular) and (not same_type or a_content != b_content)),
        (
            "L",
            Check.LNK,
            not same_type or (stat.S_ISLNK(a.st_mode) and a_content != b_content),
        ),
        ("D", Check.RDEV, a.st_rdev != b.st_rdev),
        ("I", Check.INO, a.st_ino != b.st_ino),
        ("H", Check.HLN, a.st_nlink != b.st_nlink),
        ("M", Check.MOD, a.st_mode != b.st_mode or a_attributes != b_attributes),
        ("U", Check.USR, a.st_uid != b.st_uid),
        ("G", Check.GRP, a.st_gid != b.st_gid),
        ("T", Check.MTM, a.st_mtime_ns != b.st_mtime_ns),
        ("S", Check.SIZ, a.st_size != b.st_size and not grew),
    ]
    code = {letter: letter if differs and flag in mask else "-" for letter, flag, differs in tests}
    if Check.CTM in mask and a.st_ctime_ns != b.st_ctime_ns:
        code["T"] = "T"
    if Check.ATM in mask and a.st_atime_ns != b.st_atime_ns and not stat.S_ISLNK(b.st_mode):
        code["T"] = "T"
    return "".join(code.values())


def is_rotated(path: bytes, old: Seen, code: str, now: State, mask: Check) -> bool:
    """A growing log that began anew, and the old one stands beside it with all that was in it."""
    if not (Check.SGROW in mask and Check.CHK in mask and stat.S_ISREG(old[0].st_mode)):
        return False
    if "I" not in code or not set(code) <= set("CIHTS-"):
        return False
    return any(
        status.st_ino == old[0].st_ino and (content or b"").startswith(old[1] or b"")
        for beside, (status, content, _) in now.items()
        if os.path.dirname(beside) == os.path.dirname(path) and stat.S_ISREG(status.st_mode)
    )


def is_ignored(path: bytes, patterns: Any) -> bool:
    return any(pattern.fullmatch(path) for pattern in patterns)


def expected(reference: State, now: State, wanted: AgentSettings) -> set[tuple[str, bytes, str]]:
    """Return what must be reported, and let the reference follow, but for what is ignored."""
    found = set()
    all_rules = wanted.rules
    for path in reference.keys() | now.keys():
        rule = rule_of(path, all_rules)
        if rule is None:
            continue
        old, new = reference.get(path), now.get(path)
        kind = "added" if old is None else "missing" if new is None else "modified"
        if is_ignored(path, getattr(wanted, f"ignore_{kind}")):
            continue
        if old is None:
            found.add(("POLICY_ADDED", path, ""))
        elif new is None:
            found.add(("POLICY_MISSING", path, ""))
        else:
            mask = wanted.masks[rule.policy]
            code = letters(old, new, mask)
            if not code.strip("-"):
                continue
            is_directory = stat.S_ISDIR(new[0].st_mode)
            if wanted.loose_dir_check and is_directory and set(code) <= set("TS-"):
                continue
            if not is_rotated(path, old, code, now, mask):
                found.add(("POLICY_MODIFIED", path, code))
        if new is None:
            del reference[path]
        else:
            reference[path] = new
    return found


@pytest.fixture(params=[(1, False), (2, False), (2, True)], ids=["alone", "shared", "pieces"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Say how many processes there are; "pieces": directories of two names are large already."""
    share_out_everything(monkeypatch)
    count: int
    count, in_pieces = request.param
    if in_pieces:
        monkeypatch.setattr(directory, "_FOLDED_FROM_NAMES", 2)
        monkeypatch.setattr(client_pieces, "LARGE_BYTES", 0)
        monkeypatch.setattr(overlay, "_PAGE_NAMES", 2)
        monkeypatch.setattr(reference, "pieces", partial(client_pieces.pieces, most=2))
    return count


@contextmanager
def world(raw_rules: Rules, workers: int, **others: Any) -> Iterator[tuple[bytes, Scanned]]:
    with tempfile.TemporaryDirectory() as place:
        root = bytes(Path(place) / "tree")
        os.mkdir(root)
        made: list[PathRule] = []
        for kind, name, policy, depth in raw_rules:
            path = root + b"/" + name if name else root
            if any(rule.kind is kind and rule.path == path for rule in made):
                continue
            level = depth if policy is Policy.IGNORE_ALL else max(depth, 0)
            made.append(
                file_rule(path, policy) if kind is RuleKind.FILE else dir_rule(path, policy, level)
            )
        scanned = Scanned(settings_of(*made, scan_workers=workers, **others), Path(place))
        try:
            yield root, scanned
        finally:
            scanned.close()
            while HELD:
                os.close(HELD.pop())


def only_changes(found: set[tuple[str, bytes, str]]) -> set[tuple[str, bytes, str]]:
    return {
        event
        for event in found
        if event[0] in ("POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED")
    }


def links_of(state: State) -> set[bytes]:
    return {path for path, (status, *_) in state.items() if stat.S_ISLNK(status.st_mode)}


def before_links(
    found: set[tuple[str, bytes, str]], links: set[bytes]
) -> set[tuple[str, bytes, str]]:
    """Leave out what lies behind a link: a rule that names it is followed there, and the oracle
    lists the tree without following any."""
    return {event for event in found if not any(event[1].startswith(x + b"/") for x in links)}


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rules,
    ignored,
    changes,
    st.lists(st.tuples(changes, st.sampled_from([EVERYTHING, QUICK])), min_size=1, max_size=3),
)
@example(
    [(RuleKind.DIR, b"", Policy.READ_ONLY, 99)],
    {},
    [],
    [([("renumber", 0, (stat.S_IFCHR, os.makedev(1, 5)))], EVERYTHING)],
)
@example(
    [(RuleKind.DIR, b"", Policy.GROWING_LOG_FILES, 99)],
    {},
    [],
    # What was there stays and grows; then it does not stay, which its size does not tell.
    [([("rewrite", 0, b"xxy")], EVERYTHING), ([("rewrite", 0, b"yxxxx")], EVERYTHING)],
)
def test_full_and_quick_checks_report_what_a_slow_oracle_finds(
    workers: int,
    raw_rules: Rules,
    others: dict[str, Any],
    before: list[Any],
    rounds: list[tuple[list[Any], Selection]],
) -> None:
    with world(raw_rules, workers, **others) as (root, scanned):
        for operation in [*GROWN, *before]:
            apply(root, operation)
        scanned.init()
        scanned.take()
        reference = snapshot(root)
        links = links_of(reference)
        checker = scanned.checker()
        checker.full_check()
        assert only_changes(scanned.changes()) == set()
        for operations_of_round, selection in rounds:
            await_tick(root)
            for operation in operations_of_round:
                apply(root, operation)
            checker.full_check(selection=selection)
            now = snapshot(root)
            links |= links_of(now)
            wanted = expected(reference, now, scanned.settings)
            found = only_changes(scanned.changes())
            assert before_links(found, links) == before_links(wanted, links)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rules, changes, st.lists(changes, min_size=1, max_size=2), st.randoms())
def test_checks_of_the_touched_paths_report_what_a_full_check_does(
    workers: int,
    raw_rules: Rules,
    before: list[Any],
    rounds: list[list[Any]],
    random: Any,
) -> None:
    with world(raw_rules, workers) as (root, scanned):
        for operation in [*GROWN, *before]:
            apply(root, operation)
        scanned.init()
        by_path, by_full_check = scanned.checker(), scanned.checker()
        scanned.take()
        for operations_of_round in rounds:
            touched: set[bytes] = set()
            for operation in operations_of_round:
                touched |= apply(root, operation)
            by_full_check.full_check()
            wanted = only_changes(scanned.changes())
            order = sorted(touched)
            random.shuffle(order)
            looked_at: set[bytes] = set()
            for path in order:
                by_path.check_path(path, looked_at=looked_at)
            assert only_changes(scanned.changes()) == wanted
            by_path.full_check()
            assert only_changes(scanned.changes()) == set()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@pytest.mark.parametrize(
    "method", [pytest.param("fanotify", marks=[pytest.mark.root, needs_root]), "inotify"]
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rules, changes, st.lists(changes, min_size=2, max_size=2))
def test_real_time_watching_reports_what_a_slow_oracle_finds(
    method: str,
    raw_rules: Rules,
    before: list[Any],
    rounds: list[list[Any]],
) -> None:
    """Nothing but the paths that a watcher names is looked at.

    Without a second name of an inode: no watcher tells of a change under the name that was not used.
    """
    with world(raw_rules, 1) as (root, scanned):
        for operation in [*GROWN, *before]:
            apply_without_links(root, operation)
        scanned.init()
        scanned.take()
        reference = snapshot(root)
        links = links_of(reference)
        checker = scanned.checker()
        place = root.rpartition(b"/")[0]
        marked = settings_of(*scanned.settings.rules, dir_rule(place + b"/markers"))
        os.mkdir(place + b"/markers")
        ears = Ears()
        watcher = make_watcher(method, marked, ears)
        watcher.start()
        try:
            for number, operations_of_round in enumerate(rounds):
                for operation in [*operations_of_round, *GOES_ON[number]]:
                    apply_without_links(root, operation)
                marker = b"%b/markers/%d" % (place, number)
                os.mkdir(marker)
                ears.wait_paths(Path(os.fsdecode(marker)))
                told, ears.paths = ears.paths, []
                looked_at: set[bytes] = set()
                for path in told:
                    if path.startswith(root):
                        checker.check_path(path, looked_at=looked_at)
                now = snapshot(root)
                links |= links_of(now)
                wanted = expected(reference, now, scanned.settings)
                found = only_changes(scanned.changes())
                assert before_links(found, links) == before_links(wanted, links)
                assert ears.losses == []
        finally:
            watcher.stop()


GOES_ON: list[list[Operation]] = [
    [("rename", b"b", b"a-"), ("deep", b"b/a/b/a", b"")],
    [("write", b"a-/a/b", b"yy"), ("write", b"b/a/b/b", b"y"), ("append", b"b/a/b/a", b"x")],
]
"""At the end of each round: what was moved or made in one is changed in the other."""


def apply_without_links(root: bytes, operation: Operation) -> None:
    if operation[0] != "link":
        apply(root, operation)


def make_watcher(
    method: str, wanted: AgentSettings, ears: Ears
) -> FanotifyWatcher | InotifyWatcher:
    if method == "inotify":
        return InotifyWatcher(wanted, ears)
    watcher = FanotifyWatcher(wanted, ears)
    # The changes are this process's own, which are left out otherwise.
    watcher._own_pid = -1
    return watcher
