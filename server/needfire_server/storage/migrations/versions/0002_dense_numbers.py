"""Events get their numbers from a counter, and fewer indexes; what expired is counted.

Numbers that a counter gives within the transaction have no gaps and rise in the order of the commits,
also where several servers write. SQLite then need not keep a counter of its own for the table, which
would cost every row a write to another one.
"""

import sqlalchemy as sa
from alembic import op

from needfire_server.storage.migrations.columns import make_table, number, text

revision = "0002"
down_revision = "0001"

_RARE_CODE = "code != 'POLICY_ADDED' AND code != 'POLICY_MISSING' AND code != 'POLICY_MODIFIED'"
_COLUMNS = "row_id, id, time_us, received_us, client, about, class, severity, code, msg, fields"


def upgrade() -> None:
    make_table("counters", text("name", primary_key=True), number("value"))
    make_table(
        "expiries",
        text("what", primary_key=True),
        number("count"),
        number("oldest_us"),
        number("newest_us"),
    )
    connection = op.get_bind()
    last = 0
    if connection.dialect.name == "sqlite":
        # What AUTOINCREMENT remembers, and not the highest row: that one may be gone.
        found = connection.execute(
            sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        ).scalar()
        last = int(found or 0)
    connection.execute(
        sa.text("INSERT INTO counters (name, value) VALUES ('events', :last)"), {"last": last}
    )
    for name in ("events_about", "events_code", "events_class", "events_time", "events_received"):
        op.drop_index(name, table_name="events")
    op.rename_table("events", "events_before")
    make_table(
        "events",
        number("row_id", primary_key=True),
        text("id"),
        number("time_us"),
        number("received_us", nullable=True),
        text("client", nullable=True),
        text("about", nullable=True),
        text("class"),
        number("severity"),
        text("code"),
        text("msg"),
        text("fields"),
    )
    op.execute(
        f"INSERT INTO events ({_COLUMNS}) SELECT {_COLUMNS} FROM events_before ORDER BY row_id"  # noqa: S608
    )
    op.drop_table("events_before")
    _index("events_about", ["about"], "about IS NOT NULL")
    _index("events_rare_class", ["class"], "class != 'integrity'")
    _index("events_rare_code", ["code"], _RARE_CODE)
    _index("events_time", ["time_us"])
    _index("events_received", ["received_us"], "received_us IS NOT NULL")


def _index(name: str, columns: list[str], where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    is_ordered = name not in ("events_time", "events_received")
    if is_ordered and op.get_bind().dialect.name == "postgresql":
        # SQLite appends the row's number by itself; every answer comes in its order.
        columns = [*columns, "row_id"]
    op.create_index(name, "events", columns, sqlite_where=condition, postgresql_where=condition)
