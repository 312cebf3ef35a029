"""Files on their way: configurations and baselines to a client, proposals from one.

The client never names a path. It asks for "the configuration" or "the baseline", and the registered
name decides which file that is.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

from needfire_protocol.audit.record import Draft
from needfire_protocol.errors import RemoteProtocolError, StorageError
from needfire_protocol.event import FieldValue
from needfire_protocol.messages import (
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRefused,
    Message,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
)
from needfire_server.clock import now_us
from needfire_server.datafiles import NotAccessible, OpenedFile, ProposalFile
from needfire_server.runtime import Runtime
from needfire_server.states import ClientStatus

__all__ = ["ProposalTransfer", "send_file"]

_CHUNK_BYTES: Final = 65_536
_HASHED_BYTES: Final = 1024 * 1024
"""What is hashed before another client has its turn: a millisecond or two."""


async def send_file(
    send: Callable[[Message], Awaitable[None]], runtime: Runtime, client: str, kind: FileKind
) -> None:
    """Answer a request for a file: the file, or that there is none (documented state 6).

    Raises:
        OSError: the connection broke.
    """
    found = await asyncio.to_thread(runtime.data_files.find, kind, client)
    if isinstance(found, NotAccessible):
        runtime.journal.raise_event(
            "FILE_NOT_ACCESSIBLE",
            client=client,
            path=found.first_path,
            reason=found.reason,
            kind=kind.value,
        )
        await runtime.fleet.note(client, ClientStatus.FAILED)
        await send(FileRefused(kind))
        return
    with found:

        async def send_chunk(data: bytes) -> None:
            await runtime.throttle.before_chunk(client, len(data))
            await send(FileChunk(data))

        if not await _send_opened(send, send_chunk, kind, found):
            runtime.journal.raise_event(
                "FILE_NOT_ACCESSIBLE",
                client=client,
                path=found.told_as,
                reason="the file changed or could not be read while it was sent",
                kind=kind.value,
            )
            # The client has a part of it already; only the end of the connection tells it.
            raise ConnectionAbortedError("the file could not be sent whole")
    await runtime.fleet.note(client, ClientStatus.FILE_TRANSFER)
    runtime.journal.raise_event(
        "FILE_TRANSFER_COMPLETED", client=client, path=found.told_as, kind=kind.value
    )


async def _send_opened(
    send: Callable[[Message], Awaitable[None]],
    send_chunk: Callable[[bytes], Awaitable[None]],
    kind: FileKind,
    found: OpenedFile,
) -> bool:
    """Send a file in chunks; False where it could not be read to the size that was announced."""
    try:
        digest = await _sha256(found)
    except OSError:
        return False
    await send(FileBegin(kind, found.size_bytes, digest))
    left = found.size_bytes
    while left > 0:
        try:
            data = await asyncio.to_thread(found.file.read, min(left, _CHUNK_BYTES))
        except OSError:
            return False
        if not data:
            return False
        left -= len(data)
        await send_chunk(data)
    await send(FileEnd())
    return True


async def _sha256(found: OpenedFile) -> bytes:
    """Hash a file, a little at a time: with a large one each, a few clients would otherwise keep
    all threads for files busy, and the others waiting for seconds.
    """
    digest = hashlib.sha256()
    while await asyncio.to_thread(_hash_some, digest, found):
        pass
    found.file.seek(0)
    return digest.digest()


def _hash_some(digest: "hashlib._Hash", found: OpenedFile) -> bool:
    """Hash the next piece; False at the end."""
    data = found.file.read(_HASHED_BYTES)
    digest.update(data)
    return bool(data)


class ProposalTransfer:
    """A baseline that a client offers, on its way into the proposals folder."""

    def __init__(
        self, runtime: Runtime, client: str, begin: ProposalBegin, file: ProposalFile
    ) -> None:
        self._runtime = runtime
        self._client = client
        self._begin = begin
        self._digest = hashlib.sha256()
        self._received_bytes = 0
        self._file = file

    @classmethod
    async def open(cls, runtime: Runtime, client: str, begin: ProposalBegin) -> "ProposalTransfer":
        """Open the place for it.

        Raises:
            StorageError: there is no room, or it is larger than the server takes.
        """
        limit = runtime.settings.proposal_size_limit_bytes
        if begin.size_bytes > limit:
            raise StorageError(f"{begin.size_bytes} bytes exceed the limit of {limit} bytes")
        file = await asyncio.to_thread(runtime.data_files.new_proposal, client)
        return cls(runtime, client, begin, file)

    async def take(self, chunk: ProposalChunk) -> None:
        """Write one piece.

        Raises:
            RemoteProtocolError: the client sends more than it announced.
            StorageError: the disk does not take it.
        """
        self._received_bytes += len(chunk.data)
        if self._received_bytes > self._begin.size_bytes:
            raise RemoteProtocolError(
                f"the proposal has more than the announced {self._begin.size_bytes} bytes"
            )
        self._digest.update(chunk.data)
        await asyncio.to_thread(self._file.write, chunk.data)

    async def finish(self, _end: ProposalEnd) -> ProposalAccepted | ProposalRefused:
        """Keep the proposal if it arrived whole; return the answer for the client.

        Raises:
            StorageError: the disk or the store does not take it.
        """
        if (
            self._received_bytes != self._begin.size_bytes
            or self._digest.digest() != self._begin.sha256
        ):
            await self.abandon()
            reason = "it did not arrive as it was announced"
            self._runtime.journal.raise_event(
                "PROPOSAL_REFUSED", client=self._client, reason=reason
            )
            return ProposalRefused(reason)
        path = await asyncio.to_thread(self._file.keep)
        proposal_id = await self._runtime.store.add_proposal(
            self._client,
            path,
            self._received_bytes,
            self._begin.sha256,
            now_us=now_us(),
            audit=self._draft,
        )
        self._runtime.journal.raise_event(
            "BASELINE_PROPOSAL_RECEIVED",
            client=self._client,
            proposal=proposal_id,
            bytes=self._received_bytes,
            hash=f"sha256:{self._begin.sha256.hex()}",
        )
        return ProposalAccepted(proposal_id)

    def _draft(self, stored: tuple[int, str | None]) -> Draft:
        fields: dict[str, FieldValue] = {
            "proposal": stored[0],
            "bytes": self._received_bytes,
            "hash": f"sha256:{self._begin.sha256.hex()}",
        }
        return Draft(
            "BASELINE_PROPOSAL_RECEIVED", subject=self._client, client=self._client, fields=fields
        )

    async def abandon(self) -> None:
        """Remove what has arrived so far.

        In a thread: to remove a GiB takes some file systems a third of a second, in which nobody
        would have an answer, and whoever sends one may break it off at any time.
        """
        await asyncio.to_thread(self._file.discard)
