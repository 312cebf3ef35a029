"""What a small check does not load: its time is mostly that of starting."""

import subprocess
import sys
from pathlib import Path

import pytest

NEVER = {
    "needfire_client.commands.check": {"dataclasses", "inspect", "ast", "asyncio", "cryptography"},
    "needfire_client.scan_worker": {
        *{"dataclasses", "inspect", "ast", "sqlite3", "needfire_protocol.catalogue"},
        *{"argparse", "asyncio", "json"},
    },
}


@pytest.mark.parametrize("module", NEVER)
def test_loads_nothing_that_it_does_not_need(module: str) -> None:
    program = f"import sys, {module}; print(*{NEVER[module]!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


NEVER_IN_A_CHECK = {
    *("argparse", "gettext", "locale", "shutil", "socket", "selectors", "json"),
    *(
        "string",
        "subprocess",
        "glob",
        "encodings.idna",
        "needfire_client.identity",
        "needfire_client.command_line",
        "needfire_client.scan_pool",
        "needfire_client.scan_worker",
        "needfire_client.units",
    ),
    *NEVER["needfire_client.commands.check"],
}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_check_without_a_server_loads_and_reads_nothing_that_it_does_not_need(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("x")
    rc = tmp_path / "agentrc"
    rc.write_text(f"[ReadOnly]\ndir=99{tmp_path}/tree\n[Misc]\nScanWorkers={workers}\n")
    common = ["--rc", str(rc), "--state-dir", str(tmp_path / "state")]
    program = (
        "import pathlib, sys\n"
        # Python's own releases differ in what this loads.
        "its_own = set(sys.modules)\n"
        "from needfire_client.start import main\n"
        "from needfire_client.baseline import BaselineReader\n"
        "verify, verified = BaselineReader._verify, []\n"
        "BaselineReader._verify = lambda reader: (verified.append(1), verify(reader))\n"
        "status = main()\n"
        "ours = sys.modules.keys() - its_own\n"
        f"print(*sorted({NEVER_IN_A_CHECK!r} & ours), len(ours) < 135)\n"
        "print(len(verified))\n"
        "sys.exit(status)"
    )
    init, check = (
        subprocess.run(
            [sys.executable, "-c", program, verb, *common],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        for verb in ("init", "check")
    )
    assert (init.returncode, check.returncode) == (0, 0), check.stderr
    assert check.stdout.splitlines()[-2:] == ["True", "1"]
