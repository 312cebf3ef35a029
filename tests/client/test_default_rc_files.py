"""The rc files in etc/: each loads, each rule says what it sees, each place is decided as promised."""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from needfire_client.facts import HostFacts
from needfire_client.policy import Ruleset
from needfire_protocol.rc.agent import AgentSettings, parse_agent_rc
from needfire_protocol.rc.conditions import StatedFacts
from needfire_protocol.rc.policies import Check, Policy
from needfire_protocol.severity import Severity
from needfire_testkit.scanner import Scanned

ETC = Path(__file__).parents[2] / "etc"
NAMES = ("rc.debian", "rc.rhel", "rc.minimal")

_TECHNIQUE = re.compile(r"\bT1\d{3}(?:\.\d{3})?\b")
_RULE = re.compile(r"(?:dir|file) = (-?\d*)(/.*)")
_CONDITION = re.compile(r"@if file_exists (/\S+)")


class EverythingThere(StatedFacts):
    """A host that has whatever is asked for."""

    def file_exists(self, _path: bytes, /) -> bool:
        return True


def load(name: str, *, is_full: bool = True) -> AgentSettings:
    facts = EverythingThere() if is_full else StatedFacts()
    return parse_agent_rc((ETC / name).read_bytes(), source=name, facts=facts)


# ---- the files themselves ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_full", [False, True])
def test_each_loads_without_an_error_or_a_notice(name: str, is_full: bool) -> None:
    settings = load(name, is_full=is_full)
    assert settings.notices == ()
    assert len(settings.rules) > 10
    assert settings.policy_severities[Policy.USER0] is Severity.ALERT
    assert settings.masks[Policy.USER0] == settings.masks[Policy.READ_ONLY]


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_stands_under_a_comment_with_its_technique(name: str) -> None:
    found = 0
    for block in (ETC / name).read_text().split("\n\n"):
        rules = [line for line in block.splitlines() if _RULE.fullmatch(line)]
        comment = " ".join(line for line in block.splitlines() if line.startswith("##"))
        assert not rules or _TECHNIQUE.search(comment), block
        found += len(rules)
    assert found == len(load(name).rules)


@pytest.mark.parametrize("name", NAMES)
def test_each_condition_asks_for_the_path_of_its_rules(name: str) -> None:
    condition = None
    for line in (ETC / name).read_text().splitlines():
        if (asked := _CONDITION.fullmatch(line)) is not None:
            condition = asked[1]
        elif line == "@fi":
            condition = None
        elif condition is not None:
            rule = _RULE.fullmatch(line)
            assert rule is not None
            assert rule[2] == condition


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stands_in_a_file_twice(name: str) -> None:
    rules = Counter((rule.kind, rule.path) for rule in load(name).rules)
    assert max(rules.values()) == 1


# ---- what is decided about the places that attackers use -----------------------------------------

U, R, A, G, L = (
    Policy.USER0,
    Policy.READ_ONLY,
    Policy.ATTRIBUTES,
    Policy.GROWING_LOG_FILES,
    Policy.LOG_FILES,
)

