"""What the verbs that read events and the audit log have in common: their options, and the four forms.

There is no pager, on purpose. $PAGER is a command for a shell, and less starts others at a key; what
is read here was written by whoever broke into a host, and is read by root. Pages are numbers instead,
as journalctl's cursors: what comes with a page leads to the next one, whatever is stored meanwhile.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

import click

from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.errors import FormatError
from needfire_protocol.escape import escape_bytes, unescape_bytes
from needfire_protocol.names import parse_reporter_name
from needfire_protocol.severity import Severity
from needfire_server.admin.backend import Backend
from needfire_server.admin.output import note, warn
from needfire_server.admin.times import parse_moment
from needfire_server.clock import now_us

__all__ = [
    "Form",
    "Pages",
    "check_span",
    "filter_options",
    "form_of",
    "form_options",
    "page_options",
    "warn_unknown",
]

_LIMIT_DEFAULT: Final = 100

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Form(Enum):
    """How what was found is shown."""

    TABLE = "--table"
    JSON = "--json"
    LINES = "--lines"
    DETAIL = "--detail"


def form_of(*, as_table: bool, as_json: bool, as_lines: bool = False, detail: bool) -> Form:
    """Return what was asked for; else a table on a terminal, and lines of JSON elsewhere."""
    asked = {
        Form.TABLE: as_table,
        Form.JSON: as_json,
        Form.LINES: as_lines,
        Form.DETAIL: detail and not as_json,
    }
    chosen = [form for form, is_chosen in asked.items() if is_chosen]
    if len(chosen) > 1:
        names = " and ".join(form.value for form in chosen)
        raise click.UsageError(f"give one of {names}")
    if chosen:
        return chosen[0]
    return Form.TABLE if sys.stdout.isatty() else Form.JSON


@dataclass(slots=True)
class Pages:
    """Which part of what matches is shown, and how to come to the next one."""

    after: int | None
    before: int | None
    limit: int | None
    follow: bool
    count: int = 0
    first: int = 0
    last: int = 0

    @classmethod
    def of(
        cls, after: int | None, before: int | None, limit: int | None, *, follow: bool
    ) -> "Pages":
        """Take the options."""
        if follow and before is not None:
            raise click.UsageError(
                "--follow shows what comes; it has no end that --before could be"
            )
        if before is not None and after is not None and before <= after:
            raise click.UsageError("--before is not behind --after: nothing can match")
        if limit is None and not (follow and after is not None):
            limit = _LIMIT_DEFAULT
        return cls(after, before, limit, follow)

    def arguments(self) -> Mapping[str, Any]:
        """Return what the server is asked for."""
        return {
            "after": self.after,
            "before": self.before,
            "limit": self.limit,
            "follow": self.follow,
        }

    def saw(self, number: int) -> None:
        """Take the number of what was shown."""
        self.first = self.first if self.count else number
        self.last = number
        self.count += 1

    def tell(self) -> None:
        """Tell a person how to come to the next page, or that there was nothing."""
        if not sys.stdout.isatty() or self.follow:
            return
        if not self.count:
            note("nothing that matches")
        elif self.count == self.limit and self.after is not None:
            note(f"there may be more: --after {self.last}")
        elif self.count == self.limit:
            note(f"there may be older ones: --before {self.first}")


def check_span(since_us: int | None, until_us: int | None) -> None:
    """Refuse a span of time that nothing can be in.

    Raises:
        click.UsageError: it ends before it begins.
    """
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise click.UsageError("--since is not before --until: nothing can match")


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A time or an age on the command line, as microseconds since 1970."""
    try:
        return None if value is None else parse_moment(value, now_us())
    except FormatError as error:
        raise click.BadParameter(str(error), context, option) from None


def _path(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A path in any spelling, in the one that events have."""
    if value is None:
        return None
    if not value.startswith("/"):
        raise click.BadParameter("a path begins with /", context, option)
    try:
        path = escape_bytes(unescape_bytes(value))
    except FormatError as error:
        text = f"{error}; write it as events show it"
        raise click.BadParameter(text, context, option) from None
    return path.rstrip("/") or "/"


def _name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    return None if value is None else parse_reporter_name(value)


def filter_options(function: _Function) -> _Function:
    """Give a command the filters; they come as ``filters``, by the names that the server has."""
    names = (
        "client",
        "since_us",
        "until_us",
        "class",
        "severity",
        "code",
        "path",
        "below",
        "request",
    )

    def gather(**options: Any) -> Any:
        filters = {name: options.pop(name) for name in names}
        check_span(filters["since_us"], filters["until_us"])
        return function(filters=filters, **options)

    gather.__name__, gather.__doc__ = function.__name__, function.__doc__
    gather.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_FILTERS):
        option(gather)
    return gather  # type: ignore[return-value]


_FILTERS: Final = (
    click.option("--client", metavar="NAME", callback=_name, help="What concerns NAME."),
    click.option(
        "--since",
        "since_us",
        callback=_moment,
        metavar="T",
        help="Happened or arrived at T or later.",
    ),
    click.option(
        "--until", "until_us", callback=_moment, metavar="T", help="Happened or arrived before T."
    ),
    click.option(
        "--class",
        "class",
        type=click.Choice([each.value for each in EventClass], case_sensitive=False),
        help="Only this class of events.",
    ),
    click.option(
        "--severity",
        type=click.Choice([each.word for each in Severity], case_sensitive=False),
        help="This severity and above.",
    ),
    click.option("--code", metavar="CODE", help="Only this code."),
    click.option("--path", callback=_path, metavar="PATH", help="Only about PATH itself."),
    click.option("--below", callback=_path, metavar="DIR", help="About DIR, or anything below it."),
    click.option("--request", metavar="ID", help="Only what one request of this tool did."),
)


def page_options(function: _Function) -> _Function:
    """Give a command ``--before``, ``--after``, ``--limit`` and ``--follow``."""
    for option in (
        click.option(
            "--follow", is_flag=True, help="Then wait for more, until --until or interrupted."
        ),
        click.option(
            "--limit",
            type=click.IntRange(0),
            metavar="N",
            help="The newest N that match, or the first N behind --after; 0 for none of the old "
            f"ones.  [default: {_LIMIT_DEFAULT}]",
        ),
        click.option(
            "--after", type=click.IntRange(0), metavar="NUMBER", help="What follows on NUMBER."
        ),
        click.option(
            "--before", type=click.IntRange(0), metavar="NUMBER", help="What comes before NUMBER."
        ),
    ):
        function = option(function)
    return function


def form_options(function: _Function) -> _Function:
    """Give a command ``--table``, ``--json`` and ``--detail``."""
    for option in (
        click.option("--detail", is_flag=True, help="Everything about each, one block for each."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
        click.option("--table", "as_table", is_flag=True, help="A table, also in a pipe."),
    ):
        function = option(function)
    return function


def warn_unknown(server: Backend, client: str | None, code: str | None) -> None:
    """Say that a filter may be mistyped; older events can still match it."""
    if code is not None and code.upper() not in CATALOGUE:
        warn(f"no event has the code {code}; needfire-admin explain WORDS finds codes")
    if client is None:
        return
    names = {each["name"] for each in server.call("clients-list", {}).result["clients"]}
    if client not in names:
        where = "" if server.is_server else " in the store (no server runs)"
        warn(f"the client {client} is not registered{where}")
