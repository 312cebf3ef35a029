"""Two baselines are compared row by row: numbers of changes, and the first paths of each kind."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.baseline import FileEntry, encode_entries, key_of
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import unescape_bytes
from needfire_server import baseline_changes
from needfire_server.baseline_changes import BaselineChanges, changes_of_rows, compare_baselines
from needfire_server.change_text import lines_of
from needfire_testkit.baselines import FILE, write_baseline

Tree = dict[bytes, dict[bytes, FileEntry]]

_numbers = itertools.count()


def rows(tree: Tree) -> Iterator[tuple[bytes, bytes]]:
    packed = (
        (key_of(path), encode_entries(sorted(entries.items()))) for path, entries in tree.items()
    )
    return iter(sorted(packed))


def written(directory: Path, tree: Tree) -> str:
    path = directory / f"baseline-{next(_numbers)}"
    entries = sum(map(len, tree.values()))
    write_baseline(path, rows=dict(rows(tree)), format=3, entries=entries)
    return str(path)


def compared(directory: Path, old: Tree | None, new: Tree) -> BaselineChanges:
    return compare_baselines(
        None if old is None else written(directory, old), written(directory, new)
    )


def shown(changes: BaselineChanges) -> list[bytes]:
    return [unescape_bytes(line) for line in lines_of(changes.text)]


def test_each_kind_of_change_is_counted_and_named(tmp_path: Path) -> None:
    old: Tree = {b"/etc": {b"gone": FILE, b"hosts": FILE, b"same": FILE}, b"/old": {b"x": FILE}}
    new: Tree = {
        b"/etc": {b"hosts": FILE._replace(size=7), b"new": FILE, b"same": FILE},
        b"/srv": {b"y": FILE},
    }
    changes = compared(tmp_path, old, new)
    assert (changes.added, changes.removed, changes.modified) == (2, 2, 1)
    assert shown(changes) == [
        b"D /etc/gone",
        b"M /etc/hosts",
        b"A /etc/new",
        b"D /old/x",
        b"A /srv/y",
    ]
    assert changes.left_out == 0


def test_the_root_and_what_stands_in_it_are_named_as_everybody_names_them(tmp_path: Path) -> None:
    changes = compared(tmp_path, None, {b"": {b"/": FILE}, b"/": {b"etc": FILE}})
    assert shown(changes) == [b"A /", b"A /etc"]


def test_a_file_that_was_only_read_is_no_change(tmp_path: Path) -> None:
    old: Tree = {b"/etc": {b"hosts": FILE, b"passwd": FILE}}
    read: Tree = {b"/etc": {b"hosts": FILE._replace(atime_ns=9), b"passwd": FILE}}
    assert compared(tmp_path, old, read) == BaselineChanges(0, 0, 0, "", 0)
    read[b"/etc"][b"passwd"] = FILE._replace(mtime_ns=9)
    assert shown(compared(tmp_path, old, read)) == [b"M /etc/passwd"]


@pytest.mark.parametrize("bytes_at_once", [0, 2**20])
@pytest.mark.parametrize("count", [19, 20, 21])
def test_twenty_of_each_kind_are_named_and_all_are_counted(
    tmp_path: Path, count: int, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_changes, "_ROW_BYTES_AT_ONCE", bytes_at_once)
    names = [b"%03d" % number for number in range(count)]
    changes = compared(
        tmp_path,
        {b"/a": dict.fromkeys(names, FILE), b"/b": dict.fromkeys(names, FILE)},
        {b"/b": dict.fromkeys(names, FILE._replace(uid=7)), b"/c": dict.fromkeys(names, FILE)},
    )
    assert (changes.added, changes.removed, changes.modified) == (count, count, count)
    named = min(count, 20)
    marks = [line[:1] for line in shown(changes)]
    assert [marks.count(mark) for mark in (b"A", b"D", b"M")] == [named] * 3
    assert changes.left_out == 3 * (count - named)


def test_names_are_escaped_so_that_they_come_back_and_nothing_else_does(tmp_path: Path) -> None:
    name = b"\n\x1b[2J\\x0aD \xff\xe2\x80\xae"
    changes = compared(tmp_path, None, {b"/tmp": {name: FILE}})
    assert changes.text.isprintable()
    assert shown(changes) == [b"A /tmp/" + name]


def test_a_damaged_baseline_is_named_as_such(tmp_path: Path) -> None:
    good = written(tmp_path, {b"/etc": {b"hosts": FILE}})
    (tmp_path / "other").write_bytes(b"no baseline")
    with pytest.raises(FormatError, match="is not a baseline"):
        compare_baselines(str(tmp_path / "other"), good)


ENTRY = st.builds(
    lambda size, atime: FILE._replace(size=size, atime_ns=atime), *[st.integers(0, 1)] * 2
)
TREE = st.dictionaries(
    st.sampled_from([b"/", b"/a", b"/a/b", b"/a-b"]),
    st.dictionaries(st.sampled_from([b"p", b"q", b"r"]), ENTRY),
)


@settings(max_examples=100, deadline=None)
@given(old=TREE, new=TREE)
def test_the_changes_are_those_of_the_sets(old: Tree, new: Tree) -> None:
    def flat(tree: Tree) -> dict[bytes, int]:
        return {
            path.rstrip(b"/") + b"/" + name: entry.size
            for path, entries in tree.items()
            for name, entry in entries.items()
        }

    before, after = flat(old), flat(new)
    expected = sorted(
        [(b"A", path) for path in after.keys() - before.keys()]
        + [(b"D", path) for path in before.keys() - after.keys()]
        + [(b"M", path) for path in after.keys() & before.keys() if before[path] != after[path]]
    )
    found = list(changes_of_rows(rows(old), rows(new)))
    assert sorted((each.mark, each.path) for each in found) == expected
    for each in found:
        assert (each.old is None, each.new is None) == (each.mark == b"A", each.mark == b"D")
