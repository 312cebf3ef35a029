"""The demonstration behind scripts/up: a real server, a real agent, real trees, on this machine.

Everything lies in .needfire/ beside the checkout's own files and can be deleted at any time.
Both programs are started as an administrator would start them, through their command lines.
"""

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".needfire"
SERVER = HOME / "server"
AGENT = HOME / "agent"
PLAYGROUND = HOME / "playground"
BIN = ROOT / ".venv" / "bin"

START_LIMIT_S = 30
CHECK_LIMIT_S = 300
REPORT_LIMIT_S = 20

SERVERRC = """\
# Written by scripts/up for its demonstration, anew at each start. See etc/serverrc for every directive.
[Misc]
{server_user}[Log]
PrintSeverity=none
LogSeverity=*
"""

RC = """\
# Written by scripts/up: what the agent of this host watches. See etc/agentrc for every directive.
[Misc]
SetFilecheckTime=10m
SetLoopTime=60
[ReadOnly]
dir=99/etc
dir=99/usr/bin
dir=99/usr/sbin
dir=99{playground}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/up", description=__doc__)
    parser.add_argument(
        "--once",
        action="store_true",
        help="make a change in the playground, show the report that arrives, and exit 0 if it did",
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return demonstrate(stack, once=options.once)
        except KeyboardInterrupt:
            say("stopping: the agent says goodbye, then the server ends")
            return 0


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def demonstrate(stack: contextlib.ExitStack, *, once: bool) -> int:
    name = prepare()
    server_process, address = start_server(stack)
    register(name)
    first_baseline(name, address)
    say("starting the agent; its first full check runs now")
    events = follow_events(stack)
    agent_process = start(
        stack,
        "agent",
        [*agent(), "run", "--server", address, "--name", name, "--rc", "REQ_FROM_SERVER"],
    )
    for event in until(events, "CHECK_COMPLETED", CHECK_LIMIT_S):
        show(event)
    if once:
        return prove(events)
    invite()
    return watch(events, {"the agent": agent_process, "the server": server_process})


def prepare() -> str:
    """Make the folders and files; return the name under which this host's agent is registered."""
    for folder in (HOME, SERVER, AGENT, PLAYGROUND):
        folder.mkdir(mode=0o700, exist_ok=True)
    # As root a server gives its rights up. Here it may stay root, because the checkout may lie
    # where no other user can read it; an installed server never does that.
    as_root = "ServerUser=root\n" if os.geteuid() == 0 else ""
    (HOME / "serverrc").write_text(SERVERRC.format(server_user=as_root))
    (HOME / "rc").write_text(RC.format(playground=PLAYGROUND))
    (PLAYGROUND / "hello.txt").write_text("Change me and see what happens.\n")
    return socket.getfqdn().lower()


def start_server(stack: contextlib.ExitStack) -> "tuple[subprocess.Popen[str], str]":
    """Start the server on a port that the system picks; return it and HOST:PORT."""
    process = start(
        stack,
        "server",
        [
            BIN / "needfire-server",
            *("serve", "--foreground", "--config", HOME / "serverrc"),
            *("--data-dir", SERVER, "--listen", "127.0.0.1:0"),
        ],
        stdout=subprocess.PIPE,
    )
    lines = read_lines(process)
    deadline = time.monotonic() + START_LIMIT_S
    while (line := next_line(lines, deadline)) is not None:
        if line.startswith("listening on "):
            address = line.removeprefix("listening on ").strip()
            say(f"the server listens on {address}; its log is {shown(SERVER / 'log')}")
            return process, address
    raise SystemExit(f"scripts/up: error: the server did not start; see {shown(HOME)}/server.err")


def register(name: str) -> None:
    """Give the host's agent a new password, and the server the verifier of it."""
    password = run([BIN / "needfire-admin", "gen-password"])
    run([*admin(), "register", name, "--password-file", "-"], password)
    run([*agent(), "set-password", "--password-file", "-"], password)
    run([*admin(), "config", "put", name, HOME / "rc"])
    say(f"registered this host's agent as {name}")


def first_baseline(name: str, address: str) -> None:
    """Record what the files are now, and put that on the server as the approved baseline."""
    say(f"taking a baseline of /etc, /usr/bin, /usr/sbin and {shown(PLAYGROUND)}")
    started = time.monotonic()
    baseline = HOME / "baseline"
    baseline.unlink(missing_ok=True)
    command = [*agent(), "init", "--server", address, "--name", name, "--output", baseline]
    result = subprocess.run(  # our own program, a fixed argument list
        command, stdout=subprocess.DEVNULL, stderr=log_file("init.err"), check=False
    )
    if result.returncode != 0:
        shutil.copyfileobj((HOME / "init.err").open(), sys.stderr)
        raise SystemExit(f"scripts/up: error: init ended with status {result.returncode}")
    run([*admin(), "baseline", "put", name, baseline])
    say(f"the baseline took {time.monotonic() - started:.1f} s and lies on the server")


