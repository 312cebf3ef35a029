"""A server whose store is a PostgreSQL database: real processes, and a password that must not show."""

from pathlib import Path

import psycopg

from needfire_testkit.postgres import postgres_or_skip, running_postgres
from needfire_testkit.processes import ServerHome

PASSWORD = "open-sesame-70b1"


def test_a_server_and_the_admin_tool_share_a_database(
    server_home: ServerHome, tmp_path: Path
) -> None:
    """Goal: one store while the server runs and while it does not, and no secret in what is left."""
    secret = tmp_path / "store-password"
    secret.touch(0o600)
    secret.write_text(f"{PASSWORD}\n")
    with running_postgres(postgres_or_skip()) as postgres:
        url = postgres.database_of_scram_user(PASSWORD)
        server_home.write_rc(misc=f"StoreURL={url}\nStorePasswordFile={secret}")
        server = server_home.start()
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        assert server_home.admin("register", "web1").returncode == 0
        assert server.stop() == 0
        assert server_home.admin("register", "web2").returncode == 0
        assert not (server_home.data / "needfire.sqlite").exists()
        with psycopg.connect(url, password=PASSWORD) as connection:
            names = connection.execute("SELECT name FROM clients ORDER BY name").fetchall()
            [(started,)] = connection.execute(
                "SELECT count(*) FROM events WHERE code = 'SERVER_UP'"
            ).fetchall()
        assert {("web1",), ("web2",)} <= set(names)
        assert started > 0
    left = [each.read_bytes() for each in server_home.data.rglob("*") if each.is_file()]
    assert PASSWORD.encode() not in b"".join([arguments, *left])
