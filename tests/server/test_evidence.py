"""The evidence of some days: what it counts, what it lists, and that its forms show it all."""

import json
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.event import event_to_json, format_time, make_event
from needfire_server.admin import evidence as evidence_module
from needfire_server.admin.evidence import EVERY_CLIENT, Evidence, Host
from needfire_server.admin.evidence_forms import Head, as_html, as_json, as_text
from needfire_server.admin.requests import Arguments, Request
from needfire_server.change_text import ChangeText
from needfire_server.states import ClientState, ClientStatus
from needfire_testkit.admin_server import AdminServer, run_admin

HOUR_US = 3_600_000_000
SINCE_US = 1_700_000_000_000_000
UNTIL_US = SINCE_US + 168 * HOUR_US
ALIVE = Host(0, UNTIL_US, "Message", UNTIL_US, is_connected=True)
HEAD = Head("log1", UNTIL_US, "root", 168 * HOUR_US, 4711, "ab" * 32, "note", "log+key")


def event(code: str, hours: float, client: str | None = "web1", /, **fields: Any) -> Any:
    made = make_event(
        code, time_us=SINCE_US + int(hours * HOUR_US), random_10_bytes=bytes(10), **fields
    )
    if client is not None:
        made = made.received(client, made.time_us)
    return json.loads(event_to_json(made))


def modified(hours: float, path: str = "/etc/passwd", **fields: Any) -> Any:
    return event("POLICY_MODIFIED", hours, policy="ReadOnly", change="C---", path=path, **fields)


def reported(code: str, **fields: Any) -> Any:
    """What a client may say: not what the catalogue says that it should."""
    return {**modified(1), "code": code, "fields": fields}


def gathered(
    *events: Any,
    names: tuple[str, ...] = (),
    hosts: dict[str, Host] | None = None,
    before: tuple[Any, ...] = (),
    **options: Any,
) -> Evidence:
    hosts = hosts or dict.fromkeys(names, ALIVE)
    evidence = Evidence(SINCE_US, UNTIL_US, hosts, **options)
    evidence.add_before(before)
    evidence.add_all(events)
    evidence.finish()
    return evidence


def at(hours: float) -> int:
    return SINCE_US + int(hours * HOUR_US)


def shown(hours: float) -> str:
    return format_time(at(hours))


def told(code: str, hours: float, **fields: Any) -> Any:
    """What the server itself says about web1."""
    return event(code, hours, None, client="web1", **fields)


def silent(hours: float, last: float) -> Any:
    return told("STOPPED_WITHOUT_GOODBYE", hours, last=shown(last), silent_s=180)


def dead(last: float) -> Host:
    return Host(None, at(last), "Filecheck", at(last), is_silent=True)


def put(hours: float, *paths: str, user: str = "alice", **fields: Any) -> Any:
    text = ChangeText()
    for path in paths:
        text.add(b"M " + path.encode())
    counted = {"added": 0, "removed": 0, "modified": len(paths), "diff": str(text)}
    fields = {**counted, "diff_left_out": 0, "path": "/x", "hash": "sha256:00", **fields}
    return told("BASELINE_PUT", hours, user=user, request="5f2b", **fields)


def gaps_of(evidence: Evidence) -> list[tuple[str, str | None, str | None, bool]]:
    gaps = evidence.clients["web1"].gaps
    return [(gap.code, gap.since, gap.until, gap.is_open) for gap in gaps]


def test_changes_of_a_path_are_told_one_by_one_and_who_it_was() -> None:
    evidence = gathered(
        modified(1, who_program="/usr/bin/vi", who_user="alice", mode_old="a", mode_new="b"),
        event("POLICY_MISSING", 3, policy="ReadOnly", path="/etc/passwd"),
    )
    [(path, [first, second])] = evidence.clients["web1"].changes.items()
    assert path == "/etc/passwd"
    assert (first.kind, first.what, first.details) == ("modified", "C---", ("mode a -> b",))
    assert (first.first_us, first.who) == (at(1), "/usr/bin/vi (alice)")
    assert (second.kind, second.first_us) == ("missing", at(3))


