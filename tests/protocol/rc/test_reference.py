"""The documents say what the table says."""

import re
from pathlib import Path

import pytest

from needfire_protocol.errors import Problem
from needfire_protocol.rc.directives import DIRECTIVES, Honoured, Inert, Program
from needfire_protocol.rc.reference import GENERATED, with_generated_regions
from needfire_testkit.rc import agent_rc, server_rc

ROOT = Path(__file__).resolve().parents[3]
MANUAL = ROOT / "docs" / "configuration.md"
COMMENTED = {Program.AGENT: ROOT / "etc" / "agentrc", Program.SERVER: ROOT / "etc" / "serverrc"}
_COMMENTED_OUT = re.compile(r"^# (\w+) = (.*)$", re.MULTILINE)


@pytest.mark.parametrize("path", [MANUAL, *COMMENTED.values()], ids=lambda path: path.name)
def test_the_generated_regions_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert with_generated_regions(text) == text, "run scripts/write-configuration-reference"


def test_every_generated_text_stands_in_a_document() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (MANUAL, *COMMENTED.values())]
    for name in GENERATED:
        assert any(f"begin generated: {name}" in text for text in texts)


@pytest.mark.parametrize("program", Program)
def test_the_commented_file_names_every_honoured_directive_with_its_default(
    program: Program,
) -> None:
    text = COMMENTED[program].read_text(encoding="utf-8")
    shown = dict(_COMMENTED_OUT.findall(text))
    for row in DIRECTIVES.values():
        if isinstance(row.treatment(program), Honoured) and row.name != "Client":
            assert shown.pop(row.name) == (row.default or row.example)
    assert shown == {}, "directives that the program does not honour"


def test_the_commented_file_of_the_server_names_client_lines() -> None:
    assert "## Client: " in COMMENTED[Program.SERVER].read_text(encoding="utf-8")


@pytest.mark.parametrize("program", Program)
@pytest.mark.parametrize("is_uncommented", [False, True])
def test_the_commented_file_loads_as_it_is_and_with_every_directive(
    program: Program, is_uncommented: bool
) -> None:
    text = COMMENTED[program].read_text(encoding="utf-8")
    if is_uncommented:
        # No output takes all of the lines of [Outputs]; docs/outputs.md has examples that a test loads.
        head, _, outputs = text.partition("[Outputs]")
        text = _COMMENTED_OUT.sub(r"\1 = \2", head) + f"[Outputs]{outputs}"
    notices = (agent_rc if program is Program.AGENT else server_rc)(text).notices
    # The examples meet what the file says anyway; nothing else deserves a notice.
    expected = (
        {"appears twice", "is used before this line", "no rule stands between"}
        if is_uncommented and program is Program.AGENT
        else set()
    )
    assert {_words_of(notice, expected) for notice in notices} == expected


def _words_of(notice: Problem, expected: set[str]) -> str:
    return next((words for words in expected if words in notice.text), notice.text)


def test_the_manual_names_every_directive() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    for row in DIRECTIVES.values():
        assert f"`{row.name}`" in text
        for treatment in (row.agent, row.server):
            if isinstance(treatment, Inert) and isinstance(row.server, Inert):
                assert isinstance(row.agent, Honoured) or row.agent.reason in text
