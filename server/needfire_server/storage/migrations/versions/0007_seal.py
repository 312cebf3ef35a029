"""By which key the verifiers of clients are sealed; a program of before would take them for damaged."""

from needfire_server.storage.migrations.columns import make_table, number, octets

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table. Empty: nothing is sealed yet, because a migration has no key."""
    make_table("seal", number("id", primary_key=True), octets("key_check"))
