import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_client.overlay import Overlay
from needfire_protocol.baseline import FileEntry, key_of, subtree_end
from needfire_protocol.errors import StorageError
from needfire_testkit.small_disk import SmallDisk

ENTRY = FileEntry(0o100644, 0, 0, 5, 1, 2, 3, 4, 5, 1, 0, None, b"d" * 32, 0, "")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    overlay = Overlay(tmp_path / "overlay")
    yield overlay
    overlay.close()


def test_reported_states_are_kept_by_directory_and_name(overlay: Overlay) -> None:
    overlay.put(b"\0etc", b"a", ENTRY)
    overlay.put(b"\0etc", b"b", None)
    overlay.put(b"\0etc", b"a", ENTRY._replace(size=9))
    assert overlay.directory(b"\0etc") == {b"a": ENTRY._replace(size=9), b"b": None}
    overlay.forget(b"\0etc", b"a")
    assert overlay.directory(b"\0etc") == {b"b": None}
    assert overlay.directory(b"\0") == {}


def test_directories_are_found_in_the_order_of_their_keys(overlay: Overlay) -> None:
    for path in (b"/a-b", b"/a/x", b"/a", b"/b"):
        overlay.put(key_of(path), b"name", None)
    overlay.put(b"", b"/", None)
    found, at = [], b""
    while (key := overlay.next_directory(at, subtree_end(b""))) is not None:
        found.append(key)
        at = key + b"\0"
    assert found == [b"", *map(key_of, (b"/a", b"/a/x", b"/a-b", b"/b"))]
    assert overlay.next_directory(key_of(b"/a") + b"\0", subtree_end(key_of(b"/a"))) == b"\0a\0x"
    assert overlay.next_directory(b"\0c", subtree_end(b"")) is None


def test_a_finding_is_new_once_until_a_round_does_not_meet_it(overlay: Overlay) -> None:
    overlay.begin_round()
    assert overlay.is_new("WEIRD_FILENAME", b"/a")
    assert not overlay.is_new("WEIRD_FILENAME", b"/a")
    assert overlay.is_new("FILE_UNREADABLE", b"/a")
    overlay.end_round(lambda _path: True)
    overlay.begin_round()
    assert not overlay.is_new("WEIRD_FILENAME", b"/a")
    overlay.end_round(lambda _path: True)
    overlay.begin_round()
    assert overlay.is_new("FILE_UNREADABLE", b"/a")


def test_a_new_start_forgets_everything(tmp_path: Path) -> None:
    path = tmp_path / "overlay"
    first = Overlay(path)
    first.put(b"\0etc", b"a", None)
    second = Overlay(path)
    assert second.directory(b"\0etc") == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second.close()
    assert not path.exists()
    first.close()


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Overlay(tmp_path / "nowhere" / "overlay")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_leaves_it_in_memory_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("needfire_client.overlay._MEMORY_PAGES_MAX", 16)
    with SmallDisk.mounted(tmp_path, "64k") as disk:
        disk.fill()
        overlay = Overlay(tmp_path / "overlay")
        assert overlay.trouble is not None
        for number in range(2_000):
            overlay.put(b"\0etc", b"name %d" % number, ENTRY)
            overlay.is_new("WEIRD_NAME", b"/etc/%d" % number)
        kept = len(overlay.directory(b"\0etc"))
        assert 10 < kept < 2_000, "what has no room is reported again"
        assert not overlay.is_new("WEIRD_NAME", b"/etc/0")
        assert overlay.is_new("WEIRD_NAME", b"/etc/1999")
        overlay.close()
