"""An agent's configuration file, as settings."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.errors import ConfigError
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.policies import DEFAULT_MASKS, SCHEDULE_TWO, Check, Policy, RuleKind
from needfire_protocol.severity import Severity, SeverityFilter
from needfire_testkit.rc import agent_rc, errors_of, notices_of

EVERY_CONSTRUCT = (Path(__file__).parent / "every_construct.rc").read_bytes()


def rules_of(settings: AgentSettings) -> list[tuple[str, bytes, str, int | None, bool]]:
    return [
        (rule.kind.value, rule.path, rule.policy.section, rule.depth, rule.is_glob)
        for rule in settings.rules
    ]


def test_an_empty_file_gives_the_defaults() -> None:
    settings = agent_rc("")
    assert settings.rules == ()
    assert settings.masks == DEFAULT_MASKS
    assert settings.notices == ()
    assert settings.file_check_interval_s == 600
    assert settings.sha256 == ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_every_construct_of_the_language_is_understood() -> None:
    settings = agent_rc(EVERY_CONSTRUCT)
    assert rules_of(settings) == [
        ("dir", b"/etc", "readonly", 99, False),
        ("dir", b"/srv/with blank at the end ", "readonly", 7, False),
        ("file", b"/opt/tab\there", "readonly", None, False),
        ("file", b"/opt/octalAB\\", "readonly", None, False),
        ("dir", b"/usr/share/doc", "readonly", None, False),
        ("file", b"/opt/dash", "readonly", None, False),
        ("dir", b"/var/cache", "ignoreall", -1, False),
        ("file", b"/etc", "ignoreall", None, False),
        ("file", b"/var/log/*.[0-9]", "logfiles", None, True),
        ("file", b"/srv/not-a-glob*", "logfiles", None, False),
        ("file", b"/srv/web", "user0", None, False),
        ("file", b"/srv/passwd", "user0", None, False),
        ("file", b"/srv/linux", "user0", None, False),
        ("file", b"/srv/web1", "user0", None, False),
        ("file", b"/srv/not-web2", "user0", None, False),
        ("file", b"/srv/linux6", "user0", None, False),
        ("dir", b"/srv/slow", "attributes", 1, False),
    ]
    assert settings.masks[Policy.USER0] == Check.CHK | Check.MOD | Check.ATM
    assert settings.masks[Policy.READ_ONLY] == DEFAULT_MASKS[Policy.READ_ONLY] & ~Check.CTM
    assert settings.file_check_interval_s == 7_200
    assert settings.loop_interval_s == 60
    assert settings.ignore_added[0].fullmatch(b"/var/log/mail_1.12.gz")
    assert not settings.ignore_added[0].fullmatch(b"/var/log/a/b.1")
    assert settings.ignore_missing[0].fullmatch(b"/run/x")
    assert settings.digest_algorithm == "sha256"
    assert settings.log_servers == (("loghost.example.org", None), ("2001:db8::1", 50_000))
    assert settings.server_port == 50_001
    assert settings.realtime is False
    assert settings.policy_severities[Policy.GROWING_LOG_FILES] is Severity.WARN
    assert settings.print_severity == SeverityFilter.parse("info,!=mark")


def test_everything_without_effect_is_named_with_its_line() -> None:
    lines = EVERY_CONSTRUCT.decode().split("\n")
    noticed = [lines[line - 1] for line, _ in notices_of(EVERY_CONSTRUCT) if line]
    assert noticed == [
        "-----BEGIN PGP SIGNED MESSAGE-----",
        "LogSeverity = debug",
        "redefreadonly=-CTM,+AUDIT",
        "SetLoopTime=$(date +%s)",
        "DigestAlgo = TIGER192",
        "file = /etc",
        "dir = /etc",
        "@if command_succeeds rm -rf /",
        "dir = 1/srv/slow",
        "SuidCheckActive = yes",
        "OpenCommand = /bin/true",
        "CloseCommand",
    ]


def test_the_same_path_twice_is_a_notice_with_both_lines_and_the_first_wins() -> None:
    text = "[ReadOnly]\nfile = /a\ndir = 1/a\n[Attributes]\nfile = /a/\ndir = 2/a\n"
    assert [(rule.kind, rule.policy) for rule in agent_rc(text).rules] == [
        (RuleKind.FILE, Policy.READ_ONLY),
        (RuleKind.DIR, Policy.READ_ONLY),
    ]
    assert notices_of(text) == [
        (5, "file = /a appears twice, in lines 2 and 5; the first wins"),
        (6, "dir = /a appears twice, in lines 3 and 6; the first wins"),
    ]


@pytest.mark.parametrize(
    ("section", "line", "is_proper"),
    [
        ("ReadOnly", "dir = 0/a", True),
        ("ReadOnly", "dir = 99/a", True),
        ("ReadOnly", "dir = 100/a", False),
        ("ReadOnly", "dir = -1/a", False),
        ("IgnoreAll", "dir = -1/a", True),
        ("IgnoreAll", "dir = -2/a", False),
        ("ReadOnly", "file = 1/a", False),
        ("ReadOnly", "dir = 1 /a", False),
        ("ReadOnly", "dir = a", False),
        ("ReadOnly", "dir = /a/../b", False),
        ("ReadOnly", "dir = /..a/b..", True),
        ("ReadOnly", "dir =", False),
    ],
)
def test_depths_and_paths_have_bounds(section: str, line: str, is_proper: bool) -> None:
    errors = errors_of(f"[{section}]\n{line}\n")
    assert [number for number, _ in errors] == ([] if is_proper else [2])


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("+ATM", DEFAULT_MASKS[Policy.READ_ONLY] | Check.ATM),
        ("-CHK -mtm", DEFAULT_MASKS[Policy.READ_ONLY] & ~(Check.CHK | Check.MTM)),
        ("CHK", Check.CHK),
        ("CHK,MOD", Check.CHK | Check.MOD),
        ("CHK,-CHK", Check(0)),
        ("-CHK,+CHK", DEFAULT_MASKS[Policy.READ_ONLY]),
        ("+SGROW\t-SIZ", (DEFAULT_MASKS[Policy.READ_ONLY] | Check.SGROW) & ~Check.SIZ),
    ],
)
def test_a_redefinition_changes_the_mask(text: str, mask: Check) -> None:
    assert agent_rc(f"[Misc]\nRedefReadOnly = {text}\n").masks[Policy.READ_ONLY] == mask


def test_redefinitions_of_a_policy_add_up() -> None:
    settings = agent_rc("[Misc]\nRedefUser1=CHK\nRedefUser1=+MOD\n")
    assert settings.masks[Policy.USER1] == Check.CHK | Check.MOD
    assert settings.masks[Policy.USER0] == DEFAULT_MASKS[Policy.USER0]


@pytest.mark.parametrize("flag", ["AUDIT", "TXT", "pre"])
def test_a_flag_that_does_nothing_here_is_a_notice(flag: str) -> None:
    text = f"[Misc]\nRedefUser0 = +{flag}\n"
    assert agent_rc(text).masks == DEFAULT_MASKS
    assert notices_of(text) == [(2, f"the flag {flag.upper()} has no effect here yet")]


def test_an_unknown_flag_is_an_error() -> None:
    [(line, text)] = errors_of("[Misc]\nRedefUser0 = +CHKS\n")
    assert line == 2
    assert "'CHKS' is no flag; expected one of CHK LNK INO" in text


def test_a_redefinition_behind_the_use_of_its_policy_is_a_notice() -> None:
    [(line, text)] = notices_of("[User0]\nfile=/a\nfile=/b\n[Misc]\nRedefUser0=CHK\n")
    assert line == 5
    assert "from line 2 on" in text


@pytest.mark.parametrize("name", ["MD5", "sha1"])
def test_a_weak_digest_is_used_with_a_notice(name: str) -> None:
    text = f"[Misc]\nDigestAlgo = {name}\n"
    assert agent_rc(text).digest_algorithm == name.lower()
    [(line, notice)] = notices_of(text)
    assert line == 2
    assert "weak" in notice


def test_a_digest_that_the_host_cannot_make_is_an_error_with_its_line() -> None:
    class WithoutBlake3(StatedFacts):
        def has_digest(self, algorithm: str, /) -> bool:
            return algorithm != "blake3"

    text = b"[Misc]\nDigestAlgo = BLAKE3\n"
    assert agent_rc(text).digest_algorithm == "blake3"
    with pytest.raises(ConfigError) as caught:
        parse_agent_rc(text, source="rc", facts=WithoutBlake3())
    [problem] = caught.value.problems
    assert problem.line == 2
    assert "install needfire[blake3], or use SHA256" in problem.text


@pytest.mark.parametrize("name", ["UseACLCheck", "UseSelinuxCheck", "UseXattrCheck"])
def test_extended_attributes_are_looked_at_until_that_is_switched_off(name: str) -> None:
    field = f"{name[3:-5].lower()}_check"
    assert getattr(agent_rc(""), field) is True
    assert getattr(agent_rc(f"[Misc]\n{name} = no\n"), field) is False


def test_a_directive_given_twice_counts_as_its_last_line_says() -> None:
    text = "[Misc]\nSetLoopTime=5\nSetLoopTime=6\n[EventSeverity]\nSeverityUser0=err\n"
    assert agent_rc(text).loop_interval_s == 6
    assert notices_of(text) == [(3, "SetLoopTime stands in line 2 as well; this line counts")]


def test_severities_of_different_policies_are_different_directives() -> None:
    text = "[EventSeverity]\nSeverityUser0=err\nSeverityUser1=info\n"
    assert notices_of(text) == []
    assert agent_rc(text).policy_severities[Policy.USER1] is Severity.INFO


def test_a_misspelt_directive_is_an_error_with_line_and_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        agent_rc("[Misc]\n\nSetFilechekTime = 600\n")
    [problem] = caught.value.problems
    assert (problem.source, problem.line) == ("rc", 3)
    assert problem.text == (
        "unknown directive 'SetFilechekTime'; the nearest known name is SetFilecheckTime"
    )
    assert problem.hint == "replace it with SetFilecheckTime"


def test_a_directive_under_the_wrong_heading_is_told_where_it_belongs() -> None:
    assert errors_of("[Log]\nSetLoopTime = 5\n") == [
        (2, "SetLoopTime may not stand under [Log]; it belongs under [Misc]")
    ]


def test_a_misspelt_section_is_one_error_whatever_stands_under_it() -> None:
    assert errors_of("[ReedOnly]\nfile = /a\nnonsense = 1\n[Misc]\n") == [
        (1, "unknown section '[ReedOnly]'; the nearest known one is [ReadOnly]")
    ]


def test_every_problem_is_named_in_the_order_of_the_file() -> None:
    text = "[Misc]\nSetLoopTime=x\n@fi\nSetServerPort=0\nNonsense=1\n@if file_exists /a\n"
    assert [line for line, _ in errors_of(text)] == [2, 3, 4, 5, 6]


def test_a_comment_behind_a_value_is_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        agent_rc("[Misc]\nSetLoopTime = 60 # a minute\n")
    assert caught.value.problems[0].hint == "a comment must stand on a line of its own"


@pytest.mark.parametrize("expression", ["var/log/.*", ".*", "(a|/b)", "^[/]a"])
def test_an_expression_for_paths_must_begin_with_a_slash(expression: str) -> None:
    [(line, text)] = errors_of(f"[Misc]\nIgnoreAdded = {expression}\n")
    assert line == 2
    assert "must begin with /" in text


@pytest.mark.parametrize(("count", "is_proper"), [(500, True), (501, False)])
def test_expressions_are_bounded_in_number(count: int, is_proper: bool) -> None:
    names = ("IgnoreAdded", "IgnoreMissing", "IgnoreModified")
    text = "[Misc]\n" + "".join(f"{names[n % 3]} = /{n}\n" for n in range(count))
    assert [line for line, _ in errors_of(text)] == ([] if is_proper else [502])


def test_directives_of_the_server_are_notices() -> None:
    [(line, text)] = notices_of("[Clients]\nClient=HOSTNAME@00@11\n")
    assert (line, text) == (
        2,
        "Client has no effect: it is a directive of the server; an agent has no use for it",
    )


def test_a_secret_in_an_inert_directive_is_not_repeated() -> None:
    [(_, text)] = notices_of("[Database]\nSetDBPassword = hunter2\n")
    assert "hunter2" not in text


def test_settings_cannot_be_changed() -> None:
    settings = agent_rc("[Misc]\nRedefUser0=CHK\n")
    with pytest.raises(TypeError):
        settings.masks[Policy.USER0] = Check(0)  # type: ignore[index]


def test_a_large_file_is_read_in_time_that_grows_with_its_size() -> None:
    text = "[ReadOnly]\n" + "".join(f"file = /srv/{n}\n" for n in range(20_000))
    assert len(agent_rc(text).rules) == 20_000


def test_reading_ends_after_too_many_errors() -> None:
    errors = errors_of("[Misc]\n" + "nonsense = 1\n" * 5_000)
    assert len(errors) == 101
    assert errors[-1] == (102, "more than 100 errors; the rest was not read")


def test_a_hundred_errors_are_all_named() -> None:
    assert len(errors_of("[Misc]\n" + "nonsense = 1\n" * 100)) == 100


def test_notices_beyond_the_limit_are_counted() -> None:
    notices = notices_of("[Misc]\n" + "Daemon = yes\n" * 1_003)
    assert len(notices) == 1_001
    assert notices[-1] == (None, "3 more notices are not shown")


@given(data=st.binary(max_size=300))
def test_any_bytes_give_settings_or_a_configuration_error(data: bytes) -> None:
    _read_hostile(data)


_PIECES = st.sampled_from(
    [
        *(b"[Misc]", b"[ReadOnly]", b"[IgnoreAll]", b"[Log]", b"[x", b"[EOF]", b"\n", b"\n"),
        *(b"@if ", b"@else", b"@fi", b"@end", b"not ", b"!", b"$", b"%SCHEDULE_TWO", b"$(x)"),
        *(b"file", b"dir", b"=", b"=99", b"/", b"..", b"*", b"\\", b"\\x", b"'", b'"', b"\\101"),
        *(
            b"IgnoreAdded=/",
            b"(",
            b")",
            b"[[:",
            b"{2,",
            b"RedefUser0=",
            b"+CHK",
            b"hostname_matches",
        ),
        *(
            b"SetLoopTime=",
            b"7d",
            b"\0",
            b"\xff",
            "\u202e".encode(),
            b"-----BEGIN PGP SIGNATURE-----",
        ),
    ]
)


@given(pieces=st.lists(_PIECES, max_size=40))
def test_any_mixture_of_the_language_gives_settings_or_a_configuration_error(
    pieces: list[bytes],
) -> None:
    _read_hostile(b"".join(pieces))


def _read_hostile(data: bytes) -> None:
    try:
        parse_agent_rc(data, source="rc", facts=StatedFacts())
    except ConfigError as error:
        for problem in error.problems:
            assert problem.text.isprintable(), "hostile bytes must not reach a terminal"
            assert len(problem.text) < 1_000


_NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not re.search(rb"[/\0]", name) and name not in (b".", b"..")
)


@given(names=st.lists(_NAMES, min_size=1, max_size=4))
def test_every_path_can_be_written(names: list[bytes]) -> None:
    path = b"/" + b"/".join(names)
    written = b"".join(b"\\\\" + b"\\%03o" % b if b in b"*?[" else b"\\%03o" % b for b in path)
    if b"\\" in path:
        return  # A backslash beside an escaped glob character has no spelling, as in glob(3).
    [rule] = agent_rc(b'[ReadOnly]\nfile = "' + written + b'"\n').rules
    assert (rule.path, rule.is_glob) == (path, False)


def test_rules_know_their_group_and_files_of_the_second_schedule_are_in_both() -> None:
    text = (
        "[ReadOnly]\n%SCHEDULE_TWO\ndir=/a\nfile=/b\n!%SCHEDULE_TWO\n%GROUP g\nfile=/c\n!%GROUP\n"
    )
    found = {rule.path: rule.group for rule in agent_rc(text).rules}
    assert found == {b"/a": SCHEDULE_TWO, b"/b": "", b"/c": "g"}


@pytest.mark.parametrize("line", ["GroupFullInterval = 1d", "GroupSchedule=g", "GroupInterval =g "])
def test_times_of_a_group_name_it(line: str) -> None:
    with pytest.raises(ConfigError, match="is one word; expected the name of a group, and behind"):
        agent_rc(f"[Misc]\n{line}\n")


def test_times_of_groups() -> None:
    settings = agent_rc(
        "[Misc]\nGroupInterval = g 5m\nGroupSchedule=g 0 1 * * *\nGroupSchedule =\tg 0 2 * * *\n"
        "GroupFullInterval = g 1d\nFullCheckInterval=2d\nFileCheckScheduleTwo = 0 3 * * Sun\n"
        "[ReadOnly]\n%GROUP g\nfile=/c\n!%GROUP\n"
    )
    assert settings.group_intervals == (("g", 300),)
    assert [name for name, _ in settings.group_schedules] == ["g", "g"]
    assert settings.group_full_intervals == (("g", 86_400),)
    assert settings.full_check_interval_s == 172_800
    assert len(settings.check_schedules_two) == 1
    assert settings.notices == ()


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("[Misc]\nGroupInterval=g 5m\n", "no rule stands between %GROUP g and !%GROUP"),
        (
            "[ReadOnly]\n%GROUP g\nfile=/c\n!%GROUP\n",
            (
                "the group g has no times of its own (GroupInterval or GroupSchedule): it is checked "
                "together with the rules of no group"
            ),
        ),
        (
            "[ReadOnly]\n%SCHEDULE_TWO\ndir=/c\n!%SCHEDULE_TWO\n",
            (
                "the group SCHEDULE_TWO has no times of its own (FileCheckScheduleTwo): it is checked "
                "together with the rules of no group"
            ),
        ),
        (
            "[Misc]\nGroupInterval=g 5m\nGroupInterval=g 6m\n[ReadOnly]\n%GROUP g\nfile=/c\n!%GROUP\n",
            "the group g has one in line 2; this line counts",
        ),
    ],
)
def test_groups_and_times_that_do_not_belong_to_each_other_are_a_notice(
    text: str, notice: str
) -> None:
    assert [each.text for each in agent_rc(text).notices] == [notice]


@pytest.mark.parametrize("value", ["g", "5m", "g 0s", "g x", "-g 5m", ""])
def test_a_group_needs_its_name_and_its_time(value: str) -> None:
    with pytest.raises(ConfigError):
        agent_rc(f"[Misc]\nGroupInterval = {value}\n")
