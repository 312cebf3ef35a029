"""What is true of the host that the tests run on."""

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from needfire_client.facts import HostFacts


def test_the_system_is_named_as_uname_names_it() -> None:
    sysname, release, machine = HostFacts().system.split(":")
    assert (sysname, release, machine) == (
        os.uname().sysname,
        os.uname().release,
        os.uname().machine,
    )


def test_the_host_has_the_name_that_is_given() -> None:
    assert HostFacts("web1.example.org").hostname == "web1.example.org"
    assert HostFacts().hostname


def test_a_file_exists_where_something_is(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "name")
    facts = HostFacts()
    assert not facts.file_exists(path)
    Path(os.fsdecode(path)).touch()
    assert facts.file_exists(path)
    assert facts.file_exists(os.fsencode(tmp_path))
    assert not facts.file_exists(b"/a\0b")


@pytest.mark.parametrize(
    ("address", "exists"),
    [
        ("127.0.0.1", True),
        ("192.0.2.1", False),  # RFC 5737: never assigned
        ("2001:db8::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_an_interface_exists_where_its_address_can_be_bound(address: str, exists: bool) -> None:
    assert HostFacts().interface_exists(address) is exists


def test_the_address_of_a_socket_is_that_of_an_interface() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert HostFacts().interface_exists(bound.getsockname()[0])


def test_digests_of_hashlib_are_always_there_and_blake3_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = HostFacts()
    assert facts.has_digest("sha256")
    assert facts.has_digest("blake3") is (find_spec("blake3") is not None)
    monkeypatch.setitem(sys.modules, "blake3", None)
    assert not facts.has_digest("blake3")
