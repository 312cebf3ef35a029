"""What a small check does not load: its time is mostly that of starting."""

import subprocess
import sys

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
