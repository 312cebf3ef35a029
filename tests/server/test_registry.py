"""Who may speak, and which entry counts where there are two."""

from dataclasses import dataclass

from needfire_protocol.srp import Verifier
from needfire_server.registry import STORE_ENTRY, Registry
from needfire_server.storage.base import ClientRecord
from needfire_testkit.server_store import verifier


@dataclass(frozen=True)
class Line:
    name: str
    verifier: Verifier
    line: int


def record(name: str, password: str) -> ClientRecord:
    return ClientRecord(name, verifier(password), 1, "root")


def test_a_name_is_found_in_any_case() -> None:
    registry = Registry([Line("Web1", verifier("a"), 3)], [record("web2", "b")])
    assert registry.lookup("WEB1") == registry.lookup("web1") == verifier("a")
    assert registry.lookup("Web2") == verifier("b")
    assert registry.lookup("web3") is None
    assert registry.names() == ("web1", "web2")


def test_the_store_wins_over_the_file_and_both_are_named() -> None:
    registry = Registry([Line("web1", verifier("a"), 3)], [record("web1", "b")])
    assert registry.lookup("web1") == verifier("b")
    [twice] = registry.listed_twice()
    assert (twice.client, twice.used) == ("web1", STORE_ENTRY)
    assert twice.other == "[Clients], line 3"


def test_the_same_verifier_in_both_is_no_conflict() -> None:
    registry = Registry([Line("web1", verifier("a"), 3)], [record("web1", "a")])
    assert registry.listed_twice() == ()


def test_of_two_lines_the_last_counts() -> None:
    registry = Registry([Line("web1", verifier("a"), 3), Line("web1", verifier("b"), 9)])
    assert registry.lookup("web1") == verifier("b")


def test_registering_and_removing_count_at_once() -> None:
    registry = Registry()
    registry.put(record("web1", "a"))
    assert registry.lookup("web1") == verifier("a")
    registry.put(record("web1", "b"))
    assert registry.lookup("web1") == verifier("b")
    registry.take_out("Web1")
    assert registry.lookup("web1") is None
    registry.take_out("web1")


def test_after_removal_the_line_of_the_file_counts_again() -> None:
    registry = Registry([Line("web1", verifier("a"), 3)], [record("web1", "b")])
    registry.take_out("web1")
    assert registry.lookup("web1") == verifier("a")


def test_a_reload_replaces_the_lines_and_keeps_the_store() -> None:
    registry = Registry(
        [Line("web1", verifier("a"), 3), Line("web2", verifier("a"), 4)], [record("web3", "b")]
    )
    gone = registry.reload([Line("web2", verifier("b"), 1), Line("web4", verifier("a"), 2)])
    assert gone == {"web1"}
    assert registry.names() == ("web2", "web3", "web4")
    assert registry.lookup("web2") == verifier("b")
