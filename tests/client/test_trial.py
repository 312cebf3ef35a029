"""What the doctor says of watching: tried with what the agent uses, under the rights it would have."""

import ctypes
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

from needfire_client.commands.doctor import Finding, Verdict, _look_at_watching
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.guard import Canary
from needfire_client.realtime import RealTime
from needfire_client.trial import try_watching
from needfire_protocol.rc.agent import AgentSettings
from needfire_testkit.scanner import dir_rule, settings_of

UNIT = Path(__file__).parents[2] / "etc/systemd/needfire-agent.service"

with_rights = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs uid 0, and setpriv to give rights up: apt-get install util-linux",
)


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    (tmp_path / "tree").mkdir()
    return settings_of(dir_rule(tmp_path / "tree"))


def findings(settings: AgentSettings | None) -> dict[str, Finding]:
    return {finding.about: finding for finding in _look_at_watching(settings)}


def test_a_trial_leaves_nothing_behind(
    settings: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RealTime] = []
    real = RealTime.try_out

    def try_out(self: RealTime) -> None:
        started.append(self)
        real(self)

    monkeypatch.setattr(RealTime, "try_out", try_out)
    written: list[Canary] = []
    monkeypatch.setattr(Canary, "write", written.append)
    before = sorted(os.listdir("/proc/self/fd"))
    trial = try_watching(settings)
    assert trial.method in ("fanotify", "inotify")
    assert trial.watched >= 1
    assert started[0].health == ()
    assert sorted(os.listdir("/proc/self/fd")) == before
    # No canary: its time would hide an absence of the agent.
    assert written == []
    assert list((tmp_path / "tree").iterdir()) == []


def test_without_rules_the_root_alone_is_tried() -> None:
    for settings in (None, AgentSettings()):
        assert try_watching(settings).method in ("fanotify", "inotify")


def test_what_is_switched_off_is_said_to_be(settings: AgentSettings) -> None:
    for off in ({"realtime": False}, {"realtime_method": "none"}):
        found = findings(settings_of(*settings.rules, **off))
        assert found["real-time watching"].verdict is Verdict.WARN
        assert "switched off" in found["real-time watching"].text


def test_a_way_that_is_ordered_and_does_not_work_fails(
    settings: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(FanotifyWatcher, "start", refuse)
    found = findings(settings_of(*settings.rules, realtime_method="fanotify"))
    assert found["real-time watching"] == Finding(
        Verdict.FAIL,
        "real-time watching",
        "none: fanotify: Function not implemented",
        "RealTimeMethod = auto takes what works here",
    )


def test_a_way_that_was_chosen_is_told_as_chosen(settings: AgentSettings) -> None:
    chosen = settings_of(*settings.rules, realtime_method="polling")
    assert try_watching(chosen).reason == "RealTimeMethod = polling"
    finding = findings(chosen)["real-time watching"]
    assert finding.verdict is Verdict.WARN
    assert finding.fix == "RealTimeMethod = auto takes the best that works here"


def test_the_limit_of_watches_is_told_with_what_raises_it(
    settings: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inotify_c.inotify_add_watch

    def add(fd: int, path: bytes, mask: int) -> Any:
        if path.endswith(b"/beyond"):
            ctypes.set_errno(errno.ENOSPC)
            return -1
        return real(fd, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", add)
    (tmp_path / "tree" / "beyond").mkdir()
    *_, finding = _look_at_watching(settings_of(*settings.rules, realtime_method="inotify"))
    assert finding == Finding(
        Verdict.WARN,
        "real-time watching",
        "/: a directory is not watched: limit of watches reached (fs.inotify.max_user_watches)",
        "sysctl fs.inotify.max_user_watches=500000",
    )


def doctor(bounding: str, state: Path, rc: Path) -> dict[str, dict[str, str]]:
    """Run the doctor as root with some rights given up."""
    command = [
        *("setpriv", "--bounding-set", bounding),
        *(sys.executable, "-m", "needfire_client", "doctor", "--json"),
        *("--state-dir", str(state), "--rc", str(rc)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return {each["about"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.root
@with_rights
@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("sys_admin", "Operation not permitted"),
        ("dac_read_search", "an event cannot be read: Operation not permitted"),
    ],
)
def test_a_right_that_fanotify_needs_and_is_missing_is_named(
    missing: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    rc = tmp_path / "rc"
    rc.write_text(f"[ReadOnly]\ndir=9{tmp_path}/tree\n")
    found = doctor(f"-{missing}", tmp_path / "state", rc)
    assert found["real-time watching"]["verdict"] == "warn"
    assert found["real-time watching"]["text"].startswith("inotify, ")
    assert reason in found["real-time watching"]["text"]
    assert f"CAP_{missing.upper()}" in found["rights"]["text"]


WATCH = """
import sys, threading
from pathlib import Path
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, settings_of
ears = Ears()
watcher = FanotifyWatcher(settings_of(dir_rule(Path(sys.argv[1]))), ears)
watcher.start()
print("watching", flush=True)
ears.wait_paths(Path(sys.argv[1]) / "new")
print([writer for _, writer, _ in ears.writers][0])
watcher.stop()
"""


@pytest.mark.root
@with_rights
def test_the_rights_of_the_service_are_enough_to_watch_and_to_say_who(tmp_path: Path) -> None:
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    names = [name.removeprefix("CAP_").lower() for name in found[1].split()]
    bounding = ",".join(["-all", *(f"+{name}" for name in names)])
    command = ["setpriv", "--bounding-set", bounding, sys.executable, "-c", WATCH, str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        # By a process that has rights which the watcher does not have.
        (tmp_path / "new").write_bytes(b"")
        told = process.stdout.read()
    program = os.fsencode(os.path.realpath(sys.executable))
    assert f"pid={os.getpid()}, program={program!r}" in told
    assert "uid=0" in told
    own = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0]
    assert f"command={own!r}"[:-1] in told
