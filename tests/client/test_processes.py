"""Which program a process id stands for: real processes of this host, and an own clock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from needfire_client.processes import TRUST_S, Processes, unit_of

PYTHON = os.fsencode(os.path.realpath(sys.executable))


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def running() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as process:
        try:
            # Popen returns in the midst of execve: the arguments come after the program.
            while Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"sleep\x0060\0":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@contextmanager
def known(clock: Clock) -> Iterator[Processes]:
    processes = Processes(clock_s=clock)
    try:
        yield processes
    finally:
        processes.close()


def ended() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def program_of(process: "subprocess.Popen[bytes]") -> bytes:
    return os.fsencode(os.readlink(f"/proc/{process.pid}/exe"))


def test_a_process_that_lives_is_described() -> None:
    with running() as process, known(Clock()) as processes:
        writer = processes.writer(process.pid)
        assert writer is not None
        assert writer.program == program_of(process)
        assert writer.command == b"sleep\x0060\0"
        assert writer.uid == os.geteuid()
        assert writer.parent == PYTHON


def test_a_process_that_is_gone_and_was_never_noted_is_unknown() -> None:
    with known(Clock()) as processes:
        assert processes.writer(ended()) is None
        assert processes.writer(0) is None
        assert processes.writer(-1) is None


def test_a_program_that_was_noted_is_told_after_its_end() -> None:
    clock = Clock()
    with known(clock) as processes:
        pid = ended()
        processes.executed(pid, b"/usr/bin/touch")
        clock.now_s += TRUST_S
        writer = processes.writer(pid)
        assert writer is not None
        assert (writer.program, writer.command, writer.uid) == (b"/usr/bin/touch", None, None)


def test_after_a_while_the_number_may_mean_another() -> None:
    clock = Clock()
    with known(clock) as processes:
        pid = ended()
        processes.executed(pid, b"/usr/bin/touch")
        clock.now_s += TRUST_S + 0.01
        assert processes.writer(pid) is None


def test_a_process_that_ends_is_trusted_from_when_it_was_last_seen_alive() -> None:
    clock = Clock()
    with known(clock) as processes, running() as process:
        processes.executed(process.pid, program_of(process))
        for _ in range(5):
            clock.now_s += TRUST_S
            processes.sweep()
        process.send_signal(signal.SIGKILL)
        process.wait()
        clock.now_s += TRUST_S / 2
        processes.sweep()
        assert processes.writer(process.pid) is not None
        clock.now_s += TRUST_S
        processes.sweep()
        assert processes.writer(process.pid) is None


def test_nobody_swept_for_long_and_the_process_has_ended() -> None:
    clock = Clock()
    with known(clock) as processes, running() as process:
        processes.executed(process.pid, program_of(process))
        process.kill()
        process.wait()
        clock.now_s += TRUST_S * 2
        assert processes.writer(process.pid) is None


def test_the_command_line_of_another_program_is_not_told() -> None:
    """It has executed yet another one meanwhile, whose event is still to come."""
    with known(Clock()) as processes, running() as process:
        processes.executed(process.pid, b"/usr/bin/other")
        writer = processes.writer(process.pid)
        assert writer is not None
        assert (writer.program, writer.command) == (b"/usr/bin/other", None)
        assert writer.uid == os.geteuid()


def test_the_command_line_is_not_read_before_the_process_has_done_something() -> None:
    """At the event it may be that of a parent that runs the same program."""
    with known(Clock()) as processes, running() as process:
        processes.executed(process.pid, program_of(process))
        assert processes._known[process.pid].command is None
        writer = processes.writer(process.pid)
        assert writer is not None
        assert writer.command == b"sleep\x0060\0"


def test_the_loader_behind_a_program_does_not_replace_it_and_one_by_itself_does() -> None:
    loader = b"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    with known(Clock()) as processes:
        pid = ended()
        processes.executed(pid, b"/usr/bin/env")
        processes.executed(pid, loader)
        processes.executed(pid, b"/usr/bin/touch")
        processes.executed(pid, loader)
        writer = processes.writer(pid)
        assert writer is not None
        assert writer.program == b"/usr/bin/touch"
        processes.executed(pid, loader)
        writer = processes.writer(pid)
        assert writer is not None
        assert writer.program == loader


def in_memory(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a program from memory, of whose execution nobody is told."""
    script = """
import os, shutil, sys
memory = os.memfd_create("usr-bin-apt")
os.write(memory, open(shutil.which("sleep"), "rb").read())
os.execv(f"/proc/self/fd/{memory}", ["apt", *sys.argv[1:]])
"""
    return subprocess.Popen([sys.executable, "-c", script, *arguments])


