"""The tree that most checks are of, and what makes checks: alone, and shared out to workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from needfire_testkit.scan_workers import share_out_everything
from needfire_testkit.scanner import Make, making


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"aaa")
    (root / "b").write_bytes(b"b")
    (root / "sub" / "c").write_bytes(b"c")
    (root / "sub" / "deep" / "d").write_bytes(b"d")
    return root


@pytest.fixture(params=[1, 2], ids=["alone", "shared"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    share_out_everything(monkeypatch)
    with making(tmp_path, scan_workers=request.param) as make:
        yield make
