"""The proxy between agents and server does what it says: else tests through it would show nothing."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress

import pytest

from needfire_testkit import rough_proxy as rough_proxy_module
from needfire_testkit.rough_proxy import Fault, FaultKind, draw_fault, rough_proxy

SENT = bytes(number % 251 for number in range(1_000))
ANSWER = b"an answer"
AT, SIZE, BIT = 100, 10, 3
HEAD = SENT[:AT]


def read_all(connected: socket.socket) -> tuple[bytes, bool]:
    """Return what comes, and whether that ends as it should; else it is cut."""
    received = b""
    try:
        while data := connected.recv(65_536):
            received += data
    except ConnectionResetError:
        return received, False
    return received, True


def through_the_proxy(
    kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, bool, bytes]:
    """Send something up; return what arrived, whether whole, and what came back."""
    fault = Fault(kind, is_upward=True, after_bytes=AT, size_bytes=SIZE, bit=BIT, pause_s=0.01)
    monkeypatch.setattr(rough_proxy_module, "draw_fault", lambda _seed, _number: fault)

    def serve() -> tuple[bytes, bool]:
        connected, _ = listening.accept()
        with connected:
            found = read_all(connected)
            if found[1]:
                connected.sendall(ANSWER)
        return found

    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        rough_proxy(listening.getsockname()[1], 1) as proxy,
        ThreadPoolExecutor(1) as others,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as peer,
    ):
        listening.settimeout(20)
        served = others.submit(serve)
        peer.sendall(SENT)
        # The reset may be here already, and then there is nothing left to end.
        with suppress(OSError) if kind is FaultKind.CUT else nullcontext():
            if kind is not FaultKind.HALF_CLOSE:
                peer.shutdown(socket.SHUT_WR)
        answer, _ = read_all(peer)
        assert proxy.done == {kind: 1}
        return *served.result(timeout=20), answer


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        (FaultKind.NONE, SENT),
        (FaultKind.HALF_CLOSE, HEAD),
        (FaultKind.CORRUPT, HEAD + bytes([SENT[AT] ^ 1 << BIT]) + SENT[AT + 1 :]),
        (FaultKind.DUPLICATE, HEAD + SENT[AT : AT + SIZE] + SENT[AT:]),
        (FaultKind.LOSE, HEAD + SENT[AT + SIZE :]),
        (FaultKind.DELAY, SENT),
        (FaultKind.CRUMBLE, SENT),
    ],
    ids=lambda each: each.name if isinstance(each, FaultKind) else "",
)
def test_a_fault_changes_what_arrives_and_the_other_direction_goes_on(
    kind: FaultKind, arrives: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert through_the_proxy(kind, monkeypatch) == (arrives, True, ANSWER)


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.STALL])
def test_a_cut_ends_both_directions(kind: FaultKind, monkeypatch: pytest.MonkeyPatch) -> None:
    received, is_whole, answer = through_the_proxy(kind, monkeypatch)
    assert HEAD.startswith(received)
    assert (is_whole, answer) == (False, b"")


def test_each_fault_is_drawn_in_each_direction_and_the_same_for_a_seed() -> None:
    drawn = [draw_fault(1, number) for number in range(200)]
    assert {(fault.kind, fault.is_upward) for fault in drawn} == {
        (kind, is_upward) for kind in FaultKind for is_upward in (False, True)
    }
    assert drawn == [draw_fault(1, number) for number in range(200)]
    assert drawn != [draw_fault(2, number) for number in range(200)]
