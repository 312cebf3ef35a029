"""The first schema. SQLite databases of before Alembic have it already, under the same names."""

import sqlalchemy as sa
from alembic import op

from needfire_server.storage.migrations.columns import identity, make_table, number, octets, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    make_table("secrets", text("name", primary_key=True), octets("value"))
    make_table(
        "clients",
        text("name", primary_key=True),
        octets("salt"),
        octets("verifier"),
        number("registered_us"),
        text("registered_by"),
    )
    make_table(
        "client_states",
        text("name", primary_key=True),
        text("status"),
        octets("instance", nullable=True),
        number("last_seen_us", nullable=True),
        text("address", nullable=True),
        number("is_overdue"),
        text("latest"),
    )
    make_table(
        "commands",
        identity("id"),
        text("client"),
        text("verb"),
        text("user"),
        number("queued_us"),
        number("expires_us", nullable=True),
        number("delivered_us", nullable=True),
        number("acknowledged_us", nullable=True),
        text("outcome", nullable=True),
        text("detail", nullable=True),
    )
    _index("commands_pending", "commands", "client", "acknowledged_us IS NULL")
    make_table(
        "proposals",
        identity("id"),
        text("client", unique=True),
        text("path"),
        number("size_bytes"),
        octets("sha256"),
        number("received_us"),
    )
    make_table(
        "streams",
        text("client", primary_key=True),
        octets("stream", primary_key=True),
        number("last_sequence"),
    )
    make_table(
        "stream_gaps",
        text("client", primary_key=True),
        octets("stream", primary_key=True),
        number("first_sequence", primary_key=True),
        number("last_sequence"),
    )
    make_table(
        "events",
        identity("row_id"),
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
    _index("events_about", "events", "about", "about IS NOT NULL")
    _index("events_code", "events", "code")
    _index("events_class", "events", "class")
    _index("events_time", "events", "time_us")
    _index("events_received", "events", "received_us", "received_us IS NOT NULL")
    make_table(
        "unusable_reports",
        identity("row_id"),
        text("client"),
        octets("stream"),
        number("sequence"),
        number("received_us"),
        octets("body"),
        text("problem"),
    )


def _index(name: str, table: str, column: str, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)
