"""The status page: Yule's form, nothing of a name becomes HTML, and never half a page on the disk."""

import html.parser
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from needfire_server.states import ClientState, ClientStatus
from needfire_server.status_page import DEFAULT_TEMPLATES, Head, Row, Templates, render, rows_of
from needfire_server.status_page_file import TEMPLATE_BYTES_MAX, load_templates, write_page
from needfire_server.status_pages import StatusPages
from needfire_server.storage.base import ClientConnection
from needfire_testkit.live_server import NAME, LiveServer, live_server

S = 1_000_000
HEAD = Head(1_800_000_000 * S, 1_700_000_000 * S, None, 3, 45, 1000)


class Tags(html.parser.HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.comments: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def test_each_client_has_its_latest_events_newest_first_and_one_present_status() -> None:
    states = {
        "web1": ClientState(
            "web1",
            ClientStatus.POLICY,
            last_seen_us=30 * S,
            latest={
                ClientStatus.STARTED: 10 * S,
                ClientStatus.POLICY: 30 * S,
                ClientStatus.FILECHECK: 20 * S,
            },
        )
    }
    rows = rows_of(["web1", "web2"], states, 5 * S, {"web1": "log1:49777"})
    assert [(row.client, row.status, row.time_us // S, row.is_present) for row in rows] == [
        ("web1", "POLICY", 30, True),
        ("web1", "Filecheck", 20, False),
        ("web1", "Started", 10, False),
        ("web2", "Inactive", 5, True),
    ]
    comments = Tags(render(DEFAULT_TEMPLATES, HEAD, rows)).comments
    assert comments == [
        " [STATUS:] web1 POLICY 1970-01-01T00:00:30+0000 ",
        " [STATUS:] web2 Inactive 1970-01-01T00:00:05+0000 ",
    ]


def test_a_dead_client_is_shown_as_dead_and_not_as_what_it_did_last() -> None:
    latest = {ClientStatus.FILECHECK: 30 * S}
    states = {
        "web1": ClientState("web1", ClientStatus.FILECHECK, last_seen_us=40 * S, latest=latest)
    }
    rows = rows_of(["web1", "web2"], states, 5 * S, {}, {"web1", "web2"})
    assert [(row.client, row.status, row.time_us // S, row.is_present) for row in rows] == [
        ("web1", "TIMEOUT_EXCEEDED", 40, True),
        ("web1", "Filecheck", 30, False),
        ("web2", "Inactive", 5, True),
    ]


def test_the_places_of_yules_templates_are_filled_in() -> None:
    templates = Templates("%T|%S|%L|%O|%A|%M|100% |%Z|%", "%H %S %T 5% \n", "end")
    assert render(templates, HEAD, [Row("web1", "Started", 0, False)]) == (
        "2027-01-15T08:00:00+0000|2023-11-14T22:13:20+0000|-|3|45|1000|100%|%Z|%"
        "web1 Started 1970-01-01T00:00:00+0000 5%\nend"
    )


@given(st.text(st.sampled_from("<>&\"'-!/% TSHab=;"), max_size=40) | st.text(max_size=20))
@example("<script>alert(1)</script>")
@example("--><b>")
@example("--!><b>")
def test_no_value_becomes_html(name: str) -> None:
    row = Row(name, "Started", 0, True)
    harmless = Tags(render(DEFAULT_TEMPLATES, HEAD, [Row("x", "Started", 0, True)]))
    page = Tags(render(DEFAULT_TEMPLATES, HEAD, [row]))
    assert page.tags == harmless.tags
    assert len(page.comments) == 1


def test_a_value_is_not_taken_for_a_place() -> None:
    page = render(Templates("", "%H", ""), HEAD, [Row("%T", "x", 0, False)])
    assert page == "%T"


def test_a_page_is_replaced_whole_and_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, page = tmp_path / "victim", tmp_path / "status.html"
    victim.write_text("precious")
    page.symlink_to(victim)
    (tmp_path / "status.html.new").symlink_to(victim)
    write_page(str(page), "<p>new")
    assert victim.read_text() == "precious"
    assert page.read_text() == "<p>new"
    assert not page.is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert {each.name for each in tmp_path.iterdir()} == {"victim", "status.html"}


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "status.html"
    page.mkdir()
    with pytest.raises(OSError):
        write_page(str(page), "text")
    assert [each.name for each in tmp_path.iterdir()] == ["status.html"]


@pytest.mark.parametrize(
    ("size", "is_taken"),
    [
        (TEMPLATE_BYTES_MAX - 1, True),
        (TEMPLATE_BYTES_MAX, True),
        (TEMPLATE_BYTES_MAX + 1, False),
    ],
)
def test_templates_of_the_data_directory_win_and_are_bounded(
    tmp_path: Path, size: int, is_taken: bool
) -> None:
    (tmp_path / "entry.html").write_text("e" * size)
    if is_taken:
        templates = load_templates(str(tmp_path))
        assert templates == Templates(DEFAULT_TEMPLATES.head, "e" * size, DEFAULT_TEMPLATES.foot)
    else:
        with pytest.raises(OSError, match="more than"):
            load_templates(str(tmp_path))


def test_a_template_that_is_a_pipe_does_not_stop_the_server(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "head.html")
    with pytest.raises(OSError, match="regular"):
        load_templates(str(tmp_path))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    async with live_server(tmp_path / "data") as live:
        yield live


class Steady:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_the_page_follows_what_happens_and_is_empty_in_the_end(
    server: LiveServer, tmp_path: Path
) -> None:
    page, steady = tmp_path / "status.html", Steady()
    server.configure(html_status_file=str(page))
    pages = StatusPages(server.runtime, server.listener, str(server.directory), _nobody, steady)
    await pages.refresh()
    assert f"[STATUS:] {NAME} Inactive" in page.read_text()
    first = page.stat().st_ino
    await pages.refresh()
    assert page.stat().st_ino == first, "nothing changed, so nothing was written"
    await server.log_in()
    steady.now_s += 30
    await pages.refresh()
    assert f"[STATUS:] {NAME} Started" in page.read_text()
    assert re.search(r"now 1, total 1", page.read_text())
    await pages.end()
    assert page.read_text() == ""


async def test_a_page_that_cannot_be_written_is_reported_once(
    server: LiveServer, tmp_path: Path
) -> None:
    steady = Steady()
    server.configure(html_status_file=str(tmp_path / "missing" / "status.html"))
    pages = StatusPages(server.runtime, server.listener, str(server.directory), _nobody, steady)
    for _ in range(3):
        steady.now_s += 100
        await pages.refresh()
    assert server.codes().count("STATUS_PAGE_FAILED") == 1
    (tmp_path / "missing").mkdir()
    steady.now_s += 100
    await pages.refresh()
    assert (tmp_path / "missing" / "status.html").exists()


async def _nobody() -> dict[str, ClientConnection]:
    return {}
