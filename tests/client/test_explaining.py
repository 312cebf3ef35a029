import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.explaining import explain_path
from needfire_client.policy import Ruleset
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.policies import PathRule, Policy
from needfire_testkit.scanner import dir_rule, file_rule, settings_of

RC = b"""[ReadOnly]
dir = 99/etc
dir = 1/srv
file = /etc/app
[Attributes]
file = /etc/app/*.cache
dir = 3/etc/app
[LogFiles]
file = /etc/app/x.cache
file = /etc/app/x*
[IgnoreAll]
dir = -1/etc/app/spool
[Misc]
IgnoreAdded = /etc/app/x.*
IgnoreModified = /etc/(app|other)/x.*
SkipChecksum = match_prefix(/etc/ssl), size_exceeds(1000)
SkipChecksum = match_regex(\\.iso$)
"""


def settings() -> AgentSettings:
    return parse_agent_rc(RC, source="rc", facts=StatedFacts())


@pytest.mark.parametrize(
    ("path", "line", "why", "losers"),
    [
        ("/etc/passwd", 2, "most specific directory above, 1 level up", {}),
        (
            "/etc/app",
            4,
            "it names this path",
            {7: "decides about what is in the directory", 2: "less specific"},
        ),
        ("/etc/app/a/b", 7, "most specific directory above, 2 levels up", {2: "less specific"}),
        (
            "/etc/app/x.cache",
            9,
            "it names this path",
            {
                6: "has wildcards",
                10: "has wildcards",
                7: "less specific",
                2: "less specific",
            },
        ),
        (
            "/etc/app/xy.cache",
            6,
            "its wildcards match",
            {10: "stands later", 7: "less specific", 2: "less specific"},
        ),
        ("/etc/app/spool", 12, "it names this path", {7: "less specific", 2: "less specific"}),
        (
            "/etc/app/spool/x",
            None,
            "dir=-1/etc/app/spool is the most specific, and does not look inside",
            {12: "does not look inside", 7: "less specific", 2: "less specific"},
        ),
        (
            "/srv/a/b/c",
            None,
            "its depth of 1 does not reach 3 levels down",
            {3: "does not reach 3 levels down"},
        ),
        ("/usr", None, "no rule names it", {}),
        ("/", None, "no rule names it", {}),
    ],
)
def test_the_rule_that_decides_is_told_with_the_reason(
    path: str, line: int | None, why: str, losers: dict[int, str]
) -> None:
    found = explain_path(settings(), path.encode())
    assert (None if found.decision is None else found.decision.rule.line) == line
    assert why in found.reason
    told = {loser.rule.line: loser.reason for loser in found.losers}
    assert told.keys() == losers.keys()
    for number, words in losers.items():
        assert words in told[number]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/etc/app/x.cache",
            ["not reported if it is new: IgnoreAdded", "not reported if it changes: IgnoreMod"],
        ),
        ("/etc/ssl/big", ["SkipChecksum = match_prefix(/etc/ssl), size_exceeds(1000)"]),
        ("/etc/ssl/x.iso", ["match_prefix(/etc/ssl)", r"SkipChecksum = match_regex(\.iso$)"]),
        # Nothing is digested there, so nothing is left out.
        ("/etc/app/a.iso", []),
        ("/usr/x.iso", []),
    ],
)
def test_what_else_changes_the_reports_is_told(path: str, words: list[str]) -> None:
    exceptions = explain_path(settings(), path.encode()).exceptions
    assert len(exceptions) == len(words)
    for text, expected in zip(exceptions, words, strict=True):
        assert expected in text


_NAMES = st.sampled_from([b"a", b"b", b"a*", b"?"])
_PATHS = st.lists(_NAMES, max_size=3).map(lambda names: b"/" + b"/".join(names))
_RULES = st.one_of(
    st.builds(file_rule, _PATHS, st.sampled_from(Policy)),
    st.builds(dir_rule, _PATHS, st.sampled_from(Policy), st.integers(-1, 3)),
)
_CONCRETE = st.lists(st.sampled_from([b"a", b"b"]), max_size=4).map(lambda n: b"/" + b"/".join(n))


@given(rules=st.lists(_RULES, max_size=6), path=_CONCRETE)
def test_the_explanation_never_differs_from_the_decision(
    rules: list[PathRule], path: bytes
) -> None:
    explained = settings_of(*rules)
    found = explain_path(explained, path)
    decided = Ruleset(explained).decide(path)
    assert (found.decision and found.decision.rule) == (decided and decided.rule)
    assert found.reason
    losing = [loser.rule for loser in found.losers]
    assert all(re.search(r"\w", loser.reason) for loser in found.losers)
    assert found.decision is None or all(rule is not found.decision.rule for rule in losing)
    if found.decision is None and losing:
        # Whoever ends the covering is named first.
        assert "is the most specific" in found.reason
