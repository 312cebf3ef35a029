"""A file's project id, which decides about its quota, on a real file system that keeps it."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from needfire_client.baseline import BaselineReader
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy
from needfire_testkit.mounting import mounted
from needfire_testkit.scanner import MODIFIED, Make, Scanned, dir_rule

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0"),
]

IMAGE_BYTES = 8 * 2**20
NAMES = {"small": 41, "large": 2**32 - 2, "inner": 7, "fifo": 3, "none": 0}
"""With their project ids; the last two are a FIFO, which is never opened, and one in no project."""


class Volume:
    """An ext4 that keeps project ids. They are set in its image, and it is mounted read-only.

    So it needs no quotas of the kernel's, and nothing but the project id moves: no time either.
    """

    def __init__(self, image: Path, place: Path) -> None:
        self._image = image
        self._place = place
        self.tree = place / "tree"

    def put(self, projects: Mapping[str, int]) -> None:
        """Put objects into projects, while it is not mounted."""
        for name, project in projects.items():
            order = f"set_inode_field /tree/{name} projid {project}"
            done = subprocess.run(
                ["debugfs", "-w", "-R", order, self._image], check=False, capture_output=True
            )
            assert b"Unknown" not in done.stderr, done.stderr
            assert done.returncode == 0, done.stderr

    def mounted(self) -> AbstractContextManager[None]:
        """Mount it for as long as the context is entered."""
        return mounted("-t", "ext4", "-o", "loop,ro", str(self._image), str(self._place))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    source, place = tmp_path / "source", tmp_path / "volume"
    (source / "tree" / "inner").mkdir(parents=True)
    (source / "tree" / "small").write_bytes(b"x")
    (source / "tree" / "large").write_bytes(b"x" * 300 * 1024)
    (source / "tree" / "none").touch()
    os.mkfifo(source / "tree" / "fifo")
    place.mkdir()
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, IMAGE_BYTES)
    command = ["mkfs.ext4", "-q", "-O", "project,^has_journal", "-I", "256", "-d", str(source)]
    try:
        made = subprocess.run([*command, str(image)], check=False, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mkfs.ext4 here")
    if made.returncode:
        pytest.skip(f"no ext4 with project ids here: {made.stderr.decode()}")
    volume = Volume(image, place)
    volume.put(NAMES)
    return volume


def projects(scanned: Scanned, tree: Path) -> dict[str, int | None]:
    with BaselineReader(scanned.baseline) as reader:
        entries = reader.directory(bytes(tree))
    return {os.fsdecode(name): entry.project for name, entry in entries.items()}


@pytest.mark.parametrize(
    ("policy", "letters"),
    [
        (Policy.READ_ONLY, "-----M----"),
        (Policy.ATTRIBUTES, "-----M----"),
        (Policy.LOG_FILES, "-----M----"),
        (Policy.GROWING_LOG_FILES, "-----M----"),
        (Policy.IGNORE_NONE, "-----M----"),
        (Policy.IGNORE_ALL, ""),
    ],
)
def test_another_project_is_reported_under_each_policy_that_compares_rights(
    volume: Volume, make: Make, policy: Policy, letters: str
) -> None:
    scanned = make(dir_rule(volume.tree, policy))
    with volume.mounted():
        scanned.init()
        assert projects(scanned, volume.tree) == {**NAMES, "fifo": None}
        scanned.take()
        assert scanned.checker().full_check().changes == 0
        assert scanned.take() == []
    changed = {"small": 40, "large": 2**31, "inner": 0, "none": 1}
    volume.put({**changed, "fifo": 4})
    checker = scanned.checker()
    with volume.mounted():
        checker.full_check()
        told = scanned.take()
        # A loop device of another number may be under it: that is no change.
        assert checker.full_check().changes == 0
    expected = changed if letters else {}
    assert {(event.code, event.path, event.change) for event in told} == {
        (MODIFIED, bytes(volume.tree / name), letters) for name in expected
    }
    assert {
        event.path: (event.fields["project_old"], event.fields["project_new"]) for event in told
    } == {bytes(volume.tree / name): (NAMES[name], now) for name, now in expected.items()}


def test_where_rights_are_not_compared_a_project_is_not_either(volume: Volume, make: Make) -> None:
    masks = {**DEFAULT_MASKS, Policy.USER0: Check.CHK | Check.SIZ | Check.USR}
    scanned = make(dir_rule(volume.tree, Policy.USER0), masks=masks)
    with volume.mounted():
        scanned.init()
    volume.put({"small": 40})
    scanned.take()
    with volume.mounted():
        assert scanned.checker().full_check().changes == 0
