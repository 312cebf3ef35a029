"""The whole history of an audit log made anew in the store, by somebody who has no key."""

import sqlite3
from pathlib import Path

from needfire_protocol.audit.merkle import Frontier, leaf_hash
from needfire_protocol.audit.record import FIRST_PREVIOUS

__all__ = ["rewrite_history"]

_PREVIOUS = b'"prev":"'
_NODES_STEP = 4


def rewrite_history(store: Path, before: bytes, after: bytes, *, last_checkpoint: int) -> None:
    """Change what every record but the first one says, and all that is computed from them.

    Args:
        last_checkpoint: those with a higher number, which the records do not fit, are deleted.
    """
    connection = sqlite3.connect(store)
    frontier, previous = Frontier(), FIRST_PREVIOUS
    nodes = []
    rows = connection.execute("SELECT number, record FROM audit_records ORDER BY number").fetchall()
    for number, record in rows:
        line = record.replace(before, after) if number else record
        place = line.index(_PREVIOUS) + len(_PREVIOUS)
        line = line[:place] + previous.hex().encode() + line[place + 2 * len(previous) :]
        previous = leaf_hash(line)
        nodes += [node for node in frontier.complete(previous) if not node[0] % _NODES_STEP]
        connection.execute("UPDATE audit_records SET record = ? WHERE number = ?", (line, number))
    connection.execute("DELETE FROM audit_nodes")
    connection.executemany(
        "INSERT INTO audit_nodes (level, position, hash) VALUES (?, ?, ?)", nodes
    )
    connection.execute(
        "UPDATE audit_head SET size = ?, previous = ?, frontier = ?",
        (frontier.size, previous, b"".join(frontier.hashes)),
    )
    connection.execute("DELETE FROM audit_checkpoints WHERE number > ?", (last_checkpoint,))
    connection.commit()
    connection.close()
