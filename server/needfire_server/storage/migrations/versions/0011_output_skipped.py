"""Events that a target refused for good: kept beside the others until a person has seen to them."""

from needfire_server.storage.migrations.columns import make_table, number, text

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    make_table(
        "output_skipped",
        text("output", primary_key=True),
        number("row_id", primary_key=True),
        number("skipped_us"),
        text("reason"),
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
