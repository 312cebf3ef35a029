"""The difference of two files turns one into the other, in bounded text and bounded time."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_server.change_text import CHANGE_TEXT_MAX, ChangeText, lines_of
from needfire_server.text_diff import TextDiff, diff_texts

OPERATE = (Path(__file__).parents[2] / "docs/operate.md").read_text()


def as_it_is(line: bytes) -> bytes:
    return line


def diff(old: bytes, new: bytes) -> TextDiff:
    return diff_texts(old, new, as_it_is)


def shown(found: TextDiff) -> list[bytes]:
    return [unescape_bytes(line) for line in lines_of(found.text)]


def patched(old: list[bytes], lines: list[bytes]) -> list[bytes]:
    """Apply a difference as patch(1) does, without its tolerance."""
    result: list[bytes] = []
    place = 0
    for line in lines:
        head = re.fullmatch(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line)
        if head is not None:
            # An empty span is counted by the line before it.
            begin = int(head[1]) - (0 if head[2] == b"0" else 1)
            result += old[place:begin]
            place = begin
            assert len(result) == int(head[3]) - (0 if head[4] == b"0" else 1)
            continue
        mark, text = line[:1], line[1:]
        if mark in b" -":
            assert old[place] == text
            place += 1
        if mark in b" +":
            result.append(text)
    return result + old[place:]


LINES = st.lists(
    st.sampled_from([b"a", b"b", b"c", b"[Misc]", b"", b"\\x0a", b"\xff", b"# \xe2\x80\xae"]),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(LINES, LINES)
@example([b"a"], [])
@example([b"a", b"b", b"a"], [b"b", b"a", b"b"])
def test_the_difference_turns_one_file_into_the_other(old: list[bytes], new: list[bytes]) -> None:
    found = diff(b"".join(line + b"\n" for line in old), b"".join(line + b"\n" for line in new))
    assert patched(old, shown(found)) == new
    assert len(new) - len(old) == found.added - found.removed
    assert found.left_out == 0
    assert found.text.isprintable()
    marks = [line[:1] for line in shown(found)]
    assert (marks.count(b"+"), marks.count(b"-")) == (found.added, found.removed)


def test_a_small_change_in_a_long_file_is_shown_as_one() -> None:
    lines = [b"dir = /srv/%d" % number for number in range(30_000)]
    changed = [b"# first", *lines[:15_000], b"dir = /other", *lines[15_001:], b"# last"]
    found = diff(b"\n".join(lines), b"\n".join(changed))
    assert (found.added, found.removed) == (3, 1)
    assert b"-dir = /srv/15000" in shown(found)
    assert b"+dir = /other" in shown(found)


def test_files_that_keep_difflib_busy_for_hours_are_still_counted() -> None:
    # Every line matches every other one: 10**10 pairs.
    old = b"x\ny\n" * 100_000
    new = b"first\n" + b"y\nx\n" * 100_000 + b"last\n"
    found = diff(old, new)
    assert found.added - found.removed == 2
    assert found.added <= 200_002
    assert len(found.text) <= CHANGE_TEXT_MAX
    assert found.left_out > 0


def test_what_has_no_room_is_counted_and_the_numbers_stay_exact() -> None:
    new = b"".join(b"file = /etc/%04d\n" % number for number in range(2_000))
    found = diff(b"", new)
    assert (found.added, found.removed) == (2_000, 0)
    assert len(shown(found)) + found.left_out == 2_001
    assert shown(found)[0] == b"@@ -0,0 +1,2000 @@"


def test_what_may_be_shown_is_asked_of_no_line_that_has_no_room() -> None:
    asked: list[bytes] = []

    def show(line: bytes) -> bytes:
        asked.append(line)
        return line

    found = diff_texts(b"", b"x" * 90 + b"\n" + b"y" * 90 + b"\n" * 10_000, show)
    assert len(asked) < 4_000
    assert len(asked) + found.left_out >= found.added


def test_a_line_that_is_hidden_is_still_seen_to_change() -> None:
    found = diff_texts(b"k=1\n", b"k=2\n", lambda line: line[:2] + b"***")
    assert shown(found)[1:] == [b"-k=***", b"+k=***"]


def test_a_file_that_stays_has_no_difference() -> None:
    assert diff(b"a\nb\n", b"a\nb") == TextDiff(0, 0, "", 0)


HOSTILE_LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.lists(st.sampled_from([b"\\", b"x0a", b"\n", b"D ", b"\xe2\x80\xa8", b"n"])).map(
            b"".join
        ),
    ).map(lambda line: b"A /" + line),
    max_size=8,
)


def joined(lines: list[bytes]) -> str:
    text = ChangeText()
    for line in lines:
        text.add(line)
    return str(text)


@given(HOSTILE_LINES)
@example([b"D x\nD ", b"A \\", b"A \\\\x0a"])
def test_lines_come_back_as_they_were(lines: list[bytes]) -> None:
    text = joined(lines)
    assert text.isprintable()
    assert [unescape_bytes(line) for line in lines_of(text)] == lines


def of_the_document(language: str) -> str:
    """The line of docs/operate.md that takes a difference apart."""
    pattern = {
        "jq": r"\| jq -r '(\.fields\.diff [^']*)'",
        "python": r"```python\n(lines = .*)\n```",
    }
    [found] = re.findall(pattern[language], OPERATE)
    return str(found)


@given(HOSTILE_LINES.filter(bool))
def test_the_documented_python_takes_them_apart(lines: list[bytes]) -> None:
    names: dict[str, Any] = {"re": re, "diff": joined(lines)}
    exec(of_the_document("python"), names)  # ours
    assert names["lines"] == lines_of(joined(lines))


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_documented_jq_takes_them_apart() -> None:
    lines = [b"M /etc", b"A /x\nD /etc/shadow", b"A /\\x0aD /a", b"A /\\\nD /b", b"A /\xff\\"]
    found = subprocess.run(
        ["jq", "-r", of_the_document("jq")],
        input=json.dumps({"fields": {"diff": joined(lines)}}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split("\n")[:-1] == [escape_bytes(line) for line in lines]


def test_a_text_ends_at_its_bound_and_has_no_holes() -> None:
    line = b"x" * 96  # with the end of a line before it: 100 characters
    text = ChangeText()
    text.add(b"x" * 100)
    for _ in range(38):
        text.add(line)
    assert len(str(text)) == CHANGE_TEXT_MAX - 100
    text.add(line)
    assert (len(str(text)), text.left_out) == (CHANGE_TEXT_MAX, 0)
    text.add(b"")
    text.add(b"")
    assert (len(str(text)), text.left_out) == (CHANGE_TEXT_MAX, 2)


def test_a_very_long_line_is_cut() -> None:
    text = ChangeText()
    text.add(b"y" * 400)
    text.add(b"y" * 401)
    first, second = map(unescape_bytes, lines_of(str(text)))
    assert (first, second) == (b"y" * 400, b"y" * 400 + "…".encode())


def test_lines_that_stand_there_more_than_once_are_matched_as_well() -> None:
    found = diff(b"one\na\na\ntwo\na\nthree\n", b"1\na\na\n2\na\n3\n")
    assert (found.added, found.removed) == (3, 3)
