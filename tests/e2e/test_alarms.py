"""Alarms of a real server: raised, listed, and cleared."""

import json

from needfire_testkit.processes import ServerHome


def test_an_audit_key_that_is_missing_is_an_alarm_until_it_is_back(server_home: ServerHome) -> None:
    def alarms() -> list[str]:
        listed = server_home.admin("alarms", "list", "--json").stdout.splitlines()
        return [json.loads(line)["code"] for line in listed]

    server_home.start().stop()
    [key] = (server_home.data / "audit").glob("*.key")
    key.rename(server_home.directory / "key")
    server = server_home.start()
    server.wait_for("Audit log not signed")
    assert server.stop() == 0
    assert alarms() == ["AUDIT_KEY_MISSING"]
    (server_home.directory / "key").rename(key)
    server = server_home.start()
    server.wait_for("Audit log signed again")
    assert server.stop() == 0
    assert alarms() == []
