"""Sessions of agents outlive the server's process.

Their keys are sealed with a key that is not in the database.
"""

from alembic import op

from needfire_server.storage.migrations.columns import make_table, number, octets, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    make_table(
        "sessions",
        octets("session_id", primary_key=True),
        text("client"),
        number("expires_us"),
        number("is_current"),
        octets("sealed"),
    )
    op.create_index("sessions_client", "sessions", ["client"])
    op.create_index("sessions_expires", "sessions", ["expires_us"])
