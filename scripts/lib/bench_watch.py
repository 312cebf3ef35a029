"""Measure real-time watching: arming, latency, bursts, and how many writers are named.

Runs in this process what the agent runs, on trees that it makes and removes. Figures of a machine
that does other things as well are upper bounds.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench_options import bench_parser

from needfire_client.dirty import DirtyPaths
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.processes import Writer
from needfire_client.watch import InotifyWatcher
from needfire_client.watcher import PathWatcher
from needfire_client.who import WhoBook
from needfire_protocol.rc.agent import AgentSettings
from needfire_protocol.rc.policies import PathRule, Policy, RuleKind

WRITER = """
import os, sys, time
root, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = [f"{root}/d{n % 100}/f{n}" for n in range(count)]
sys.stdin.readline()
began = time.perf_counter()
for _ in range(rounds):
    for name in names:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
    for name in names:
        os.unlink(name)
print(time.perf_counter() - began)
"""
"""The kernel merges equal events that wait, so each change here is another than the one before:
a creation, a closing after writing, a removal."""


PACED = """
import os, sys, time
root, count, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
names = [f"{root}/d{n % 100}/p{os.getpid()}-{n}" for n in range(count)]
for name in names:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
print("ready", flush=True)
sys.stdin.readline()
made, began = 0, time.perf_counter()
while (passed := time.perf_counter() - began) < seconds:
    if made > rate * passed:
        time.sleep(0.002)
        continue
    for n in range(made, made + 100):
        os.utime(names[n % count])
    made += 100
