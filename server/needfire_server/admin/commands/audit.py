"""The verbs of the audit log: verify, export, show, prove, keys, rotate."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from needfire_protocol.event import format_time
from needfire_protocol.exit_status import ExitStatus
from needfire_server.admin.context import Target, backend, json_option, server_options
from needfire_server.admin.output import note, warn

if TYPE_CHECKING:
    from needfire_protocol.audit.verify import Verification

__all__ = ["audit"]

_SHOWN_DEFAULT: Final = 100


@click.group()
def audit() -> None:
    """Read and check the signed audit log."""


@audit.command("verify")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--store", "is_store", is_flag=True, help="Check the log in the server's store.")
@click.option("--key", metavar="KEY|FILE", help="A public key of the log, or a file of them.")
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A checkpoint that was kept elsewhere: the log must contain what it covers.",
)
@json_option
@server_options
@click.pass_context
def verify_log(
    context: click.Context,
    file: str | None,
    is_store: bool,
    key: str | None,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Check an exported log (FILE, or - for standard input), or the store's own.

    Ends with status 0 where nothing is wrong, and with 1 where something is; the first bad record
    is named. Needs no server. Without --key, the keys that the server keeps beside its store count:
    on another host, or where that host is in doubt, give the key that you noted down.
    """
    if (file is None) != is_store:
        raise click.UsageError("give either FILE or --store")
    # A fifth of the program's start, and not needed for anything else.
    from needfire_server.admin.audit_check import check_file, check_store, read_anchor, read_keys

    directory = context.ensure_object(Target).data_directory
    keys = read_keys(key, directory)
    anchor = None if checkpoint is None else read_anchor(checkpoint)
    if file is None:
        result = check_store(directory, keys, anchor)
    else:
        with click.open_file(file, "rb") as stream:
            result = check_file(stream, keys, anchor)
    _tell(result, as_json=as_json)
    if result.finding is not None:
        # Not by click, which turns it into a result that nobody asks for.
        sys.exit(ExitStatus.DIFFERENCES)


@audit.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@server_options
def export_log(file: str) -> None:
    """Write the whole log to FILE, or to standard output (-), for others to verify."""
    with backend() as server, click.open_file(file, "wb") as out:
        for item in server.stream("audit-export", {}):
            out.write(item["line"].encode("ascii") + b"\n")


@audit.command("show")
@click.option("--first", type=click.IntRange(0), metavar="N", help="Begin with record N.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=_SHOWN_DEFAULT,
    show_default=True,
    metavar="N",
    help="Records; the newest without --first.",
)
@click.option("--code", metavar="CODE", help="Only records with this code.")
@click.option("--client", metavar="NAME", help="Only records about NAME.")
@click.option("--subject", metavar="NAME", help="Only what NAME did.")
@click.option("--request", metavar="ID", help="Only the records of one request.")
@json_option
@server_options
def show_log(
    first: int | None,
    limit: int,
    code: str | None,
    client: str | None,
    subject: str | None,
    request: str | None,
    as_json: bool,
) -> None:
    """Show records, oldest first. Filters choose among the records that --limit allows."""
    wanted = {"code": code, "client": client, "subject": subject, "request": request}
    with backend() as server:
        for item in server.stream("audit-show", {"first": first, "limit": limit}):
            record = item["record"]
            if all(value in (None, record[name]) for name, value in wanted.items()):
                _show(record, as_json=as_json)


@audit.command("prove")
@click.argument("number", type=click.IntRange(0), metavar="ID")
@server_options
def prove_record(number: int) -> None:
    """Print record ID and the proof that it is in the log, as JSON.

    Whoever has the public key can check it without this program: docs/audit.md.
    """
    with backend() as server:
        click.echo(json.dumps(server.call("audit-prove", {"number": number}).result, indent=2))


@audit.command("keys")
@server_options
def show_keys() -> None:
    """Print the public keys that the log had, the newest last. Note them down elsewhere."""
    with backend() as server:
        for key in server.call("audit-keys", {}).result["keys"]:
            click.echo(key)


@audit.command("rotate")
@server_options
def rotate_key() -> None:
    """Give the log a new key. The old one signs the change, and its private half is deleted."""
    with backend() as server:
        click.echo(server.call("audit-rotate", {}).result["key"])


def _tell(result: "Verification", *, as_json: bool) -> None:
    finding, closing = result.finding, result.closing
    if as_json:
        click.echo(json.dumps(_as_json(result)))
    elif finding is not None:
        place = f"record {finding.first}"
        if finding.last != finding.first:
            place = f"records {finding.first} to {finding.last}"
        click.echo(f"{finding.verdict.value}: {place}: {finding.text}")
    else:
        click.echo(f"intact: {result.records} records, {result.checkpoints} checkpoints")
        if closing is not None:
            note(f"signed up to record {closing.size - 1} at {format_time(closing.time_us)}")
        if result.unsigned:
            warn(f"{result.unsigned} records behind the last checkpoint are not signed yet")


def _as_json(result: "Verification") -> dict[str, Any]:
    finding = result.finding
    return {
        "verdict": "intact" if finding is None else finding.verdict.value,
        "record": None if finding is None else finding.first,
        "record_last": None if finding is None else finding.last,
        "line": None if finding is None else finding.line,
        "text": None if finding is None else finding.text,
        "records": result.records,
        "checkpoints": result.checkpoints,
        "unsigned": result.unsigned,
    }


def _show(record: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record, separators=(",", ":")))
        return
    fields = " ".join(f"{name}={value}" for name, value in record["fields"].items())
    about = [record["subject"] or "-", record["client"] or "-"]
    outcome = "" if record["outcome"] == "success" else " FAILED"
    click.echo(
        f"{record['n']:>8}  {record['time']}  {record['code']}{outcome}  {' '.join(about)}  {fields}"
    )
