"""A plain command line means the same with and without argparse."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needfire_client.command_line import parse_whole
from needfire_client.options import Options
from needfire_client.plain_arguments import plainly

WORDS = st.lists(
    st.sampled_from(
        [
            *("--rc", "--state-dir", "--baseline", "--name", "--quick", "--resume", "--json"),
            *("--rc=/a", "--output", "--upload", "--help", "--q", "-", "--", "", "-1", "check"),
            *("/etc/agentrc", "REQ_FROM_SERVER", "a b", "./x/../y"),
        ]
    ),
    max_size=6,
)


def said_by_argparse(arguments: list[str]) -> Options | None:
    try:
        return parse_whole(arguments)
    except SystemExit:
        return None


@given(verb=st.sampled_from(["check", "init", "update", "run", "doctor", "--rc", ""]), words=WORDS)
@settings(max_examples=300, deadline=None)
def test_what_is_understood_means_the_same_to_argparse(verb: str, words: list[str]) -> None:
    plain = plainly([verb, *words])
    if plain is not None:
        assert plain == said_by_argparse([verb, *words])


@pytest.mark.parametrize(
    "order", list(permutations([("--rc", "/r"), ("--state-dir", "s"), ("--json",)]))
)
@pytest.mark.parametrize("verb", ["check", "init", "update"])
def test_what_timers_and_scripts_write_is_understood(
    verb: str, order: tuple[tuple[str, ...], ...]
) -> None:
    arguments = [verb, *(word for option in order for word in option)]
    assert plainly(arguments) == parse_whole(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["doctor"],
        ["check", "--rc"],
        ["check", "--rc", ""],
        ["check", "--rc", "--json"],
        ["check", "--rc=/r"],
        ["init", "--quick"],
        ["check", "more"],
        ["check", "--help"],
        ["check", "--log-format", "text"],
    ],
)
def test_everything_else_is_left_to_argparse(arguments: list[str]) -> None:
    assert plainly(arguments) is None
