"""The evidence of some days: what it counts, what it lists, and that its forms show it all."""

import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.event import event_to_json, make_event
from needfire_server.admin import evidence as evidence_module
from needfire_server.admin.evidence import EVERY_CLIENT, Evidence
from needfire_server.admin.evidence_forms import as_html, as_json, as_text
from needfire_testkit.admin_server import AdminServer, run_admin

HOUR_US = 3_600_000_000
SINCE_US = 1_700_000_000_000_000
UNTIL_US = SINCE_US + 168 * HOUR_US


def event(code: str, hours: float, client: str | None = "web1", /, **fields: Any) -> Any:
    made = make_event(
        code, time_us=SINCE_US + int(hours * HOUR_US), random_10_bytes=bytes(10), **fields
    )
    if client is not None:
        made = made.received(client, made.time_us)
    return json.loads(event_to_json(made))


def modified(hours: float, path: str = "/etc/passwd", **fields: Any) -> Any:
    return event("POLICY_MODIFIED", hours, policy="ReadOnly", change="C---", path=path, **fields)


def gathered(*events: Any, names: tuple[str, ...] = ()) -> Evidence:
    evidence = Evidence(SINCE_US, UNTIL_US)
    evidence.add_all(events)
    evidence.finish(names)
    return evidence


def test_changes_of_a_path_are_one_row_with_the_last_word() -> None:
    evidence = gathered(
        modified(1, who_program="/usr/bin/vi", who_user="alice"),
        event("POLICY_MISSING", 3, policy="ReadOnly", path="/etc/passwd"),
    )
    [(path, change)] = evidence.clients["web1"].changes.items()
    assert path == "/etc/passwd"
    assert (change.kind, change.times) == ("missing", 2)
    assert change.first_us == SINCE_US + HOUR_US
    assert change.last_us == SINCE_US + 3 * HOUR_US
    assert change.who == "/usr/bin/vi (alice)"


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
    text = "\n".join(as_text(evidence))
    assert "group rules of no group, checks of it 1, quick ones 0" in text
    assert as_json(evidence)["clients"]["web1"]["groups"]["web"]["last_check"].startswith("2023")


def test_a_check_of_all_rules_is_one_of_each_group() -> None:
    checked = partial(event, "CHECK_COMPLETED", files=5, skipped=0)
    client = gathered(checked(10, groups="web"), checked(90), checked(91, groups="web")).clients[
        "web1"
    ]
    assert client.groups["web"].checks == 2
    assert client.groups["web"].longest_without_check_us == 80 * HOUR_US


def test_groups_alone_are_not_said_to_be_everything() -> None:
    text = "\n".join(as_text(gathered(event("CHECK_COMPLETED", 10, files=5, groups="web"))))
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


def test_a_client_that_nobody_heard_of_is_named_as_never_checked() -> None:
    evidence = gathered(names=("web2",))
    assert evidence.clients["web2"].longest_without_check_us == UNTIL_US - SINCE_US
    assert "nothing shows that files were compared" in "\n".join(as_text(evidence))


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


def test_what_was_not_covered_is_listed_with_its_span() -> None:
    evidence = gathered(
        event("COVERAGE_GAP", 7, reason="queue overflow", scope="/etc", **{"from": "A", "to": "B"})
    )
    [gap] = evidence.clients["web1"].gaps
    assert (gap.scope, gap.since, gap.until) == ("/etc", "A", "B")
    text = "\n".join(as_text(evidence))
    assert "queue overflow" in text
    assert "from A" in text


def test_more_paths_than_are_listed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "PATHS_MAX", 3)
    client = gathered(*(modified(1, f"/f{number}") for number in range(10))).clients["web1"]
    assert (len(client.changes), client.changes_not_listed) == (3, 7)


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
    page.feed("".join(as_html(evidence)))
    assert shown in page.texts
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body"),
        *("h1", "h2", "h3", "p", "table", "tr", "th", "td"),
    }
    for line in as_text(evidence):
        assert line.isprintable() or line == ""
    data = json.loads(json.dumps(as_json(evidence)))
    assert [change["path"] for change in data["clients"]["web1"]["changes"]] == [shown]


async def test_the_verb_reports_from_a_running_server_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    async with AdminServer.running(tmp_path) as server:
        server.service.hooks.record_event(
            "BASELINE_PUT", client="web1", path="/x", hash="sha256:11", user="alice"
        )
        # Its clock stands in 1970.
        since = ("--since", "1970-01-01T00:00:00Z")
        text = await run_admin("report", *since, directory=tmp_path)
        assert text.status == 0, text.err
        assert "Accepted" in text.out
        assert "by alice" in text.out
        data = json.loads((await run_admin("report", *since, "--json", directory=tmp_path)).out)
        assert data["clients"]["web1"]["accepted"][0]["user"] == "alice"
        written = await run_admin("report", *since, "--html", page, directory=tmp_path)
        assert written.status == 0, written.err
        assert "<td>alice</td>" in page.read_text()
        assert page.stat().st_mode & 0o077 == 0
        unknown = await run_admin("report", *since, "--client", "web9", directory=tmp_path)
        assert "the client web9 is not registered" in unknown.err
        assert "nothing shows that files were compared" in unknown.out
        nowhere = await run_admin("report", "--html", "/nowhere/page", directory=tmp_path)
        assert nowhere.status != 0
        assert "/nowhere/page: No such file" in nowhere.err
