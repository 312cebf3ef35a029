"""Blocks of events and of audit records are summed up, for whoever looks for something in millions.

The indexes on times go: summaries hold them, and cost a report no more than both did. What is stored
already is summed up in the background.
"""

import sqlalchemy as sa
from alembic import op

from needfire_server.storage.migrations.columns import make_table, number, octets

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables."""
    for name in ("event_summaries", "audit_summaries"):
        make_table(
            name,
            number("first", primary_key=True),
            number("last"),
            number("from_us", nullable=True),
            number("to_us", nullable=True),
            number("odd_from_us", nullable=True),
            number("odd_to_us", nullable=True),
            number("severity"),
            octets("keys"),
            octets("paths"),
        )
    # Events are numbered from 1, and records from 0.
    for name, done in (("event_summaries", 0), ("audit_summaries", -1)):
        op.get_bind().execute(
            sa.text("INSERT INTO counters (name, value) VALUES (:name, :done)"),
            {"name": name, "done": done},
        )
    op.drop_index("events_received", table_name="events")
    op.drop_index("events_time", table_name="events")
