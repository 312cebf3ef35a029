"""Verbs about what clients fetch: config put, get; baseline put, get, list, show and import."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from needfire_protocol.counted import counted
from needfire_protocol.escape import printable
from needfire_protocol.event import format_time
from needfire_protocol.names import parse_client_name
from needfire_server.admin.backend import Answer
from needfire_server.admin.commands.reading import Form, form_of
from needfire_server.admin.context import backend, json_option, server_options
from needfire_server.admin.output import (
    TableWriter,
    hint,
    note,
    print_json,
    print_lines,
    print_table,
    short_time,
    shown,
    warn,
)

__all__ = ["baseline", "config"]

_LINE_TEXT_MAX = 65_536


@click.group()
def config() -> None:
    """Put configurations of clients in place, and get them back."""


@config.command("put")
@click.argument("name_and_file", nargs=-1, metavar="NAME|--default FILE")
@click.option("--default", "for_all", is_flag=True, help="For every client without its own.")
@json_option
@server_options
def put_config(name_and_file: tuple[str, ...], for_all: bool, as_json: bool) -> None:
    """Put FILE (-: standard input) in place as the configuration of NAME, or of all others.

    It is read as the agent will read it; one with errors is not put in place.
    """
    name, path = _name_and_file(name_and_file, for_all)
    with _source(path) as file, backend() as server:
        arguments = {"name": name, "source": "standard input" if path == "-" else path}
        put = server.call("config-put", arguments, file).result
    for notice in put["notices"]:
        warn(notice)
    if as_json:
        print_json(put)
    _say_put("configuration", put)
    if put["rules"] == 0:
        warn("no rule in it says what to watch: the host would watch nothing")
    click.echo(
        f"{counted(put['rules'], 'rule')}; the client takes it at its next start or reload",
        err=True,
    )


@config.command("get")
@click.argument("name", required=False)
@click.option("--default", "for_all", is_flag=True, help="The one of all others.")
@click.option("--output", metavar="FILE", help="Where to write it.  [default: standard output]")
@server_options
def get_config(name: str | None, for_all: bool, output: str | None) -> None:
    """Print the configuration that NAME gets."""
    _check_name(name, for_all)
    with _target(output) as target, backend() as server:
        answer = server.call("config-get", {"name": name})
        _note_catch_all(name, answer)
        _deliver(answer, target)


@click.group()
def baseline() -> None:
    """Put approved baselines of clients in place; look at those that they propose."""


@baseline.command("put")
@click.argument("name_and_file", nargs=-1, metavar="NAME|--default [FILE]")
@click.option("--default", "for_all", is_flag=True, help="For every client without its own.")
@click.option("--proposal", type=click.IntRange(1), help="What a client proposed, by its number.")
@json_option
@server_options
def put_baseline(
    name_and_file: tuple[str, ...], for_all: bool, proposal: int | None, as_json: bool
) -> None:
    """Put FILE (-: standard input), or a proposal, in place as the baseline of NAME or of all."""
    if proposal is None:
        name, path = _name_and_file(name_and_file, for_all)
        with _source(path) as file, backend() as server:
            put = server.call("baseline-put", {"name": name}, file).result
    else:
        if len(name_and_file) != (0 if for_all else 1):
            raise click.UsageError("give NAME or --default, and --proposal instead of FILE")
        name = None if for_all else name_and_file[0]
        with backend() as server:
            put = server.call("baseline-put", {"name": name, "proposal": proposal}).result
    if as_json:
        print_json(put)
    for notice in put["notices"]:
        warn(notice)
    _say_put("baseline", put)
    if put["client"] is not None and not _is_same_host(put["client"], put["host"]):
        warn(f"it was made on {shown(put['host'])}, not on {put['client']}")
    click.echo(
        f"{counted(put['entries'], 'object')} of {shown(put['host'])}, recorded {shown(put['created'])}; "
        "the client takes it at its next start or reload",
        err=True,
    )


@baseline.command("get")
@click.argument("name", required=False)
@click.option("--default", "for_all", is_flag=True, help="The one of all others.")
@click.option("--proposal", type=click.IntRange(1), help="What a client proposed, by its number.")
@click.option("--output", metavar="FILE", help="Where to write it.  [default: standard output]")
@server_options
def get_baseline(name: str | None, for_all: bool, proposal: int | None, output: str | None) -> None:
    """Write the baseline that NAME gets, or a proposal, to a file."""
    if proposal is None:
        _check_name(name, for_all)
    if output is None and sys.stdout.isatty():
        raise click.UsageError("a baseline is binary and would upset the terminal; --output FILE")
    with _target(output) as target, backend() as server:
        answer = server.call("baseline-get", {"name": name, "proposal": proposal})
        _note_catch_all(name, answer)
        _deliver(answer, target)


@baseline.command("list")
@json_option
@server_options
def list_baselines(as_json: bool) -> None:
    """List the baselines in place, and the proposals that wait for somebody to look at them."""
    with backend() as server:
        found = server.call("baseline-list", {}).result
    if as_json:
        for each in found["baselines"]:
            print_json({"kind": "baseline", **each})
        for each in found["proposals"]:
            print_json({"kind": "proposal", **each})
        return
    print_table(
        ("BASELINE OF", "OBJECTS", "BYTES", "RECORDED", "ON HOST", "PROBLEM"),
        (
            (
                each["client"] or "(all others)",
                each.get("entries"),
                each.get("bytes"),
                short_time(each.get("created")),
                each.get("host"),
                each.get("problem"),
            )
            for each in found["baselines"]
        ),
    )
    click.echo()
    print_table(
        ("PROPOSAL", "CLIENT", "BYTES", "RECEIVED", "DIGEST"),
        (
            (
                *(each["proposal"], each["client"], each["bytes"]),
                *(short_time(each["received"]), each["hash"]),
            )
            for each in found["proposals"]
        ),
    )


@baseline.command("show")
@click.argument("name", required=False)
@click.option("--default", "for_all", is_flag=True, help="The one of all others.")
@click.option("--proposal", type=click.IntRange(1), help="What a client proposed, by its number.")
@json_option
@server_options
def show_baseline(name: str | None, for_all: bool, proposal: int | None, as_json: bool) -> None:
    """Check the baseline that NAME gets, or a proposal, and show what it says about itself."""
    if proposal is None:
        _check_name(name, for_all)
    with backend() as server:
        found = server.call("baseline-show", {"name": name, "proposal": proposal}).result
    if as_json:
        print_json(found)
    else:
        print_lines(found)


@baseline.command("diff")
@click.argument("name", required=False)
@click.option("--default", "for_all", is_flag=True, help="Compare with the one of all others.")
@click.option(
    "--proposal",
    type=click.IntRange(1),
    required=True,
    help="What a client proposed, by its number.",
)
@click.option("--limit", type=click.IntRange(0), help="Show so many; the others are only counted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--table", "as_table", is_flag=True, help="A table, also in a pipe.")
@server_options
def diff_baseline(
    name: str | None,
    for_all: bool,
    proposal: int,
    limit: int | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Show what putting a proposal in place would change for NAME: each object, before and now.

    Compared with the baseline that NAME gets at present. In a pipe one JSON object a line, and at
    the end the numbers, which baseline put tells as well.
    """
    _check_name(name, for_all)
    form = form_of(as_table=as_table, as_json=as_json, detail=False)
    table = TableWriter({"CHANGE": 8, "PATH": 32, "BEFORE -> NOW": 0})
    arguments = {"name": name, "proposal": proposal, "limit": limit}
    with backend() as server:
        for each in server.stream("baseline-diff", arguments):
            if form is Form.JSON:
                print_json(each)
            elif "summary" not in each:
                table.write(each["change"], each["path"], _attributes(each))
            if "summary" in each:
                _say_difference(each["summary"])


