import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.glob import compile_component, literal_component

PATTERNS = st.lists(st.sampled_from([b"*", b"?", b"a", b"b", b".", b"[ab]", b"[!a]"]), max_size=6)
NAMES = st.lists(st.sampled_from([b"a", b"b", b"."]), min_size=1, max_size=6).map(b"".join)


def oracle(tokens: list[bytes], name: bytes, *, is_first: bool = True) -> bool:
    """Match by trying everything."""
    if not tokens:
        return not name
    token, rest = tokens[0], tokens[1:]
    if is_first and name[:1] == b"." and token != b".":
        return False
    if token == b"*":
        return any(oracle(rest, name[cut:], is_first=False) for cut in range(len(name) + 1))
    one = {b"?": b"ab.", b"[ab]": b"ab", b"[!a]": b"b."}.get(token, token)
    return name[:1] != b"" and name[:1] in one and oracle(rest, name[1:], is_first=False)


@given(PATTERNS, NAMES)
def test_patterns_match_what_trying_everything_matches(tokens: list[bytes], name: bytes) -> None:
    matches = compile_component(b"".join(tokens)).fullmatch(name) is not None
    assert matches == oracle(tokens, name)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"*.[0-9].gz", [b"a.1.gz", b"b..2.gz"], [b"a.10.gz", b".a.1.gz"]),
        (b"__db.00?", [b"__db.001"], [b"__db.00", b"__db.0012"]),
        (b".*", [b".a", b"."], [b"a"]),
        (b"[]a]", [b"]", b"a"], [b"b"]),
        (b"[!]a]", [b"b"], [b"]", b"a"]),
        (b"[^a]", [b"b", b"^"], [b"a", b"."]),
        (b"[a-]", [b"a", b"-"], [b"b"]),
        (b"[[:digit:]x]*", [b"1", b"x1"], [b"y", b":"]),
        (b"[b-a]", [], [b"a", b"b", b"-"]),
        (b"[a", [b"[a"], [b"a"]),
        (rb"\*a\[", [b"*a["], [b"xa["]),
        (rb"[\]]", [b"]"], [b"\\"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"*\n", [b"\n", b"a\n"], [b"a"]),
        (b"?", ["é".encode(), b"\xff", b"a"], [b"ab", b"\xff\xfe"]),
        (b"(a|b)+", [b"(a|b)+"], [b"a"]),
    ],
)
def test_patterns_of_every_kind(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    compiled = compile_component(pattern)
    assert [name for name in matching if compiled.fullmatch(name) is None] == []
    assert [name for name in others if compiled.fullmatch(name) is not None] == []


def test_a_component_without_wildcards_is_a_name() -> None:
    assert literal_component(b"name") == b"name"
    assert literal_component(rb"a\*b") == b"a*b"
    assert literal_component(b"a*") is None
    assert literal_component(rb"\a[bc]") is None


def test_many_stars_do_not_take_for_ever() -> None:
    pattern = compile_component(b"*a" * 60 + b"b")
    started = time.process_time()
    assert pattern.fullmatch(b"a" * 255) is None
    assert time.process_time() - started < 0.5