def test_a_change_that_is_reported_again_is_the_same_change() -> None:
    """After a restart, and by an update: the same path in the same new state."""
    client = gathered(
        modified(1, size_old=1, size_new=2), modified(5, size_old=1, size_new=2), modified(9)
    ).clients["web1"]
    [again, other] = client.changes["/etc/passwd"]
    assert (again.reports, again.first_us, again.last_us) == (2, at(1), at(5))
    assert (other.reports, client.all_changes) == (1, 2)
    text = "\n".join(as_text(gathered(modified(1)), HEAD))
    assert "first 2023-11-14T23:13:20Z, last 2023-11-14T23:13:20Z, reports 1" in text


def test_values_of_a_change_are_bounded() -> None:
    many = {f"x{number}_{when}": when * 500 for number in range(20) for when in ("old", "new")}
    [change] = gathered(modified(1, **many)).clients["web1"].changes["/etc/passwd"]
    assert len(change.details) == 13
    assert max(map(len, change.details)) < 220


def test_a_path_that_changes_all_the_time_leaves_room_for_others() -> None:
    client = gathered(*(modified(1, size_old=0, size_new=each) for each in range(1, 13))).clients[
        "web1"
    ]
    assert (len(client.changes["/etc/passwd"]), client.changes_not_listed) == (10, 2)
    assert client.changes["/etc/passwd"][-1].details == ("size 0 -> 12",)


# ---- what accepts a change ----------------------------------------------------------------------


def accepted(*events: Any, **options: Any) -> tuple[str | None, bool]:
    [change] = gathered(*events, **options).clients["web1"].changes["/etc/passwd"]
    return (change.accepted.user if change.accepted else None), change.is_named


def test_the_first_baseline_that_names_the_path_accepts_its_change() -> None:
    puts = (put(2, "/etc/shadow", user="eve"), put(3, "/etc/passwd", user="bob"), put(4, "/x"))
    assert accepted(modified(1), *puts) == ("bob", True)
    assert accepted(modified(1), modified(5), *puts) == ("bob", True)


def test_a_baseline_of_before_or_about_other_paths_accepts_nothing() -> None:
    assert accepted(modified(3), put(2, "/etc/passwd")) == (None, False)
    assert accepted(modified(1), put(2, "/etc/shadow")) == (None, False)
    assert accepted(modified(1), put(2)) == (None, False)
    other = put(2, "/etc/passwd")
    other["fields"]["client"] = "web2"
    assert accepted(modified(1), other) == (None, False)


def test_a_baseline_that_does_not_name_everything_accepts_by_its_time() -> None:
    assert accepted(modified(1), put(2, "/a", diff_left_out=9)) == ("alice", False)
    assert accepted(modified(1), modified(3), put(2, "/a", diff_left_out=9)) == (None, False)
    unknown: dict[str, Any] = {"added": None, "removed": None, "modified": None, "diff": None}
    assert accepted(modified(1), put(2, not_compared="damaged", **unknown)) == ("alice", False)


def test_no_file_name_accepts_the_change_of_another_file() -> None:
    assert accepted(modified(1), put(2, "/srv/x\nM /etc/passwd")) == (None, False)


def test_a_very_long_path_that_the_baseline_cuts_is_accepted_by_time() -> None:
    assert accepted(modified(1), put(2, "/" + "a" * 500)) == ("alice", False)


def test_a_baseline_for_all_and_one_after_the_span_accept_as_well() -> None:
    for_all = put(2, "/etc/passwd")
    for_all["fields"]["client"] = None
    assert accepted(modified(1), for_all) == ("alice", True)
    later = gathered(modified(1), put(170, "/etc/passwd"), is_now=False)
    [change] = later.clients["web1"].changes["/etc/passwd"]
    assert change.accepted is not None
    assert later.clients["web1"].accepted == []


