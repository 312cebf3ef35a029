"""When a user of the admin socket was refused last."""

from alembic import op

from needfire_server.storage.migrations.columns import number

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column; of refusals that are counted already it is not known."""
    op.add_column("refusals", number("last_us", nullable=True))
