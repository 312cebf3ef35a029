"""What needfire-admin does not load where no server runs: its time is mostly that of starting."""

import subprocess
import sys

NEVER = {
    *{"alembic", "psycopg", "needfire_server.config", "needfire_server.outputs"},
    *{"sqlalchemy.dialects.postgresql", "needfire_server.logbook", "needfire_server.lookup"},
}


def test_a_verb_on_a_store_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys, needfire_server.admin.cli, needfire_server.admin.offline; "
        f"print(*{NEVER!r} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
