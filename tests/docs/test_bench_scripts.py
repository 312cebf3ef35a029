"""Each benchmark begins, and says what it is for. What it measures only a quiet machine can tell."""

import os
import subprocess
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parents[2] / "scripts" / "bench").iterdir())


@pytest.mark.parametrize("script", BENCHES, ids=lambda script: script.name)
def test_it_begins_and_explains_itself(script: Path) -> None:
    # The tests' own path would lend it modules that it does not find alone.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [script, "--help"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: scripts/bench/{script.name} ")
    assert len(told.stdout.split("\n\n")[1]) > 40
