"""Where a verb of ``needfire-admin`` is carried out: by the running server, or on its store."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from needfire_protocol.errors import NeedfireError

__all__ = ["Answer", "Backend", "UnreachableError", "socket_path_of"]


class UnreachableError(NeedfireError):
    """There is no server at the socket."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb gave back."""

    result: Mapping[str, Any]
    file: BinaryIO | None = None
    """The caller's to close."""


class Backend(Protocol):
    """Carries out verbs; a context manager that ends the connection or closes the store.

    Both methods raise what ``AdminService.handle`` raises, and UnreachableError where the server
    goes away.
    """

    @property
    def is_server(self) -> bool:
        """True where a running server answers."""

    def call(self, verb: str, arguments: Mapping[str, Any], file: BinaryIO | None = None) -> Answer:
        """Carry out a verb; the file goes along and stays the caller's."""

    def stream(self, verb: str, arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Carry out a verb that gives items, one by one as they come."""

    def __enter__(self) -> "Backend": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def socket_path_of(data_directory: str) -> str:
    """Return where the server of a data directory has its admin socket."""
    return os.path.join(data_directory, "control.sock")