def prove(events: "queue.Queue[str | None]") -> int:
    """Change a file in the playground; return 0 only if the server has the report of it."""
    target = PLAYGROUND / "hello.txt"
    say(f"changing {shown(target)} now")
    target.write_text(f"Changed at {time.time()}.\n")
    started = time.monotonic()
    deadline = started + REPORT_LIMIT_S
    while (event := next_event(events, deadline)) is not None:
        show(event)
        if event["code"] == "POLICY_MODIFIED" and event["fields"].get("path") == str(target):
            say(f"the server has the report, {time.monotonic() - started:.2f} s after the change")
            return 0
    print(
        "scripts/up: error: no report of the change arrived; see "
        f"{shown(HOME)}/agent.err and {shown(SERVER / 'log')}",
        file=sys.stderr,
    )
    return 1


def invite() -> None:
    say(
        "ready. Change something and watch it here, for example in another terminal:\n"
        f"    echo more >>{shown(PLAYGROUND / 'hello.txt')}\n"
        f"    touch {shown(PLAYGROUND / 'new')}\n"
        f"    .venv/bin/needfire-admin --data-dir {shown(SERVER)} status\n"
        f"    .venv/bin/needfire-admin --data-dir {shown(SERVER)} events --limit 20\n"
        "Ctrl-C stops both programs cleanly."
    )


# ---- processes ---------------------------------------------------------------


def admin() -> list[str | Path]:
    return [BIN / "needfire-admin", "--data-dir", SERVER]


def agent() -> list[str | Path]:
    """The agent's command so far; argparse takes the verb in front of these or behind."""
    return [BIN / "needfire-agent", "--state-dir", AGENT]


def run(command: Sequence[str | Path], standard_input: str = "") -> str:
    """Run one of our commands to its end and return what it printed."""
    result = subprocess.run(  # our own programs, fixed argument lists
        command, input=standard_input, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        sys.stderr.write(result.stderr)
        raise SystemExit(
            f"scripts/up: error: {Path(command[0]).name} ended with status {result.returncode}"
        )
    return result.stdout.strip()


def start(
    stack: contextlib.ExitStack,
    title: str,
    command: Sequence[str | Path],
    *,
    stdout: int | None = None,
) -> "subprocess.Popen[str]":
    """Start a program that is stopped with SIGTERM, and awaited, when the demonstration ends."""
    process = subprocess.Popen(  # our own programs, fixed argument lists
        command,
        stdin=subprocess.DEVNULL,
        stdout=log_file(f"{title}.out") if stdout is None else stdout,
        stderr=log_file(f"{title}.err"),
        text=True,
        # Ctrl-C goes to the whole terminal group; we stop the programs ourselves, in order.
        start_new_session=True,
    )
    stack.callback(stop, process)
    return process


def stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def log_file(name: str) -> int:
    return os.open(HOME / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


# ---- events ------------------------------------------------------------------


def follow_events(stack: contextlib.ExitStack) -> "queue.Queue[str | None]":
    """Start needfire-admin events --follow from now on; return the queue of its lines."""
    process = start(
        stack,
        "events",
        [*admin(), "events", "--follow", "--limit", "0", "--json"],
        stdout=subprocess.PIPE,
    )
    return read_lines(process)


def read_lines(process: "subprocess.Popen[str]") -> "queue.Queue[str | None]":
    lines: queue.Queue[str | None] = queue.Queue()
    stream = process.stdout
    assert stream is not None

    def pump() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    return lines


def next_line(lines: "queue.Queue[str | None]", deadline: float | None) -> str | None:
    try:
        return lines.get(timeout=None if deadline is None else max(0, deadline - time.monotonic()))
    except queue.Empty:
        return None


def next_event(
    lines: "queue.Queue[str | None]", deadline: float | None = None
) -> dict[str, Any] | None:
    line = next_line(lines, deadline)
    return None if line is None else json.loads(line)


def until(lines: "queue.Queue[str | None]", code: str, limit_s: float) -> Iterator[dict[str, Any]]:
    """Yield events until one with the code has been yielded."""
    deadline = time.monotonic() + limit_s
    while (event := next_event(lines, deadline)) is not None:
        yield event
        if event["code"] == code:
            return
    raise SystemExit(f"scripts/up: error: {code} did not come; see {shown(HOME)}/agent.err")


def watch(lines: "queue.Queue[str | None]", programs: "dict[str, subprocess.Popen[str]]") -> int:
    """Show events until a program ends that should not; return the exit status that says so."""
    while True:
        for title, process in programs.items():
            if process.poll() is not None:
                print(
                    f"scripts/up: error: {title} ended with status {process.returncode}; "
                    f"see {shown(HOME)}/{title.removeprefix('the ')}.err",
                    file=sys.stderr,
                )
                return 1
        event = next_event(lines, time.monotonic() + 0.5)
        if event is not None:
            show(event)


def show(event: dict[str, Any]) -> None:
    path = event["fields"].get("path", "")
    print(f"  {event['time'][11:19]}  {event['severity']:<6}  {event['msg']}  {path}", flush=True)


def say(text: str) -> None:
    print(f"needfire: {text}", flush=True)


def shown(path: Path) -> str:
    """The path as a person at the checkout's root would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
