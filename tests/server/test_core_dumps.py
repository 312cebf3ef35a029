"""A process that dies leaves no core, wherever the kernel would put it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DIES = """
import os, resource
from {module} import forbid_core_dumps
_, most = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
forbid_core_dumps()
assert max(resource.getrlimit(resource.RLIMIT_CORE)) <= 1
os.abort()
"""


@pytest.mark.parametrize("module", ["needfire_server.core_dumps", "needfire_client.core_dumps"])
def test_who_dies_of_a_signal_that_makes_cores_leaves_none(module: str, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", DIES.format(module=module)], cwd=tmp_path)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -os.WTERMSIG(status)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert not list(tmp_path.iterdir())
