from pathlib import Path

import pytest

from needfire_client.policy import Ruleset
from needfire_protocol.rc.policies import PathRule, Policy
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import dir_rule, file_rule, settings_of

READ, ATTR, LOGS, NONE, ALL = (
    Policy.READ_ONLY,
    Policy.ATTRIBUTES,
    Policy.LOG_FILES,
    Policy.IGNORE_NONE,
    Policy.IGNORE_ALL,
)


def test_names_that_no_rule_spells_out_are_not_remembered() -> None:
    place = Ruleset(settings_of(dir_rule(b"/a/x*"), file_rule(b"/a/y"))).locate(b"/a")[1]
    for number in range(100):
        assert place.child(b"x%d" % number)[0] is not None
        assert place.child(b"y")[0] is not None
    assert list(place._met) == [b"y"]


def policy_of(path: bytes, *rules: PathRule, **others: int) -> Policy | None:
    decision = Ruleset(settings_of(*rules, **others)).decide(path)
    return None if decision is None else decision.policy


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        (b"/", READ),
        (b"/home", READ),
        (b"/home/user", None),
        (b"/etc", ATTR),
        (b"/etc/passwd", READ),
        (b"/etc/motd", LOGS),
        (b"/etc/ssl/deep/er", READ),
        (b"/etcetera", READ),
        (b"/etc/cache", ALL),
        (b"/etc/cache/x", None),
        (b"/etc/cache/x/named", NONE),
    ],
)
def test_the_most_specific_path_wins_whatever_the_order(path: bytes, policy: Policy | None) -> None:
    rules = [
        dir_rule(b"/", READ, 0),
        dir_rule(b"/etc", READ, 99),
        file_rule(b"/etc", ATTR),
        file_rule(b"/etc/motd", LOGS),
        dir_rule(b"/etc/cache", ALL, -1),
        file_rule(b"/etc/cache/x/named", NONE),
    ]
    assert policy_of(path, *rules) == policy
    assert policy_of(path, *reversed(rules)) == policy


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_depth_n_covers_the_objects_in_directories_n_levels_down(depth: int) -> None:
    rule = dir_rule(b"/d", READ, depth)
    inside = b"/d" + b"/x" * (depth + 1)
    assert policy_of(b"/d", rule) == READ
    assert policy_of(inside, rule) == READ
    assert policy_of(inside + b"/x", rule) is None


def test_a_rule_without_a_depth_takes_the_recursion_level() -> None:
    rule = dir_rule(b"/d", READ, None)
    assert policy_of(b"/d/a/b", rule) is None
    assert policy_of(b"/d/a/b", rule, recursion_level=1) == READ


def test_a_shallow_rule_inside_of_a_deep_one_ends_the_deep_one_there() -> None:
    rules = (dir_rule(b"/var", READ, 99), dir_rule(b"/var/lib", ATTR, 0))
    assert policy_of(b"/var/lib/x", *rules) == ATTR
    assert policy_of(b"/var/lib/x/y", *rules) is None


def test_a_file_rule_over_a_directory_leaves_its_contents_to_the_rule_above() -> None:
    rules = (dir_rule(b"/var", READ, 99), file_rule(b"/var/lib", ATTR))
    assert policy_of(b"/var/lib", *rules) == ATTR
    assert policy_of(b"/var/lib/x/y", *rules) == READ


def test_of_two_rules_of_the_same_kind_and_path_the_first_counts() -> None:
    assert policy_of(b"/x", file_rule(b"/x", LOGS), file_rule(b"/x", ATTR)) == LOGS


def test_wildcards_match_one_component_and_a_literal_beats_them() -> None:
    rules = (
        file_rule(b"/log/*.[0-9]", ATTR),
        file_rule(b"/log/*/*.gz", LOGS),
        file_rule(b"/log/a.1", NONE),
        dir_rule(b"/log", READ, 99),
    )
    assert policy_of(b"/log/b.1", *rules) == ATTR
    assert policy_of(b"/log/a.1", *rules) == NONE
    assert policy_of(b"/log/x/y.gz", *rules) == LOGS
    assert policy_of(b"/log/x/z/y.gz", *rules) == READ
    assert policy_of(b"/log/.h.1", *rules) == READ


def test_a_dir_rule_with_a_wildcard_covers_what_is_below_each_match() -> None:
    rules = (dir_rule(b"/home/*/.ssh", READ, 0),)
    assert policy_of(b"/home/me/.ssh/authorized_keys", *rules) == READ
    assert policy_of(b"/home/me/.bashrc", *rules) is None


def test_wildcard_characters_in_a_rule_without_wildcards_are_names() -> None:
    rule = file_rule(b"/a")
    plain = PathRule(rule.kind, b"/a*[", rule.policy, None, False, "rc", 1)
    assert policy_of(b"/a*[", plain) == READ
    assert policy_of(b"/ab[", plain) is None


def test_decisions_carry_mask_and_severity_of_the_settings() -> None:
    severities = {**dict.fromkeys(Policy, Severity.CRIT), LOGS: Severity.WARN}
    settings = settings_of(file_rule(b"/x", LOGS), policy_severities=severities)
    decision = Ruleset(settings).decide(b"/x")
    assert decision is not None
    assert decision.severity is Severity.WARN
    assert decision.mask == settings.masks[LOGS]
    assert not decision.hashes


def test_places_say_where_a_walk_must_look() -> None:
    ruleset = Ruleset(settings_of(dir_rule(b"/d", READ, 0), file_rule(b"/a/b/c")))
    _, root = ruleset.root()
    assert root.is_open
    assert not root.needs_listing
    assert root.named() == {b"d", b"a"}
    _, covered = ruleset.locate(b"/d")
    assert covered.needs_listing
    assert covered.is_uniform
    assert not ruleset.locate(b"/d/x")[1].is_open
    assert not ruleset.locate(b"/elsewhere")[1].is_open
    assert ruleset.locate(b"/a/b")[1].named() == {b"c"}


def test_the_stock_file_of_samhain_reads_as_its_manual_says() -> None:
    rules = (
        dir_rule(b"/", READ, 0),
        dir_rule(b"/etc", READ, 99),
        file_rule(b"/etc", ATTR),
        dir_rule(b"/var", READ, 99),
        dir_rule(b"/var/cache", ALL, -1),
        dir_rule(b"/var/log", Policy.GROWING_LOG_FILES, 99),
        file_rule(b"/var/log/*.[0-9].gz", ATTR),
    )
    assert policy_of(b"/var/log/apt/term.log", *rules) == Policy.GROWING_LOG_FILES
    assert policy_of(b"/var/log/syslog.2.gz", *rules) == ATTR
    assert policy_of(b"/var/cache/apt", *rules) is None
    assert policy_of(bytes(Path("/var/lib/dpkg/status")), *rules) == READ
