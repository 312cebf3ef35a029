"""The access lists: every pattern of hosts_access(5), and the same verdicts as the real libwrap."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from needfire_protocol.errors import FormatError
from needfire_server import access, access_rules
from needfire_server.access import (
    DAEMON_NAMES,
    AccessLists,
    Client,
    Decision,
    decide,
    patterns_need_name,
)
from needfire_server.access_patterns import NESTED_FILES_MAX, matches_wildcards
from needfire_server.lookup import PeerName

DENY_ALL = "ALL: ALL\n"
HOST = Client("10.1.2.3", "web1.example.org")


def _is_let_in(
    clients: str, client: Client = HOST, *, daemons: str = "ALL", server: str | None = None
) -> bool:
    """True where a line of hosts.allow lets a client in, with everybody else refused."""
    return decide(
        f"{daemons}: {clients}\n", DENY_ALL, DAEMON_NAMES, client, server=Client(server)
    ).allowed


# ---- which list decides -------------------------------------------------------------------


def test_without_rules_everybody_is_let_in() -> None:
    assert decide("", "", DAEMON_NAMES, HOST) == Decision(True, None)


def test_the_allow_list_is_asked_first() -> None:
    assert decide("yule: 10.\n", DENY_ALL, DAEMON_NAMES, HOST) == Decision(
        True, "hosts.allow line 1"
    )


def test_the_deny_list_is_asked_second() -> None:
    decision = decide("ALL: 192.0.2.\n", "# all\nALL: ALL\n", DAEMON_NAMES, HOST)

    assert decision == Decision(False, "hosts.deny line 2")


def test_the_first_rule_that_matches_ends_the_search() -> None:
    decision = decide("ALL: 10. : deny\nALL: 10.1.2.3\n", "", DAEMON_NAMES, HOST)

    assert decision == Decision(False, "hosts.allow line 1")


@pytest.mark.parametrize("daemon", ["needfire", "yule", "YULE", "ALL", "y*", "sshd, needfire"])
def test_both_names_of_the_server_count(daemon: str) -> None:
    assert not decide("", f"{daemon}: ALL\n", DAEMON_NAMES, HOST).allowed


@pytest.mark.parametrize("daemon", ["sshd", "yule2", "in.needfire", "ALL EXCEPT yule"])
def test_rules_for_other_daemons_do_not_count(daemon: str) -> None:
    assert decide("", f"{daemon}: ALL\n", DAEMON_NAMES, HOST).allowed


def test_the_port_can_be_a_name_of_the_server() -> None:
    assert not decide("", "49777: ALL\n", (*DAEMON_NAMES, "49777"), HOST).allowed


def test_a_rule_can_hold_for_one_address_of_the_server() -> None:
    assert _is_let_in("10.", daemons="yule@192.0.2.1", server="192.0.2.1")
    assert not _is_let_in("10.", daemons="yule@192.0.2.1", server="192.0.2.2")
    assert not _is_let_in("10.", daemons="yule@192.0.2.1")


# ---- patterns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "ALL",
        "all",
        "10.1.2.3",
        "10.1.",
        "10.0.0.0/8",
        "10.1.2.0/255.255.255.0",
        "10.1.2.3/32",
        "10.1.*",
        "10.1.2.?",
        "web1.example.org",
        "WEB1.EXAMPLE.ORG",
        ".example.org",
        "web1.",
        "web?.example.*",
        "KNOWN",
        "192.0.2.1, 10.1.2.3",
        "192.0.2.1\t10.1.2.3",
        "ALL EXCEPT 10.1.2.4",
        "ALL EXCEPT 10. EXCEPT 10.1.2.3",
        "ALL@10.1.2.3",
        "UNKNOWN@10.1.2.3",
    ],
)
def test_the_pattern_matches(pattern: str) -> None:
    assert _is_let_in(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "10.1.2.30",
        "10.1",
        "1.2.3",
        "10.1.2.3/8",
        "10.1.2.3/255.255.255.255",
        "0.0.0.0/0",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0/8",
        "example.org",
        "eb1.example.org",
        ".web1.example.org",
        "LOCAL",
        "UNKNOWN",
        "PARANOID",
        "@trusted",
        "EXCEPT 10.1.2.3",
        "ALL EXCEPT 10.",
        "10. EXCEPT ALL EXCEPT 192.0.2.1",
        "root@10.1.2.3",
        "KNOWN@10.1.2.3",
        "[::ffff:10.1.2.3]",
        "[::]/0",
        "",
    ],
)
def test_the_pattern_does_not_match(pattern: str) -> None:
    assert not _is_let_in(pattern)


@pytest.mark.parametrize(
    ("pattern", "is_match"),
    [
        ("[2001:db8::5]", True),
        ("[2001:DB8:0::5]", True),
        ("[2001:db8::]/32", True),
        ("[2001:db8:ffff::]/32", True),
        ("[2001:db8::5]/128", True),
        ("[::]/0", True),
        ("[2001:db9::]/32", False),
        ("[2001:db8::]/129", False),
        ("[2001:db8::", False),
        ("[2001:db8::]x/32", False),
        ("2001:db8::5", False),
        ("0.0.0.0/1", False),
    ],
)
def test_ipv6_addresses_stand_in_brackets(pattern: str, is_match: bool) -> None:
    assert _is_let_in(pattern, Client("2001:db8::5")) is is_match


def test_local_is_a_name_without_a_dot() -> None:
    assert _is_let_in("LOCAL", Client("10.1.2.3", "web1"))
    assert not _is_let_in("LOCAL", Client("10.1.2.3"))
    assert not _is_let_in("LOCAL", Client("10.1.2.3", "web1", is_paranoid=True))


def test_unknown_is_a_host_without_a_name() -> None:
    assert _is_let_in("UNKNOWN", Client("10.1.2.3"))
    assert not _is_let_in("KNOWN", Client("10.1.2.3"))


def test_a_name_that_does_not_lead_back_is_worth_nothing() -> None:
    spoofed = Client("10.1.2.3", "web1.example.org", is_paranoid=True)

    assert _is_let_in("PARANOID", spoofed)
    for pattern in ("web1.example.org", ".example.org", "KNOWN", "web*"):
        assert not _is_let_in(pattern, spoofed)


def test_a_pattern_of_addresses_is_never_compared_with_a_name() -> None:
    """Who owns a reverse zone may call his host 10.1.example.net; libwrap lets it in."""
    assert not _is_let_in("10.1.*", Client("192.0.2.66", "10.1.example.net"))
    assert not _is_let_in("10.1.", Client("192.0.2.66", "10.1.example.net"))


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("*", "", True),
        ("**", "abc", True),
        ("?", "", False),
        ("a*c", "abc", True),
        ("a*c", "abcd", False),
        ("*b*", "abc", True),
        ("a?c*", "abcdef", True),
        ("*a*a*a*a*a*a*a*a*b", "a" * 200, False),
    ],
)
def test_wildcards(pattern: str, text: str, is_match: bool) -> None:
    assert matches_wildcards(pattern, text) is is_match


# ---- the form of the files -------------------------------------------------------------------


def test_a_rule_goes_on_after_a_backslash() -> None:
    text = "yule: 192.0.2.1, \\\n  10.1.2.3\n"

    assert decide(text, DENY_ALL, DAEMON_NAMES, HOST) == Decision(True, "hosts.allow line 2")


def test_a_last_line_without_a_newline_counts() -> None:
    assert not decide("", "ALL: ALL", DAEMON_NAMES, HOST).allowed


@pytest.mark.parametrize("text", ["", "\n\n", "# ALL: ALL\n", "#ALL: ALL", "  \t\n", "\\\n\\\n"])
def test_blank_lines_and_comments_say_nothing(text: str) -> None:
    assert decide("", text, DAEMON_NAMES, HOST) == Decision(True)


def test_lines_of_other_systems_end_in_two_characters() -> None:
    assert not decide("", "ALL: ALL\r\n", DAEMON_NAMES, HOST).allowed


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("ALL 10.1.2.3", "hosts.deny line 1: skipped, no colon separates daemons from clients: "),
        ("ALL: ::1", "hosts.deny line 1: no client is named (IPv6 addresses stand in brackets)"),
        ("ALL: 10.1., 2001:db8::1", "hosts.deny line 1: an address without brackets (IPv6 addre"),
        ("ALL: 2001:db8::/32", "hosts.deny line 1: an address without brackets (IPv6 addresses "),
        (
            "ALL: @net",
            "hosts.deny line 1: @net: netgroups are not looked up, so this matches nothing",
        ),
        ("ALL: 10.1.2.3/8", "hosts.deny line 1: 10.1.2.3/8: the network has bits outside its mask"),
        ("ALL: 0.0.0.0/0", "hosts.deny line 1: 0.0.0.0/0: the length after the slash is not a n"),
        ("ALL: [::]/x", "hosts.deny line 1: [::]/x: the length after the slash is not a number"),
        ("ALL: x/8", "hosts.deny line 1: x/8: the network is not an IPv4 address, so this "),
        ("ALL: root@10.1.2.3", "hosts.deny line 1: root@: users are not looked up"),
        ("ALL: 10. : spawn /bin/rm -rf /", "hosts.deny line 1: spawn has no effect here"),
        ("ALL: 10. : nonsense", "hosts.deny line 1: 'nonsense' is not an option; the peer is ref"),
    ],
)
def test_what_does_not_do_what_it_seems_to_do_is_noted(line: str, note: str) -> None:
    notes = decide("", line + "\n", DAEMON_NAMES, HOST).notes

    assert [one for one in notes if one.startswith(note)], notes


def test_notes_are_bounded_and_printable() -> None:
    text = "".join(f"no colon here \x1b[2J {number}\n" for number in range(1000))
    notes = decide("", text, DAEMON_NAMES, HOST).notes

    assert len(notes) == access_rules.NOTES_MAX
    assert all(note.isprintable() and len(note) < 200 for note in notes)


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_the_length_of_a_rule_is_bounded(excess: int) -> None:
    head = "ALL: ALL "
    line = head + "x" * (access_rules.LINE_CHARS_MAX - len(head) + excess)

    assert decide("", line + "\n", DAEMON_NAMES, HOST).allowed is (excess > 0)


def test_thousands_of_excepts_are_only_a_long_line() -> None:
    excepts = " EXCEPT x" * ((access_rules.LINE_CHARS_MAX - 20) // len(" EXCEPT x"))

    assert not decide("", f"ALL: ALL{excepts}\n", DAEMON_NAMES, HOST).allowed


# ---- options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ("allow", True),
        ("ALLOW", True),
        ("deny", False),
        ("severity mail.info : deny", False),
        ("severity = mail.info : allow", True),
        ("spawn (echo %a\\: %h) & : allow", True),
        ("keepalive", True),
        ("rfc931", True),
        ("nice 5 : rfc931 10", True),
        # A mistake refuses, as hosts_options(5) says.
        ("", False),
        ("allow :", False),
        (": allow", False),
        ("allow yes", False),
        ("allow : keepalive", False),
        ("severity", False),
        ("perhaps", False),
        # The command was to decide, and no command is ever run.
        ("twist /bin/echo no", False),
        ("aclexec /bin/true", False),
    ],
)
def test_options_of_a_rule(options: str, allowed: bool) -> None:
    assert decide(f"ALL: 10. : {options}\n", "", DAEMON_NAMES, HOST).allowed is allowed


def test_a_rule_of_the_deny_list_can_allow() -> None:
    assert decide("", "ALL: 10. : allow\nALL: ALL\n", DAEMON_NAMES, HOST).allowed


def test_no_command_of_the_lists_is_ever_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    for option in ("spawn", "twist", "aclexec"):
        decide(f"ALL: ALL: {option} touch {trace}\n", "", DAEMON_NAMES, HOST)
    decide("", f"ALL: ALL: (touch {trace}) &\n", DAEMON_NAMES, HOST)

    assert not trace.exists()


# ---- names are looked up only where a pattern asks ---------------------------------------------


@pytest.mark.parametrize(
    ("clients", "needed"),
    [
        ("ALL", False),
        ("10. 192.0.2.0/24 [::1] [2001:db8::]/32 @netgroup 10.*", False),
        ("ALL EXCEPT 10.", False),
        ("root@10.", False),
        ("web1.example.org", True),
        (".example.org", True),
        ("LOCAL", True),
        ("KNOWN", True),
        ("UNKNOWN", True),
        ("PARANOID", True),
        ("ALL EXCEPT w*", True),
        ("/etc/hosts.friends", True),
        ("root@web1", True),
    ],
)
def test_it_is_known_which_patterns_need_the_name(clients: str, needed: bool) -> None:
    assert patterns_need_name(f"yule: {clients}\n") is needed
    assert not patterns_need_name(f"sshd: {clients}\n")


class _Names:
    """A name service that counts its questions."""

    def __init__(self, answer: PeerName = PeerName("web1.example.org")) -> None:  # noqa: B008
        self.answer = answer
        self.asked = 0

    def name_of_peer(self) -> PeerName:
        self.asked += 1
        return self.answer


# ---- the files -------------------------------------------------------------------------------


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "hosts.allow", tmp_path / "hosts.deny"


async def _check(lists: tuple[Path, Path], names: _Names | None = None) -> Decision:
    decision = AccessLists(*lists).check_at_once("::ffff:10.1.2.3")
    if decision is None:
        found = (names or _Names()).name_of_peer()
        decision = AccessLists(*lists).check_at_once("::ffff:10.1.2.3", found)
        assert decision is not None
    return decision


async def test_lists_that_do_not_exist_are_empty(lists: tuple[Path, Path]) -> None:
    assert await _check(lists) == Decision(True)


async def test_lists_without_a_rule_let_everybody_in_and_hide_no_mistake(
    lists: tuple[Path, Path],
) -> None:
    lists[0].write_text("# nobody yet\n\n")
    assert await _check(lists) == Decision(True)
    lists[1].write_text("no colon here\n")
    decision = await _check(lists)
    assert decision.allowed
    assert ["hosts.deny line 1: skipped" in note for note in decision.notes] == [True]


async def test_what_is_no_address_is_refused_also_without_a_rule(
    lists: tuple[Path, Path],
) -> None:
    with pytest.raises(FormatError):
        AccessLists(*lists).check_at_once("10.1.2")


def test_for_those_who_come_at_one_stroke_the_lists_are_read_once(
    lists: tuple[Path, Path],
) -> None:
    at_once = AccessLists(*lists)
    lists[1].write_text("ALL: 10.1.2.4\n")
    assert [_allowed(at_once, address) for address in ("10.1.2.3", "10.1.2.4")] == [True, False]
    lists[1].write_text("ALL: 10.1.2.3\n")
    assert [_allowed(at_once, address) for address in ("10.1.2.3", "10.1.2.4")] == [True, False]
    assert not _allowed(AccessLists(*lists), "10.1.2.3")


def test_what_is_odd_about_the_lists_is_noted_for_each_of_them(lists: tuple[Path, Path]) -> None:
    lists[0].mkdir()
    at_once = AccessLists(*lists)
    first, second = (at_once.check_at_once(address) for address in ("10.1.2.3", "10.1.2.4"))
    assert first is not None
    assert first.allowed
    assert first.notes
    assert first == second


def test_notes_do_not_pile_up_from_one_of_them_to_the_next(
    lists: tuple[Path, Path], tmp_path: Path
) -> None:
    lists[1].write_text(f"ALL: {tmp_path}\nno colon here\n")
    at_once = AccessLists(*lists)
    first, second = (
        at_once.check_at_once(address, PeerName(None)) for address in ("10.1.2.3", "10.1.2.4")
    )
    assert first is not None
    assert first.notes
    assert first == second


def test_that_one_list_cannot_be_read_is_noted_whatever_the_other_one_says(
    lists: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists[0].mkdir()
    lists[1].write_text("ALL: 10.1.2.3\n")
    refused = AccessLists(*lists).check_at_once("10.1.2.3")
    assert refused is not None
    assert not refused.allowed
    assert len(refused.notes) == 1
    monkeypatch.setattr(access, "FILE_BYTES_MAX", 3)
    too_large = AccessLists(*lists).check_at_once("10.1.2.3")
    assert too_large is not None
    assert not too_large.allowed
    assert too_large.notes == refused.notes


def test_a_list_that_is_too_large_refuses_all_of_them(
    lists: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FILE_BYTES_MAX", 10)
    lists[0].write_text("#" * 11)
    at_once = AccessLists(*lists)
    assert not _allowed(at_once, "10.1.2.3")
    assert not _allowed(at_once, "10.1.2.4")


def test_nothing_is_decided_at_once_where_a_name_is_needed(lists: tuple[Path, Path]) -> None:
    lists[1].write_text("ALL: .example.org\n")
    at_once = AccessLists(*lists)
    assert at_once.check_at_once("10.1.2.3") is None
    decision = at_once.check_at_once("10.1.2.3", PeerName("eve.example.org"))
    assert decision is not None
    assert not decision.allowed


def _allowed(lists: AccessLists, address: str) -> bool:
    decision = lists.check_at_once(address)
    assert decision is not None
    return decision.allowed


async def test_the_lists_are_read_at_each_connection(lists: tuple[Path, Path]) -> None:
    lists[1].write_text("yule: 10.1.2.3\n")
    assert not (await _check(lists)).allowed
    lists[1].write_text("yule: 10.1.2.4\n")
    assert (await _check(lists)).allowed
    lists[1].unlink()
    assert (await _check(lists)).allowed


async def test_the_name_is_looked_up_only_if_a_pattern_needs_it(lists: tuple[Path, Path]) -> None:
    names = _Names()
    lists[1].write_text("ALL: 192.0.2.1\nsshd: .example.org\n")
    assert (await _check(lists, names)).allowed
    assert names.asked == 0
    lists[1].write_text("ALL: .example.org\n")
    assert not (await _check(lists, names)).allowed
    assert names.asked == 1


async def test_a_file_of_patterns_is_read(lists: tuple[Path, Path], tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("192.0.2.1 10.1.2.3")
    outer.write_text(f"192.0.2.2\n{inner}\n")
    lists[1].write_text(f"ALL: {outer}\n")

    assert not (await _check(lists)).allowed


async def test_files_of_patterns_that_name_each_other_come_to_an_end(
    lists: tuple[Path, Path], tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.write_text(f"{loop}\n{loop}\n")
    lists[1].write_text(f"ALL: {loop}\n")

    decision = await _check(lists)

    assert decision.allowed
    assert any("nested too deeply" in note for note in decision.notes)
    assert NESTED_FILES_MAX < 10


async def test_a_missing_file_of_patterns_matches_nothing(lists: tuple[Path, Path]) -> None:
    lists[0].write_text("ALL: /nonexistent/file\n")
    lists[1].write_text(DENY_ALL)

    assert not (await _check(lists)).allowed


async def test_a_list_that_cannot_be_read_is_empty_and_noted(lists: tuple[Path, Path]) -> None:
    lists[1].mkdir()
    open_files = len(os.listdir("/proc/self/fd"))

    decision = await _check(lists)

    assert len(os.listdir("/proc/self/fd")) == open_files, "it happens at each connection"

    assert decision.allowed
    assert len(decision.notes) == 1
    assert "cannot be read (not a regular file), so it counts as empty" in decision.notes[0]


async def test_a_list_is_read_whole_where_the_system_does_not_tell_its_size(
    lists: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Path("/proc/self/comm")
    before = name.read_text()
    monkeypatch.setattr(access, "_ROOM_TO_GROW", 3)
    lists[1].symlink_to(name)
    try:
        name.write_text("ALL: ALL")
        assert lists[1].stat().st_size == 0

        assert not (await _check(lists)).allowed
    finally:
        name.write_text(before.strip())


async def test_a_fifo_in_the_place_of_a_list_does_not_stop_the_server(
    lists: tuple[Path, Path],
) -> None:
    os.mkfifo(lists[1])

    assert (await _check(lists)).allowed


@pytest.mark.parametrize("excess", [-1, 0, 1])
async def test_a_list_that_is_too_large_refuses(
    lists: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, excess: int
) -> None:
    monkeypatch.setattr(access, "FILE_BYTES_MAX", 1000)
    lists[0].write_bytes(b"#" * (1000 + excess - 1) + b"\n")

    decision = await _check(lists)

    assert decision.allowed is (excess <= 0)
    assert decision.allowed or "larger than 1000 bytes" in str(decision.rule)


@given(allow=st.binary(max_size=200), deny=st.binary(max_size=200))
def test_any_bytes_are_a_list(allow: bytes, deny: bytes) -> None:
    texts = [data.decode("utf-8", "replace") for data in (allow, deny)]
    decision = decide(texts[0], texts[1], DAEMON_NAMES, HOST)

    assert all(note.isprintable() or "@" in note or "/" in note for note in decision.notes)


# ---- the same verdicts as the real thing --------------------------------------------------------

_HOSTS = ("10.1.2.3", "192.0.2.1", "127.0.0.1", "2001:db8::5", "::1", "::ffff:10.1.2.3", "paranoid")
_DAEMON_TOKENS = (
    "ALL",
    "yule",
    "YULE",
    "sshd",
    "y*",
    "?ule",
    "EXCEPT",
    "yule@ALL",
    "KNOWN",
    "yul.",
)
_CLIENT_TOKENS = (
    *("ALL", "all", "EXCEPT", "EXCEPT", "KNOWN", "UNKNOWN", "LOCAL", "PARANOID", "except"),
    *("10.", "10.1.2.3", "10.1.2", "10.1.*", "1?.*", "192.0.2.1", "127.", ".3", ".1", "unknown"),
    *("10.0.0.0/8", "10.1.2.3/8", "10.1.2.3/32", "10.1.2.0/255.255.255.0", "0.0.0.0/0", "x/8"),
    *("10.0.0.0/255.0.255.0", "192.0.2.1/255.255.255.255", "192.0.2.1/31", "10.0.0.0/33", "/"),
    *(
        "[::1]",
        "[2001:db8::]/32",
        "[2001:DB8::5]",
        "[::]/0",
        "[::ffff:10.1.2.3]",
        "[2001:db8::5]/127",
        *("[2001:db8::]/32x", "[2001:db8::]/+16", "[2001:db8::]/0x20", "[2001:db8::]/129"),
        *("10.0.0.0/8x", "10.0.0.0/+8", "10.0.0.0/255.0.0.0x", "10.0.0.0/0x8", "10.0.0.0/008"),
    ),
    *("web1.example.org", ".example.org", "@netgroup", "ALL@10.", "root@10.", "UNKNOWN@ALL", "*"),
    *("/nonexistent", "[::*]", "[::1", "10.1.2.3]", "KNOWN@ALL"),
)
_OPTIONS = (
    "",
    "",
    "",
    " : allow",
    ": deny",
    " : severity notice",
    ": keepalive : deny",
    ": bad",
    ":",
)
_NOISE = ("", "# ALL: ALL", "ALL ALL", "  ", "ALL:")

_tokens = st.lists(st.sampled_from(_CLIENT_TOKENS), min_size=1, max_size=5)
_rules = st.builds(
    lambda daemons, clients, blank, options: f"{' '.join(daemons)}:{blank.join(clients)}{options}",
    st.lists(st.sampled_from(_DAEMON_TOKENS), min_size=1, max_size=3),
    _tokens,
    st.sampled_from((" ", ", ", ",", "\t", " \\\n ")),
    st.sampled_from(_OPTIONS),
)
_files = st.lists(st.one_of(_rules, _rules, st.sampled_from(_NOISE)), max_size=4)


@pytest.mark.debian
@pytest.mark.skipif(
    shutil.which("tcpdmatch", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None,
    reason="tcpdmatch is missing: apt-get install tcpd",
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(allow=_files, deny=_files, host=st.sampled_from(_HOSTS))
@example(allow=[], deny=["ALL: ALL EXCEPT 10. EXCEPT 10.1.2.3"], host="10.1.2.3")
@example(allow=["yule: [2001:db8::]/32"], deny=["ALL: ALL"], host="2001:db8::5")
@example(allow=["ALL:[::1 [2001:db8::]/32: deny"], deny=["ALL: ALL"], host="2001:db8::5")
@example(allow=["ALL:[::1 10.0.0.0/8: deny"], deny=["ALL: ALL"], host="10.1.2.3")
@example(allow=[], deny=["ALL: [2001:db8::]/32x"], host="2001:db8::5")
def test_the_real_libwrap_comes_to_the_same_verdict(
    tmp_path: Path, allow: Sequence[str], deny: Sequence[str], host: str
) -> None:
    texts = ["".join(line + "\n" for line in lines) for lines in (allow, deny)]
    client = (
        Client(None, None, True) if host == "paranoid" else Client(host.removeprefix("::ffff:"))
    )

    ours = decide(texts[0], texts[1], ("yule",), client)

    assert ours.allowed is _real_verdict(tmp_path, texts[0], texts[1], host)


def _real_verdict(directory: Path, allow: str, deny: str, host: str) -> bool:
    (directory / "hosts.allow").write_text(allow)
    (directory / "hosts.deny").write_text(deny)
    (directory / "inetd.conf").write_text("yule stream tcp nowait root /usr/sbin/tcpd yule\n")
    tcpdmatch = shutil.which("tcpdmatch", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    result = subprocess.run(
        [str(tcpdmatch), "-d", "-i", "inetd.conf", "yule", host],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    verdicts = [
        line.split()[1] for line in result.stdout.splitlines() if line.startswith("access:")
    ]
    assert len(verdicts) == 1, result.stdout + result.stderr
    return verdicts[0] == "granted"
