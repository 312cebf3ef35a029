"""Alarms of a real server: raised, listed, and cleared."""

import json

from needfire_server.admin.connection import SocketConnection
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


def test_what_a_person_was_told_is_done_is_stored_though_the_server_is_killed_at_once(
    server_home: ServerHome,
) -> None:
    rc = server_home.directory / "rc"
    for number in range(2):
        server = server_home.start()
        rc.write_text(f"# version {number}\n[ReadOnly]\nfile = /etc/hosts\n")
        with SocketConnection(str(server_home.data / "control.sock"), print) as admin:
            with rc.open("rb") as file:
                admin.call("config-put", {}, file)
            server.kill()
    put = [event for event in server_home.events() if event["code"] == "CONFIGURATION_PUT"]
    assert ["version" in event["fields"]["diff"] for event in put] == [True] * 2
