"""Hostile bytes become one printable line, and the original can be had back."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol import escape as escape_module
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import (
    count_odd,
    escape_bytes,
    is_weird,
    printable,
    unescape_bytes,
)

PATHS = {
    b"/etc/hosts": "/etc/hosts",
    b"/with blank": "/with blank",
    "/häst/日本".encode(): "/häst/日本",
    b"/back\\slash": "/back\\\\slash",
    b"/line\nbreak": "/line\\x0abreak",
    b"/bell\x07\x1b[31mred": "/bell\\x07\\x1b[31mred",
    b"/latin-1 h\xe4st": "/latin-1 h\\xe4st",
    b"/half \xc3": "/half \\xc3",
    b"/looks escaped \\x0a": "/looks escaped \\\\x0a",
    "/right to left \u202e".encode(): "/right to left \\xe2\\x80\\xae",
    "/zero width \u200b".encode(): "/zero width \\xe2\\x80\\x8b",
    "/line separator \u2028".encode(): "/line separator \\xe2\\x80\\xa8",
    "/no-break \u00a0".encode(): "/no-break \\xc2\\xa0",
    "/private \ue000".encode(): "/private \\xee\\x80\\x80",
    b"/surrogate \xed\xa0\x80": "/surrogate \\xed\\xa0\\x80",
    b"/c1 control \xc2\x9b31m": "/c1 control \\xc2\\x9b31m",
    b"": "",
}
text_alphabet = st.characters(categories=["L", "N", "P", "S", "Z", "C"])
text_with_anything = st.text(text_alphabet)


@pytest.mark.parametrize(("raw", "text"), PATHS.items(), ids=range(len(PATHS)))
def test_a_path_has_one_spelling(raw: bytes, text: str) -> None:
    assert escape_bytes(raw) == text
    assert unescape_bytes(text) == raw


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_become_printable_text_and_come_back(raw: bytes) -> None:
    text = escape_bytes(raw)
    assert text.isprintable()
    assert unescape_bytes(text) == raw


@given(st.binary(), st.binary())
def test_different_bytes_never_look_alike(one: bytes, other: bytes) -> None:
    assert (escape_bytes(one) == escape_bytes(other)) == (one == other)


@given(text_with_anything)
def test_any_text_is_unescaped_or_refused(text: str) -> None:
    try:
        raw = unescape_bytes(text)
    except FormatError:
        return
    assert unescape_bytes(escape_bytes(raw)) == raw


@pytest.mark.parametrize(
    "text", ["\\", "a\\", "\\n", "\\x", "\\x0", "\\xg0", "\\X0a", "\\\\\\", "\ud800"]
)
def test_a_broken_escape_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        unescape_bytes(text)


@given(text_with_anything, st.integers(1, 60))
def test_printable_gives_one_bounded_line_and_is_done_after_once(
    text: str, length_max: int
) -> None:
    shown = printable(text, length_max)
    assert shown.isprintable()
    assert len(shown) <= length_max
    assert printable(shown, length_max) == shown


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_printable_cuts_beyond_its_limit_only(extra: int) -> None:
    text = "x" * (10 + extra)
    assert printable(text, 10) == (text if extra <= 0 else "x" * 9 + "…")


def test_an_escape_is_never_cut_in_half() -> None:
    assert printable("\n\n\n", 12) == "\\x0a\\x0a\\x0a"
    assert printable("\n\n\n", 11) == "\\x0a\\x0a…"


def shown_one_by_one(text: str, length_max: int) -> str:
    """The definition: as many whole characters as there is room for, each as it is shown."""
    pieces = []
    for char in text:
        raw = char.encode("utf-8", "surrogatepass")
        pieces.append(char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in raw))
    if len("".join(pieces)) <= length_max:
        return "".join(pieces)
    while len("".join(pieces)) > length_max - 1:
        pieces.pop()
    return "".join(pieces) + "…"


@given(st.text(max_size=60), st.integers(1, 80))
def test_printable_shows_character_by_character(text: str, length_max: int) -> None:
    assert printable(text, length_max) == shown_one_by_one(text, length_max)


def escaped_one_by_one(raw: bytes) -> str:
    """The definition: each character by itself, where what is no UTF-8 is a byte alone."""
    pieces = []
    for char in raw.decode("utf-8", "surrogateescape"):
        if char.isprintable():
            pieces.append(char.replace("\\", "\\\\"))
        else:
            pieces += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    return "".join(pieces)


@given(st.binary() | st.text(text_alphabet).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_path_is_escaped_character_by_character(raw: bytes) -> None:
    assert escape_bytes(raw) == escaped_one_by_one(raw)


def test_every_character_is_escaped_as_its_definition_says() -> None:
    raw = "".join(map(chr, range(0x3000))).encode() + bytes(range(256))
    assert escape_bytes(raw) == escaped_one_by_one(raw)


@pytest.mark.parametrize("table", [escape_module._SHOWN, escape_module._ESCAPED])
def test_it_is_kept_of_a_bounded_number_of_characters_how_they_are_shown(
    table: dict[int, str],
) -> None:
    """A peer has a million of them."""
    text = "".join(map(chr, range(0xE000, 0xE000 + 6_000)))
    assert printable(text, 100_000) == shown_one_by_one(text, 100_000)
    assert escape_bytes(text.encode()) == escaped_one_by_one(text.encode())
    assert len(table) <= escape_module._SHOWN_MAX


def test_printable_leaves_a_backslash_alone() -> None:
    assert printable("C:\\temp") == "C:\\temp"


def test_nothing_that_hides_or_moves_text_is_ever_shown() -> None:
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    for number in range(0x11_0000):
        char = chr(number)
        if unicodedata.category(char) in hidden:
            assert not char.isprintable(), hex(number)
    assert printable("a\u202eb\ud800\u2028\x7f\x9b") == (
        "a\\xe2\\x80\\xaeb\\xed\\xa0\\x80\\xe2\\x80\\xa8\\x7f\\xc2\\x9b"
    )


@pytest.mark.parametrize("name", [b"hosts", b"with blank", "häst".encode(), b"back\\slash", b"-rf"])
def test_an_ordinary_name_is_not_weird(name: bytes) -> None:
    assert not is_weird(name)


@pytest.mark.parametrize(
    "name", [b"a\nb", b"\x1b[2J", b"\xff", "\u202egpj".encode(), "a\u200b".encode(), b"\x7f"]
)
def test_a_name_that_hides_something_is_weird(name: bytes) -> None:
    assert is_weird(name)


@given(st.binary(min_size=1))
def test_a_name_is_weird_exactly_if_it_must_be_escaped(name: bytes) -> None:
    assert is_weird(name) == ("\\x" in escape_bytes(name.replace(b"\\", b"")))


@given(text_with_anything | st.text(st.characters(codec="ascii")), st.sampled_from(["", '"', "&<"]))
def test_odd_characters_are_those_that_are_not_printable_and_the_marks(
    text: str, marks: str
) -> None:
    expected = sum(not char.isprintable() or char in marks for char in text)
    assert count_odd(text, marks) == expected
    assert bool(count_odd(text)) != text.isprintable()
