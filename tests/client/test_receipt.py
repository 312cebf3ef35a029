"""What a receipt says of what a check did not see."""

import errno
import os
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from needfire_client.receipt import Skipped
from needfire_protocol.escape import escape_bytes, printable
from needfire_protocol.event import FIELD_TEXT_MAX


def test_nothing_skipped_is_said() -> None:
    assert Skipped().fields() == {"skipped": 0}


def test_reasons_are_counted_and_paths_are_named() -> None:
    skipped = Skipped()
    skipped.add(b"/a b", "Permission denied")
    skipped.add(b"/c\n", "sparse")
    skipped.add(b"/d", "sparse")
    assert skipped.fields() == {
        "skipped": 3,
        "skipped_why": "sparse: 2; Permission denied: 1",
        "skipped_paths": "/a\\x20b /c\\x0a /d",
    }


def test_reasons_that_differ_in_their_numbers_alone_are_one_class() -> None:
    """Who can make sparse files can make a thousand, each of another size."""
    skipped = Skipped()
    for number in range(1000):
        skipped.add(b"/theirs/%d" % number, f"sparse: {number} bytes")
    skipped.add(b"/etc/shadow", "Input/output error")
    fields = skipped.fields()
    assert fields["skipped"] == 1001
    assert fields["skipped_why"] == "sparse: N bytes: 1000; Input/output error: 1"
    paths = str(fields["skipped_paths"])
    assert paths.startswith("/etc/shadow /theirs/0 /theirs/1 ")
    assert paths.endswith("/theirs/18 and 981 more")


def test_every_error_of_the_system_is_counted_and_has_an_example() -> None:
    """A file system in user space says whatever error it likes."""
    skipped = Skipped()
    for number in range(1, 4096):
        path = b"/" + b"\xff" * 4000 + b"%d" % number
        for _ in range(2):
            skipped.add(path, os.strerror(number))
    fields = skipped.fields()
    why = str(fields["skipped_why"]).split("; ")
    assert sum(int(each.rpartition(": ")[2]) for each in why) == fields["skipped"] == 2 * 4095
    known = {re.sub("[0-9]+", "N", os.strerror(number)) for number in errno.errorcode}
    assert {re.sub("[0-9]+", "N", each.rpartition(": ")[0]) for each in why} >= known
    assert not any(each.startswith("other reasons") for each in why)
    shown = str(fields["skipped_paths"]).split(" and ")[0].split()
    assert len(shown) == len(why) > 100
    assert all(each.startswith("/") and each.endswith("…") for each in shown)
    for each in ("skipped_why", "skipped_paths"):
        assert printable(str(fields[each]), FIELD_TEXT_MAX) == fields[each]


def test_more_classes_than_there_can_be_are_still_bounded() -> None:
    skipped = Skipped()
    for number in range(1000):
        skipped.add(b"/", "x" * number)
    fields = skipped.fields()
    assert str(fields["skipped_why"]).startswith("other reasons: 744; ")
    assert len(skipped.counts()) == 257


@given(
    st.lists(
        st.tuples(st.binary(max_size=40), st.text("abN1 ", max_size=3), st.booleans()), max_size=60
    )
)
def test_nothing_that_was_added_is_missing(added: list[tuple[bytes, str, bool]]) -> None:
    """Here or by another part: every object counts once, and every class of ours has a path."""
    here, earlier = Skipped(), Skipped()
    for path, reason, is_earlier in added:
        (earlier if is_earlier else here).add(b"/" + path, reason)
    counts = earlier.counts()
    here.add_earlier(sum(counts.values()), counts)
    assert here.fields()["skipped"] == len(added) == sum(here.counts().values())
    expected = Counter(re.sub("[0-9]+", "N", reason) for _, reason, _ in added)
    assert here.counts() == expected
    words = str(here.fields().get("skipped_paths", "")).split()
    shown = [word for word in words if word.startswith("/")]
    ours = {re.sub("[0-9]+", "N", reason) for _, reason, is_earlier in added if not is_earlier}
    paths = {escape_bytes(b"/" + path).replace(" ", "\\x20") for path, _, _ in added}
    assert len(shown) >= min(len(ours), 20)
    assert set(shown) <= paths


def test_what_another_part_counted_without_a_reason_is_counted() -> None:
    skipped = Skipped()
    skipped.add_earlier(5, {"sparse: N bytes": 3})
    skipped.add(b"/a", "sparse: 7 bytes")
    assert skipped.fields() == {
        "skipped": 6,
        "skipped_why": "sparse: N bytes: 4; named by another part of the check: 2",
        "skipped_paths": "/a and 5 more",
    }


def test_one_long_path_is_cut_and_leaves_no_half_escape() -> None:
    skipped = Skipped()
    skipped.add(b"/" + b"\xff" * 9000, "Permission denied")
    path = str(skipped.fields()["skipped_paths"])
    assert path == "/" + "\\xff" * 1998 + "…"


def test_one_long_path_of_plain_letters_says_that_it_was_cut() -> None:
    for length, shown in ((7999, 8000), (8000, 2000), (9000, 2000)):
        skipped = Skipped()
        skipped.add(b"/" + b"x" * length, "Permission denied")
        path = str(skipped.fields()["skipped_paths"])
        assert len(path) == shown
        assert path.endswith("…") == (length > 7999)


def test_second_examples_of_a_class_take_no_more_room_than_there_is() -> None:
    skipped = Skipped()
    for reason in ("Permission denied", "Input/output error"):
        for name in (b"first", b"second"):
            skipped.add(b"/" + name + b"x" * 3000, reason)
    skipped.add(b"/short", "Input/output error")
    shown = str(skipped.fields()["skipped_paths"]).split(" and ")[0].split()
    assert [each.rstrip("x") for each in shown] == ["/first", "/first", "/short"]
