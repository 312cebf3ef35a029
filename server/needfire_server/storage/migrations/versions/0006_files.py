"""Configurations, baselines and proposals in the store, for servers that share one."""

from alembic import op

from needfire_server.storage.migrations.columns import identity, make_table, number, octets, text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    make_table(
        "file_contents",
        identity("id"),
        number("size_bytes", nullable=True),
        octets("sha256", nullable=True),
        number("touched_us"),
    )
    op.create_index("file_contents_sha256", "file_contents", ["sha256"])
    make_table(
        "file_chunks",
        number("content", primary_key=True),
        number("position", primary_key=True),
        octets("data"),
    )
    make_table(
        "files",
        text("kind", primary_key=True),
        text("name", primary_key=True),
        number("content"),
        number("put_us"),
    )
