"""An alarm holds from the event that adds it to the one that clears it; a person clears the rest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_protocol.catalogue import ALARM_CLEARED, CATALOGUE, cleared_by, explain
from needfire_protocol.catalogue_entry import Entry, EventClass
from needfire_protocol.event import Event
from needfire_server import alarms as alarms_module
from needfire_server.alarms import ALARMS_MAX, REPORTED_MAX, OpenAlarms
from needfire_testkit.server_store import NOW_US, event

ALARMS = [entry for entry in CATALOGUE.values() if entry.event_class is EventClass.ALARM]
ADDED = [entry for entry in ALARMS if not entry.clears and entry.code != ALARM_CLEARED]
CLEARING = [entry for entry in ALARMS if entry.clears]
HAPPENED = frozenset(
    {
        "AGENT_RESTORED",
        "CLOCK_MOVED",
        "CLOCK_UNSTEADY",
        "CLONE_DETECTED",
        "EVENTS_NOT_STORED",
        "LOG_SUPPRESSED",
        "OUTPUT_EVENTS_LOST",
        "OUTPUT_RECORDS_GIVEN_UP",
        "OUTPUT_REMARK",
        "REGISTRATION_UNREADABLE",
        "RELAYED_CLIENTS_TOO_MANY",
        "REPORTS_LOST",
        "RELAYED_REPORTS_REFUSED",
        "RELAY_REFUSED",
        "SEAL_KEY_DIFFERS",
        "SEAL_KEY_LOST",
        "SEQUENCE_GAP",
        "SERVER_CLOCK_MOVED",
        "SPOOL_DAMAGED",
    }
)
"""What is over as soon as it is told, or whose end only a person sees. Whoever adds an alarm decides whether it belongs here."""


def held(*events: Event) -> list[tuple[str, str, str, int]]:
    alarms = OpenAlarms()
    for each in events:
        alarms.take(each)
    return [(each.code, each.client, each.about, each.count) for each in alarms.alarms()]


def test_every_condition_is_cleared_by_an_event_and_only_what_happened_once_by_a_person_alone() -> (
    None
):
    by_a_person = {entry.code for entry in ADDED if cleared_by(entry.code) == (ALARM_CLEARED,)}
    assert by_a_person == HAPPENED


@pytest.mark.parametrize("entry", CLEARING, ids=lambda entry: entry.code)
def test_what_clears_names_alarms_that_are_about_the_same_field(entry: Entry) -> None:
    for code in entry.clears:
        assert CATALOGUE[code] in ADDED
        assert CATALOGUE[code].about == entry.about
        assert f"cleared by {entry.code}" in explain(CATALOGUE[code])


@pytest.mark.parametrize("entry", [e for e in ALARMS if e.about], ids=lambda entry: entry.code)
def test_what_an_alarm_is_about_is_one_of_its_fields(entry: Entry) -> None:
    assert entry.about in entry.fields


def test_an_alarm_holds_until_the_event_that_clears_it() -> None:
    silent = event("STOPPED_WITHOUT_GOODBYE", client="web1")
    assert held(silent, silent) == [("STOPPED_WITHOUT_GOODBYE", "web1", "", 2)]
    assert held(silent, event("CLIENT_RETURNED", client="web2")) != []
    assert held(silent, event("CLIENT_RETURNED", client="web1")) == []
    assert held(event("CLIENT_RETURNED", client="web1"), silent) != []


def test_one_of_several_outputs_that_works_again_clears_its_own_alarm_only() -> None:
    failed = [event("OUTPUT_FAILED", output=name) for name in ("mail", "siem")]
    found = held(*failed, event("OUTPUT_RECOVERED", output="mail"))
    assert found == [("OUTPUT_FAILED", "", "siem", 1)]


def test_a_person_clears_what_nothing_else_does() -> None:
    clone = event("CLONE_DETECTED", client="web1")
    cleared = event(ALARM_CLEARED, client="web1", alarm="CLONE_DETECTED", about="")
    assert held(clone, cleared) == []
    assert held(cleared, clone) == [("CLONE_DETECTED", "web1", "", 1)]
    assert held(clone, event(ALARM_CLEARED, alarm="CLONE_DETECTED", about="")) != []


def test_what_an_agent_reports_ends_nothing_that_the_server_has_noticed() -> None:
    differs = event("CLOCK_DIFFERS", client="web1")
    for said in (
        event("CLOCK_AGREES"),
        event(ALARM_CLEARED, client="web1", alarm="CLOCK_DIFFERS", about=""),
    ):
        assert held(differs, said.received("web1", NOW_US)) == held(differs)
    # Nor anything of another agent.
    full = event("SPOOL_FULL").received("web1", NOW_US)
    room = event("SPOOL_HAS_ROOM").received("web2", NOW_US)
    assert held(full, room) == held(full)
    assert held(full, room.received("web1", NOW_US)) == []


def test_other_events_change_nothing() -> None:
    assert held(event("POLICY_MISSING"), event("START")) == []


def test_the_alarms_that_came_last_are_kept() -> None:
    events = [event("CLONE_DETECTED", client=f"c{number}") for number in range(ALARMS_MAX)]
    again, new = event("CLONE_DETECTED", client="c0"), event("CLONE_DETECTED", client="new")
    names = {client for _, client, _, _ in held(*events, again, new)}
    assert len(names) == ALARMS_MAX
    assert {"c0", "new"} <= names
    assert "c1" not in names


def test_what_one_client_reports_drives_out_nothing_that_others_said() -> None:
    alarms = OpenAlarms()
    alarms.take(event("SEQUENCE_GAP", client="web2"))
    alarms.take(event("SEQUENCE_GAP", client="web1"))
    alarms.take(event("SPOOL_DAMAGED").received("web2", NOW_US))
    for number in range(REPORTED_MAX + 50):
        alarms.take(event("OUTPUT_FAILED", output=f"o{number}").received("web1", NOW_US))
    found = alarms.alarms()
    codes = [(each.code, each.client) for each in found]
    assert codes.count(("OUTPUT_FAILED", "web1")) == REPORTED_MAX
    assert {("SEQUENCE_GAP", "web1"), ("SEQUENCE_GAP", "web2"), ("SPOOL_DAMAGED", "web2")} <= {
        *codes
    }
    assert "o49" not in {each.about for each in found}
    assert alarms.left_out() == {"web1": 50}
    assert alarms.left_out("web2") == {}


def test_of_all_that_clients_report_who_reports_most_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms_module, "ALARMS_MAX", 6)
    alarms = OpenAlarms()
    for number in range(5):
        alarms.take(event("OUTPUT_FAILED", output=f"o{number}").received("web1", NOW_US))
    for name in ("web2", "web3"):
        alarms.take(event("SPOOL_DAMAGED").received(name, NOW_US))
    assert [each.client for each in alarms.alarms()].count("web1") == 4
    assert alarms.left_out() == {"web1": 1}
    # What was cleared leaves its place.
    for number in range(1, 5):
        alarms.take(event("OUTPUT_RECOVERED", output=f"o{number}").received("web1", NOW_US))
    assert {each.client for each in alarms.alarms()} == {"web2", "web3"}


def test_a_relay_that_makes_up_clients_drives_out_nobody_else_s_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms_module, "ALARMS_MAX", 6)
    alarms = OpenAlarms()
    honest = ("web1", "web1", "hall/web1", "web2")
    for number, name in enumerate(honest):
        alarms.take(event("OUTPUT_FAILED", output=f"o{number}").received(name, NOW_US))
    for number in range(20):
        alarms.take(event("SPOOL_DAMAGED").received(f"evil/c{number}", NOW_US))
    found = [each.client for each in alarms.alarms()]
    assert sorted(name for name in found if not name.startswith("evil/")) == sorted(honest)
    assert len(found) == 6


def test_what_a_relay_says_of_one_of_its_clients_is_not_ended_by_another_one() -> None:
    silent, back = (
        [event(code, client=name).received("hall", NOW_US) for name in ("web1", "web2")]
        for code in ("STOPPED_WITHOUT_GOODBYE", "CLIENT_RETURNED")
    )
    assert held(*silent, back[1]) == [("STOPPED_WITHOUT_GOODBYE", "hall", "web1", 1)]
    assert held(*silent, *back) == []
    [alarm] = held(silent[0])
    cleared = event("ALARM_CLEARED", client="hall", alarm=alarm[0], about=alarm[2])
    assert held(silent[0], cleared) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["STORE_FAILED", "STORE_RECOVERED", "START"]), max_size=12))
def test_the_store_fails_if_it_failed_after_it_last_worked(codes: list[str]) -> None:
    told = [code for code in codes if code != "START"]
    assert bool(held(*map(event, codes))) == (told[-1:] == ["STORE_FAILED"])
