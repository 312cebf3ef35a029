"""``explain``: what a code, a state or a log line means, and what to do."""

from needfire_client.failures import CommandError
from needfire_client.options import Options
from needfire_client.terminal import print_json, print_line
from needfire_protocol.catalogue import Entry, explain, find_entries, nothing_found
from needfire_protocol.exit_status import ExitStatus

__all__ = ["run"]


def run(options: Options) -> ExitStatus:
    """Print what the catalogue has on the words given.

    Raises:
        CommandError: nothing matches, or nothing was asked.
    """
    words = " ".join(options.arguments)
    if not words:
        raise CommandError(
            ExitStatus.USAGE,
            "explain needs a code, a state or words of a message",
            hint="for example: needfire-agent explain CONNECTION_REFUSED, or: explain state 3",
        )
    entries = find_entries(words)
    if not entries:
        raise CommandError(ExitStatus.USAGE, nothing_found(words))
    for number, entry in enumerate(entries):
        if options.as_json:
            print_json(_as_data(entry))
        else:
            _print_text(entry, is_first=number == 0)
    return ExitStatus.DONE


def _print_text(entry: Entry, *, is_first: bool) -> None:
    if not is_first:
        print_line("")
    for line in explain(entry).splitlines():
        print_line(line)


def _as_data(entry: Entry) -> dict[str, object]:
    return {
        "code": entry.code,
        "class": entry.event_class.value,
        "severity": entry.severity.word,
        "msg": entry.msg,
        "description": entry.description,
        "remedy": entry.remedy,
        "fields": dict(entry.fields),
        "state": entry.state,
    }
