"""Which tables a store has, in the words of SQLAlchemy; the migrations bring a database to them.

Times are microseconds since 1970, UTC. Names of clients are lower case. Numbers have 64 bits in both
databases, and text is ordered by its bytes in both, so that a question gets the same answer.
"""

from typing import Final

import sqlalchemy as sa

__all__ = [
    "BULK_CLASS",
    "BULK_CODES",
    "audit_checkpoints",
    "audit_head",
    "audit_keys",
    "audit_nodes",
    "audit_records",
    "audit_summaries",
    "client_states",
    "clients",
    "commands",
    "connections",
    "counters",
    "event_summaries",
    "events",
    "expiries",
    "file_chunks",
    "file_contents",
    "files",
    "known",
    "metadata",
    "proposals",
    "rare_class",
    "rare_code",
    "refusals",
    "seal",
    "secrets",
    "servers",
    "sessions",
    "stream_gaps",
    "streams",
    "unusable_reports",
]

BULK_CLASS: Final = "integrity"
"""Nearly every event is of this class, so that an index would only repeat the table."""
BULK_CODES: Final = ("POLICY_ADDED", "POLICY_MISSING", "POLICY_MODIFIED")
"""Nearly every event has one of these codes. Indexes leave them out: each index costs a report a
fifth of all that storing it costs, and what is frequent is found soon without."""

Number: Final = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
Text: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Bytes: Final = sa.LargeBinary()

metadata: Final = sa.MetaData()


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Number, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, Text, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, Bytes, nullable=nullable)


secrets: Final = sa.Table(
    "secrets", metadata, sa.Column("name", Text, primary_key=True), _bytes("value")
)

counters: Final = sa.Table(
    "counters", metadata, sa.Column("name", Text, primary_key=True), _number("value")
)
"""``events``: the number of the event that was stored last, ever. ``event_summaries`` and
``audit_summaries``: up to which number everything is summed up."""

clients: Final = sa.Table(
    "clients",
    metadata,
    sa.Column("name", Text, primary_key=True),
    _bytes("salt"),
    _bytes("verifier"),
    _number("registered_us"),
    _text("registered_by"),
)

seal: Final = sa.Table(
    "seal",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=False),
    _bytes("key_check"),
)
"""One row, 1, once the verifiers of ``clients`` are sealed: by which key (``seal_key.key_check``)."""

client_states: Final = sa.Table(
    "client_states",
    metadata,
    sa.Column("name", Text, primary_key=True),
    _text("status"),
    _bytes("instance", nullable=True),
    _number("last_seen_us", nullable=True),
    _text("address", nullable=True),
    _number("is_overdue"),
    _text("latest"),
)
"""``latest`` is JSON: status -> time."""

sessions: Final = sa.Table(
    "sessions",
    metadata,
    sa.Column("session_id", Bytes, primary_key=True),
    _text("client"),
    _number("expires_us"),
    _number("is_current"),
    _bytes("sealed"),
)
"""Of agents, so that they outlive the server's process; sealed with a key that is not here."""

commands: Final = sa.Table(
    "commands",
    metadata,
    sa.Column("id", Number, sa.Identity(always=False), primary_key=True),
    _text("client"),
    _text("verb"),
    _text("user"),
    _number("queued_us"),
    _number("expires_us", nullable=True),
    _number("delivered_us", nullable=True),
    _number("acknowledged_us", nullable=True),
    _text("outcome", nullable=True),
    _text("detail", nullable=True),
    _text("request", nullable=True),
)

proposals: Final = sa.Table(
    "proposals",
    metadata,
    sa.Column("id", Number, sa.Identity(always=False), primary_key=True),
    sa.Column("client", Text, nullable=False, unique=True),
    _text("path"),
    _number("size_bytes"),
    _bytes("sha256"),
    _number("received_us"),
)

streams: Final = sa.Table(
    "streams",
    metadata,
    sa.Column("client", Text, primary_key=True),
    sa.Column("stream", Bytes, primary_key=True),
    _number("last_sequence"),
)
"""What has come of each stream: everything up to last_sequence, but for what stream_gaps names."""

stream_gaps: Final = sa.Table(
    "stream_gaps",
    metadata,
    sa.Column("client", Text, primary_key=True),
    sa.Column("stream", Bytes, primary_key=True),
    sa.Column("first_sequence", Number, primary_key=True),
    _number("last_sequence"),
)

events: Final = sa.Table(
    "events",
    metadata,
    sa.Column("row_id", Number, primary_key=True, autoincrement=False),
    _text("id"),
    _number("time_us"),
    _number("received_us", nullable=True),
    _text("client", nullable=True),
    _text("about", nullable=True),
    _text("class"),
    _number("severity"),
    _text("code"),
    _text("msg"),
    _text("fields"),
)
"""``row_id`` counts in the order of the commits, without gaps. ``received_us`` and ``client`` are NULL
for the server's own; ``about`` is whom a question for one client finds; ``fields`` is JSON."""


