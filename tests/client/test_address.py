"""How a person writes where the server is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.address import DEFAULT_PORT, ServerAddress
from needfire_protocol.errors import FormatError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("loghost", "loghost", DEFAULT_PORT),
        ("loghost.example.org:1", "loghost.example.org", 1),
        (" 192.0.2.1:65535 ", "192.0.2.1", 65_535),
        ("[::1]:49777", "::1", 49_777),
        ("[2001:db8::7]", "2001:db8::7", DEFAULT_PORT),
        ("2001:db8::7", "2001:db8::7", DEFAULT_PORT),
    ],
)
def test_what_is_taken(text: str, host: str, port: int) -> None:
    assert ServerAddress.parse(text) == ServerAddress(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "h:", "h:0", "h:65536", "h:-1", "h:+1", "h:1x", "h:\u0663", "h:000001"),
        *("[::1", "[::1]x", "[]:1", "a b:1", "a/b", "user@host", "h\x00:1", "h\n:1", "x" * 256),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="expected HOST"):
        ServerAddress.parse(text)


@given(st.text())
def test_any_text_gives_an_address_or_a_format_error(text: str) -> None:
    try:
        address = ServerAddress.parse(text)
    except FormatError:
        return
    assert ServerAddress.parse(str(address)) == address


@given(st.sampled_from(["h", "a.b", "::1", "192.0.2.7"]), st.integers(1, 65_535))
def test_an_address_reads_back_as_it_is_shown(host: str, port: int) -> None:
    address = ServerAddress(host, port)
    assert ServerAddress.parse(str(address)) == address
