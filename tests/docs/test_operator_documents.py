"""The documents for operators cannot lie: what they list is compared with the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import click
import pytest

from needfire_protocol.catalogue import CATALOGUE, Entry
from needfire_protocol.exit_status import MEANINGS, ExitStatus
from needfire_server.admin.cli import cli as admin_cli
from needfire_server.server_user import USERS
from needfire_server.states import ClientStatus

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
OPERATE = (ROOT / "docs/operate.md").read_text()
TROUBLESHOOT = (ROOT / "docs/troubleshoot.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)

CONTRACT = {
    1: ("Connection refused",),
    2: (
        "Connection error: Connection reset by peer",
        "Session key negotiation failed",
        "Refused connection from",
        'subroutine="libwrap"',
    ),
    3: ("Session key negotiation failed", "Invalid connection attempt: Session key mismatch"),
    4: ("Session key negotiation failed", "Invalid connection attempt: Not in client list"),
    5: ("SeverityLookup", "RequireLookup=yes", "SetClientFromAccept"),
    6: ("File download failed", "File not accessible"),
    7: ("Invalid connection state", "Invalid connection attempt: Signature mismatch", "SIGUSR2"),
    8: ("Restart without prior exit", "ILLEGAL"),
}
"""What people search for, by the number of the documented state (spec/error-states.md)."""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _section(state: int) -> str:
    """Return what troubleshoot.md says about a documented state."""
    found = re.search(rf"^## State {state}\b.*?(?=^## |\Z)", TROUBLESHOOT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"there is no section for state {state}"
    return _flat(found[0])


def _literal(entry: Entry) -> str:
    """Return the longest part of an entry's text that is always the same."""
    return max((text for text, _, _, _ in Formatter().parse(entry.msg)), key=len).strip()


# ---- exit statuses --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ExitStatus)
def test_every_exit_status_stands_with_its_meaning(status: ExitStatus) -> None:
    assert f"| {status.value} | {MEANINGS[status]} |" in OPERATE.splitlines()


def test_no_other_exit_status_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \|", OPERATE, re.MULTILINE)

    assert [int(number) for number in listed] == [status.value for status in ExitStatus]


# ---- documented states ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", [e for e in CATALOGUE.values() if e.state is not None], ids=lambda entry: entry.code
)
def test_every_text_of_a_state_stands_in_its_section(entry: Entry) -> None:
    assert entry.state is not None
    assert _literal(entry) in _section(entry.state)


@pytest.mark.parametrize("state", CONTRACT)
def test_the_words_that_people_search_for_stand_in_their_section(state: int) -> None:
    for text in CONTRACT[state]:
        assert text in _section(state)


@pytest.mark.parametrize("state", CONTRACT)
def test_every_state_says_why_and_what_to_do(state: int) -> None:
    assert "**Why.**" in _section(state)
    assert "**What to do.**" in _section(state)
    assert f"(#state-{state})" in TROUBLESHOOT, "the table at the top leads to it"


@pytest.mark.parametrize(
    "code",
    [
        *("TIME_EXCEEDED", "CLIENT_RETURNED", "SPOOL_FULL", "SERVICE_FAILURE", "STORE_FAILED"),
        *("STORE_RECOVERED", "CONNECTION_REESTABLISHED", "SEQUENCE_GAP", "MSG_SIGNATURE_MISMATCH"),
        *("LOG_FAILED", "LOG_SUPPRESSED", "ADMIN_REFUSED", "PROTOCOL_ERROR", "NO_FILE_FROM_SERVER"),
    ],
)
def test_other_troubles_stand_there_as_well(code: str) -> None:
    assert _literal(CATALOGUE[code]) in _flat(TROUBLESHOOT)


# ---- operating --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ClientStatus)
def test_every_status_of_a_client_is_explained(status: ClientStatus) -> None:
    assert f"| `{status.value}` |" in OPERATE


def test_the_users_that_the_server_becomes_are_named_in_their_order() -> None:
    install = (ROOT / "docs/install.md").read_text()

    assert ", ".join(f"`{user}`" for user in USERS) in install


def _verbs(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _verbs(command, f"{prefix}{name} ")
        else:
            yield prefix + name


@pytest.mark.parametrize("verb", list(_verbs(admin_cli)))
def test_every_verb_of_the_admin_tool_is_mentioned(verb: str) -> None:
    texts = _flat(OPERATE + (ROOT / "docs/install.md").read_text())

    assert f"needfire-admin {verb}" in texts or f"`{verb}" in texts


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_exist(path: Path) -> None:
    agent_verbs = {"run", "init", "check", "update", "set-password", "enroll", "check-config"}
    known = {
        "needfire-agent": agent_verbs | {"doctor", "explain"},
        "needfire-server": {"serve", "check-config", "explain"},
        "needfire-admin": set(admin_cli.commands),
    }
    for code in _CODE.findall(path.read_text()):
        for program, verb in re.findall(r"(needfire-(?:agent|server|admin)) ([a-z][a-z-]*)", code):
            assert verb in known[program], f"{path.name}: {program} {verb}"


def test_rules_that_an_example_quotes_stand_on_these_lines() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    quoted = re.findall(r"(etc/rc\.\w+):(\d+) \(([^)]+)\)", text)

    assert quoted
    for name, line, rule in quoted:
        written = (ROOT / name).read_text().splitlines()[int(line) - 1]
        assert written.replace(" ", "") == rule


# ---- security ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "Root on a watched host can stop the agent, or lie",
        "not computed in constant time throughout",
        "pose as *the server*",
        "guess a weak password",
        "Who can write the baseline",
        "Traffic analysis is not prevented",
        "`RequireLookup=yes` is as strong as your name service",
    ],
)
def test_what_is_not_guaranteed_is_said(words: str) -> None:
    assert words in _flat(SECURITY.partition("## What is not guaranteed")[2])


def test_guarantees_are_numbered_without_gaps() -> None:
    numbers = re.findall(r"^\*\*(\d+)\. ", SECURITY, re.MULTILINE)

    assert [int(number) for number in numbers] == list(range(1, len(numbers) + 1))


# ---- links -----------------------------------------------------------------------------------


def _links(path: Path) -> list[str]:
    text = _CODE.sub("", path.read_text())
    return [link for link in _LINK.findall(text) if "://" not in link]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for link in _links(path):
        target = link.partition("#")[0]
        assert (path.parent / target).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_heading_leads_somewhere(path: Path) -> None:
    for link in _links(path):
        target, _, anchor = link.partition("#")
        if anchor:
            document = path.parent / target if target else path
            assert anchor in _anchors(document), f"{path.name}: {link}"


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document as the usual renderers make them."""
    text = path.read_text()
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))
