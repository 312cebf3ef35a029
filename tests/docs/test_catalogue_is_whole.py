"""Every word that the programs report stands in the catalogue, and every entry there can be raised."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

from needfire_protocol.catalogue import CATALOGUE, Entry
from needfire_protocol.catalogue_page import events_page

ROOT = Path(__file__).parents[2]
PRODUCT = [
    path
    for name in ("protocol/needfire_protocol", "client/needfire_client", "server/needfire_server")
    for path in sorted((ROOT / name).rglob("*.py"))
]
REAL_PATHS = [
    path
    for name in ("client", "server", "e2e")
    for path in sorted((ROOT / "tests" / name).rglob("*.py"))
]
"""Tests of the programs. Those of the protocol make every event by hand, which shows nothing."""
MAKERS = {"make_event", "Event", "report", "report_fields", "record", "event"}
"""What a test calls to make an event itself."""
PLANNED = [entry for entry in CATALOGUE.values() if entry.is_planned]
RAISED = [entry for entry in CATALOGUE.values() if not entry.is_planned]


def called(call: ast.Call) -> str:
    name = call.func
    return name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")


def texts(node: ast.AST) -> Iterator[str]:
    """Yield the strings of a test that it expects, not those that it makes events of."""
    if isinstance(node, ast.Call) and called(node) in MAKERS:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


@cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def naming(code: str) -> list[str]:
    return [path.name for path in PRODUCT if f'"{code}"' in source(path)]


@pytest.fixture(scope="module")
def expected() -> frozenset[str]:
    return frozenset(text for path in REAL_PATHS for text in texts(ast.parse(source(path))))


def words(entry: Entry) -> str:
    """Return the longest part of an entry's text that is always the same."""
    return max((text for text, *_ in Formatter().parse(entry.msg)), key=len).strip()


@pytest.mark.parametrize("entry", RAISED, ids=lambda entry: entry.code)
def test_an_entry_is_expected_by_a_test_of_the_programs(
    entry: Entry, expected: frozenset[str]
) -> None:
    literal = words(entry)
    assert entry.code in expected or (
        len(literal) >= 8 and any(literal in text for text in expected)
    ), f"no test of client, server or e2e expects {entry.code} or {literal!r}"


@pytest.mark.parametrize("entry", RAISED, ids=lambda entry: entry.code)
def test_an_entry_is_named_by_the_code_of_a_program(entry: Entry) -> None:
    """One that nothing names cannot be raised; codes are never put together from pieces."""
    assert set(naming(entry.code)) - {"catalogue_entries.py"}


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: entry.code)
def test_every_field_that_an_entry_speaks_of_is_explained(entry: Entry) -> None:
    named = {name for _, name, _, _ in Formatter().parse(entry.msg) if name}
    for text in (entry.title or "", entry.description, entry.remedy):
        named |= set(re.findall(r"\{([a-z_]+)\}", text))
        named |= set(re.findall(r"\b[Ff]ield ([a-z_]+)", text))
    assert named <= entry.fields.keys()


@pytest.mark.parametrize("entry", PLANNED, ids=lambda entry: entry.code)
def test_a_planned_entry_is_raised_by_nothing(entry: Entry) -> None:
    assert naming(entry.code) == ["catalogue_entries.py"]


def test_events_are_made_of_catalogue_entries_only() -> None:
    makers = [
        path.name
        for path in PRODUCT
        for node in ast.walk(ast.parse(source(path)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Event"
    ]
    # event.py: of the catalogue and of the wire. The store and the admin tool give back what
    # they were given.
    assert set(makers) <= {"event.py", "event_rows.py", "events.py"}


def test_no_program_has_a_log_beside_the_catalogue() -> None:
    # Both tell of errors of their own that keep the log from working.
    for path in (path for path in PRODUCT if path.name not in {"journal.py", "endpoint.py"}):
        for node in ast.walk(ast.parse(source(path))):
            if isinstance(node, ast.Import):
                assert not {"logging", "syslog", "warnings"} & {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in {"logging", "syslog", "warnings"}


def test_the_page_of_events_is_up_to_date() -> None:
    written = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    assert written == events_page(), "run scripts/write-event-reference"
