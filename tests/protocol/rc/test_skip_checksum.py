import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import ConfigError, FormatError
from needfire_protocol.rc.agent import EXPRESSIONS_MAX, AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.skip_checksum import CONDITIONS_MAX, SKIP_CHECKSUM, SkipLine
from needfire_protocol.rc.values import WithoutEffect


def parse(value: bytes) -> SkipLine:
    line = SKIP_CHECKSUM.parse(value)
    assert isinstance(line, SkipLine)
    return line


def settings(*values: str) -> AgentSettings:
    lines = "".join(f"SkipChecksum = {value}\n" for value in values)
    return parse_agent_rc(f"[Misc]\n{lines}".encode(), source="rc", facts=StatedFacts())


@pytest.mark.parametrize(
    ("value", "path", "mode", "size", "holds"),
    [
        (b"match_prefix(/srv/a)", b"/srv/abc", 0o644, 1, True),
        (b"match_prefix(/srv/a)", b"/x/srv/a", 0o644, 1, False),
        (b"match_regex(\\.mpg$)", b"/a/b.mpg", 0o644, 1, True),
        (b"match_regex(.*\\.mpg$)", b"/a/b.mpg.txt", 0o644, 1, False),
        (b"match_regex(/(a|b), ?(c)$)", b"/b, c", 0o644, 1, True),
        (b"size_exceeds(100)", b"/a", 0o644, 100, False),
        (b"size_exceeds(100)", b"/a", 0o644, 101, True),
        (b"match_permission(4755)", b"/a", 0o104755, 1, True),
        (b"match_permission(0755)", b"/a", 0o104755, 1, False),
        (b"have_permission(0111)", b"/a", 0o100755, 1, True),
        (b"have_permission(0111)", b"/a", 0o100744, 1, False),
        (b"!have_permission(0100)", b"/a", 0o100644, 1, True),
        (b"! size_exceeds(5)", b"/a", 0o644, 6, False),
        (b"match_prefix(/a), !size_exceeds(5)", b"/a", 0o644, 5, True),
        (b"match_prefix(/a) !size_exceeds(5)", b"/a", 0o644, 6, False),
        (b"match_prefix(/a),!match_regex(b),size_exceeds(1)\t", b"/ac", 0o644, 2, True),
        (b"MATCH_PREFIX(/a (copy)),size_exceeds(1)", b"/a (copy)/x", 0o644, 2, True),
    ],
)
def test_all_conditions_of_a_line_must_hold(
    value: bytes, path: bytes, mode: int, size: int, holds: bool
) -> None:
    line = parse(value)
    assert line.holds(path, mode, size) is holds
    assert not holds or line.may_hold(path)
    assert parse(str(line).encode()).holds(path, mode, size) is holds


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "no condition"),
        (b" , ", "no condition"),
        (b"size_exceeds", "is no condition; expected for example"),
        (b"size_exceeds(10", "is no condition"),
        (b"size_exceeds(10) and more", "is no condition"),
        (b"size_over(10)", "expected one of match_prefix"),
        (b"size_exceeds(10M)", "a number of bytes"),
        (b"size_exceeds(-1)", "a number of bytes"),
        (b"match_permission(0788)", "octal"),
        (b"match_permission(17777)", "octal"),
        (b"match_prefix(srv)", "the beginning of a path"),
        (b"match_regex()", "an expression"),
        (b"match_regex((a)", "without"),
        (b"size_exceeds(1)," * (CONDITIONS_MAX + 1), "more than 50 conditions"),
    ],
)
def test_what_is_no_list_of_conditions_is_an_error(value: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse(value)


def test_the_most_conditions_are_accepted() -> None:
    assert len(parse(b"size_exceeds(1)," * CONDITIONS_MAX).conditions) == CONDITIONS_MAX


def test_a_line_with_a_type_of_file_leaves_out_nothing_and_says_so() -> None:
    for value in (b"match_filetype(IMAGE:JPEG)", b"size_exceeds(1), !match_filetype(TEXT)"):
        with pytest.raises(WithoutEffect):
            parse(value)
    read = settings("match_prefix(/a), match_filetype(TEXT)", "size_exceeds(5)")
    assert [str(line) for line in read.skip_checksum] == ["size_exceeds(5)"]
    (notice,) = read.notices
    assert (notice.line, "match_filetype" in notice.text) == (2, True)


def test_lines_add_up_and_are_bounded() -> None:
    assert len(settings("size_exceeds(5)", "match_prefix(/a)").skip_checksum) == 2
    with pytest.raises(ConfigError, match="more than 500 expressions"):
        settings(*["size_exceeds(5)"] * (EXPRESSIONS_MAX + 1))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_line_or_an_error(value: bytes) -> None:
    try:
        line = parse(value)
    except (FormatError, WithoutEffect):
        return
    line.holds(b"/a", 0o100644, 1)
