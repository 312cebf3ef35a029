"""A connection between agent and server on which things go wrong, the same things for a seed.

What happens to a connection is drawn when it is opened, by its number: which fault, in which
direction, after how many bytes. How the bytes were cut into pieces by the kernel plays no part.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

__all__ = ["Fault", "FaultKind", "RoughProxy", "draw_fault", "rough_proxy"]

_PIECE_BYTES = 65_536
_FAULT_AFTER_MAX = 60_000


class FaultKind(Enum):
    """What goes wrong on a connection."""

    NONE = "nothing"
    CUT = "reset in both directions"
    HALF_CLOSE = "one direction ends, the other goes on"
    CORRUPT = "one bit is turned"
    DUPLICATE = "some bytes come twice"
    LOSE = "some bytes never come"
    DELAY = "nothing moves for a while"
    STALL = "nothing moves any more, then a reset"
    CRUMBLE = "bytes come one by one for a while"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one connection.

    Attributes:
        is_upward: it is met by what the agent sends.
        after_bytes: of that direction.
        size_bytes: how many bytes are lost, doubled or crumbled.
        bit: which bit of the byte is turned.
        pause_s: how long nothing moves.
    """

    kind: FaultKind
    is_upward: bool
    after_bytes: int
    size_bytes: int
    bit: int
    pause_s: float


def draw_fault(seed: int, number: int) -> Fault:
    """Return what happens to the connection of this number, counted from 0."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(tuple(FaultKind))
    # Half of them within the handshake and the first messages.
    after = chance.randrange(1_500 if chance.random() < 0.5 else _FAULT_AFTER_MAX)
    return Fault(
        kind,
        chance.random() < 0.5,
        after,
        chance.randrange(1, 400),
        chance.randrange(8),
        chance.random() * 0.5,
    )


class RoughProxy:
    """Forwards connections to a port; ``done`` counts what went wrong so far."""

    def __init__(self, target_port: int, seed: int) -> None:
        self.port = 0
        self.done: Counter[FaultKind] = Counter()
        self._target_port = target_port
        self._seed = seed
        self._number = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = draw_fault(self._seed, self._number)
        self._number += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, fault))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        try:
            # From the agent's own address: to the server that is part of who it is.
            source = (writer.get_extra_info("peername")[0], 0)
            up_reader, up_writer = await asyncio.open_connection(
                "127.0.0.1", self._target_port, local_addr=source
            )
        except OSError:
            _reset(writer)
            return
        try:
            upward = self._forward(reader, up_writer, fault if fault.is_upward else None)
            downward = self._forward(up_reader, writer, None if fault.is_upward else fault)
            await asyncio.gather(upward, downward)
        except (OSError, _CutError):
            pass
        finally:
            # A connection that ended well has nothing left that a reset could take away.
            _reset(writer)
            _reset(up_writer)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        passed = 0
        while data := await reader.read(_PIECE_BYTES):
            if fault is not None and passed + len(data) > fault.after_bytes:
                at = fault.after_bytes - passed
                await _send(writer, data[:at])
                self.done[fault.kind] += 1
                if await self._befall(writer, data[at:], fault) is _END:
                    break
                fault = None
            else:
                await _send(writer, data)
            passed += len(data)
        if writer.can_write_eof():
            writer.write_eof()

    async def _befall(
        self, writer: asyncio.StreamWriter, data: bytes, fault: Fault
    ) -> "object | None":
        size = fault.size_bytes
        match fault.kind:
            case FaultKind.CUT:
                raise _CutError
            case FaultKind.HALF_CLOSE:
                return _END
            case FaultKind.CORRUPT:
                data = bytes([data[0] ^ 1 << fault.bit]) + data[1:]
            case FaultKind.DUPLICATE:
                data = data[:size] + data
            case FaultKind.LOSE:
                data = data[size:]
            case FaultKind.DELAY:
                await asyncio.sleep(fault.pause_s)
            case FaultKind.STALL:
                await asyncio.sleep(fault.pause_s)
                raise _CutError
            case FaultKind.CRUMBLE:
                for at in range(min(size, len(data))):
                    await _send(writer, data[at : at + 1])
                data = data[size:]
            case FaultKind.NONE:
                pass
        await _send(writer, data)
        return None


_END = object()


class _CutError(Exception):
    """Both directions end now."""


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    if connected is not None:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def rough_proxy(target_port: int, seed: int) -> Iterator[RoughProxy]:
    """Run a proxy in a thread of its own until the end of the context."""
    proxy = RoughProxy(target_port, seed)
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        await proxy.start()
        started.set()
        await stopping.wait()
        await proxy.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="rough-proxy")
    thread.start()
    assert started.wait(10), "the proxy did not start"
    try:
        yield proxy
    finally:
        stop[0]()
        thread.join(10)