def test_the_report_says_what_accepted_a_change_and_by_which_rule() -> None:
    evidence = gathered(modified(1), modified(1, "/b"), put(2, "/etc/passwd", proposal=3))
    text = "\n".join(as_text(evidence, HEAD))
    assert "accepted 2023-11-15T00:13:20Z by alice proposal 3 request 5f2b +0 -0 ~1" in text
    assert ", reports 1, not accepted" in text
    assert "A change counts as accepted by the first baseline" in text
    web1 = as_json(evidence, HEAD)["clients"]["web1"]
    assert (web1["changes_count"], web1["changes_not_accepted"]) == (2, 1)
    by_path = {change["path"]: change["accepted"] for change in web1["changes"]}
    assert by_path["/b"] is None
    assert by_path["/etc/passwd"]["proposal"] == "3"


# ---- absences -----------------------------------------------------------------------------------


def test_a_dead_agent_is_not_covered_from_its_last_sign_of_life_until_now() -> None:
    evidence = gathered(silent(100.05, 100), hosts={"web1": dead(100)})
    assert gaps_of(evidence) == [("STOPPED_WITHOUT_GOODBYE", shown(100), None, True)]
    assert f"from {shown(100)}, to now, still" in "\n".join(as_text(evidence, HEAD))


def test_one_that_died_before_the_span_is_in_it_all_the_same() -> None:
    before = (silent(-50, -51),)
    assert gaps_of(gathered(before=before, hosts={"web1": dead(-51)})) == [
        ("STOPPED_WITHOUT_GOODBYE", shown(-51), None, True)
    ]
    assert gaps_of(gathered(hosts={"web1": dead(-51)})) == [
        ("STOPPED_WITHOUT_GOODBYE", shown(-51), None, True)
    ]


def test_both_alarms_of_one_silence_are_one_gap_until_it_returns() -> None:
    evidence = gathered(
        silent(10, 9),
        told("TIME_EXCEEDED", 33, last=shown(9), limit_s=86_400),
        told("CLIENT_RETURNED", 40),
        names=("web1",),
    )
    assert gaps_of(evidence) == [("STOPPED_WITHOUT_GOODBYE", shown(9), shown(40), False)]


def test_a_suspension_has_a_beginning_and_an_end_or_lasts() -> None:
    evidence = gathered(event("SUSPEND", 10), event("WAKEUP", 12), names=("web1",))
    assert gaps_of(evidence) == [("SUSPEND", shown(10), shown(12), False)]
    paused = Host(0, at(10), "Suspended", at(10))
    assert gaps_of(gathered(event("SUSPEND", 10), hosts={"web1": paused})) == [
        ("SUSPEND", shown(10), None, True)
    ]


def test_an_agent_that_was_stopped_is_not_covered_until_it_starts() -> None:
    evidence = gathered(event("EXIT", 10), event("START", 11), names=("web1",))
    assert gaps_of(evidence) == [("EXIT", shown(10), shown(11), False)]


def test_after_a_check_by_hand_the_agent_that_wakes_up_watches_again() -> None:
    by_hand = [event("START", 11), event("CHECK_COMPLETED", 12), event("EXIT", 13)]
    evidence = gathered(event("SUSPEND", 10), *by_hand, event("WAKEUP", 14), names=("web1",))
    assert gaps_of(evidence) == [
        ("SUSPEND", shown(10), shown(11), False),
        ("EXIT", shown(13), shown(14), False),
    ]


def test_the_watch_of_another_agent_shows_that_an_exit_was_not_its_own() -> None:
    by_hand = [event("START", 10), event("EXIT", 11), event("CHECK_COMPLETED", 12, watcher="off")]
    watched = event("CHECK_COMPLETED", 13, watcher="fanotify", files=1, skipped=0)
    evidence = gathered(*by_hand, watched, event("SUSPEND", 20), names=("web1",), is_now=False)
    assert gaps_of(evidence) == [
        ("EXIT", shown(11), shown(13), False),
        ("SUSPEND", shown(20), None, True),
    ]