@pytest.mark.parametrize("noted", [b"/usr/bin/apt", b"/lib64/ld-linux-x86-64.so.2", None])
def test_a_process_that_runs_what_nobody_was_told_of_is_not_taken_for_what_it_ran_before(
    noted: bytes | None,
) -> None:
    heard = os.stat(PYTHON).st_dev
    processes = Processes(clock_s=Clock(), is_heard=lambda device: device == heard)
    with in_memory("60") as process:
        try:
            if noted is not None:
                processes.executed(process.pid, noted)
            while Path(f"/proc/{process.pid}/cmdline").read_bytes() != b"apt\x0060\0":
                assert process.poll() is None
            writer = processes.writer(process.pid)
            assert writer is not None
            assert writer.program == b"(unreachable)/memfd:usr-bin-apt (deleted)"
            assert writer.command == b"apt\x0060\0"
        finally:
            processes.close()
            process.kill()


def test_what_is_noted_holds_where_the_next_execution_would_be_told() -> None:
    with known(Clock()) as processes, running() as process:
        processes.executed(process.pid, b"/usr/bin/other")
        writer = processes.writer(process.pid)
        assert writer is not None
        assert writer.program == b"/usr/bin/other"


def test_a_program_whose_path_nobody_can_tell_replaces_what_was_noted() -> None:
    with known(Clock()) as processes:
        pid = ended()
        processes.executed(pid, b"/usr/bin/apt")
        processes.executed_unseen(pid)
        assert processes.writer(pid) is None


def test_a_file_elsewhere_that_is_named_like_the_loader_is_a_program() -> None:
    with known(Clock()) as processes:
        pid = ended()
        processes.executed(pid, b"/bin/bash")
        processes.executed(pid, b"/tmp/ld-linux.so.2")
        writer = processes.writer(pid)
        assert writer is not None
        assert writer.program == b"/tmp/ld-linux.so.2"


def test_what_is_remembered_is_bounded() -> None:
    with known(Clock()) as processes:
        before = len(os.listdir("/proc/self/fd"))
        own = os.getpid()
        for number in range(3_000):
            processes.executed(own if number % 2 else 10_000_000 + number, b"/bin/x")
        assert len(processes._known) <= 1_024
        assert len(os.listdir("/proc/self/fd")) <= before + 256


def test_a_proc_full_of_nonsense_gives_unknown(tmp_path: Path) -> None:
    fake = tmp_path / str(os.getpid())
    fake.mkdir()
    (fake / "exe").symlink_to("/bin/x")
    (fake / "status").write_bytes(b"Uid:\nPPid:\tnobody\n\xff\n")
    (fake / "loginuid").write_bytes(b"")
    (fake / "cgroup").write_bytes(b"\xff" * 100)
    processes = Processes(proc=tmp_path)
    try:
        writer = processes.writer(os.getpid())
    finally:
        processes.close()
    assert writer is not None
    assert (writer.program, writer.uid, writer.login_uid, writer.parent, writer.unit) == (
        b"/bin/x",
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("0::/user.slice/user@0.service/app.slice/x.service\n", "x.service"),
        (f"0::/system.slice/docker-{'ab' * 32}.scope\n", "container:abababababab"),
        (f"12:pids:/docker/{'cd' * 32}\n0::/\n", "container:cdcdcdcdcdcd"),
        (f"0::/kubepods/pod1/cri-containerd-{'ef' * 32}.scope\n", "container:efefefefefef"),
        ("0::/\n", None),
        ("", None),
        ("8:pids:/\n1:name=systemd:/init.scope\n0::/\n", "init.scope"),
    ],
)
def test_container_or_unit_of_a_control_group(cgroups: str, unit: str | None) -> None:
    assert unit_of(cgroups) == unit
