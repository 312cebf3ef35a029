"""The verbs of the audit log: verify, export, show, prove, keys, rotate, accept."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

import click

from needfire_protocol.counted import counted
from needfire_protocol.event import format_time
from needfire_protocol.exit_status import ExitStatus
from needfire_server.admin.commands.detail import detail_block, titled
from needfire_server.admin.commands.reading import (
    Form,
    Pages,
    filter_options,
    form_of,
    form_options,
    page_options,
)
from needfire_server.admin.context import Target, backend, json_option, server_options
from needfire_server.admin.output import TableWriter, hint, note, print_json, warn

if TYPE_CHECKING:
    from needfire_protocol.audit.verdict import Finding, Verification

__all__ = ["audit"]

_COLUMNS: Final = {
    "NUMBER": 8,
    "TIME": 20,
    "CODE": 26,
    "OUTCOME": 7,
    "SUBJECT": 18,
    "CLIENT": 18,
    "FIELDS": 0,
}


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
    help="A checkpoint that was kept elsewhere, or the evidence of an agent "
    "(audit-evidence/N.json): the log must contain what it covers.",
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
            result = check_file(stream, file, keys, anchor)
    _tell(result, as_json=as_json)
    if result.finding is not None:
        # Not by click, which turns it into a result that nobody asks for.
        sys.exit(ExitStatus.DIFFERENCES)


@audit.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@server_options
def export_log(file: str) -> None:
    """Write the whole log to FILE, or to standard output (-), for others to verify.

    Ends with status 1 where what was written does not verify, and says so.
    """
    # A fifth of the program's start, and not needed for most verbs.
    from needfire_server.admin.audit_check import check_export

    with backend() as server, click.open_file(file, "wb") as out:
        finding = check_export(_written(server.stream("audit-export", {}), out)).finding
    if finding is not None:
        warn(f"what was written does not verify: {_words(finding)}")
        hint("needfire-admin audit verify --store; docs/audit.md says what to do")
        sys.exit(ExitStatus.DIFFERENCES)


def _written(items: Iterable[Mapping[str, Any]], out: IO[bytes]) -> Iterator[bytes]:
    for item in items:
        line = item["line"].encode("ascii") + b"\n"
        out.write(line)
        yield line


@audit.command("show")
@filter_options
@click.option("--subject", metavar="NAME", help="Only what NAME did: a user, or a client.")
@click.option(
    "--outcome", type=click.Choice(["success", "failure", "asked"]), help="Only what ended so."
)
@click.option("--first", type=click.IntRange(0), metavar="N", help="Begin with record N.")
@page_options
@form_options
@server_options
def show_log(
    filters: Mapping[str, Any],
    subject: str | None,
    outcome: str | None,
    first: int | None,
    before: int | None,
    after: int | None,
    limit: int | None,
    follow: bool,
    as_table: bool,
    as_json: bool,
    detail: bool,
) -> None:
    """Show records, oldest first: a table on a terminal, else one JSON object a line.

    NUMBER is a record's own (n). T, PATH and DIR are written as for needfire-admin events. Class and
    severity are those of the code in the catalogue. This is for reading; whether the log is whole
    is what audit verify says.
    """
    form = form_of(as_table=as_table, as_json=as_json, detail=detail)
    if first is not None and after is not None:
        raise click.UsageError("give one of --first and --after")
    # Records begin at 0, and no number is before that: the server is asked for the first one.
    first = after + 1 if first is None and after is not None else first
    pages = Pages.of(None if first is None else first - 1, before, limit, follow=follow)
    wanted = {**filters, **pages.arguments(), "subject": subject, "outcome": outcome}
    wanted |= {"after": None, "first": first}
    show = _shower(form, detail=detail)
    # Ctrl-C is how following ends.
    with backend(needs_server=follow) as server, suppress(KeyboardInterrupt):
        for item in server.stream("audit-show", wanted):
            if "record" in item:
                show(item["record"])
                pages.saw(item["record"]["n"])
            else:
                note("following new records; Ctrl-C ends it")
    pages.tell()


@audit.command("prove")
@click.argument("number", type=click.IntRange(0), metavar="NUMBER")
@server_options
def prove_record(number: int) -> None:
    """Print record NUMBER and the proof that it is in the log, as JSON.

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


@audit.command("accept")
@click.option("--note", metavar="TEXT", help="What it was; recorded with it.")
@server_options
def accept_finding(note: str | None) -> None:
    """End what the server found wrong with the log: it is looked into, and told no more.

    What is still wrong in the store is found again. The copies of what the log contradicted
    (evidence-N.* in the directory audit of the data directory) stay.
    """
    with backend() as server:
        ended = server.call("audit-accept", {"note": note}).result
    click.echo(f"accepted: {ended['verdict']}: record {ended['record']}: {ended['reason']}")


def _tell(result: "Verification", *, as_json: bool) -> None:
    finding, closing = result.finding, result.closing
    if as_json:
        click.echo(json.dumps(_as_json(result)))
    elif finding is not None:
        click.echo(_words(finding))
    else:
        click.echo(
            f"intact: {counted(result.records, 'record')}, {counted(result.checkpoints, 'checkpoint')}"
        )
        if closing is not None:
            note(f"signed up to record {closing.size - 1} at {format_time(closing.time_us)}")
        if result.unsigned:
            warn(
                f"behind the last checkpoint, not signed yet: {counted(result.unsigned, 'record')}"
            )


def _words(finding: "Finding") -> str:
    place = f"record {finding.first}"
    if finding.last != finding.first:
        place = f"records {finding.first} to {finding.last}"
    return f"{finding.verdict.value}: {place}: {finding.text}"


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


def _shower(form: Form, *, detail: bool) -> Callable[[Mapping[str, Any]], None]:
    if form is Form.JSON:
        return (lambda record: print_json(titled(record))) if detail else print_json
    if form is Form.DETAIL:
        return lambda record: click.echo(detail_block(record))
    table = TableWriter(_COLUMNS)
    return lambda record: table.write(*_row(record))


def _row(record: Mapping[str, Any]) -> tuple[object, ...]:
    fields = " ".join(f"{name}={value}" for name, value in record["fields"].items())
    who = (record["subject"] or None, record["client"])
    return record["n"], f"{record['time'][:19]}Z", record["code"], record["outcome"], *who, fields
