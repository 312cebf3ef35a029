"""POSIX extended expressions: the same answers as an independent engine, in linear time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.rc.posix_regex import EXPRESSION_BYTES_MAX, compile_posix_regex

_ATOMS = st.sampled_from(["a", "b", "c", ".", r"\.", "[ab]", "[^a]", "[a-c.]", r"\w"])
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "{0}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
        inner.map(lambda part: f"(^{part})"),
        inner.map(lambda part: f"({part}$)"),
    ),
    max_leaves=8,
)
_TEXTS = st.text(alphabet="abc.\n", max_size=8).map(str.encode)


@given(expression=_EXPRESSIONS, texts=st.lists(_TEXTS, min_size=1, max_size=4))
def test_the_answers_are_those_of_pythons_engine(expression: str, texts: list[bytes]) -> None:
    # The expressions mean the same in both languages, but that $ is \Z there.
    theirs = re.compile(expression.replace("$", r"\Z").encode(), re.DOTALL | re.ASCII)
    ours = compile_posix_regex(expression.encode())
    for text in texts:
        assert ours.fullmatch(text) == (theirs.fullmatch(text) is not None)
        assert ours.search(text) == (theirs.search(text) is not None)


@pytest.mark.parametrize(
    ("expression", "matching", "other"),
    [
        (rb"/var/log/.*\.[0-9]+$", b"/var/log/a/mail.1", b"/var/log/mail.1.gz"),
        (rb"/var/log/[[:alnum:]]+/x", b"/var/log/Mail2/x", b"/var/log/mail-2/x"),
        (rb"/[^[:space:]]+", b"/a", b"/a b"),
        (rb"/[]a]", b"/]", b"/b"),
        (rb"/[^]a]", b"/b", b"/]"),
        (rb"/[a-]", b"/-", b"/b"),
        (rb"/[[.-.]-0]", b"/.", b"/1"),
        (rb"/[[=a=]]", b"/a", b"/="),
        (rb"/[\.]", b"/\\", b"/a"),
        (rb"/a\{2\}", b"/a{2}", b"/aa"),
        (rb"/a{2}{3}", b"/aaaaaa", b"/aaaaa"),
        (rb"/a**", b"/aa", b"/b"),
        (rb"/(|a)", b"/", b"/b"),
        (rb"/()", b"/", b"/a"),
        (rb"/a|/b", b"/b", b"/ab"),
        (rb"/\s\S", b"/ a", b"/a "),
        ("/ü".encode(), "/ü".encode(), b"/u"),
        (rb"/.", b"/\n", b"/"),
        (rb"/[[:punct:]][[:xdigit:]]", b"/!F", b"/!g"),
        (rb"^/a$", b"/a", b"/a\n"),
        (rb"/a^b", b"/never", b"/a^b"),
    ],
)
def test_what_posix_says_holds(expression: bytes, matching: bytes, other: bytes) -> None:
    ours = compile_posix_regex(expression)
    assert ours.fullmatch(matching) is (matching != b"/never")
    assert not ours.fullmatch(other)


@pytest.mark.parametrize(
    "expression",
    [
        *(b"(", b")", b"a)", b"(a", b"[", b"[a", b"[]", b"[^]", b"[[:alpha:", b"[[:nonsense:]]"),
        *(b"*a", b"(*a)", b"a|*b", b"{2}", b"a{", b"a{x}", b"a{3,2}", b"a{256}", b"[b-a]", b"\\"),
        *(rb"\1", rb"\d", rb"\ba", rb"\<a", rb"\>", b"[[.", b"[[.ab.]]", b"+", b"?"),
    ],
)
def test_a_bad_expression_is_an_error(expression: bytes) -> None:
    with pytest.raises(FormatError):
        compile_posix_regex(expression)


@pytest.mark.parametrize(
    ("expression", "is_proper"),
    [
        (b"a" * (EXPRESSION_BYTES_MAX - 100), True),
        (b"a" * EXPRESSION_BYTES_MAX, False),  # too many states, though not too long
        (b"[" + b"a" * (EXPRESSION_BYTES_MAX - 2) + b"]", True),
        (b"[" + b"a" * (EXPRESSION_BYTES_MAX - 1) + b"]", False),
        (b"a{255}", True),
        (b"(a{255}){3}", True),
        (b"(a{255}){4}", False),
        (b"((a{255}){255}){255}", False),
        (b"(" * 50 + b"a" + b")" * 50, True),
        (b"(" * 51 + b"a" + b")" * 51, False),
    ],
)
def test_expressions_have_bounds(expression: bytes, is_proper: bool) -> None:
    if is_proper:
        compile_posix_regex(expression)
    else:
        with pytest.raises(FormatError):
            compile_posix_regex(expression)


@pytest.mark.parametrize(
    "expression",
    [rb"/(a+)+$", rb"/(a|a)*b", rb"/(((a*)*)*)*b", rb"/.*.*.*.*.*b", rb"/(a?){200}a{200}b"],
)
def test_a_name_made_to_be_slow_is_not(expression: bytes) -> None:
    # Backtracking would take longer than the universe is old for the first three.
    ours = compile_posix_regex(expression)
    before_s = time.process_time()
    assert not ours.fullmatch(b"/" + b"a" * 4_000 + b"!")
    assert time.process_time() - before_s < 5


def test_what_is_remembered_is_bounded() -> None:
    ours = compile_posix_regex(rb"/.*a.{200}b.{200}c")
    text = b"/" + bytes(97 + (n * n // 7) % 3 for n in range(4_000))
    before_s = time.process_time()
    ours.fullmatch(text)
    remembered = sum(len(step[0]) + len(reached) for step, reached in ours._steps.items())
    assert remembered <= 12_000
    assert time.process_time() - before_s < 5


def test_expressions_are_equal_where_they_are_written_alike() -> None:
    assert compile_posix_regex(b"/a") == compile_posix_regex(b"/a")
    assert compile_posix_regex(b"/a") != compile_posix_regex(b"/b")
