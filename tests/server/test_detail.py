"""``--detail`` shows an event as the Session Smart Router's "show events" does, and nobody forges one."""

import json
import re
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from needfire_protocol.event import event_to_json
from needfire_server.admin.commands.detail import detail_block
from needfire_server.change_text import ChangeText
from needfire_testkit.server_store import event

DOCUMENTED = """\
====================================================================
2024-03-14T20:58:24.469Z Change to the running 128T configuration.
====================================================================
Type: admin.running_config_change
Node: test1
User: admin
Collector: configDirector
Description: running config changes are committed
Permitted: True
Source Ip: 172.18.15.253
config
authority
router Fabric128
name Fabric128
system
ntp
delete server force 172.2.10.13
server 172.2.10.14
ip-address 172.2.10.14
exit
exit
exit
exit
exit
exit
"""
"""As in "Configuring Audit Events and Logging", NTP Configuration Change."""


def shown(code: str, speaker: str | None, /, **fields: str) -> list[str]:
    said = event(code)
    data = json.loads(event_to_json(replace(said, fields={**said.fields, **fields})))
    return detail_block({**data, "client": speaker}).splitlines()


def difference(*lines: bytes) -> str:
    text = ChangeText()
    for line in lines:
        text.add(line)
    return str(text)


def test_labels_come_in_the_order_of_the_document() -> None:
    rule, heading, _, *labelled = DOCUMENTED.splitlines()[:10]
    lines = shown(
        "CONFIGURATION_PUT",
        "test1",
        client="test1",
        user="admin",
        address="172.18.15.253",
        diff=difference(b"-server force 172.2.10.13", b"+server 172.2.10.14"),
    )
    assert (lines[0], lines[2]) == (rule, rule)
    assert re.fullmatch(r"[0-9T:.-]+Z Configuration put in place", lines[1])
    assert re.fullmatch(r"[0-9T:.-]+Z [^ ].*", heading)
    assert [line.partition(":")[0] for line in lines[3:10]] == [
        line.partition(":")[0] for line in labelled
    ]
    assert lines[4:6] == labelled[1:3]
    assert lines[8:10] == labelled[5:7]
    # The difference is the end, a line each.
    assert lines[-2:] == ["  -server force 172.2.10.13", "  +server 172.2.10.14"]


def test_the_documented_block_comes_out_but_for_names_of_ours_and_the_indentation() -> None:
    documented = DOCUMENTED.splitlines()
    block = detail_block(
        {
            "time": "2024-03-14T20:58:24.469Z",
            "title": "Change to the running 128T configuration.",
            "class": "provisioning",
            "code": "RUNNING_CONFIG_CHANGE",
            "client": "test1",
            "msg": "running config changes are committed",
            "fields": {
                "address": "172.18.15.253",
                "user": "admin",
                "diff": difference(*(line.encode() for line in documented[10:])),
            },
        }
    ).splitlines()
    expected = [
        *documented[:3],
        "Type: provisioning.running_config_change",
        *documented[4:6],
        "Collector: needfire-agent",
        *documented[7:10],
    ]
    assert block[: len(expected)] == expected
    # Lines of others are indented, so that none of them looks like the heading of another event.
    difference_lines = documented[10:]
    assert block[-len(difference_lines) :] == [f"  {line}" for line in difference_lines]


def test_what_is_not_known_has_no_label() -> None:
    lines = shown("POLICY_MISSING", "web1", path="/x")
    assert "Node: web1" in lines
    assert "Collector: needfire-agent" in lines
    assert not any(line.startswith(("User:", "Permitted:", "Source Ip:")) for line in lines)


def test_of_whom_the_server_speaks_stands_in_parentheses() -> None:
    lines = shown("STOPPED_WITHOUT_GOODBYE", None, client="web1")
    assert "Node: (web1)" in lines
    assert "Collector: needfire-server" in lines


def test_who_was_refused_was_not_permitted() -> None:
    refused = shown("AUTHZ_FAIL", None, user="eve", operation="register", resource="web1")
    assert "Permitted: False" in refused
    asked = shown("ADMIN_REQUEST", None, user="eve", verb="register")
    assert not any(line.startswith("Permitted") for line in asked)


@example([b"=" * 68], "/x\n" + "=" * 68)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=5), st.text(max_size=80))
def test_nothing_that_is_told_looks_like_a_heading(lines: list[bytes], path: str) -> None:
    said = replace(event("CONFIGURATION_PUT"), fields={"path": path, "diff": difference(*lines)})
    block = detail_block({**json.loads(event_to_json(said)), "client": None}).splitlines()
    assert [number for number, line in enumerate(block) if line.startswith("=")] == [0, 2]
    assert all(line.isprintable() for line in block)
