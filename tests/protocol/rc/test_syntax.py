"""Lines, sections and conditionals."""

from dataclasses import dataclass

import pytest

from needfire_protocol.errors import ConfigError, Problem
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.syntax import (
    CONDITIONS_MAX,
    FILE_BYTES_MAX,
    LINE_BYTES_MAX,
    NESTING_MAX,
    Directive,
    parse_lines,
)
from needfire_testkit.rc import FACTS


def parse(
    text: str | bytes, facts: StatedFacts = FACTS
) -> tuple[list[Directive], tuple[Problem, ...]]:
    data = text.encode() if isinstance(text, str) else text
    findings = Findings("rc")
    directives = parse_lines(data, facts=facts, findings=findings)
    return directives, findings.notices()


def keys(text: str | bytes) -> list[str]:
    return [directive.key for directive in parse(text)[0]]


def error_lines(text: str | bytes) -> list[int | None]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [problem.line for problem in caught.value.problems]


def test_a_directive_has_section_key_value_and_place() -> None:
    [directive], notices = parse("[MISC]\r\n\r\n\t SetLoopTime \t=  60 = x \r\n")
    assert directive == Directive("misc", "setlooptime", b"60 = x", "rc", 3, b"SetLoopTime")
    assert notices == ()


def test_comments_and_blank_lines_do_not_count() -> None:
    assert keys("# a\n;b = 1\n//c\n  # d\n[Misc]\n\n#e=1\nf=#1\n") == ["f"]


def test_a_mark_of_utf8_at_the_beginning_is_no_part_of_the_first_line() -> None:
    assert keys(b"\xef\xbb\xbf[Misc]\na=1\n") == ["a"]


def test_nothing_behind_eof_counts() -> None:
    assert keys("[Misc]\na=1\n[eof]\n[nonsense\nb=1\n@fi\n") == ["a"]


def test_eof_in_a_part_for_other_hosts_ends_nothing() -> None:
    assert keys("[Misc]\n@other\n[EOF]\n@end\na=1\n") == ["a"]


def test_a_line_before_the_first_section_is_a_notice() -> None:
    directives, [notice] = parse("SetLoopTime = 60\n[Misc]\na=1\n")
    assert [directive.key for directive in directives] == ["a"]
    assert str(notice) == "rc:1: 'SetLoopTime' stands before the first section: no effect"


@pytest.mark.parametrize("line", ["nonsense", "= value", "[Misc", "@", "$", "!", "\x1b[0m"])
def test_a_line_that_is_nothing_known_is_an_error(line: str) -> None:
    assert error_lines(f"[Misc]\n{line}\n") == [2]


def test_a_known_directive_may_stand_without_a_value() -> None:
    assert parse("[External]\nCloseCommand\n")[0][0].value == b""


def test_a_nul_byte_is_an_error() -> None:
    assert error_lines(b"[Misc]\na=\0\n") == [2]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_line_has_a_bound(ending: str) -> None:
    head = f"[Misc]{ending}a="
    for length in (LINE_BYTES_MAX - 1, LINE_BYTES_MAX):
        assert keys(head + "x" * (length - 2) + ending) == ["a"]
    assert error_lines(head + "x" * LINE_BYTES_MAX + ending) == [2]


