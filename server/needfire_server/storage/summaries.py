"""The summaries in the store: which stretches of a table a search must read, and who sums up the rest.

What no summary covers is read. So a summary that is missing makes a search slower and never wrong:
commits bring theirs along (``unsummed.py``), and the rest is summed up in the background (``sum_up``).
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from needfire_server.storage import tables
from needfire_server.storage.engine import Transaction
from needfire_server.storage.summary import SUMMARY_COLUMNS, Summary, Wanted, may_hold, pack
from needfire_server.storage.unsummed import Rows

__all__ = [
    "BLOCK_ROWS",
    "BLOCK_ROWS_MIN",
    "STRETCH_ROWS_MAX",
    "Blocks",
    "Stretch",
    "add",
    "forget",
    "left",
    "stretches",
    "sum_up",
]

BLOCK_ROWS: Final = 1_024
"""Rows that are summed up together: some 5 ms of reading, and 10,000 summaries for ten million."""
BLOCK_ROWS_MIN: Final = 512
"""Fewer rows wait for those of the next commits, or for the background: a summary for each report
would help nobody."""
STRETCH_ROWS_MAX: Final = 4_096
"""Numbers that are searched by one statement."""
_PAGE: Final = 256
_FORGET_MAX: Final = 500
_PASSED_AT_ONCE: Final = 128
"""Rows that are passed over, by their summary, in the time that it takes to look at one."""
_PASSED_ROWS_MAX: Final = 256 * BLOCK_ROWS


@dataclass(frozen=True, slots=True)
class Blocks:
    """A table that has summaries.

    Attributes:
        summaries: where they are.
        number: the column that counts the rows.
        counter: in ``counters``: up to which number everything is summed up.
        sum_up: reads rows from one number to another; None where there are none.
    """

    summaries: sa.Table
    number: sa.Column[int]
    counter: str
    sum_up: Callable[[sa.Connection, int, int], Summary | None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Numbers from the one to the other, both included.

    Attributes:
        may_hold: whether it is to be read.
    """

    first: int
    last: int
    may_hold: bool

    @property
    def cost(self) -> int:
        """What it takes to deal with it, in rows that are looked at."""
        rows = self.last - self.first + 1
        return rows if self.may_hold else rows // _PASSED_AT_ONCE + 1


def add(transaction: Transaction, table: sa.Table, summaries: Sequence[Summary]) -> None:
    """Keep summaries, with the commit of what they are of."""
    rows = [summary.row() for summary in summaries]
    transaction.insert_many(table.name, SUMMARY_COLUMNS, rows)


def left(transaction: Transaction, counter: str, stored: Rows) -> Rows:
    """Return what the background has not summed up, of rows that commits left for later ones.

    Another server may have done so, where the rows of several ones together were enough.
    """
    row = transaction.ask("SELECT value FROM counters WHERE name = ?", (counter,))
    if row is None or type(row[0]) is not int:
        # Somebody else wrote there. Nothing that is stored may fail for that.
        return [], []
    rows, fields = stored
    done = max(0, row[0] + 1 - rows[0][0])
    return rows[done:], fields[done:]


def stretches(
    connection: sa.Connection,
    blocks: Blocks,
    wanted: Wanted,
    after: int,
    before: int,
    *,
    newest_first: bool,
) -> Iterator[Stretch]:
    """Yield what lies between two numbers, both excluded, in stretches in order, without gaps."""
    lowest = connection.execute(sa.select(sa.func.min(blocks.number))).scalar()
    after = before if lowest is None else max(after, lowest - 1)
    at = before - 1 if newest_first else after + 1
    for run in _runs(
        connection, blocks.summaries, wanted, after, before, newest_first=newest_first
    ):
        if newest_first:
            yield from reversed(list(_uncovered(run.last + 1, at)))
            if run.first <= at:
                yield replace(run, first=max(run.first, after + 1), last=min(run.last, at))
                at = run.first - 1
        else:
            yield from _uncovered(at, run.first - 1)
            if run.last >= at:
                yield replace(run, first=max(run.first, at), last=min(run.last, before - 1))
                at = run.last + 1
    if newest_first:
        yield from reversed(list(_uncovered(after + 1, at)))
    else:
        yield from _uncovered(at, before - 1)


def _uncovered(first: int, last: int) -> Iterator[Stretch]:
    for start in range(first, last + 1, STRETCH_ROWS_MAX):
        yield Stretch(start, min(last, start + STRETCH_ROWS_MAX - 1), may_hold=True)


def _runs(
    connection: sa.Connection,
    table: sa.Table,
    wanted: Wanted,
    after: int,
    before: int,
    *,
    newest_first: bool,
) -> Iterator[Stretch]:
    """Yield what summaries cover, in order; neighbours of which the same is known are joined."""
    statement = _page(table, wanted, newest_first=newest_first)
    groups = [[pack((each,)) for each in group] for group in wanted.keys]
    while True:
        page = connection.execute(statement, {"after": after, "before": before}).all()
        chosen = {
            first: keys
            for first, _, keys in page
            if keys is not None and all(may_hold(keys, group) for group in groups)
        }
        if chosen and wanted.path is not None:
            chosen = _at_place(connection, table, wanted, chosen)
        yield from _joined(page, chosen, newest_first=newest_first)
        if len(page) < _PAGE:
            return
        if newest_first:
            before = page[-1][0]
        else:
            after = page[-1][1]


