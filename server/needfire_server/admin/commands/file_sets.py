"""Verbs about all files of the clients together: files list, import and export."""

import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

import click

from needfire_protocol.counted import counted
from needfire_protocol.errors import ConfigError, FormatError, NeedfireError
from needfire_protocol.names import parse_client_name
from needfire_server.admin.backend import Backend
from needfire_server.admin.context import Target, backend, json_option, server_options
from needfire_server.admin.output import complain, print_json, print_table
from needfire_server.admin.requests import AdminRefusedError

__all__ = ["files"]

_VERBS: Final = {"rc": "config", "file": "baseline"}
"""Prefix of a file's name -> what the verbs about such files begin with."""
_PREFIXES: Final = {"configuration": "rc", "baseline": "file"}


@click.group()
def files() -> None:
    """Bring all configurations and baselines into the server, or get them out."""


@files.command("list")
@json_option
@server_options
def list_files(as_json: bool) -> None:
    """List every configuration and baseline in place."""
    with backend() as server:
        found = server.call("files-list", {}).result["files"]
    if as_json:
        for each in found:
            print_json(each)
        return
    print_table(
        ("KIND", "CLIENT", "PATH"),
        ((each["kind"], each["client"] or "(all others)", each["path"]) for each in found),
    )


@files.command("import")
@click.argument("directory", required=False)
@server_options
def import_files(directory: str | None) -> None:
    """Put rc, rc.NAME, file and file.NAME of DIRECTORY in place.  [default: the data directory]

    Each is checked as config put and baseline put do; what is refused is named, and the others are
    put in place all the same. Files that are in place for other clients stay.
    """
    source = directory or click.get_current_context().ensure_object(Target).data_directory
    done, refused = 0, 0
    with backend() as server:
        for file_name in sorted(os.listdir(source)):
            owner = _owner_of(file_name)
            if owner is None:
                continue
            path = os.path.join(source, file_name)
            try:
                _put(server, file_name.partition(".")[0], owner or None, path)
                done += 1
            except (AdminRefusedError, ConfigError, FormatError, OSError) as error:
                refused += 1
                complain(f"{path}: {_first_problem(error)}")
    click.echo(f"{counted(done, 'file')} put in place", err=True)
    if refused:
        raise AdminRefusedError(f"not put in place: {counted(refused, 'file')}")


@files.command("export")
@click.argument("directory")
@server_options
def export_files(directory: str) -> None:
    """Write every configuration and baseline in place to DIRECTORY, under the names of old.

    The directory is made if only its last part is missing. Files in it with these names are
    replaced.
    """
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
    count = 0
    with backend() as server:
        for each in server.call("files-list", {}).result["files"]:
            count += _get(server, each, directory)
    click.echo(f"{counted(count, 'file')} written to {directory}", err=True)


def _owner_of(file_name: str) -> str | None:
    """Return the client of a file's name, empty for all others; None where it is another file."""
    prefix, dot, name = file_name.partition(".")
    if prefix not in _VERBS:
        return None
    if not dot:
        return ""
    try:
        return name if parse_client_name(name) == name else None
    except FormatError:
        return None


def _put(server: Backend, prefix: str, client: str | None, path: str) -> None:
    arguments = {"name": client}
    if prefix == "rc":
        arguments["source"] = path
    # No link: what stands in a directory of somebody else's must not lead to files of root's.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        server.call(f"{_VERBS[prefix]}-put", arguments, file)


def _get(server: Backend, listed: Mapping[str, Any], directory: str) -> bool:
    """Write one file; False where it has gone since it was listed."""
    client, prefix = listed["client"], _PREFIXES[listed["kind"]]
    answer = server.call(f"{_VERBS[prefix]}-get", {"name": client})
    assert answer.file is not None
    name = prefix if client is None else f"{prefix}.{parse_client_name(client)}"
    path = os.path.join(directory, name)
    with answer.file as source:
        if answer.result["is_catch_all"] and client is not None:
            return False
        partial = f"{path}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, 0o600), "wb") as target:
            shutil.copyfileobj(source, target)
        os.replace(partial, path)
    return True


def _first_problem(error: NeedfireError | OSError) -> str:
    if isinstance(error, ConfigError):
        return str(error.problems[0])
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