def test_a_file_has_a_bound() -> None:
    head = b"[Misc]\na=1\n"
    filler = (b"#" * 99 + b"\n") * (FILE_BYTES_MAX // 100 + 1)
    for size in (FILE_BYTES_MAX - 1, FILE_BYTES_MAX):
        assert keys((head + filler)[:size]) == ["a"]
    assert error_lines((head + filler)[: FILE_BYTES_MAX + 1]) == [None]


def test_a_command_is_never_run() -> None:
    directives, [notice] = parse("[Misc]\nSetLoopTime = $( echo 60 )\na = $(x\n")
    assert [directive.key for directive in directives] == ["a"]
    assert notice.line == 2
    assert "never run" in notice.text


@pytest.mark.parametrize(
    ("test", "holds"),
    [
        ("@if hostname_matches web1", True),
        ("@if hostname_matches ^web1$", False),
        ("@if Hostname_Matches ^web[0-9]+\\.example\\.org$", True),
        ("@if not hostname_matches web1", False),
        ("@if !hostname_matches web1", False),
        ("@if ! hostname_matches web2", True),
        ("@if\tnot\thostname_matches\tweb2", True),
        ("@if system_matches Linux:6\\..*:x86_64", True),
        ("@if system_matches SunOS", False),
        ("@if file_exists /etc/passwd", True),
        ("@if not file_exists /etc/nothing", True),
        ("@if interface_exists 192.0.2.7", True),
        ("@if interface_exists 192.0.2.8", False),
        ("@web1.example.org", True),
        ("@ web1", True),
        ("!@web1", False),
        ("!@other", True),
        ("! @other", True),
        ("$Linux:.*:(i686|x86_64)", True),
        ("$(SunOS|Linux):.*", True),
        ("!$Linux:.*", False),
        ("@iffy.example.org", False),
    ],
)
@pytest.mark.parametrize("end", ["@fi", "@end", "$end", "@END"])
def test_a_condition_chooses_between_its_parts(test: str, holds: bool, end: str) -> None:
    assert keys(f"[Misc]\n{test}\nyes=1\n@else\nno=1\n{end}\nafter=1\n") == [
        "yes" if holds else "no",
        "after",
    ]


def test_blocks_may_stand_inside_each_other() -> None:
    text = """[Misc]
@if hostname_matches web1
a=1
@other
b=1
@if hostname_matches web1
c=1
@else
d=1
@fi
@else
e=1
@end
@else
f=1
@web1
g=1
@end
@fi
h=1
"""
    assert keys(text) == ["a", "e", "h"]


def test_a_section_inside_a_block_holds_behind_it_too() -> None:
    [directive], _ = parse("[Misc]\n@web1\n[Log]\n@end\na=1\n")
    assert directive.section == "log"


def test_a_part_for_other_hosts_is_not_looked_at() -> None:
    text = "[Misc]\n@other\n[Nonsense]\nnonsense\n@if nonsense\n@else\n@fi\n%x\n@end\na=1\n"
    assert keys(text) == ["a"]


def test_a_command_as_a_test_never_holds() -> None:
    directives, [notice] = parse("[Misc]\n@if command_succeeds true\na=1\n@else\nb=1\n@fi\n")
    assert [directive.key for directive in directives] == ["b"]
    assert notice.line == 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("@fi\n", [1]),
        ("@end\n", [1]),
        ("$end\n", [1]),
        ("@else\n", [1]),
        ("@if file_exists /etc/passwd\n", [1]),
        ("@web1\n@if file_exists /x\n", [1, 2]),
        ("@web1\n@else\n@else\n@end\n", [3]),
        ("@web1\n@end\n@end\n", [3]),
        ("@if nonsense x\n@fi\n", [1]),
        ("@if file_exist /x\n@fi\n", [1]),
        ("@if file_exists\n@fi\n", [1]),
        ("@if file_exists x\n@fi\n", [1]),
        ("@if hostname_matches (\n@fi\n", [1]),
        ("@if\n@fi\n", [1]),
        ("@if not\n@fi\n", [1]),
        ("!@if file_exists /x\n@fi\n", [1]),
        ("@web1\n!@end\n", [2]),
    ],
)
def test_a_broken_block_is_an_error_with_its_line(text: str, lines: list[int]) -> None:
    assert error_lines(text) == lines


def test_neither_part_of_a_block_with_a_broken_test_is_read() -> None:
    assert error_lines("[Misc]\n@if nonsense\nnonsense\n@else\nnonsense\n@fi\n") == [2]


def test_the_nearest_test_is_named() -> None:
    with pytest.raises(ConfigError, match="the nearest known one is file_exists"):
        parse("@if file_exist /x\n@fi\n")


@pytest.mark.parametrize(("depth", "is_proper"), [(NESTING_MAX, True), (NESTING_MAX + 1, False)])
def test_nesting_has_a_bound(depth: int, is_proper: bool) -> None:
    text = "@web1\n" * depth + "@end\n" * depth
    if is_proper:
        assert keys(text) == []
    else:
        assert error_lines(text) == [depth]


def test_conditions_are_bounded_in_number() -> None:
    text = "@web1\n@end\n" * CONDITIONS_MAX
    assert keys(text + "[Misc]\na=1\n") == ["a"]
    assert error_lines(text + "@web1\n@end\n") == [2 * CONDITIONS_MAX + 1]


