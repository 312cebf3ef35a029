"""One spelling for each address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_server.addresses import is_address, is_loopback, neighbourhood, plain_address


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
        ("2001:DB8:0:0::5", "2001:db8::5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
    ],
)
def test_every_spelling_of_an_address_becomes_the_same(text: str, plain: str) -> None:
    assert plain_address(text) == plain


@pytest.mark.parametrize("text", ["", "web1", "1.2.3", "1.2.3.4.5", "010.0.0.1", "1.2.3.4%eth0"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(FormatError, match="is not an IP address"):
        plain_address(text)


@given(st.ip_addresses())
def test_the_one_spelling_stays_as_it_is(address: object) -> None:
    plain = plain_address(str(address))

    assert plain_address(plain) == plain


def test_an_ipv6_host_counts_as_its_network() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:0:0:1")
    assert neighbourhood("2001:db8::1") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("192.0.2.1") != neighbourhood("192.0.2.2")


def test_all_of_127_is_this_machine() -> None:
    assert is_loopback("127.0.1.1")
    assert is_loopback("::1")
    assert not is_loopback("192.0.2.1")
