"""The state directory: whose it is, and who uses it now."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from needfire_client.failures import CommandError
from needfire_client.statedir import StateDir
from needfire_protocol.errors import StorageError
from needfire_protocol.exit_status import ExitStatus


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "var" / "agent")
    state.prepare()
    state.prepare()
    assert state.root.stat().st_mode & 0o777 == 0o700
    assert state.cache.stat().st_mode & 0o777 == 0o700


def test_one_that_others_can_write_in_is_refused(tmp_path: Path) -> None:
    for mode in (0o770, 0o707, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(StorageError, match="expected 700"):
            StateDir(tmp_path).prepare()


@pytest.mark.root
def test_one_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12_345, 12_345)
    with pytest.raises(StorageError, match="belongs to uid 12345"):
        StateDir(tmp_path).prepare()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError):
            StateDir(path).prepare()


def test_the_second_process_is_told_about_the_first(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    with state.exclusive(state.lock, "needfire-agent"):
        with (
            pytest.raises(CommandError, match=rf"process {os.getpid()}\)") as caught,
            state.exclusive(state.lock, "needfire-agent"),
        ):
            pass
        assert caught.value.status is ExitStatus.LOCAL
    with state.exclusive(state.lock, "needfire-agent"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom needfire_client.statedir import StateDir\n"
        "state = StateDir(Path(sys.argv[1]))\n"
        "with state.exclusive(state.lock, 'x'): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    state = StateDir(tmp_path)
    assert state.lock.exists()
    with state.exclusive(state.lock, "needfire-agent"):
        assert state.lock.read_text() == f"{os.getpid()}\n"
