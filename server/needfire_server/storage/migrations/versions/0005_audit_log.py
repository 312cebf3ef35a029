"""The signed audit log. Records are lines as they are hashed: nobody reads them by column.

``audit_head`` has one row, which says how far the log is. ``audit_nodes`` has the inner nodes of every
fourth level of the tree, so that a proof reads some dozen rows and not the log.
"""

from needfire_server.storage.migrations.columns import make_table, number, octets, text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    make_table("audit_records", number("number", primary_key=True), octets("record"))
    make_table(
        "audit_head",
        number("id", primary_key=True),
        number("size"),
        octets("previous"),
        octets("frontier"),
    )
    make_table(
        "audit_nodes",
        number("level", primary_key=True),
        number("position", primary_key=True),
        octets("hash"),
    )
    make_table(
        "audit_checkpoints", number("number", primary_key=True), number("size"), text("note")
    )
    make_table(
        "audit_keys",
        number("number", primary_key=True),
        text("key"),
        text("signature", nullable=True),
    )