def groups(text: str) -> tuple[dict[str, str], list[str]]:
    try:
        directives, notices = parse(text)
    except ConfigError as error:
        return {}, [each.text for each in error.problems]
    return {each.key: each.group for each in directives}, [each.text for each in notices]


def test_what_stands_between_the_marks_of_a_group_is_in_it() -> None:
    text = "[Misc]\na=\n%group web-1\nb=\n[Log]\nc=\n!%GROUP\nd=\n%SCHEDULE_TWO\ne=\n! %schedule_two\nf=\n"
    found, problems = groups(text)
    assert found == {"a": "", "b": "web-1", "c": "web-1", "d": "", "e": "SCHEDULE_TWO", "f": ""}
    assert problems == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%GROUP", "'' is not the name of a group: letters, digits, _ . -, at most 32"),
        ("%GROUP a b", "'a b' is not the name of a group: letters, digits, _ . -, at most 32"),
        ("%GROUP schedule_two", "the group SCHEDULE_TWO is made by %SCHEDULE_TWO alone"),
        ("%GROUP a\n%GROUP b\n!%GROUP", "a group inside of the group a of line 2"),
        ("%GROUP a\n!%SCHEDULE_TWO", "this is not the end of the group a of line 2"),
        ("%SCHEDULE_TWO\n!%GROUP", "this is not the end of the group SCHEDULE_TWO of line 2"),
        ("%GROUP a\n!%GROUP a", "!%GROUP takes no name: it ends the group before it"),
        ("!%GROUP", "no group has begun before this line"),
        ("%GROUP a", "the group a has no end; it goes to that of the file"),
    ],
)
def test_marks_of_groups_that_do_not_belong_to_each_other(text: str, problem: str) -> None:
    assert groups(f"[Misc]\n{text}\n")[1] == [problem]


def test_a_group_may_begin_twice_and_not_where_a_condition_does_not_hold() -> None:
    found, problems = groups("[Misc]\n%GROUP a\n%GROUP a\nx=\n@other\n!%GROUP\n@end\ny=\n!%GROUP\n")
    assert (found, problems) == ({"x": "a", "y": "a"}, [])


SIGNED = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

[Misc]
a=1
- b=1
-----BEGIN PGP SIGNATURE-----
Version: x

iQ=Ez
=abcd
-----END PGP SIGNATURE-----
"""


def test_a_signature_is_tolerated_and_said_to_be_unverified() -> None:
    directives, [notice] = parse(SIGNED)
    assert [directive.key for directive in directives] == ["a", "b"]
    assert (notice.line, notice.text) == (1, "the PGP signature of this file is not verified")


def test_a_signature_without_an_end_hides_nothing() -> None:
    assert error_lines(SIGNED.replace("-----END PGP SIGNATURE-----", "") + "c=1\n") == [7]


def test_the_head_of_a_signed_file_hides_nothing() -> None:
    text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n[Misc]\na=1\n"
    assert keys(text) == ["a"]


@dataclass(frozen=True)
class NothingMayBeAsked:
    """Facts that must not be looked up."""

    hostname: str = "web1"
    system: str = "Linux:6:x"

    def file_exists(self, path: bytes, /) -> bool:
        raise AssertionError(path)

    def interface_exists(self, address: str, /) -> bool:
        raise AssertionError(address)

    def has_digest(self, algorithm: str, /) -> bool:
        raise AssertionError(algorithm)


def test_nothing_is_looked_up_inside_a_part_for_other_hosts() -> None:
    findings = Findings("rc")
    text = b"@other\n@if file_exists /x\n@fi\n@if interface_exists 192.0.2.1\n@fi\n@end\n"
    assert parse_lines(text, facts=NothingMayBeAsked(), findings=findings) == []
    assert findings.notices() == ()


@pytest.mark.parametrize(
    ("line", "shown"),
    [("SetDBPassword hunter2", "'SetDBPassword ...'"), ("nonsense", "'nonsense'")],
)
def test_of_a_line_without_an_equals_sign_only_the_first_word_is_told(
    line: str, shown: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"[Misc]\n{line}\n")
    assert caught.value.problems[0].text == f"{shown} is neither [Section] nor Key=Value"
