"""What differs between two configurations is told by directive, without secrets, in bounded text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.rc.changes import (
    CHANGES_TEXT_MAX,
    InForce,
    SettingsChanges,
    in_force,
    settings_changes,
)
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.directives import Program
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.syntax import parse_lines


def read(text: str, program: Program = Program.SERVER) -> InForce:
    facts = StatedFacts(hostname="here")
    return in_force(parse_lines(text.encode(), facts=facts, findings=Findings("rc")), program)


def changes(old: str, new: str, program: Program = Program.SERVER) -> dict[str, Any]:
    found = settings_changes(read(old, program), read(new, program))
    shown: dict[str, Any] = json.loads(found.text)
    assert found.count == len(shown) + found.left_out
    assert found.text.isprintable()
    return shown


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[Misc]\nConnectionLimit=10\n", "[Misc]\nConnectionLimit = 20\n", ["10", "20"]),
        ("", "[Misc]\nConnectionLimit=20\n", [None, "20"]),
        ("[Misc]\nConnectionLimit=10\n", "", ["10", None]),
        # What stands twice counts as it stood last.
        (
            "[Misc]\nConnectionLimit=1\nConnectionLimit=2\n",
            "[Misc]\nConnectionLimit=3\n",
            ["2", "3"],
        ),
    ],
)
def test_a_directive_is_told_with_what_it_was_and_is(
    old: str, new: str, expected: list[str | None]
) -> None:
    assert changes(old, new) == {"ConnectionLimit": expected}


@pytest.mark.parametrize(
    "new",
    [
        "# a comment\n[Misc]\n\nConnectionLimit=10\n",
        "[Misc]\nconnectionlimit = 10\n@elsewhere\nConnectionLimit=99\n@end\n",
        # Known, and without effect here.
        "[Misc]\nConnectionLimit=10\n[Database]\nSetDBPassword=hunter2\n",
    ],
)
def test_what_changes_nothing_is_no_change(new: str) -> None:
    found = settings_changes(read("[Misc]\nConnectionLimit=10\n"), read(new))
    assert found == SettingsChanges(0, "{}", 0)


def test_of_repeated_directives_only_what_one_side_has_is_shown() -> None:
    old = "[ReadOnly]\ndir=/etc\ndir=/usr\n[LogFiles]\nfile=/var/log/a\n"
    new = "[ReadOnly]\ndir=/etc\ndir=/opt\n[LogFiles]\nfile=/var/log/a\n%GROUP web\ndir=/srv\n!%GROUP\n"
    assert changes(old, new, Program.AGENT) == {
        "dir [ReadOnly]": [["/usr"], ["/opt"]],
        "dir [LogFiles] %web": [None, "/srv"],
    }


def test_an_order_that_may_matter_is_shown_whole() -> None:
    old, new = ("[ReadOnly]\ndir=/a\ndir=/b\n", "[ReadOnly]\ndir=/b\ndir=/a\n")
    assert changes(old, new, Program.AGENT) == {"dir [ReadOnly]": [["/a", "/b"], ["/b", "/a"]]}


def test_a_line_of_an_output_names_its_output() -> None:
    text = "[Outputs]\nOpenOutput=siem\nOutputTarget={}\nOpenOutput=mail\nOutputTarget=smtp b:25\n"
    assert changes(text.format("tcp a:1"), text.format("tcp a:2")) == {
        "OutputTarget (siem)": ["tcp a:1", "tcp a:2"]
    }


def test_another_verifier_is_a_change_and_no_verifier_is_shown() -> None:
    found = changes("[Clients]\nClient=web1@00@aaaa\n", "[Clients]\nClient=web1@00@bbbb\n")
    [[old, new]] = found.values()
    assert old != new
    assert old.startswith("web1@***")
    assert "aaaa" not in old
    assert "bbbb" not in new


def test_a_long_list_is_cut_and_says_so() -> None:
    rules = "".join(f"dir=/srv/{number}\n" for number in range(12))
    [[_, added]] = changes("[ReadOnly]\ndir=/a\n", f"[ReadOnly]\n{rules}", Program.AGENT).values()
    assert added == [*(f"/srv/{number}" for number in range(10)), "2 more"]


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.lists(st.text("x\u202e", max_size=300))
    ),
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.lists(st.text("x", max_size=300))),
)
def test_the_text_is_bounded_and_always_json(old: InForce, new: InForce) -> None:
    found = settings_changes(old, new)
    assert len(found.text) <= CHANGES_TEXT_MAX
    assert len(json.loads(found.text)) == found.count - found.left_out
    assert settings_changes(new, new).count == 0
