"""Which clients are connected to which of the servers that share the store."""

from needfire_server.storage.migrations.columns import make_table, number, text

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the tables; each server tells of its own connections."""
    make_table("servers", text("instance", primary_key=True), text("name"), number("seen_us"))
    make_table(
        "connections",
        text("instance", primary_key=True),
        text("client", primary_key=True),
        text("address"),
    )
