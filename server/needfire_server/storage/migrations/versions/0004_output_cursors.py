"""How far each output has come: everything up to confirmed is sent, up to attempted it may be."""

from needfire_server.storage.migrations.columns import make_table, number, text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    make_table(
        "output_cursors",
        text("name", primary_key=True),
        number("confirmed"),
        number("attempted"),
        number("sent"),
        number("retried"),
        number("dropped"),
    )
