"""How much patience one who reads slowly meets at the admin socket."""

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from needfire_server.admin import peer as peer_module
from needfire_server.admin.peer import Peer, PeerGoneError

PAGE = [{"number": number, "text": "x" * 1_000} for number in range(2_000)]


@pytest.fixture
def ends() -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    theirs.setblocking(False)
    try:
        yield peer, theirs
    finally:
        peer.close()
        theirs.close()


async def test_who_takes_a_little_now_and_then_has_all_the_time_again(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe into something slow must not lose its end: a page may well take half a minute there."""
    peer, theirs = ends
    taken, limits = bytearray(), []
    real = asyncio.timeout

    def timeout(delay: float | None) -> asyncio.Timeout:
        limits.append(delay)
        return real(delay)

    async def takes_a_little(*_: object) -> None:
        taken.extend(theirs.recv(50_000))

    monkeypatch.setattr(asyncio, "timeout", timeout)
    monkeypatch.setattr(peer, "_ready", takes_a_little)
    await peer.send_all(PAGE)
    while len(taken) < sum(len(json.dumps(each, separators=(",", ":"))) + 1 for each in PAGE):
        taken.extend(theirs.recv(1_000_000))
    assert [json.loads(line) for line in taken.splitlines()] == PAGE
    # One wait for each time that nothing could be sent, and none around all of it.
    assert len(limits) > 10
    assert set(limits) == {peer_module._SEND_LIMIT_S}


async def test_who_takes_nothing_is_given_up(
    ends: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "_SEND_LIMIT_S", 0.05)
    with pytest.raises(PeerGoneError):
        await ends[0].send_all(PAGE)