def test_a_client_that_was_never_heard_is_not_covered_since_its_registration() -> None:
    evidence = gathered(hosts={"web1": Host(at(160))})
    assert gaps_of(evidence) == [("NEVER_SEEN", shown(160), None, True)]
    assert evidence.clients["web1"].longest_without_check_us == 8 * HOUR_US


def test_one_that_is_away_without_an_alarm_is_told_too() -> None:
    away = Host(0, at(100), "Filecheck", at(100))
    assert gaps_of(gathered(hosts={"web1": away})) == [("NOT_HEARD", shown(100), None, True)]


def test_no_client_can_end_or_begin_the_silence_of_another() -> None:
    evidence = gathered(
        silent(10, 9),
        event("CLIENT_RETURNED", 12, "evil", client="web1"),
        event("STOPPED_WITHOUT_GOODBYE", 12, "evil", client="web2", last=shown(1)),
        hosts={"web1": dead(9), "web2": ALIVE, "evil": ALIVE},
    )
    assert gaps_of(evidence) == [("STOPPED_WITHOUT_GOODBYE", shown(9), None, True)]
    assert evidence.clients["web2"].gaps == evidence.clients["evil"].gaps == []


def test_what_only_the_server_can_know_is_not_taken_from_a_client() -> None:
    """Nor the other way round: that the server ended says nothing of its clients."""
    evidence = gathered(
        silent(10, 9),
        event("CLIENT_RETURNED", 12, client="web1"),
        told("WAKEUP", 13),
        names=("web1",),
        is_now=False,
    )
    assert gaps_of(evidence) == [("STOPPED_WITHOUT_GOODBYE", shown(9), None, True)]


def test_in_a_past_week_what_the_events_say_holds_at_its_end() -> None:
    evidence = gathered(
        silent(100, 99),
        silent(200, 199),
        told("CLIENT_RETURNED", 190),
        names=("web1",),
        is_now=False,
    )
    assert gaps_of(evidence) == [("STOPPED_WITHOUT_GOODBYE", shown(99), None, True)]
    assert "to the end, still" in "\n".join(as_text(evidence, HEAD))


# ---- checks -------------------------------------------------------------------------------------


def test_a_client_younger_than_the_span_is_measured_from_its_registration() -> None:
    young = Host(at(100), UNTIL_US, "Message", UNTIL_US, is_connected=True)
    check = event("CHECK_COMPLETED", 110, files=1, skipped=0)
    client = gathered(check, hosts={"web1": young}).clients["web1"]
    assert client.longest_without_check_us == 58 * HOUR_US
    early = gathered(event("CHECK_COMPLETED", 130, files=1), hosts={"web1": young})
    assert early.clients["web1"].longest_without_check_us == 38 * HOUR_US


def test_a_new_password_makes_no_client_young() -> None:
    young = Host(at(100), UNTIL_US, "Message", UNTIL_US, is_connected=True)
    evidence = gathered(hosts={"web1": young}, before=(event("START", -20),))
    assert evidence.clients["web1"].longest_without_check_us == 168 * HOUR_US


def test_each_host_has_its_verdict_in_a_summary() -> None:
    evidence = gathered(
        *(event("CHECK_COMPLETED", hours, files=1) for hours in (20, 100, 150)),
        names=("web1", "web2"),
    )
    head = replace(HEAD, interval_us=80 * HOUR_US)
    lines = list(as_text(evidence, head))
    assert any(line.split()[:2] == ["web1", "yes,"] for line in lines)
    assert any(line.split()[:2] == ["web2", "NO,"] for line in lines)
    strict = replace(HEAD, interval_us=79 * HOUR_US)
    web1 = as_json(evidence, strict)["clients"]["web1"]
    assert web1["is_checked_often_enough"] is False


