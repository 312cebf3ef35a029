"""What was last known of something that may change while no server looks, to tell that it has."""

from needfire_server.storage.migrations.columns import make_table, text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table."""
    make_table("known", text("name", primary_key=True), text("value"))