def _joined(
    page: Sequence[Any], chosen: Container[int], *, newest_first: bool
) -> Iterator[Stretch]:
    """Join what may hold something as far as one statement goes, and what holds nothing at all.

    Nearly always it is the second, for ten thousand blocks in a row.
    """
    if not page:
        return
    start, end, is_chosen = page[0][0], page[0][1], page[0][0] in chosen
    for first, last, _ in page[1:]:
        is_next = last + 1 == start if newest_first else first == end + 1
        length_max = STRETCH_ROWS_MAX if is_chosen else _PASSED_ROWS_MAX
        length = end - first if newest_first else last - start
        if is_next and is_chosen == (first in chosen) and length < length_max:
            start, end = min(start, first), max(end, last)
            continue
        yield Stretch(start, end, is_chosen)
        start, end, is_chosen = first, last, first in chosen
    yield Stretch(start, end, is_chosen)


def _page(table: sa.Table, wanted: Wanted, *, newest_first: bool) -> sa.Select[Any]:
    """The keys, which are most of a summary, are read only where the rest of it fits."""
    keys = sa.case((sa.and_(*_conditions(table, wanted)), table.c["keys"]), else_=None)
    order = table.c.first.desc() if newest_first else table.c.first
    # Blocks do not overlap: with ``first`` their ends rise as well, but only one has an index.
    return (
        sa.select(table.c.first, table.c.last, keys)
        .where(table.c.last > sa.bindparam("after"), table.c.first < sa.bindparam("before"))
        .where(table.c.first > sa.bindparam("after") - STRETCH_ROWS_MAX)
        .order_by(order)
        .limit(_PAGE)
    )


def _conditions(table: sa.Table, wanted: Wanted) -> Iterator[sa.ColumnElement[bool]]:
    yield sa.true()
    if wanted.severity is not None:
        yield table.c.severity >= wanted.severity
    if wanted.since_us is not None or wanted.until_us is not None:
        yield sa.or_(
            _overlaps(table.c.from_us, table.c.to_us, wanted),
            _overlaps(table.c.odd_from_us, table.c.odd_to_us, wanted),
        )


def _overlaps(start: sa.Column[int], end: sa.Column[int], wanted: Wanted) -> sa.ColumnElement[bool]:
    terms = []
    if wanted.since_us is not None:
        terms.append(end >= wanted.since_us)
    if wanted.until_us is not None:
        terms.append(start < wanted.until_us)
    return sa.and_(*terms)


def _at_place(
    connection: sa.Connection, table: sa.Table, wanted: Wanted, chosen: Mapping[int, bytes]
) -> dict[int, bytes]:
    """Return those that hold the directory, or the path; paths are long, and read only now."""
    assert wanted.path is not None
    below = [] if wanted.or_below is None else [pack((wanted.or_below,))]
    found = {first: keys for first, keys in chosen.items() if may_hold(keys, below)}
    left = chosen.keys() - found.keys()
    if left:
        path = [pack((wanted.path,))]
        wanted_paths = sa.select(table.c.first, table.c.paths).where(table.c.first.in_(left))
        for first, paths in connection.execute(wanted_paths).all():
            if may_hold(paths, path):
                found[first] = chosen[first]
    return found


# ---- in the background -------------------------------------------------------------------------


def sum_up(transaction: Transaction, blocks: Blocks, end: int) -> bool:
    """Sum up the next block that has no summary; False where none is left for now.

    Args:
        end: the last number that is given. The last rows wait until there are enough of them.
    """
    connection = transaction.connection
    done = _done(connection, blocks)
    gap = _next_gap(connection, blocks.summaries, done, end)
    if gap is None:
        return False
    first, last = gap
    if last == end and last - first + 1 < BLOCK_ROWS:
        if first - 1 > done:
            _save_done(connection, blocks, first - 1)
        return False
    last = min(last, first + BLOCK_ROWS - 1)
    summary = blocks.sum_up(connection, first, last)
    if summary is None:
        # Nothing is there any more. Without this, ten million numbers took ten thousand steps.
        above = sa.select(sa.func.min(blocks.number)).where(blocks.number > last)
        following = connection.execute(above).scalar()
        last = min(gap[1], end if following is None else following - 1)
    else:
        add(transaction, blocks.summaries, [summary])
    _save_done(connection, blocks, last)
    return True


def forget(connection: sa.Connection, blocks: Blocks) -> int:
    """Remove summaries of rows that are gone, some hundreds at most; return how many."""
    table = blocks.summaries
    lowest = connection.execute(sa.select(sa.func.min(blocks.number))).scalar()
    if lowest is None:
        return 0
    old = connection.execute(
        sa.select(table.c.first, table.c.last).order_by(table.c.first).limit(_FORGET_MAX)
    )
    gone = [first for first, last in old if last < lowest]
    if gone:
        connection.execute(sa.delete(table).where(table.c.first.in_(gone)))
    return len(gone)


def _next_gap(
    connection: sa.Connection, table: sa.Table, done: int, end: int
) -> tuple[int, int] | None:
    """Return the first numbers behind ``done`` that no summary covers."""
    at = done + 1
    known = sa.select(table.c.first, table.c.last).order_by(table.c.first).limit(_PAGE)
    while page := connection.execute(known.where(table.c.first >= at)).all():
        for first, last in page:
            if first > at:
                return at, first - 1
            at = last + 1
    return (at, end) if at <= end else None


def _done(connection: sa.Connection, blocks: Blocks) -> int:
    counters = tables.counters.c
    wanted = sa.select(counters.value).where(counters.name == blocks.counter)
    found = connection.execute(wanted).scalar()
    assert found is not None, "the migration made it"
    return int(found)


def _save_done(connection: sa.Connection, blocks: Blocks, number: int) -> None:
    counters = tables.counters
    connection.execute(
        sa.update(counters).where(counters.c.name == blocks.counter).values(value=number)
    )
