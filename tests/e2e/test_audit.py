"""The audit log of real programs: what a crash leaves, and what the fleet sees of a forged past."""

import json
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from needfire_testkit.processes import AgentHome, Program, ServerHome, wait_until

MakeAgent = Callable[..., AgentHome]


def exported(server: ServerHome, directory: Path) -> list[dict[str, Any]]:
    """Export the log, verify it, and return its records."""
    path = directory / "audit.log"
    server.admin("audit", "export", str(path))
    assert server.admin("audit", "verify", str(path)).stdout.startswith("intact: ")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "code" in line]


def more_than(server: ServerHome, count: int) -> bool:
    return added(server) > count


def added(server: ServerHome) -> int:
    """Count in the store itself: a program for each look would take the test's time."""
    with closing(sqlite3.connect(f"file:{server.data}/needfire.sqlite?mode=ro", uri=True)) as store:
        (count,) = store.execute(
            "SELECT count(*) FROM events WHERE code = 'POLICY_ADDED'"
        ).fetchone()
    return int(count)


def recorded(server: ServerHome) -> int:
    with closing(sqlite3.connect(f"file:{server.data}/needfire.sqlite?mode=ro", uri=True)) as store:
        (count,) = store.execute("SELECT count(*) FROM audit_records").fetchone()
    return int(count)


def first_checked(server: ServerHome, make_agent: MakeAgent) -> tuple[AgentHome, Program]:
    """Start a server that signs each second, and an agent; return when this one has checked."""
    server.write_rc(misc="AuditCheckpointInterval=1")
    server.start()
    agent = make_agent()
    daemon = agent.start()
    daemon.wait_for("File check completed.")
    return agent, daemon


def first_checkpoint(agent: AgentHome) -> Path:
    """Return where the agent keeps the server's checkpoint, once it has one."""
    kept = agent.state / "audit-checkpoint"
    wait_until(kept.exists, "the first checkpoint at the agent")
    return kept


def test_a_server_that_is_killed_again_and_again_keeps_an_intact_log(
    server_home: ServerHome, make_baselined_agent: MakeAgent, tmp_path: Path
) -> None:
    agent, daemon = first_checked(server_home, make_baselined_agent)
    for round_ in range(3):
        for number in range(30):
            (agent.tree / f"new{round_}-{number}").write_text("x")
        wait_until(partial(more_than, server_home, 30 * round_), "reports of this round")
        server_home.running.kill()
        server_home.start()
    wait_until(lambda: added(server_home) == 90, "all reports")
    daemon.stop()  # so that no report comes between the two looks
    records = exported(server_home, tmp_path)
    batches = [each["fields"] for each in records if each["code"] == "REPORTS_RECEIVED"]
    stored = server_home.events("--client", agent.name)
    reports = [event for event in stored if event["client"] == agent.name]
    # Each report that is stored is in a batch that is on record, and none is on record in vain.
    assert sum(each["accepted"] for each in batches) == len(reports)
    assert "Audit log" not in server_home.running.output()


def test_agents_notice_that_an_older_store_was_put_in_place(
    server_home: ServerHome, make_baselined_agent: MakeAgent, tmp_path: Path
) -> None:
    """With everything that the server itself could notice it by put back as well."""
    agent, daemon = first_checked(server_home, make_baselined_agent)
    kept = first_checkpoint(agent)
    server_home.running.stop()
    shutil.copytree(server_home.data, tmp_path / "backup")
    size = recorded(server_home)
    server_home.start()
    (agent.tree / "evidence").write_text("x")
    # Beyond what the backup holds: an earlier one that the agent gets late proves nothing.
    wait_until(lambda: int(kept.read_text().splitlines()[1]) > size, "a later checkpoint")
    server_home.running.send_signal(signal.SIGTERM)
    server_home.running.exit_status()
    shutil.rmtree(server_home.data)
    shutil.copytree(tmp_path / "backup", server_home.data)
    server_home.start()
    daemon.wait_for("Audit log of the server is not the one of before")
    # It says so in its own log, and to the server, where people look.
    wait_until(lambda: server_home.events("--code", "AUDIT_LOG_INCONSISTENT"), "the report")
    (evidence,) = (agent.state / "audit-evidence").iterdir()
    done = server_home.admin(
        *("audit", "verify", "--store", "--checkpoint", str(evidence)), status=1
    )
    assert done.stdout.startswith(("cut off: ", "changed: "))


