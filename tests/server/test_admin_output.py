"""A row on a terminal is one line of it: nothing in a cell may look like the next row."""

import pytest

from needfire_server.admin import output
from needfire_server.admin.output import TableWriter, print_table

COLUMNS = 80


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_terminal_columns", lambda: COLUMNS)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("width", [COLUMNS - 1, COLUMNS, COLUMNS + 1, 4 * COLUMNS])
def test_a_row_that_is_longer_than_the_terminal_goes_on_behind_a_mark(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/" + " " * (width - 5) + "root"
    TableWriter({"PATH": 0}).write(path)
    _, row, *more = lines(capsys)
    assert row == path[:COLUMNS]
    assert all(each.startswith("  \u00bb ") and len(each) <= COLUMNS for each in more)
    assert "".join([row, *(each[4:] for each in more)]) == path
    print_table(["PATH"], [[path]])
    assert lines(capsys)[1:] == [row, *more]


@pytest.mark.usefixtures("terminal")
def test_a_character_that_takes_two_columns_is_counted_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    TableWriter({"PATH": 0}).write("\u65e5" * COLUMNS)
    _, row, *more = lines(capsys)
    assert row == "\u65e5" * (COLUMNS // 2)
    assert more == [
        "  \u00bb " + "\u65e5" * (COLUMNS // 2 - 2),
        "  \u00bb " + "\u65e5" * 2,
    ]


def test_a_pipe_gets_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    TableWriter({"PATH": 0}).write("x" * 500)
    assert lines(capsys)[1] == "x" * 500
