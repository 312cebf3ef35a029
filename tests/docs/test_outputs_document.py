"""The document about outputs: every example loads, and every kind, form and word is there."""

import re
from pathlib import Path

import pytest

from needfire_protocol.rc.directives import DIRECTIVES
from needfire_server.outputs.formats import FORMATS
from needfire_server.outputs.settings import TargetKind
from needfire_testkit.rc import server_rc

TEXT = (Path(__file__).parents[2] / "docs/outputs.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: ([a-z]+) -->\n```\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("mail.password", "webhook.key", "relay.password"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text("a secret of more than 24 bytes\n")
    return tmp_path


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_loads_without_a_notice(name: str, secrets: Path) -> None:
    settings = server_rc(EXAMPLES[name].replace("/etc/needfire/", f"{secrets}/"))
    assert len(settings.outputs) == 1
    assert settings.notices == ()


def test_there_is_an_example_for_each_kind_of_target() -> None:
    shown = {re.search(r"OutputTarget = (\S+)", text)[1] for text in EXAMPLES.values()}  # type: ignore[index]
    families = {kind.value.split("-")[0].replace("smtps", "smtp") for kind in TargetKind}
    assert {each.split("-")[0] for each in shown} == families


@pytest.mark.parametrize(
    ("directive", "names"),
    [("OutputFormat", list(FORMATS)), ("OutputTarget", [kind.value for kind in TargetKind])],
)
def test_the_help_of_a_directive_names_all_that_it_takes(directive: str, names: list[str]) -> None:
    words = set(re.findall(r"[a-z-]+", DIRECTIVES[directive.lower()].help))
    assert set(names) <= words


@pytest.mark.parametrize("name", FORMATS)
def test_every_form_is_described(name: str) -> None:
    assert f"`{name}`" in TEXT


def test_every_directive_that_is_named_exists() -> None:
    for name in re.findall(r"\b(?:Open)?Output[A-Z]\w+", TEXT):
        assert name.lower() in DIRECTIVES, name


def test_every_example_is_one_that_the_test_found() -> None:
    assert len(EXAMPLES) == TEXT.count("<!-- example: ") == 10