def _attributes(difference: Mapping[str, Any]) -> str:
    attributes: Mapping[str, Any] = difference["attributes"]
    if difference["change"] == "modified":
        return ", ".join(
            f"{name}: {_short(old)} -> {_short(new)}"
            for name, (old, new) in attributes.items()
            if name != "imode" or "mode" not in attributes
        )
    side = 1 if difference["change"] == "added" else 0
    return ", ".join(
        f"{name}: {_short(attributes[name][side])}" for name in _OF_ONE if name in attributes
    )


_OF_ONE = ("mode", "iowner", "igroup", "size", "chksum", "link")
"""What a table shows of an object that is only on one side; JSON has everything."""
_DIGITS_SHOWN = 12


def _short(value: object) -> str:
    """Return a value as a cell shows it, of a digest the beginning."""
    text = shown(value)
    algorithm, separator, digits = text.partition(":")
    if separator and algorithm.isalnum() and len(digits) >= 2 * _DIGITS_SHOWN and digits.isalnum():
        return f"{algorithm}:{digits[:_DIGITS_SHOWN]}…"
    return text


def _say_difference(summary: Mapping[str, Any]) -> None:
    _say_changes("baseline", summary)
    if summary["hash_old"] is None:
        click.echo(f"objects: {summary['added']} added", err=True)
    elif "path_old" in summary:
        hint(f"{summary['client']} has none of its own; compared with the one of all others")
    if summary["not_shown"]:
        note(f"{summary['not_shown']} more are not shown; give a larger --limit, or none")


