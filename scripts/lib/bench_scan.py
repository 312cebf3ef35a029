"""How much a check of an unchanged tree costs, beside other programs that do the same.

Builds trees (5,000 small files, a copy of a system directory, many small files, a few large ones),
warms the page cache (or, with --cold, empties it before each run, which needs root and slows the
whole host down), and runs every program in turn, several times. "million" is no tree: a synthetic
baseline of a million objects is streamed beside the 5,000 files, to see what memory that takes.
Absolute numbers of a shared machine mean little; the ratios of runs that took turns do. Memory is
measured in a run of its own: the sum of the proportional set sizes (PSS) of all processes of a
program, sampled.

Nothing is installed or changed outside of the directory given by --work.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench_options import bench_parser

from needfire_client.baseline import BaselineWriter
from needfire_protocol.baseline import FileEntry
from needfire_testkit.samhain import samhain_command, samhain_rc
from needfire_testkit.samhain import why_not as samhain_why_not

AGENT = Path(sys.executable).with_name("needfire-agent")
ENTRIES = 1_000_000
SIZES = {"small": (None, 20_000, 512), "full": (Path("/usr"), 200_000, 4096)}
TIMEOUT_S = 1_800
SAMPLE_S = 0.02


@dataclass
class Tool:
    """A program, ready to run on one tree."""

    name: str
    command: list[str]
    runs: list[tuple[float, float]] = field(default_factory=list)
    """CPU seconds and wall seconds."""
    pss_mib: float = 0.0


def main() -> None:
    options = parsed()
    # As it is once installed: compiled modules may be kept.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    trees = {name: build for name, build in builders(options).items() if name in options.trees}
    for name, build in trees.items():
        if name == "million":
            measure_million(work, options)
            continue
        tree = work / "trees" / name
        if not tree.exists():
            print(f"building {tree} ...", flush=True)
            build(tree)
        measure(name, tree, work / "state" / name, options)


def parsed() -> argparse.Namespace:
    parser = bench_parser("scan", __doc__)
    parser.add_argument("--size", choices=SIZES, default="small", help="small: about a minute")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("/var/tmp/needfire-bench"),
        help="directory of all that is made",
    )
    parser.add_argument("--usr", type=Path, help="directory to copy (full: /usr)")
    parser.add_argument("--files", type=int, help="number of small files")
    parser.add_argument("--large-mib", type=int, help="MiB of large files")
    parser.add_argument(
        "--trees",
        nargs="+",
        default=["etc", "usr", "small", "large", "million"],
        help="trees to check",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each program")
    parser.add_argument(
        "--workers",
        nargs="+",
        default=["1", "auto"],
        help="ScanWorkers of the agent, one program for each",
    )
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each run")
    parser.add_argument("--skip", nargs="+", default=[], help="programs to leave out")
    options = parser.parse_args()
    usr, files, large = SIZES[options.size]
    options.usr = options.usr or usr or Path(os.__file__).parent
    options.files = options.files or files
    options.large_mib = options.large_mib or large
    return options


# ---- trees ---------------------------------------------------------------------------------------


def builders(options: argparse.Namespace) -> dict[str, Callable[[Path], None]]:
    return {
        "etc": lambda tree: build_small(tree, 5_000, 17),
        "usr": lambda tree: copy(options.usr, tree),
        "small": lambda tree: build_small(tree, options.files, 99),
        "large": lambda tree: build_large(tree, options.large_mib),
        "million": lambda tree: None,
    }


def copy(source: Path, tree: Path) -> None:
    tree.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--", str(source), str(tree)], check=True, timeout=TIMEOUT_S)


def build_small(tree: Path, count: int, per_directory: int) -> None:
    """Files of 1 to 8 KiB whose sizes and contents are the same each time."""
    for number in range(count):
        directory = tree / f"{number // per_directory // 64:03}" / f"{number // per_directory:05}"
        if number % per_directory == 0:
            directory.mkdir(parents=True, exist_ok=True)
        seed = hashlib.blake2b(number.to_bytes(8, "big")).digest()
        size = 1024 + seed[0] * 28
        (directory / f"file{number}").write_bytes((seed * 130)[:size])


def build_large(tree: Path, mib: int) -> None:
    """Sixteen files of unequal sizes in four directories."""
    shares = [1 + number % 4 for number in range(16)]
    block = os.urandom(2**20)
    for number, share in enumerate(shares):
        directory = tree / f"{number // 4}"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"file{number}").open("wb") as file:
            for _ in range(mib * share // sum(shares)):
                file.write(block)


# ---- programs ------------------------------------------------------------------------------------


def measure(name: str, tree: Path, state: Path, options: argparse.Namespace) -> None:
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    tools, missing = prepare(tree, state, options)
    for tool in tools:
        run(tool.command)
    for _ in range(options.runs):
        for tool in tools:
            if options.cold:
                empty_page_cache()
            tool.runs.append(run(tool.command))
    for tool in tools:
        tool.pss_mib = peak_pss_mib(tool.command)
    report(f"{name}, cold" if options.cold else name, tree, tools, missing)


def empty_page_cache() -> None:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        sys.exit(f"--cold: the page cache cannot be emptied: {error.strerror}")
    # The programs themselves are in memory, as on a host where the agent runs.
    run([str(AGENT), "--version"])


def measure_million(work: Path, options: argparse.Namespace) -> None:
    """Stream a baseline of a million objects that no rule covers, beside a small tree."""
    tree, state = work / "trees" / "etc", work / "state" / "million"
    if not tree.exists():
        builders(options)["etc"](tree)
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    baseline = state / "synthetic"
    write_baseline(baseline, ENTRIES)
    size_mib = baseline.stat().st_size / 2**20
    print(f"\nmillion: a baseline of {ENTRIES} objects, {size_mib:.0f} MiB")
    for workers in options.workers:
        command = [*ours(tree, state, workers).command, "--baseline", str(baseline)]
        # The files of the tree are new to it, so that it exits with 1.
        cpu, wall = run(command, may_differ=True)
        pss = peak_pss_mib(command)
        print(f"needfire {workers:8}{cpu:8.2f} CPU s{wall:8.2f} wall s{pss:8.1f} MiB PSS")


def write_baseline(path: Path, count: int, per_directory: int = 50) -> None:
    facts = {"algorithm": "sha256", "host": "bench", "configuration_sha256": ""}
    with BaselineWriter(path, **facts) as writer:
        for number in range(count // per_directory):
            times = (10**18 + number * 10**9,) * 3
            writer.add(
                b"/synthetic/%05d" % number,
                [
                    (
                        b"file%03d" % each,
                        FileEntry(
                            *(0o100644, 0, 0, 5000, *times, number * 50 + each, 2049, 1, 0, None),
                            hashlib.sha256(b"%d %d" % (number, each)).digest(),
                            *(0, "", times[0], 0, 0, 15),
                        ),
                    )
                    for each in range(per_directory)
                ],
            )
        writer.finish(created_us=0)


def prepare(
    tree: Path, state: Path, options: argparse.Namespace
) -> tuple[list[Tool], dict[str, str]]:
    tools = [limit(tree, state)]
    missing = {}
    tools += [ours(tree, state, workers) for workers in options.workers]
    tools.append(Tool("find -printf", ["find", str(tree), "-printf", "%m%u%g%s%T@%C@%i%n%l%p\\n"]))
    for name, make in {"aide": aide, "integrit": integrit}.items():
        if name in options.skip:
            missing[name] = "left out"
        elif shutil.which(name) is None:
            missing[name] = "not installed (apt-get install)"
        else:
            tools.append(make(tree, state))
    if "samhain" in options.skip:
        missing["samhain"] = "left out"
    elif (reason := samhain_why_not()) is not None:
        missing["samhain"] = reason
    else:
        tools.append(samhain(tree, state))
    return tools, missing


def limit(tree: Path, state: Path) -> Tool:
    """Nothing but the digests, by the fastest implementation, in two processes."""
    names = state / "names"
    with names.open("wb") as file:
        subprocess.run(["find", str(tree), "-type", "f", "-print0"], stdout=file, check=True)
    script = 'xargs -0 -n 500 -P 2 openssl dgst -sha256 < "$1" > /dev/null'
    return Tool("openssl -P2", ["sh", "-c", script, "sh", str(names)])


def ours(tree: Path, state: Path, workers: str) -> Tool:
    place = state / f"needfire-{workers}"
    place.mkdir(mode=0o700)
    rc = place / "agentrc"
    rc.write_text(
        f"[ReadOnly]\ndir=99{tree}\n[Misc]\nScanWorkers={workers}\nScanCpuLimit=6400\nSetIOLimit=0\n"
    )
    common = ["--rc", str(rc), "--state-dir", str(place)]
    prepare_with([str(AGENT), "init", *common])
    return Tool(f"needfire {workers}", [str(AGENT), "check", *common])


def aide(tree: Path, state: Path) -> Tool:
    place = state / "aide"
    place.mkdir()
    config = place / "aide.conf"
    config.write_text(
        f"database_in=file:{place}/db\ndatabase_out=file:{place}/db\n"
        f"gzip_dbout=no\nreport_url=stdout\n{tree} p+u+g+s+m+c+i+n+l+ftype+sha256\n"
    )
    prepare_with(["aide", "--config", str(config), "--init"])
    return Tool("aide", ["aide", "--config", str(config), "--check"])


def integrit(tree: Path, state: Path) -> Tool:
    place = state / "integrit"
    place.mkdir()
    config = place / "conf"
    config.write_text(f"root={tree}\nknown={place}/known.cdb\ncurrent={place}/current.cdb\n")
    prepare_with(["integrit", "-C", str(config), "-u"])
    (place / "current.cdb").rename(place / "known.cdb")
    return Tool("integrit", ["integrit", "-C", str(config), "-c"])


def samhain(tree: Path, state: Path) -> Tool:
    place = state / "samhain"
    place.mkdir()
    rc = samhain_rc(place, f"[ReadOnly]\ndir = 99{tree}\n", digest="SHA256")
    prepare_with(samhain_command(rc, "init"))
    return Tool("samhain", samhain_command(rc, "check"))


def prepare_with(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(done.stderr + done.stdout).decode()}")


# ---- measuring -----------------------------------------------------------------------------------


def run(command: Sequence[str], *, may_differ: bool = False) -> tuple[float, float]:
    """Return CPU and wall seconds of a command with all processes that it waited for."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode > may_differ:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began


