"""Severities and threshold lists, as configuration files write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_protocol.severity import Severity, SeverityFilter

S = Severity
EVERYTHING = set(Severity)


def selected(text: str) -> set[Severity]:
    chosen = SeverityFilter.parse(text)
    return {severity for severity in Severity if severity in chosen}


def test_severities_have_samhain_s_order_names_and_labels() -> None:
    assert [s.word for s in sorted(Severity)] == [
        "debug",
        "info",
        "notice",
        "warn",
        "mark",
        "err",
        "crit",
        "alert",
    ]
    assert [s.label for s in Severity] == [
        "DEBG",
        "INFO",
        "NOTE",
        "WARN",
        "MARK",
        "ERRO",
        "CRIT",
        "ALRT",
    ]
    assert [int(s) for s in Severity] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("severity", Severity)
def test_a_word_is_parsed_in_any_case(severity: Severity) -> None:
    for word in (severity.word, severity.word.upper(), f"  {severity.word.title()}\t"):
        assert Severity.parse(word) is severity


@pytest.mark.parametrize("word", ["", "error", "none", "*", "7", "cri t", "krit"])
def test_another_word_is_refused_with_the_list_of_names(word: str) -> None:
    with pytest.raises(FormatError, match="debug, info, notice, warn, mark, err, crit, alert"):
        Severity.parse(word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", EVERYTHING),
        ("none", set()),
        ("!*", set()),
        ("debug", EVERYTHING),
        ("warn", {S.WARN, S.MARK, S.ERR, S.CRIT, S.ALERT}),
        (">=warn", {S.WARN, S.MARK, S.ERR, S.CRIT, S.ALERT}),
        ("alert", {S.ALERT}),
        ("=warn", {S.WARN}),
        ("=info,=crit", {S.INFO, S.CRIT}),
        ("=info =crit", {S.INFO, S.CRIT}),
        ("=info,\t=crit", {S.INFO, S.CRIT}),
        ("warn,!crit", {S.WARN, S.MARK, S.ERR}),
        ("*,!=mark", EVERYTHING - {S.MARK}),
        ("!=mark", EVERYTHING - {S.MARK}),
        ("!crit", EVERYTHING - {S.CRIT, S.ALERT}),
        ("crit,none", set()),
        ("none,crit", {S.CRIT, S.ALERT}),
        ("!*,=info", {S.INFO}),
        ("!crit,crit", EVERYTHING),
        ("WARN", {S.WARN, S.MARK, S.ERR, S.CRIT, S.ALERT}),
    ],
)
def test_a_threshold_list_selects_what_it_says(text: str, expected: set[Severity]) -> None:
    assert selected(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", ",", "warning", "=", "!", "=*x", "warn;crit", "!none", "=!warn"]
)
def test_a_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        SeverityFilter.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        chosen = SeverityFilter.parse(text)
    except FormatError:
        return
    assert all((severity in chosen) in (True, False) for severity in Severity)


@pytest.mark.parametrize("severity", Severity)
def test_at_least_is_the_plain_word(severity: Severity) -> None:
    assert SeverityFilter.at_least(severity) == SeverityFilter.parse(severity.word)


def test_filters_are_equal_by_what_they_select() -> None:
    one, other = SeverityFilter.parse("crit"), SeverityFilter.parse("=crit,=alert")
    assert one == other
    assert hash(one) == hash(other)
    assert one != SeverityFilter.parse("alert")
    assert one != "crit"
    assert repr(one) == "SeverityFilter(crit, alert)"
    assert repr(SeverityFilter([])) == "SeverityFilter(none)"