@baseline.command("import")
@click.argument("samhain_file")
@click.option("--output", metavar="FILE", help="Where to write it.  [default: standard output]")
@click.option("--host", metavar="NAME", help="Host that it is of.  [default: what it says itself]")
def import_baseline(samhain_file: str, output: str | None, host: str | None) -> None:
    """Make a baseline of a database of Samhain (marks 21 and 22), and say what it lacks.

    Needs no server; baseline put brings the result to the client.
    """
    # Used once in the life of an installation; the other verbs start without it.
    from needfire_server.baseline_import import import_samhain_database

    if host is not None:
        parse_client_name(host)
    if output is None and sys.stdout.isatty():
        raise click.UsageError("a baseline is binary and would upset the terminal; --output FILE")
    with open(samhain_file, "rb") as source, tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "baseline") if output is None else Path(output)
        modified_us = os.fstat(source.fileno()).st_mtime_ns // 1_000
        imported = import_samhain_database(source, target, host=host, modified_us=modified_us)
        if output is None:
            with open(target, "rb") as made:
                shutil.copyfileobj(made, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    for text in imported.notes:
        note(text)
    meta = imported.meta
    marks = ", ".join(map(str, imported.marks))
    click.echo(
        f"{counted(meta.entries, 'object')} of {shown(meta.host or None)} imported (mark {marks}); "
        f"recorded {format_time(meta.created_us)}",
        err=True,
    )
    if not meta.host:
        hint("the database does not name its host; --host NAME does")


def _name_and_file(arguments: tuple[str, ...], for_all: bool) -> tuple[str | None, str]:
    """Return name and file of ``NAME FILE``, or None and file of ``--default FILE``."""
    if for_all and len(arguments) == 1:
        return None, arguments[0]
    if not for_all and len(arguments) == 2:
        return arguments[0], arguments[1]
    raise click.UsageError("give NAME FILE, or --default FILE")


def _check_name(name: str | None, for_all: bool) -> None:
    if (name is None) != for_all:
        raise click.UsageError("give NAME or --default")


@contextmanager
def _source(path: str) -> Iterator[BinaryIO]:
    """Open what is to be put in place. A pipe is read to its end first: only files can be passed."""
    if path == "-":
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.seek(0)
            yield copy
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def _target(path: str | None) -> Iterator[BinaryIO]:
    """Open where a file is written to, with the rights of the caller and before it is fetched."""
    if path is None:
        yield sys.stdout.buffer
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        yield file


def _deliver(answer: Answer, target: BinaryIO) -> None:
    assert answer.file is not None
    with answer.file as source:
        if not target.isatty():
            shutil.copyfileobj(source, target)
            target.flush()
            return
        for line in source:
            text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            click.echo(printable(text.expandtabs(), _LINE_TEXT_MAX))


def _note_catch_all(name: str | None, answer: Answer) -> None:
    if name is not None and answer.result["is_catch_all"]:
        hint(f"{name} has none of its own; this is the one of all others")


def _is_same_host(client: str, host: str) -> bool:
    """Compare without the domain where one of the two has none."""
    one, other = client.lower(), host.lower()
    if "." not in one or "." not in other:
        one, other = one.partition(".")[0], other.partition(".")[0]
    return one == other


_UNITS = {"configuration": "lines", "baseline": "objects"}


def _say_changes(kind: str, changes: Mapping[str, Any]) -> None:
    if "not_compared" in changes:
        warn(f"not compared with the one before: {shown(changes['not_compared'])}")
    elif changes["hash_old"] is None:
        click.echo("there was none before", err=True)
    else:
        counts = [f"{changes[each]} {each}" for each in _COUNTED if each in changes]
        click.echo(f"{_UNITS[kind]}: {', '.join(counts)}", err=True)


_COUNTED = ("added", "removed", "modified")


def _say_put(kind: str, put: Mapping[str, Any]) -> None:
    click.echo(f"{kind} put in place: {shown(put['path'])} ({put['hash']})", err=True)
    _say_changes(kind, put["changes"])
    if "path_old" in put["changes"]:
        note(f"{put['client']} had none of its own: compared with the one of all others")
    if not put["is_registered"]:
        warn(f"{put['client']} is not registered")
        hint(f"needfire-admin register {put['client']}")
