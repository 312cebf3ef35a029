"""Real programs for end-to-end tests: a server and agents as processes on loopback.

Everything that a test waits for is a condition with a time limit, never a pause.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["AgentHome", "Program", "ServerHome", "wait_until"]

_BIN = Path(sys.executable).parent
WAIT_LIMIT_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = WAIT_LIMIT_S) -> Any:
    """Return the first true result of condition; fail the test when none comes in time."""
    deadline = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s} s in vain for {what}")
        time.sleep(0.02)


class Program:
    """A running program whose output lies in a file that can be read at any time."""

    def __init__(self, command: list[str], output: Path) -> None:
        self._output = output
        with output.open("ab") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, count: int = 1, limit_s: float = WAIT_LIMIT_S) -> str:
        """Wait until text stands count times in the output; return the last line that has it."""

        def lines() -> list[str]:
            return [line for line in self.output().splitlines() if text in line]

        def enough() -> bool:
            if len(lines()) >= count:
                return True
            if self.process.poll() is not None and len(lines()) < count:
                raise AssertionError(
                    f"ended with {self.process.returncode} before {text!r}:\n{self.output()}"
                )
            return False

        try:
            wait_until(enough, f"{text!r} ({count} times)", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- output:\n{self.output()}") from None
        return lines()[-1]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: what a crash, an attacker or the kernel does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=WAIT_LIMIT_S)

    def exit_status(self) -> int:
        return self.process.wait(timeout=WAIT_LIMIT_S)


class ServerHome:
    """A server's files, and the ways to start it and to steer it."""

    def __init__(self, directory: Path, misc: str = "", clients: str = "") -> None:
        self.directory = directory
        self.data = directory / "data"
        self.data.mkdir(parents=True)
        self.data.chmod(0o700)
        self.hosts_allow = directory / "hosts.allow"
        self.hosts_deny = directory / "hosts.deny"
        self.rc = directory / "serverrc"
        self.write_rc(misc, clients)
        self.port = 0
        self.program: Program | None = None
        self._running: list[Program] = []

    def write_rc(self, misc: str = "", clients: str = "") -> None:
        user = "ServerUser=root\n" if os.geteuid() == 0 else ""
        self.rc.write_text(
            f"[Misc]\n{user}HostsAllowFile={self.hosts_allow}\nHostsDenyFile={self.hosts_deny}\n"
            f"{misc}\n[Log]\nPrintSeverity=*\nLogSeverity=*\n[Clients]\n{clients}\n"
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> Program:
        assert self.program is not None
        return self.program

    def start(self, *arguments: str) -> Program:
        """Start it on a port that the system picks, the same one at each later start."""
        output = self.directory / f"server.{len(self._running)}.out"
        program = Program(
            [
                *(str(_BIN / "needfire-server"), "serve", "--foreground"),
                *("--config", str(self.rc), "--data-dir", str(self.data)),
                *("--listen", f"127.0.0.1:{self.port}", *arguments),
            ],
            output,
        )
        self.program = program
        self._running.append(program)
        # The event SERVER_UP says the same words before, inside of its line.
        line = wait_until(
            lambda: (
                next(
                    (x for x in program.output().splitlines() if x.startswith("listening on")), None
                )
                or program.process.poll() is not None
            ),
            "the server",
        )
        assert isinstance(line, str), program.output()
        self.port = int(line.rpartition(":")[2])
        return program

    def check_config(self) -> "subprocess.CompletedProcess[str]":
        """Ask the server about its file; errors and notices stand in the standard output."""
        return subprocess.run(
            [str(_BIN / "needfire-server"), "check-config", str(self.rc)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_LIMIT_S,
            check=False,
        )

    def admin(
        self, *arguments: str, standard_input: str = "", status: int = 0
    ) -> "subprocess.CompletedProcess[str]":
        result = subprocess.run(
            [str(_BIN / "needfire-admin"), "--data-dir", str(self.data), *arguments],
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=WAIT_LIMIT_S,
            check=False,
        )
        assert result.returncode == status, (arguments, result.stdout, result.stderr)
        return result

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the stored events, oldest first."""
        result = self.admin("events", "--json", "--limit", "100000", *arguments)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def register(self, name: str) -> str:
        """Register a client; return its password."""
        return self.admin("register", name).stdout.strip().splitlines()[-1]

    def stop_all(self) -> None:
        for program in self._running:
            if program.process.poll() is None:
                program.kill()


class AgentHome:
    """An agent's files, and the ways to start it."""

    def __init__(self, directory: Path, name: str, server: ServerHome) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir(parents=True)
        self.state.chmod(0o700)
        self.tree = directory / "tree"
        self.tree.mkdir()
        self.name = name
        self.server = server
        self._running: list[Program] = []

    def set_password(self, password: str) -> None:
        result = self.run("set-password", "--password-file", "-", standard_input=password)
        assert result.returncode == 0, result.stdout

    def rc_text(self, misc: str = "") -> str:
        """A configuration that watches the tree; everything is printed on the console."""
        return (
            f"[Misc]\nSetFilecheckTime=3600\nSetLoopTime=1\n{misc}\n"
            f"[Log]\nPrintSeverity=*\n[ReadOnly]\ndir=99{self.tree}\n"
        )

    def common(self) -> list[str]:
        return [
            *("--state-dir", str(self.state), "--server", self.server.address),
            *("--name", self.name),
        ]

    def run(
        self, verb: str, *arguments: str, standard_input: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a verb to its end."""
        return subprocess.run(
            [str(_BIN / "needfire-agent"), verb, *self.common(), *arguments],
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_LIMIT_S,
            check=False,
        )

    def start(self, *arguments: str) -> Program:
        """Start the daemon."""
        output = self.directory / f"agent.{len(self._running)}.out"
        program = Program([str(_BIN / "needfire-agent"), "run", *self.common(), *arguments], output)
        self._running.append(program)
        return program

    def stop_all(self) -> None:
        for program in self._running:
            if program.process.poll() is None:
                program.kill()


@contextmanager
def stopping(*homes: ServerHome | AgentHome) -> Iterator[None]:
    """Kill whatever of these still runs when the test ends."""
    try:
        yield
    finally:
        for home in homes:
            home.stop_all()