def test_the_report_says_whose_it_is_and_what_of_the_audit_log_is_signed() -> None:
    for form in ("\n".join(as_text(gathered(), HEAD)), "".join(as_html(gathered(), HEAD))):
        assert "log1" in form
        assert "by root" in form
        assert f"4711 records, root hash {'ab' * 32}" in form
        assert "audit verify" in form
    unsigned = replace(HEAD, size=0)
    assert "nothing of it is signed" in "\n".join(as_text(gathered(), unsigned))


def test_the_longest_time_without_a_check_counts_both_ends() -> None:
    check = {"files": 10, "skipped": 2}
    evidence = gathered(
        event("CHECK_COMPLETED", 100, **check), event("CHECK_COMPLETED", 120, **check)
    )
    client = evidence.clients["web1"]
    assert (client.checks, client.files, client.unseen) == (2, 10, 2)
    assert client.longest_without_check_us == 100 * HOUR_US
    assert (
        gathered(event("CHECK_COMPLETED", 10, **check)).clients["web1"].longest_without_check_us
        == 158 * HOUR_US
    )


def test_a_check_of_a_group_is_none_of_all_rules() -> None:
    """Else a directory that is checked each minute would hide that nothing else is."""
    checked = partial(event, "CHECK_COMPLETED", files=5, skipped=0)
    evidence = gathered(
        checked(10),
        checked(30, groups="- web", quick_groups="web"),
        checked(100, groups="web"),
    )
    client = evidence.clients["web1"]
    assert (client.checks, client.quick_checks) == (1, 0)
    assert client.longest_without_check_us == 158 * HOUR_US
    web, others = client.groups["web"], client.groups["-"]
    assert (web.checks, web.quick_checks) == (2, 1)
    assert web.last_check_us == SINCE_US + 100 * HOUR_US
    assert web.longest_without_check_us == 70 * HOUR_US
    assert others.longest_without_check_us == 138 * HOUR_US
    text = "\n".join(as_text(evidence, HEAD))
    assert "    rules of no group\n      checks of it 1, quick ones 0" in text
    assert as_json(evidence, HEAD)["clients"]["web1"]["groups"]["web"]["last_check"].startswith(
        "2023"
    )


def test_a_check_of_all_rules_is_one_of_each_group() -> None:
    checked = partial(event, "CHECK_COMPLETED", files=5, skipped=0)
    client = gathered(checked(10, groups="web"), checked(90), checked(91, groups="web")).clients[
        "web1"
    ]
    assert client.groups["web"].checks == 2
    assert client.groups["web"].longest_without_check_us == 80 * HOUR_US


def test_groups_alone_are_not_said_to_be_everything() -> None:
    text = "\n".join(as_text(gathered(event("CHECK_COMPLETED", 10, files=5, groups="web")), HEAD))
    assert "none of all rules, only of the groups below" in text


def test_more_groups_than_are_listed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "_GROUPS_MAX", 2)
    client = gathered(event("CHECK_COMPLETED", 10, files=5, groups="a b c")).clients["web1"]
    assert (len(client.groups), client.groups_not_listed) == (2, 1)


def test_a_quick_check_is_counted_as_one() -> None:
    client = gathered(event("CHECK_COMPLETED", 10, files=5, quick_groups="-")).clients["web1"]
    assert (client.checks, client.quick_checks) == (1, 1)


def test_an_init_compares_nothing_and_is_no_check() -> None:
    client = gathered(event("CHECK_COMPLETED", 10, files=5, mode="init"), names=("web1",)).clients[
        "web1"
    ]
    assert client.checks == 0
    assert client.longest_without_check_us == 168 * HOUR_US


def test_a_row_of_the_text_begins_with_what_it_is_about() -> None:
    evidence = gathered(modified(1, size_old=1, size_new=2), put(2, "/etc/passwd"))
    lines = list(as_text(evidence, HEAD))
    begin = lines.index("  Changes:")
    assert lines[begin + 1] == "    modified  /etc/passwd"
    assert lines[begin + 2].endswith("size 1 -> 2")
    assert lines[begin + 3].startswith("      severity crit, first ")
    assert lines[lines.index("  Accepted:") + 1] == f"    {shown(2)[:19]}Z  baseline"