def _summaries(name: str) -> sa.Table:
    """Of blocks of rows; no two of them overlap (``summary.py``)."""
    return sa.Table(
        name,
        metadata,
        sa.Column("first", Number, primary_key=True, autoincrement=False),
        _number("last"),
        _number("from_us", nullable=True),
        _number("to_us", nullable=True),
        _number("odd_from_us", nullable=True),
        _number("odd_to_us", nullable=True),
        _number("severity"),
        _bytes("keys"),
        _bytes("paths"),
    )


event_summaries: Final = _summaries("event_summaries")
audit_summaries: Final = _summaries("audit_summaries")

unusable_reports: Final = sa.Table(
    "unusable_reports",
    metadata,
    sa.Column("row_id", Number, sa.Identity(always=False), primary_key=True),
    _text("client"),
    _bytes("stream"),
    _number("sequence"),
    _number("received_us"),
    _bytes("body"),
    _text("problem"),
)

expiries: Final = sa.Table(
    "expiries",
    metadata,
    sa.Column("what", Text, primary_key=True),
    _number("count"),
    _number("oldest_us"),
    _number("newest_us"),
)
"""What was removed because of its age and is not told in an event yet."""

output_cursors: Final = sa.Table(
    "output_cursors",
    metadata,
    sa.Column("name", Text, primary_key=True),
    _number("confirmed"),
    _number("attempted"),
    _number("sent"),
    _number("retried"),
    _number("dropped"),
)
"""How far each output has come; rows of outputs that are no longer configured stay."""

output_skipped: Final = sa.Table(
    "output_skipped",
    metadata,
    sa.Column("output", Text, primary_key=True),
    sa.Column("row_id", Number, primary_key=True, autoincrement=False),
    _number("skipped_us"),
    _text("reason"),
    _text("id"),
    _number("time_us"),
    _number("received_us", nullable=True),
    _text("client", nullable=True),
    _text("about", nullable=True),
    _text("class"),
    _number("severity"),
    _text("code"),
    _text("msg"),
    _text("fields"),
)
"""What targets refused for good, with the columns of ``events``: those may be gone by then."""

audit_records: Final = sa.Table(
    "audit_records",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=False),
    _bytes("record"),
)
"""``number`` counts from 0 without gaps; ``record`` is the line as it is hashed."""

audit_head: Final = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", Number, primary_key=True, autoincrement=False),
    _number("size"),
    _bytes("previous"),
    _bytes("frontier"),
)
"""One row, 1, once there is a record. ``previous`` is the hash of the last one; ``frontier`` joins the
hashes of the full subtrees, the largest first."""

audit_nodes: Final = sa.Table(
    "audit_nodes",
    metadata,
    sa.Column("level", Number, primary_key=True, autoincrement=False),
    sa.Column("position", Number, primary_key=True, autoincrement=False),
    _bytes("hash"),
)

audit_checkpoints: Final = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=False),
    _number("size"),
    _text("note"),
)
"""``number`` counts from 1 without gaps."""

audit_keys: Final = sa.Table(
    "audit_keys",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=False),
    _text("key"),
    _text("signature", nullable=True),
)
"""``signature`` is of the key before; NULL for the first."""


refusals: Final = sa.Table(
    "refusals",
    metadata,
    sa.Column("user", Text, primary_key=True),
    _number("since_us"),
    _number("count"),
    _number("towards_lock"),
    _number("locked_until_us"),
    _number("last_us", nullable=True),
)
"""Of users of the admin socket, since their last request that was not refused."""

file_contents: Final = sa.Table(
    "file_contents",
    metadata,
    sa.Column("id", Number, sa.Identity(always=False), primary_key=True),
    _number("size_bytes", nullable=True),
    _bytes("sha256", nullable=True),
    _number("touched_us"),
)
"""Contents of configurations, baselines and proposals; NULL in what is not complete."""

file_chunks: Final = sa.Table(
    "file_chunks",
    metadata,
    sa.Column("content", Number, primary_key=True, autoincrement=False),
    sa.Column("position", Number, primary_key=True, autoincrement=False),
    _bytes("data"),
)

files: Final = sa.Table(
    "files",
    metadata,
    sa.Column("kind", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    _number("content"),
    _number("put_us"),
)
"""Which contents a client gets; the name is empty for the file of all others."""


known: Final = sa.Table(
    "known", metadata, sa.Column("name", Text, primary_key=True), _text("value")
)
"""What was last known of something: a server's settings and version, an agent's version."""

servers: Final = sa.Table(
    "servers",
    metadata,
    sa.Column("instance", Text, primary_key=True),
    _text("name"),
    _number("seen_us"),
)
"""The servers that share the store, one row for each process; ``presence.py``."""

connections: Final = sa.Table(
    "connections",
    metadata,
    sa.Column("instance", Text, primary_key=True),
    sa.Column("client", Text, primary_key=True),
    _text("address"),
)


def rare_class() -> sa.ColumnElement[bool]:
    """Return the condition of the index on classes, word by word: a question must repeat it."""
    return events.c["class"] != sa.literal_column(f"'{BULK_CLASS}'")


def rare_code() -> sa.ColumnElement[bool]:
    """Return the condition of the index on codes, word by word: a question must repeat it."""
    return sa.and_(*(events.c.code != sa.literal_column(f"'{code}'") for code in BULK_CODES))