def test_tampering_is_told_once_by_an_agent_and_ends_when_the_store_is_mended(
    server_home: ServerHome, make_baselined_agent: MakeAgent
) -> None:
    agent, daemon = first_checked(server_home, make_baselined_agent)
    first_checkpoint(agent)
    change = (
        "UPDATE audit_records SET record = "
        "CAST(replace(CAST(record AS TEXT), ?, ?) AS BLOB) WHERE number = 0"
    )
    with closing(
        sqlite3.connect(server_home.data / "needfire.sqlite", isolation_level=None, timeout=30)
    ) as store:
        store.execute(change, ("success", "failure"))
        server_home.running.wait_for("Audit log: changed at record 0")
        # What arrives makes another checkpoint.
        (agent.tree / "before").write_text("x")
        daemon.wait_for("Audit log of the server is not the one of before")
        (evidence,) = (agent.state / "audit-evidence").iterdir()
        done = server_home.admin(
            *("audit", "verify", "--store", "--checkpoint", str(evidence)), status=1
        )
        assert done.stdout.startswith("changed: record 0")
        for number in range(2):
            # Each is a batch that arrives, so that there is a new checkpoint to ask about.
            size = recorded(server_home)
            (agent.tree / f"new{number}").write_text("x")
            wait_until(partial(is_signed_beyond, store, size), "another checkpoint")
        store.execute(change, ("failure", "success"))
        server_home.running.wait_for("Audit log: intact again, was wrong from record 0")
        (agent.tree / "after").write_text("x")
        daemon.wait_for("Audit log of the server goes on from the one of before")
        wait_until(lambda: told(store, "AUDIT_LOG_CONSISTENT") == 1, "the report")
        assert told(store, "AUDIT_LOG_INCONSISTENT") == 1
    alarms = server_home.admin("alarms", "list", "--json").stdout
    assert "AUDIT_LOG_TAMPERED" in alarms
    assert "AUDIT_LOG_INCONSISTENT" not in alarms


def told(store: sqlite3.Connection, code: str) -> int:
    (count,) = store.execute("SELECT count(*) FROM events WHERE code = ?", (code,)).fetchone()
    return int(count)


def is_signed_beyond(store: sqlite3.Connection, size: int) -> bool:
    (signed,) = store.execute("SELECT max(size) FROM audit_checkpoints").fetchone()
    return int(signed) > size


def test_a_start_tells_of_a_store_that_was_changed_meanwhile(
    server_home: ServerHome, tmp_path: Path
) -> None:
    server_home.start()
    server_home.register("web1")
    server_home.running.stop()
    connection = sqlite3.connect(server_home.data / "needfire.sqlite", isolation_level=None)
    (number,) = connection.execute(
        "SELECT number FROM audit_records WHERE instr(record, 'CLIENT_REGISTERED')"
    ).fetchone()
    connection.execute(
        "UPDATE audit_records SET "
        "record = CAST(replace(CAST(record AS TEXT), 'web1', 'web2') AS BLOB) WHERE number = ?",
        (number,),
    )
    connection.close()
    server = server_home.start()
    assert f"Audit log: changed at record {number}" in server.wait_for("Audit log: ")


def test_a_log_that_cannot_be_written_is_told_by_whoever_meets_it_first(
    server_home: ServerHome, tmp_path: Path
) -> None:
    """On every terminal of the admin tool, and by an output, which has no store to read."""
    alerts = tmp_path / "alerts"
    server_home.write_rc(
        misc=f"[Outputs]\nOpenOutput=alerts\nOutputTarget=file {alerts}\nOutputSeverity=>=alert\n"
    )
    server = server_home.start()
    with closing(
        sqlite3.connect(server_home.data / "needfire.sqlite", isolation_level=None)
    ) as store:
        store.execute(
            "CREATE TRIGGER strike BEFORE UPDATE ON audit_head "
            "BEGIN SELECT RAISE(ABORT, 'on strike'); END"
        )
        told = server_home.admin("status").stderr
        assert "the audit log cannot be written: " in told
        assert "events cannot be recorded: " in told
        wait_until(lambda: alerts.exists() and alerts.read_text().count("on strike") >= 2, "both")
        # What would change something is refused: nothing is done off the record.
        assert "on strike" in server_home.admin("register", "web1.example.org", status=8).stderr
        store.execute("DROP TRIGGER strike")
    server.wait_for("Audit log written again")
    assert "cannot be" not in server_home.admin("status").stderr


def test_an_older_store_is_told_at_each_start_until_somebody_accepts_it(
    server_home: ServerHome, tmp_path: Path
) -> None:
    store = server_home.data / "needfire.sqlite"
    server_home.start()
    server_home.running.stop()
    shutil.copy(store, tmp_path / "backup")
    server_home.start()
    server_home.register("web1")
    server_home.running.stop()
    shutil.copy(tmp_path / "backup", store)
    for _ in range(2):
        server_home.start().wait_for("Audit log: cut off at record ")
        server_home.running.stop()
        assert server_home.admin("audit", "verify", "--store", status=1).stdout
    server_home.start()
    server_home.admin("audit", "accept", "--note", "put back by ann")
    server_home.running.wait_for("is accepted by ")
    server_home.running.stop()
    verified = server_home.admin("audit", "verify", "--store")
    assert verified.stdout.startswith("intact: ")
    assert "not signed yet" not in verified.stderr, "a server that ends signs what there is"
    assert "AUDIT_LOG_TAMPERED" not in server_home.admin("alarms", "list").stdout
