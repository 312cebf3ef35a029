"""The rc file that Debian's samhain package installs loads as it is.

The file is under the GPL and so no part of this repository. NEEDFIRE_STOCK_SAMHAINRC names a copy:
``apt-get download samhain`` and ``dpkg-deb -x`` give one without installing anything.
"""

import os
import re
from pathlib import Path

import pytest

from needfire_protocol.errors import ConfigError
from needfire_protocol.rc.agent import parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.directives import DIRECTIVES, Honoured

pytestmark = pytest.mark.debian


@pytest.fixture(scope="module")
def stock() -> bytes:
    path = Path(os.environ.get("NEEDFIRE_STOCK_SAMHAINRC", "/etc/samhain/samhainrc"))
    if not path.is_file():
        pytest.skip("no stock samhainrc: unpack Debian's samhain, set NEEDFIRE_STOCK_SAMHAINRC")
    return path.read_bytes()


def directive_lines(data: bytes) -> list[tuple[int, str]]:
    """Line and key of each directive, found without the parser that is tested."""
    lines = data.split(b"[EOF]")[0].decode().split("\n")
    return [
        (number, line.partition("=")[0].strip().lower())
        for number, line in enumerate(lines, start=1)
        if line.strip() and line.strip()[0] not in "#;["
    ]


def test_every_directive_is_honoured_or_named_in_a_notice(stock: bytes) -> None:
    settings = parse_agent_rc(stock, source="samhainrc", facts=StatedFacts())
    noticed = {notice.line for notice in settings.notices}
    found = directive_lines(stock)
    assert len(found) > 50
    for line, key in found:
        assert isinstance(DIRECTIVES[key].agent, Honoured) is (line not in noticed)
    paths = [key for _, key in found if key in ("dir", "file")]
    assert len(settings.rules) == len(paths)
    assert settings.file_check_interval_s == 7_200
    assert settings.loop_interval_s == 600


def test_every_directive_that_it_shows_in_comments_is_known(stock: bytes) -> None:
    shown = re.findall(rb"^# ?([A-Z]\w+) ?=", stock, re.MULTILINE)
    assert len(shown) > 50
    for name in shown:
        assert name.decode().lower() in DIRECTIVES


def test_a_misspelt_directive_in_it_is_an_error_with_line_and_suggestion(stock: bytes) -> None:
    misspelt = stock.replace(b"\nSetLoopTime ", b"\nSetLopTime ", 1)
    line = stock[: stock.index(b"\nSetLoopTime ")].count(b"\n") + 2
    with pytest.raises(ConfigError) as caught:
        parse_agent_rc(misspelt, source="samhainrc", facts=StatedFacts())
    [problem] = caught.value.problems
    assert str(problem) == (
        f"samhainrc:{line}: unknown directive 'SetLopTime'; the nearest known name is SetLoopTime"
    )
