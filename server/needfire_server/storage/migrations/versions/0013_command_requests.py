"""Which request of the admin tool a command came from: its answer can be found beside the question."""

from alembic import op

from needfire_server.storage.migrations.columns import text

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; of what waits already it is not known."""
    op.add_column("commands", text("request", nullable=True))
