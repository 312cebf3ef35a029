"""Which server a command is for, and the options that say so."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from needfire_server.admin.backend import Backend, UnreachableError, socket_path_of
from needfire_server.admin.connection import SocketConnection
from needfire_server.admin.output import warn

__all__ = ["DEFAULT_DATA_DIRECTORY", "Target", "backend", "json_option", "server_options"]

DEFAULT_DATA_DIRECTORY: Final = "/var/lib/needfire"

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(slots=True)
class Target:
    """What ``--data-dir`` and ``--socket`` said, before the verb or behind it."""

    data_directory: str = DEFAULT_DATA_DIRECTORY
    socket: str | None = None


def backend(*, needs_server: bool = False, timeout_s: float | None = None) -> Backend:
    """Return where the current command is carried out: the server, or its store if none runs.

    Args:
        timeout_s: how long a server may be silent; None: as long as it takes.

    Raises:
        UnreachableError: there is no server, and one was asked for.
        StorageError: the store or the socket is not accessible.
    """
    target = click.get_current_context().ensure_object(Target)
    if target.socket is not None:
        return SocketConnection(target.socket, warn, timeout_s=timeout_s)
    try:
        path = socket_path_of(target.data_directory)
        return SocketConnection(path, warn, timeout_s=timeout_s)
    except UnreachableError:
        if needs_server:
            raise
        # Half of the program's start, and not needed while a server runs.
        from needfire_server.admin.offline import OfflineStore

        return OfflineStore(target.data_directory)


def server_options(function: _Function) -> _Function:
    """Give a command ``--data-dir`` and ``--socket``; they are kept in the context."""
    for option in (
        click.option(
            "--socket",
            metavar="FILE",
            callback=_remember_socket,
            expose_value=False,
            help="Admin socket of the running server.  [default: DATA_DIR/control.sock]",
        ),
        click.option(
            "--data-dir",
            metavar="DIR",
            callback=_remember_directory,
            expose_value=False,
            help=f"The server's data directory.  [default: {DEFAULT_DATA_DIRECTORY}]",
        ),
    ):
        function = option(function)
    return function


def json_option(function: _Function) -> _Function:
    """Give a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")(function)


def _remember_directory(
    context: click.Context, _option: click.Parameter, value: str | None
) -> None:
    if value is not None:
        context.ensure_object(Target).data_directory = os.path.abspath(value)


def _remember_socket(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Target).socket = value