def test_what_was_accepted_and_not_covered_is_listed_by_its_time() -> None:
    evidence = gathered(
        put(3, "/b"),
        told("CONFIGURATION_PUT", 2, user="alice", hash="sha256:00"),
        event("COVERAGE_GAP", 5, reason="x"),
        silent(4, 4),
    )
    assert [each.what for each in evidence.clients["web1"].accepted] == [
        "configuration",
        "baseline",
    ]
    assert [gap.code for gap in evidence.clients["web1"].gaps] == [
        "STOPPED_WITHOUT_GOODBYE",
        "COVERAGE_GAP",
    ]


def test_a_client_that_nobody_heard_of_is_named_as_never_checked() -> None:
    evidence = gathered(names=("web2",))
    assert evidence.clients["web2"].longest_without_check_us == UNTIL_US - SINCE_US
    assert "nothing shows that files were compared" in "\n".join(as_text(evidence, HEAD))


def test_files_put_in_place_say_who_accepted_them() -> None:
    own = {"path": "/x", "hash": "sha256:00", "user": "alice"}
    evidence = gathered(
        event("BASELINE_PUT", 5, None, client="web1", **own),
        event("CONFIGURATION_PUT", 6, None, client=None, **own),
    )
    [accepted] = evidence.clients["web1"].accepted
    assert (accepted.what, accepted.user, accepted.digest) == ("baseline", "alice", "sha256:00")
    [for_all] = evidence.clients[EVERY_CLIENT].accepted
    assert for_all.what == "configuration"
    assert EVERY_CLIENT in evidence.clients


def test_a_scan_that_stood_still_left_its_place_uncovered() -> None:
    evidence = gathered(event("SCAN_STANDS_STILL", 7, path="/srv", since="A"))
    [gap] = evidence.clients["web1"].gaps
    assert (gap.code, gap.scope, gap.since) == ("SCAN_STANDS_STILL", "/srv", "A")


def test_what_was_not_covered_is_listed_with_its_span() -> None:
    evidence = gathered(
        event("COVERAGE_GAP", 7, reason="queue overflow", scope="/etc", **{"from": "A", "to": "B"})
    )
    [gap] = evidence.clients["web1"].gaps
    assert (gap.scope, gap.since, gap.until) == ("/etc", "A", "B")
    text = "\n".join(as_text(evidence, HEAD))
    assert "queue overflow" in text
    assert "from A" in text


def test_more_paths_than_are_listed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "CHANGES_MAX", 3)
    client = gathered(*(modified(1, f"/f{number}") for number in range(10))).clients["web1"]
    assert (len(client.changes), client.changes_not_listed) == (3, 7)


def test_what_one_client_makes_up_takes_no_room_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_module, "CHANGES_OF_CLIENT_MAX", 3)
    many = [modified(1, f"/f{number}") for number in range(4)]
    other = json.loads(json.dumps(modified(2)).replace("web1", "web2"))
    evidence = gathered(*many, other)
    assert evidence.clients["web1"].changes_not_listed == 1
    assert list(evidence.clients["web2"].changes) == ["/etc/passwd"]


def test_no_client_accepts_anything_in_the_name_of_an_administrator() -> None:
    put = {"user": "root", "hash": "sha256:0", "path": "file.web1"}
    evidence = gathered(modified(1), event("BASELINE_PUT", 2, **put))
    assert evidence.clients["web1"].unaccepted == 1
    assert not evidence.clients["web1"].accepted


