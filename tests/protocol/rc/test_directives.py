"""The table of directives: complete, honest, and the only place that must be touched."""

import os
from dataclasses import fields
from typing import Any

import pytest

from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.directives import (
    DIRECTIVES,
    SECTIONS,
    DirectiveRow,
    Honoured,
    Inert,
    Program,
    suggest_directive,
    suggest_section,
)
from needfire_protocol.rc.policies import Policy
from needfire_protocol.srp import make_verifier
from needfire_server.config import ServerSettings
from needfire_testkit.rc import agent_rc, server_rc

HONOURED = [
    pytest.param(program, row, id=f"{program.value}-{row.name}")
    for row in DIRECTIVES.values()
    for program in Program
    if isinstance(row.treatment(program), Honoured)
]
INERT = [
    pytest.param(program, row, id=f"{program.value}-{row.name}")
    for row in DIRECTIVES.values()
    for program in Program
    if isinstance(row.treatment(program), Inert)
]


def settings_of(program: Program, text: str) -> AgentSettings | ServerSettings:
    return agent_rc(text) if program is Program.AGENT else server_rc(text)


def value_of(settings: AgentSettings | ServerSettings, treatment: Honoured) -> Any:
    value = getattr(settings, treatment.field)
    return value if treatment.policy is None else value[treatment.policy]


def example_of(row: DirectiveRow) -> str:
    if row.name == "Client":
        return make_verifier("secret", os.urandom).to_line("web1").removeprefix("Client=")
    return row.example


# Lines of a block mean something in it only; tests/server/outputs/test_blocks.py has them.
BLOCKS = {
    f"server-{row.name}"
    for row in DIRECTIVES.values()
    if getattr(row.treatment(Program.SERVER), "field", None) == "outputs"
}
ALONE = [each for each in HONOURED if each.id not in BLOCKS]


@pytest.mark.parametrize(("program", "row"), ALONE)
def test_an_honoured_directive_changes_its_field(program: Program, row: DirectiveRow) -> None:
    treatment = row.treatment(program)
    assert isinstance(treatment, Honoured)
    untouched = settings_of(program, "")
    for section in row.sections:
        text = f"[{section}]\n{row.name} = {example_of(row)}\n"
        if row.name.startswith("Group"):
            # Of a group that no rule is in, it says so.
            text += "GroupInterval = web 7m\n" * (row.name == "GroupFullInterval")
            text += "[ReadOnly]\n%GROUP web\nfile=/group\n!%GROUP\n"
        changed = settings_of(program, text)
        assert value_of(changed, treatment) != value_of(untouched, treatment)
        assert changed.notices == ()


@pytest.mark.parametrize(("program", "row"), ALONE)
def test_the_default_of_the_table_is_that_of_the_settings(
    program: Program, row: DirectiveRow
) -> None:
    treatment = row.treatment(program)
    assert isinstance(treatment, Honoured)
    untouched = value_of(settings_of(program, ""), treatment)
    if row.default is not None:
        written = settings_of(program, f"[{row.sections[0]}]\n{row.name} = {row.default}\n")
        assert value_of(written, treatment) == untouched
        assert type(value_of(written, treatment)) is type(untouched)
    elif treatment.field != "masks":
        assert untouched in (None, ())


@pytest.mark.parametrize(("program", "row"), INERT)
def test_a_directive_without_effect_is_one_notice_with_its_reason(
    program: Program, row: DirectiveRow
) -> None:
    treatment = row.treatment(program)
    assert isinstance(treatment, Inert)
    [notice] = settings_of(program, f"[{row.sections[0]}]\n{row.name} = whatever\n").notices
    assert (notice.line, notice.text) == (2, f"{row.name} has no effect: {treatment.reason}")


@pytest.mark.parametrize(
    ("program", "settings", "beside"),
    [
        (Program.AGENT, AgentSettings, {"source", "sha256", "notices"}),
        (Program.SERVER, ServerSettings, {"source", "sha256", "notices", "in_force"}),
    ],
)
def test_every_field_of_the_settings_has_its_directive(
    program: Program, settings: type[AgentSettings | ServerSettings], beside: set[str]
) -> None:
    decided = {
        treatment.field
        for row in DIRECTIVES.values()
        if isinstance(treatment := row.treatment(program), Honoured)
    }
    assert {each.name for each in fields(settings)} - decided == beside


def test_every_policy_has_its_directives() -> None:
    for policy in Policy:
        heading = SECTIONS[policy.section]
        assert policy.section in (section.lower() for section in DIRECTIVES["file"].sections)
        assert f"redef{policy.section}" in DIRECTIVES
        assert f"severity{policy.value.lower()}" in DIRECTIVES
        assert heading in DIRECTIVES["dir"].sections


@pytest.mark.parametrize("row", DIRECTIVES.values(), ids=lambda row: row.name)
def test_a_row_is_fit_to_be_shown(row: DirectiveRow) -> None:
    assert row.help
    assert row.sections
    for program in Program:
        treatment = row.treatment(program)
        if isinstance(treatment, Inert):
            assert treatment.reason[-1] not in ".!"
        else:
            assert row.help.endswith("."), "a whole sentence"
            assert row.example or row.name == "Client"
            assert row.example != row.default


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("SetLopTime", "SetLoopTime"),
        ("setfilecheck", "SetFilecheckTime"),
        ("IgnoreAdd", "IgnoreAdded"),
        ("files", "file"),
        ("xyzzy", None),
        ("", None),
        ("é" * 100_000, None),
    ],
)
def test_the_nearest_directive_is_suggested(word: str, meant: str | None) -> None:
    assert suggest_directive(word) == meant


def test_the_nearest_section_is_suggested() -> None:
    assert suggest_section("GrowingLogs") == "GrowingLogFiles"
    assert suggest_section("") is None


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_section_may_be_empty_and_in_any_case(section: str) -> None:
    assert agent_rc(f"[{section.upper()}]\n[{section.title()}]\n").notices == ()
    assert server_rc(f"[{section}]\n").notices == ()
