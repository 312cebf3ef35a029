"""Who was refused on the admin socket: a restart opens no lock, and forgets no count."""

from needfire_server.storage.migrations.columns import make_table, number, text

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table."""
    make_table(
        "refusals",
        text("user", primary_key=True),
        number("since_us"),
        number("count"),
        number("towards_lock"),
        number("locked_until_us"),
    )
