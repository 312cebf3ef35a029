"""What may name a client can never lead out of a directory, a line or a field."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.names import CLIENT_NAME_BYTES_MAX, is_client_name, parse_client_name


@pytest.mark.parametrize(
    "name", ["a", "web1.example.org", "WEB-1", "10.0.0.1", "fe80::1", "_x", "-x", "a..b", "a."]
)
def test_names_and_addresses_are_client_names_in_lower_case(name: str) -> None:
    assert is_client_name(name)
    assert parse_client_name(name) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".a",
        "a/b",
        "/",
        "a b",
        "a\n",
        "\na",
        "a\0",
        "a@b",
        "häst",
        "a\u0661",
        "%n",
        "a\\b",
    ],
)
def test_other_texts_are_refused(name: str) -> None:
    assert not is_client_name(name)
    with pytest.raises(FormatError, match="is not a client name"):
        parse_client_name(name)


@pytest.mark.parametrize(("length", "is_name"), [(1, True), (254, True), (255, True), (256, False)])
def test_a_name_has_at_most_255_bytes(length: int, is_name: bool) -> None:
    assert is_client_name("x" * length) is is_name
    assert CLIENT_NAME_BYTES_MAX == 255


@given(st.text(max_size=20))
def test_what_is_a_name_is_a_path_component_of_its_own(text: str) -> None:
    if is_client_name(text):
        path = f"/data/rc.{parse_client_name(text)}"
        assert os.path.normpath(path) == path
        assert os.path.dirname(path) == "/data"
        assert text.isascii()
        assert text.isprintable()


@given(st.text(max_size=300))
def test_a_refusal_quotes_a_bounded_part_of_the_text(text: str) -> None:
    if is_client_name(text):
        assert parse_client_name(parse_client_name(text)) == text.lower()
        return
    with pytest.raises(FormatError) as caught:
        parse_client_name(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 900
