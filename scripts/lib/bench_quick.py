"""How long a quick check takes beside a program that only looks at every object once (find).

Prints medians of runs that take turns, and the ratios; the load of the machine tells how far wall
times can be trusted.
"""

import os
import tempfile
from pathlib import Path

from bench_options import bench_parser
from bench_scan import AGENT, Tool, center, prepare_with, ratio, run

_RUNS = 5
_FORMAT = r"%p %m %U %G %s %T@ %C@ %A@ %i %D %n %l\n"


def main() -> None:
    """Measure the tree that the command line names."""
    parser = bench_parser("quick", __doc__)
    parser.add_argument("tree", nargs="?", type=Path, default=Path("/usr"), help="default: /usr")
    tree: Path = parser.parse_args().tree
    with tempfile.TemporaryDirectory() as directory:
        tools = [Tool("find -printf", ["find", str(tree), "-printf", _FORMAT])]
        for workers in ("1", "auto"):
            tools += checks(tree, Path(directory) / workers, workers)
        for _ in range(_RUNS):
            for tool in tools:
                tool.runs.append(run(tool.command))
    objects = sum(1 + len(found) for _, _, found in os.walk(tree))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{tree}: {objects} objects; medians of {_RUNS} runs; load {load}")
    print(f"{'program':18}{'CPU s':>8}{'wall s':>8}{'CPU / find':>12}{'wall / find':>13}")
    for tool in tools:
        cpu, wall = center(tool)
        ratios = [ratio(tool, tools[0], which) for which in (0, 1)]
        print(f"{tool.name:18}{cpu:8.2f}{wall:8.2f}{ratios[0]:12.2f}{ratios[1]:13.2f}")


def checks(tree: Path, place: Path, workers: str) -> list[Tool]:
    """Return a quick and a full check with so many processes, their baseline made."""
    place.mkdir(mode=0o700)
    rc = place / "agentrc"
    rc.write_text(
        f"[ReadOnly]\ndir=99{tree}\n[Misc]\nScanWorkers={workers}\nScanCpuLimit=6400\nSetIOLimit=0\n"
    )
    common = ["--rc", str(rc), "--state-dir", str(place)]
    prepare_with([str(AGENT), "init", *common])
    command = [str(AGENT), "check", *common]
    return [Tool(f"quick, {workers}", [*command, "--quick"]), Tool(f"full, {workers}", command)]


if __name__ == "__main__":
    main()
