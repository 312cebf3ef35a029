"""The rows that tell which server has which clients; those of a server that fell silent do not count."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from needfire_server.storage import tables
from needfire_server.storage.base import ClientConnection, ServerSign

__all__ = ["connections_elsewhere", "forget_server", "tell_connections"]

_SERVERS = tables.servers
_OPEN = tables.connections


def tell_connections(
    connection: sa.Connection,
    sign: ServerSign,
    opened: Mapping[str, str],
    closed: Collection[str],
    silent_since_us: int,
) -> bool:
    """Say what has changed at a server; False where nothing is known of it: it must say all."""
    _forget(connection, _SERVERS.c.seen_us < silent_since_us)
    is_known = bool(
        connection.execute(
            sa.update(_SERVERS)
            .where(_SERVERS.c.instance == sign.instance)
            .values(name=sign.name, seen_us=sign.now_us)
        ).rowcount
    )
    if not is_known:
        row = {"instance": sign.instance, "name": sign.name, "seen_us": sign.now_us}
        connection.execute(sa.insert(_SERVERS), row)
    gone = [{"whose": sign.instance, "who": client} for client in (*closed, *opened)]
    if gone:
        connection.execute(_DELETE, gone)
    if opened:
        rows = [
            {"instance": sign.instance, "client": client, "address": address}
            for client, address in opened.items()
        ]
        connection.execute(sa.insert(_OPEN), rows)
    return is_known


_DELETE = sa.delete(_OPEN).where(
    _OPEN.c.instance == sa.bindparam("whose"), _OPEN.c.client == sa.bindparam("who")
)


def forget_server(connection: sa.Connection, instance: str) -> None:
    """Remove a server that ends, and its connections."""
    _forget(connection, _SERVERS.c.instance == instance)


def _forget(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    dead = [row[0] for row in connection.execute(sa.select(_SERVERS.c.instance).where(which))]
    for instance in dead:
        connection.execute(sa.delete(_OPEN).where(_OPEN.c.instance == instance))
        connection.execute(sa.delete(_SERVERS).where(_SERVERS.c.instance == instance))


def connections_elsewhere(
    connection: sa.Connection, instance: str, silent_since_us: int
) -> dict[str, ClientConnection]:
    """Return by client the connections of all other servers that were heard since."""
    wanted = (
        sa.select(_OPEN.c.client, _SERVERS.c.name, _OPEN.c.address)
        .join(_SERVERS, _SERVERS.c.instance == _OPEN.c.instance)
        .where(_SERVERS.c.instance != instance, _SERVERS.c.seen_us >= silent_since_us)
        # Of a client that has just moved, the server that was heard last is right.
        .order_by(_SERVERS.c.seen_us)
    )
    return {row[0]: ClientConnection(row[1], row[2]) for row in connection.execute(wanted)}