def peak_pss_mib(command: Sequence[str]) -> float:
    """Return the largest sum of PSS of a command's processes that a sample saw."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, done = 0.0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_S):
            peak = max(peak, sum(map(pss_kib, descendants(process.pid))) / 1024)

    thread = threading.Thread(target=sample)
    thread.start()
    process.wait(TIMEOUT_S)
    done.set()
    thread.join()
    return peak


def descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        try:
            tasks = Path(f"/proc/{each}/task").iterdir()
            for task in tasks:
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def pss_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:"), 0)


# ---- report --------------------------------------------------------------------------------------


def report(name: str, tree: Path, tools: Sequence[Tool], missing: dict[str, str]) -> None:
    files = sum(len(found) for _, _, found in os.walk(tree))
    size = sum(
        os.lstat(os.path.join(place, each)).st_size
        for place, _, found in os.walk(tree)
        for each in found
    )
    print(f"\n{name}: {files} files, {size / 2**20:.0f} MiB; median of {len(tools[0].runs)} runs")
    print(
        f"{'program':14}{'CPU s':>8}{'wall s':>8}{'PSS MiB':>9}{'us/file':>9}"
        f"{'CPU / openssl':>15}{'wall / openssl':>16}"
    )
    first = tools[0]
    for tool in tools:
        cpu, wall = center(tool)
        print(
            f"{tool.name:14}{cpu:8.2f}{wall:8.2f}{tool.pss_mib:9.1f}{cpu / files * 1e6:9.1f}"
            f"{ratio(tool, first, 0):15.2f}{ratio(tool, first, 1):16.2f}"
        )
    for peer in tools:
        if peer.name in ("aide", "integrit"):
            for tool in tools:
                if tool.name.startswith("needfire"):
                    print(
                        f"{peer.name} takes {ratio(peer, tool, 0):.1f} times the CPU and "
                        f"{ratio(peer, tool, 1):.1f} times the wall time of {tool.name}"
                    )
    for what, reason in missing.items():
        print(f"{what}: {reason}")
    sys.stdout.flush()


def center(tool: Tool) -> tuple[float, float]:
    return median(cpu for cpu, _ in tool.runs), median(wall for _, wall in tool.runs)


def ratio(tool: Tool, other: Tool, which: int) -> float:
    """Return the median of the ratios of runs that took turns."""
    return median(a[which] / b[which] for a, b in zip(tool.runs, other.runs, strict=True))


if __name__ == "__main__":
    main()
