"""Hundreds of crashes: is anything lost that was promised, or stored twice?

Each slice is one run of what tests/e2e/test_crashes.py does, with a seed of its own, which is
printed: --seed and --rounds repeat it. Scenes: sqlite and postgresql (server, agents and database
are killed at random moments), rough (a proxy between agents and server cuts, delays, corrupts,
duplicates, loses and half-closes), disk (small file systems are full; needs root). The exit status is 0 only if
the law held in every slice.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench_options import bench_parser

from needfire_testkit.crash import CrashFigures, CrashPlan, run_crashes
from needfire_testkit.postgres import find_postgres

SCENES = ("sqlite", "postgresql", "rough", "rough-postgresql", "disk")


def main() -> None:
    options = parsed()
    totals: dict[str, list[CrashFigures]] = {}
    seed = options.seed
    for _ in range(options.slices):
        for scene in options.scenes:
            with tempfile.TemporaryDirectory(prefix="needfire-crash-") as directory:
                figures = one_slice(Path(directory), scene, seed, options)
            totals.setdefault(scene, []).append(figures)
            print(f"{scene}: {figures.text()}", flush=True)
            if not figures.is_lawful:
                print(f"  lost {figures.lost[:10]}, duplicated {figures.duplicated[:10]}")
        seed += 1
    for scene, slices in totals.items():
        tell(scene, slices)
    sys.exit(not all(each.is_lawful for slices in totals.values() for each in slices))


def parsed() -> argparse.Namespace:
    parser = bench_parser("crash", __doc__)
    parser.add_argument(
        "--seed",
        type=int,
        default=int.from_bytes(os.urandom(3), "big"),
        help="of the first slice, one more for each further one; default: chosen at random",
    )
    parser.add_argument("--rounds", type=int, default=25, help="disasters in a slice")
    parser.add_argument("--slices", type=int, default=4, help="of each scene")
    parser.add_argument("--agents", type=int, default=2, help="agents that report")
    parser.add_argument(
        "--scenes", nargs="+", choices=SCENES, default=list(SCENES), help="what happens to them"
    )
    return parser.parse_args()


def one_slice(directory: Path, scene: str, seed: int, options: argparse.Namespace) -> CrashFigures:
    with contextlib.ExitStack() as stack:
        server_disk = agent_disk = None
        if scene == "disk":
            # What the rounds store has to fit, and nothing is filled for long.
            size = f"{16 + 4 * options.rounds}m"
            server_disk = stack.enter_context(small_disk(directory / "server-disk", size))
            agent_disk = stack.enter_context(small_disk(directory / "agent-disk", "32m"))
        plan = CrashPlan(
            seed,
            options.rounds,
            agents=options.agents,
            postgres=find_postgres() if "postgresql" in scene else None,
            is_rough="rough" in scene,
            server_disk=server_disk,
            agent_disk=agent_disk,
        )
        return run_crashes(directory, plan)


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def tell(scene: str, slices: list[CrashFigures]) -> None:
    done: Counter[str] = Counter()
    for each in slices:
        done += each.done
    rounds = sum(each.plan.rounds for each in slices)
    print(
        f"total {scene}: {rounds} rounds, "
        f"{sum(each.promised for each in slices)} promised, "
        f"{sum(each.stored for each in slices)} stored, "
        f"lost {sum(len(each.lost) for each in slices)}, "
        f"duplicated {sum(len(each.duplicated) for each in slices)}, "
        f"false alarms {sum(each.false_gaps for each in slices)}; {dict(sorted(done.items()))}"
    )


if __name__ == "__main__":
    main()