@pytest.mark.parametrize(
    "odd",
    [
        reported("POLICY_MODIFIED", policy="ReadOnly"),
        reported("POLICY_MODIFIED", path=5),
        reported("POLICY_MISSING", path=None),
        reported("CHECK_COMPLETED", files="abc"),
        reported("CHECK_COMPLETED", files=1, skipped="many"),
        reported("BASELINE_PUT"),
    ],
)
def test_no_report_of_a_client_keeps_the_evidence_from_anybody(odd: Any) -> None:
    evidence = gathered(odd, modified(2), reported("COVERAGE_GAP", scope=7, **{"from": 1}))
    client = evidence.clients["web1"]
    assert list(client.changes) == ["/etc/passwd"]
    assert client.checks == 0
    told = [gap.text for gap in client.gaps if gap.code == "REPORTS_MALFORMED"]
    assert len(told) == (odd["code"] != "BASELINE_PUT")
    for text in (
        *as_text(evidence, HEAD),
        *as_html(evidence, HEAD),
        json.dumps(as_json(evidence, HEAD)),
    ):
        assert isinstance(text, str)


def test_what_is_no_event_is_an_error_and_not_left_out() -> None:
    with pytest.raises(FormatError, match="not as expected"):
        gathered({"code": "POLICY_ADDED"})


class _Cells(HTMLParser):
    """What a reader of the page sees, and which elements it has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(min_size=1, max_size=60))
def test_whatever_a_file_is_called_it_stays_text_in_every_form(path: str) -> None:
    evidence = gathered(modified(1, path))
    shown = next(iter(evidence.clients["web1"].changes))
    page = _Cells()
    page.feed("".join(as_html(evidence, HEAD)))
    assert shown in page.texts
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body"),
        *("h1", "h2", "h3", "p", "table", "tr", "th", "td"),
    }
    for line in as_text(evidence, HEAD):
        assert line.isprintable() or line == ""
    data = json.loads(json.dumps(as_json(evidence, HEAD)))
    assert [change["path"] for change in data["clients"]["web1"]["changes"]] == [shown]


async def test_the_verb_reports_from_a_running_server_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    async with AdminServer.running(tmp_path) as server:
        server.service.hooks.record_event(
            "BASELINE_PUT", client="web1", path="/x", hash="sha256:11", user="alice"
        )
        # Its clock stands in 1970.
        since = ("--since", "1970-01-01T00:00:00Z")
        server.states["web1"] = ClientState(
            "web1", ClientStatus.FILECHECK, last_seen_us=60_000_000, is_overdue=True
        )
        salt = {"salt": "11" * 16, "verifier": f"{5:0768x}"}
        arguments = Arguments({"name": "web1", **salt})
        await server.service.handle(Request("register", arguments), user="root")
        text = await run_admin("report", *since, directory=tmp_path)
        assert text.status == 0, text.err
        assert "Accepted" in text.out
        assert "by alice" in text.out
        assert "from 1970-01-01T00:01:00.000000Z, to now, still" in text.out
        data = json.loads((await run_admin("report", *since, "--json", directory=tmp_path)).out)
        assert data["clients"]["web1"]["accepted"][0]["user"] == "alice"
        written = await run_admin("report", *since, "--html", page, directory=tmp_path)
        assert written.status == 0, written.err
        assert "<td>alice</td>" in page.read_text()
        assert page.stat().st_mode & 0o077 == 0
        assert "audit verify" in text.out
        unknown = await run_admin("report", *since, "--client", "web9", directory=tmp_path)
        assert unknown.status == 2
        assert "the client web9 is not registered; did you mean web1?" in unknown.err
        out = await run_admin("report", *since, "--html", "-", directory=tmp_path)
        assert out.out.startswith("<!DOCTYPE html>")
        both = await run_admin("report", "--html", "-", "--json", directory=tmp_path)
        assert "give one of --html and --json" in both.err
        for span in (("--since", "2h", "--until", "3h"), ("--since", "9999-01-01T00:00:00Z")):
            assert (await run_admin("report", *span, directory=tmp_path)).status == 2
        nowhere = await run_admin("report", "--html", "/nowhere/page", directory=tmp_path)
        assert nowhere.status != 0
        assert "/nowhere/page: No such file" in nowhere.err