print(made, passed)
"""
"""Each change of times is one event, and the kernel never finds an equal one waiting: a file's turn
comes again after as many others as there are files."""


class Ears:
    """Does with what it hears what the agent does: coalesces the paths, and notes who it was."""

    def __init__(self) -> None:
        self.book = WhoBook()
        self.dirty = DirtyPaths(on_first=lambda: None, on_overflow=lambda _trees: None)
        self.changed_at: dict[bytes, float] = {}
        self.count = 0
        self.writers: dict[bytes, set[bytes | None]] = {}
        self.described = 0
        self.losses: list[str] = []
        self.news = threading.Condition()

    def changed(self, path: bytes, *, below: bool = False) -> None:
        self.count += 1
        self.dirty.add(path, below=below)
        if path not in self.changed_at:
            self.changed_at[path] = time.perf_counter()

    def has_heard(self, *paths: Path) -> bool:
        return all(bytes(path) in self.changed_at for path in paths)

    def wrote(self, path: bytes, writer: Writer | None, *, below: bool = False) -> None:
        self.book.note(path, writer, below=below)
        self.writers.setdefault(path, set()).add(None if writer is None else writer.program)
        self.described += writer is not None and writer.uid is not None

    def lost(self, reason: str, scope: bytes, since_us: int | None = None) -> None:
        self.losses.append(reason)

    def canary_came(self, which: bytes) -> None:
        pass


def settings_for(root: Path) -> AgentSettings:
    rule = PathRule(RuleKind.DIR, bytes(root), Policy.READ_ONLY, 99, False, "bench", 1)
    return AgentSettings(rules=(rule,))


def make(method: str, root: Path) -> tuple[PathWatcher, Ears]:
    ears = Ears()
    kind = FanotifyWatcher if method == "fanotify" else InotifyWatcher
    return kind(settings_for(root), ears), ears


def wait(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.001)
    return False


def arm(method: str, root: Path, directories: int) -> None:
    for number in range(directories):
        (root / f"a{number % 200}" / f"b{number}").mkdir(parents=True)
    times = []
    for _ in range(5):
        watcher, _ears = make(method, root)
        began = time.perf_counter()
        watcher.start()
        times.append(time.perf_counter() - began)
        watcher.stop()
    print(
        f"arming {directories} directories: median {statistics.median(times) * 1000:.1f} ms "
        f"(best {min(times) * 1000:.1f}, worst {max(times) * 1000:.1f})"
    )


def latency(method: str, root: Path, rounds: int = 200) -> None:
    watcher, ears = make(method, root)
    (root / "l").mkdir()
    script = (
        "import sys, time, pathlib\n"
        "for line in sys.stdin:\n"
        " pathlib.Path(line.strip()).write_bytes(b'x'); print(time.perf_counter(), flush=True)"
    )
    command = [sys.executable, "-c", script]
    watcher.start()
    found = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(rounds):
            path = root / "l" / f"f{number}"
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            at = float(process.stdout.readline())
            if wait(partial(ears.has_heard, path), 5):
                found.append(ears.changed_at[bytes(path)] - at)
        process.stdin.close()
    watcher.stop()
    found.sort()
    print(
        f"latency of {len(found)} of {rounds} changes, to the dirty path: "
        f"median {found[len(found) // 2] * 1000:.2f} ms, p99 "
        f"{found[int(len(found) * 0.99)] * 1000:.2f} ms, worst {found[-1] * 1000:.2f} ms "
        "(the agent adds its debounce of 200 ms)"
    )


def burst(method: str, root: Path, files: int, rounds: int) -> None:
    for number in range(100):
        (root / f"d{number}").mkdir(exist_ok=True)
    watcher, ears = make(method, root)
    command = [sys.executable, "-c", WRITER, str(root), str(files), str(rounds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        time.sleep(0.5)
        watcher.start()
        events, cpu_s = watcher.health.events, time.process_time()
        output, _ = process.communicate("go\n")
        seconds = float(output)
        wait(lambda: len(ears.changed_at) >= files, 10)
        time.sleep(0.3)
        cpu_s = time.process_time() - cpu_s
        events = watcher.health.events - events
    watcher.stop()
    seen = sum(1 for path in ears.changed_at if b"/d" in path and b"/f" in path)
    print(
        f"burst: {rounds} times {files} files made and removed in {seconds:.2f} s: {events} events "
        f"({events / seconds:,.0f}/s), {seen} of {files} files told, {len(ears.losses)} losses, "
        f"{cpu_s / max(events, 1) * 1e6:.1f} us of CPU an event"
    )


def sustained(method: str, root: Path, rate: int, seconds: float = 10.0, writers: int = 2) -> None:
    for number in range(100):
        (root / f"d{number}").mkdir(exist_ok=True)
    numbers = [str(root), "10000", str(rate / writers), str(seconds)]
    command = [sys.executable, "-c", PACED, *numbers]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    watcher, ears = make(method, root)
    watcher.start()
    time.sleep(0.5)
    events, cpu_s = watcher.health.events, time.process_time()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    # The agent looks at what was named all the while; here it is only taken.
    while any(process.poll() is None for process in processes):
        ears.dirty.take()
        time.sleep(0.2)
    words = [str(process.communicate()[0]).split() for process in processes]
    made, took_s = sum(int(each[0]) for each in words), max(float(each[1]) for each in words)
    wait(lambda: watcher.health.events - events >= made or bool(ears.losses), 20)
    caught_up_s = time.process_time() - cpu_s
    events = watcher.health.events - events
    watcher.stop()
    print(
        f"sustained: {made} events made in {took_s:.1f} s ({made / took_s:,.0f}/s): {events} read, "
        f"{len(ears.losses)} losses, {caught_up_s / max(events, 1) * 1e6:.1f} us of CPU an event "
        f"({caught_up_s / took_s * 100:.0f} % of a processor)"
    )


def who(root: Path, rounds: int = 200) -> None:
    (root / "w").mkdir()
    for name in ("touch", "sed", "cp", "sh"):
        watcher, ears = make("fanotify", root)
        watcher.start()
        shutil.copy("/etc/hostname", root / "w" / "source")
        paths = [root / "w" / f"{name}{number}" for number in range(rounds)]
        for path in paths:
            if name == "sed":
                path.write_bytes(b"a\n")
        for path in paths:
            subprocess.run(
                {
                    "touch": ["touch", str(path)],
                    "sed": ["sed", "-i", "s/a/b/", str(path)],
                    "cp": ["cp", str(root / "w" / "source"), str(path)],
                    "sh": ["sh", "-c", f"echo x > {path}"],
                }[name],
                check=True,
            )
        wait(partial(ears.has_heard, *paths))
        watcher.stop()
        program = os.fsencode(os.path.realpath(shutil.which(name) or name))
        named = sum(ears.writers.get(bytes(path)) == {program} for path in paths)
        wrong = sum(bool(ears.writers.get(bytes(path), set()) - {program, None}) for path in paths)
        total = sum(1 for path, found in ears.writers.items() if bytes(root / "w" / name) in path)
        print(f"who: {name:<6} {named} of {rounds} named, {wrong} wrong; {total} paths")


def main() -> None:
    parser = bench_parser("watch", __doc__)
    parser.add_argument(
        "--method",
        choices=("fanotify", "inotify"),
        default="fanotify",
        help="how changes are heard",
    )
    parser.add_argument("--directories", type=int, default=20_000, help="directories to arm")
    parser.add_argument("--directory", type=Path, default=None, help="where trees are made")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a tmpfs")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="needfire-bench-", dir=options.directory)).resolve()
    try:
        arm(options.method, root / "tree", options.directories)
        small = root / "small"
        small.mkdir()
        latency(options.method, small)
        for files, rounds in ((500, 40), (5_000, 8)):
            burst(options.method, small, files, rounds)
        with tempfile.TemporaryDirectory(prefix="needfire-bench-", dir=options.memory) as memory:
            for rate in (25_000, 50_000, 100_000):
                sustained(options.method, Path(memory), rate)
        if options.method == "fanotify":
            who(small)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