EVERYWHERE = {
    "/etc/passwd": U,
    "/etc/shadow": U,
    "/etc/ssh/sshd_config": U,
    "/etc/ssh/sshd_config.d/x.conf": U,
    "/root/.ssh": U,
    "/root/.ssh/authorized_keys": U,
    "/home/u/.ssh/authorized_keys": U,
    "/etc/pam.d/sshd": U,
    "/etc/security/access.conf": U,
    "/etc/sudoers": U,
    "/etc/sudoers.d/x": U,
    "/etc/polkit-1/rules.d/x.rules": U,
    "/etc/nsswitch.conf": U,
    "/etc/crontab": U,
    "/etc/cron.d/x": U,
    "/etc/cron.daily/x": U,
    "/var/spool/at/x": U,
    "/etc/systemd/system/x.service": U,
    "/etc/systemd/system/x.service.d/y.conf": U,
    "/etc/systemd/system/x.timer": U,
    "/etc/systemd/system-generators/x": U,
    "/usr/lib/systemd/system/x.service": U,
    "/usr/lib/systemd/system-generators/x": U,
    "/home/u/.config/systemd/user/x.service": U,
    "/etc/rc.local": U,
    "/etc/ld.so.preload": U,
    "/etc/ld.so.conf": U,
    "/etc/ld.so.conf.d/x.conf": U,
    "/etc/profile": U,
    "/etc/profile.d/x.sh": U,
    "/root/.bashrc": U,
    "/home/u/.bashrc": U,
    "/home/u/.profile": U,
    "/home/u/.bash_profile": U,
    "/home/u/.bash_login": U,
    "/home/u/.bash_logout": U,
    "/home/u/.zshenv": U,
    "/etc/modules-load.d/x.conf": U,
    "/etc/modprobe.d/x.conf": U,
    "/boot/vmlinuz": U,
    "/boot/grub/grub.cfg": U,
    "/etc/udev/rules.d/x.rules": U,
    "/usr/lib/udev/rules.d/x.rules": U,
    "/etc/NetworkManager/dispatcher.d/x": U,
    "/etc/update-motd.d/x": U,
    "/etc/xdg/autostart/x.desktop": U,
    "/home/u/.config/autostart/x.desktop": U,
    "/opt/needfire/bin/needfire-agent": U,
    "/etc/needfire/agentrc": U,
    "/etc/systemd/system/needfire-agent.service": U,
    "/etc/default/needfire-agent": U,
    "/etc/audit/rules.d/x.rules": U,
    "/etc/rsyslog.d/x.conf": U,
    "/etc/hosts": R,
    "/usr/local/bin/ls": R,
    "/var/www/html/shell.php": R,
    "/etc/whatever": R,
    "/etc": A,
    "/tmp": A,
    "/root": A,
    "/root/.bash_history": A,
    "/root/.config": A,
    "/home/u": A,
    "/etc/resolv.conf": A,
    "/home/u/Documents": None,
    "/tmp/x": None,
    "/proc/1": None,
}
WHOLE_SYSTEM = {
    "/usr/bin/ls": R,
    "/usr/share/doc/x": R,
    "/bin": R,
    "/lib": R,
    "/usr/lib/modules/6/x.ko": U,
    "/usr/local/lib/python3.11/dist-packages/x.pth": U,
    "/var/log/auth.log": G,
    "/var/log/lastlog": L,
    "/var/log/journal/x/system.journal": A,
}
PLACES = {
    "rc.debian": EVERYWHERE
    | WHOLE_SYSTEM
    | {
        "/etc/apt/apt.conf.d/x": U,
        "/etc/apt/sources.list": U,
        "/etc/dpkg/dpkg.cfg.d/x": U,
        "/var/lib/dpkg/info/x.postinst": U,
        "/var/spool/cron/crontabs/root": U,
        "/etc/init.d/x": U,
        "/etc/bash.bashrc": U,
        "/etc/default/grub": U,
        "/etc/grub.d/x": U,
        "/etc/initramfs-tools/hooks/x": U,
        "/etc/network/if-up.d/x": U,
        "/etc/apparmor.d/x": U,
        "/etc/ssl/certs/x.pem": R,
    },
    "rc.rhel": EVERYWHERE
    | WHOLE_SYSTEM
    | {
        "/etc/dnf/plugins/x.conf": U,
        "/etc/yum.repos.d/x.repo": U,
        "/usr/lib/python3.12/site-packages/dnf-plugins/x.py": U,
        "/usr/lib/rpm/macros": U,
        "/var/spool/cron/root": U,
        "/etc/rc.d/rc.local": U,
        "/etc/sysconfig/x": U,
        "/etc/bashrc": U,
        "/etc/authselect/system-auth": U,
        "/etc/dracut.conf.d/x.conf": U,
        "/etc/selinux/config": U,
        "/etc/firewalld/x": U,
        "/boot/loader/entries/x.conf": U,
        "/etc/pki/ca-trust/source/anchors/x.pem": R,
    },
    "rc.minimal": EVERYWHERE
    | {
        "/etc/apt/apt.conf.d/x": U,
        "/etc/dnf/plugins/x.conf": U,
        "/var/spool/cron/crontabs/root": U,
        "/etc/init.d/x": U,
        "/usr/bin/ls": None,
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_each_place_that_attackers_use_is_decided_as_promised(name: str) -> None:
    ruleset = Ruleset(load(name))
    decided = {}
    for path in PLACES[name]:
        decision = ruleset.decide(path.encode())
        decided[path] = None if decision is None else decision.policy
    assert decided == PLACES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_decides_about_one_of_these_places_or_its_like(name: str) -> None:
    """A rule that no place tries is one that nobody has looked at."""
    ruleset = Ruleset(load(name))
    tried = {ruleset.decide(path.encode()) for path in PLACES[name]}
    for decision in ruleset.decisions:
        example = decision.rule.path.replace(b"*", b"u").replace(b"[io][nu]", b"in")
        assert ruleset.decide(example) is decision or decision in tried
        assert decision.policy in (U, R, A, G, L)


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_appears_after_the_file_was_read_is_covered_all_the_same(name: str) -> None:
    ruleset = Ruleset(load(name, is_full=False))
    for path in (b"/etc/ld.so.preload", b"/etc/rc.local", b"/etc/cron.d", b"/root/.ssh"):
        assert ruleset.decide(path) is not None


# ---- on this machine -----------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.debian
@pytest.mark.parametrize("name", ["rc.debian", "rc.minimal"])
def test_on_this_machine_nothing_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("needs root on Debian")
    # Large, and named by no rule: what is asked here is whether the rules fit.
    large = [path for path in ("/usr/share", "/usr/include", "/usr/src") if Path(path).is_dir()]
    rest = "\n[IgnoreAll]\n" + "".join(f"dir = -1{path}\n" for path in large)
    settings = parse_agent_rc(
        (ETC / name).read_bytes() + rest.encode(),
        source=name,
        facts=HostFacts("host.example.org"),
    )
    assert settings.notices == ()
    # Contents are not digested, for the same reason.
    masks = {policy: mask & ~Check.CHK for policy, mask in settings.masks.items()}
    scanned = Scanned(dataclasses.replace(settings, masks=masks), tmp_path)
    result = scanned.init()
    assert result.files > 500
    assert result.unreadable == 0
    for event in scanned.take():
        # Only what is in users' homes cannot be asked for by a condition.
        assert event.code == "RULE_MATCHES_NOTHING", event
        assert event.path.startswith(b"/home/")
    checker = scanned.checker()
    checker.full_check()
    scanned.close()
    assert {event.code for event in scanned.take()} <= {
        "RULE_MATCHES_NOTHING",
        # Other programs are at work on this machine meanwhile.
        "POLICY_ADDED",
        "POLICY_MISSING",
        "POLICY_MODIFIED",
    }
