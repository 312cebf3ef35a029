"""fanotify on this host's own file systems: changes, who made them, and what was lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from needfire_client import fanotify_calls, fanotify_watch
from needfire_client.fanotify_watch import FanotifyWatcher
from needfire_client.mounts import Mount, read_mounts
from needfire_protocol.rc.policies import PathRule, Policy
from needfire_testkit.mounting import mounted
from needfire_testkit.realtime import Ears
from needfire_testkit.scanner import dir_rule, file_rule, settings_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    return root


@contextmanager
def watching(
    *rules: PathRule, canary: Path | None = None
) -> Iterator[tuple[FanotifyWatcher, Ears]]:
    ears = Ears()
    watcher = FanotifyWatcher(settings_of(*rules), ears, None if canary is None else bytes(canary))
    watcher.start()
    try:
        yield watcher, ears
    finally:
        ears.hold.set()
        watcher.stop()


def sh(script: str, cwd: Path) -> None:
    """Change something from another process: our own changes are not told."""
    subprocess.run(["/bin/sh", "-c", script], cwd=cwd, check=True)


def test_every_kind_of_change_names_its_path(root: Path) -> None:
    sh("touch gone mode from", root)
    with watching(dir_rule(root)) as (_, ears):
        sh(
            "echo y > file; touch new; rm gone; chmod 600 mode; mv from sub/to; "
            "ln -s nowhere link; mkfifo fifo; mkdir -p n1/n2; touch n1/n2/inside",
            root,
        )
        ears.wait_paths(
            *(
                root / name
                for name in [
                    *("file", "new", "gone", "mode", "from", "sub/to", "link", "fifo"),
                    "n1/n2/inside",
                ]
            )
        )
        assert ears.losses == []


def test_what_no_rule_covers_is_not_told(root: Path, tmp_path: Path) -> None:
    with watching(file_rule(root / "file")) as (_, ears):
        sh("touch other sub/other ../outside; echo y > file", root)
        ears.wait_paths(root / "file")
        assert set(ears.paths) == {bytes(root / "file")}


def test_a_policy_that_ignores_contents_is_not_bothered_by_writing(root: Path) -> None:
    with watching(dir_rule(root, Policy.ATTRIBUTES)) as (_, ears):
        sh("echo y >> file; chmod 600 sub", root)
        ears.wait_paths(root / "sub")
        assert bytes(root / "file") not in ears.paths


def test_the_agents_own_changes_are_not_told_but_its_canary_is(root: Path) -> None:
    canary = root / "state" / "canary"
    canary.parent.mkdir()
    with watching(dir_rule(root), canary=canary) as (_, ears):
        (root / "own").write_bytes(b"")
        canary.write_bytes(b"")
        ears.wait(lambda: ears.canaries, "the canary")
        sh("touch marker; touch state/canary", root)
        ears.wait_paths(root / "marker", canary)
        assert bytes(root / "own") not in ears.paths


def test_short_lived_writers_are_named(root: Path) -> None:
    with watching(dir_rule(root)) as (_, ears):
        for number in range(50):
            subprocess.run(["touch", root / f"t{number}"], check=True)
        ears.wait_paths(*(root / f"t{number}" for number in range(50)))
        named = [ears.programs(root / f"t{number}") for number in range(50)]
    touch = os.fsencode(os.path.realpath("/usr/bin/touch"))
    # Never a wrong one; that all are named is what scripts/bench/watch counts.
    assert {program for programs in named for program in programs} <= {touch, None}
    assert sum(programs == {touch} for programs in named) >= 45


def test_a_writer_that_lives_is_described(root: Path) -> None:
    script = (
        "import sys, pathlib, time; pathlib.Path(sys.argv[1]).write_bytes(b''); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(root / "mine"), "--token=Xk7"]
    with (
        watching(dir_rule(root)) as (_, ears),
        subprocess.Popen(command, stdin=subprocess.PIPE) as process,
    ):
        ears.wait_paths(root / "mine")
        assert process.stdin is not None
        process.stdin.close()
        [writer] = {writer for path, writer, _ in ears.writers if path == bytes(root / "mine")}
    assert writer is not None
    assert writer.pid == process.pid
    assert writer.program == os.fsencode(os.path.realpath(sys.executable))
    assert writer.uid == 0
    assert writer.command is not None
    assert b"--token=Xk7" in writer.command


def test_a_rename_onto_a_file_names_it_once(root: Path) -> None:
    with watching(dir_rule(root)) as (_, ears):
        sh("echo y > .file.swp; mv .file.swp file", root)
        ears.wait_paths(root / "file")
        assert ears.paths.count(bytes(root / "file")) == 1


def test_a_directory_that_is_moved_is_known_under_its_new_name(root: Path) -> None:
    (root / "sub" / "deep").mkdir()
    with watching(dir_rule(root)) as (_, ears):
        sh("touch sub/deep/before", root)
        ears.wait_paths(root / "sub" / "deep" / "before")
        sh("mv sub other; touch other/deep/after", root)
        ears.wait_paths(root / "sub", root / "other", root / "other" / "deep" / "after")
        below = {path for path, _, is_below in ears.writers if is_below}
        assert below == {bytes(root / "sub"), bytes(root / "other")}


def test_a_directory_that_comes_from_outside_is_watched(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    with watching(dir_rule(root)) as (_, ears):
        sh("touch ../outside/deep/before; mv ../outside in; touch in/deep/after", root)
        ears.wait_paths(root / "in", root / "in" / "deep" / "after")
        assert not any(b"outside" in path for path in ears.paths)


def test_a_directory_that_comes_back_is_told_with_everything_below_it(
    root: Path, tmp_path: Path
) -> None:
    (root / "sub/deeper").mkdir()
    (root / "sub/deeper/file").write_bytes(b"x")
    with watching(dir_rule(root)) as (_, ears):
        sh(
            f"mv sub {tmp_path}/out; echo y > {tmp_path}/out/deeper/file; mv {tmp_path}/out sub",
            root,
        )
        ears.wait(lambda: bytes(root / "sub") in ears.trees, "told with what is below")


def test_a_file_below_a_path_that_the_kernel_cannot_tell_is_told_with_what_is_around_it(
    root: Path,
) -> None:
    name = "d" * 250
    script = f"""
import os
for _ in range(20):
    os.makedirs("{name}", exist_ok=True)
    os.chdir("{name}")
open("leaf", "w").write("x")
"""
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
    with watching(dir_rule(root)) as (_, ears):
        subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
        ears.wait(lambda: ears.trees, "told with what is below")
        assert len(set(ears.trees)) == 1
        assert all(len(path) < 4096 < len(path) + 251 for path in ears.trees)
        assert all(path.startswith(bytes(root)) for path in ears.trees)


def test_what_is_reached_through_a_link_in_a_rule_is_told_under_the_rules_path(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(root)
    with watching(file_rule(tmp_path / "link" / "file")) as (_, ears):
        sh("echo y > file", root)
        ears.wait_paths(tmp_path / "link" / "file")


def test_a_queue_that_overflows_is_a_loss_with_its_beginning(root: Path) -> None:
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"a queue of {limit} events takes too long to fill")
    with watching(dir_rule(root)) as (watcher, ears):
        ears.hold.clear()
        sh("touch held", root)
        script = (
            "import os,sys\n"
            "for n in range(int(sys.argv[1])): os.close(os.open(f'o{n}', os.O_CREAT|os.O_WRONLY))"
        )
        # More than there is room for: the kernel makes one event of all that happens to one name.
        subprocess.run([sys.executable, "-c", script, str(limit + 2_000)], cwd=root, check=True)
        ears.hold.set()
        ears.wait(lambda: ears.losses, "the loss")
        reason, scope, since_us = ears.losses[0]
        assert (reason, scope) == ("the queue of events overflowed", b"/")
        assert since_us is not None
        assert since_us <= watcher.health.heard_us
        # And it goes on.
        sh("mkdir after; touch after/file", root)
        ears.wait_paths(root / "after" / "file")


def test_a_reader_that_dies_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: object) -> bytes:
        raise MemoryError("gone")

    with watching(dir_rule(root)) as (_, ears):
        monkeypatch.setattr(FanotifyWatcher, "_read", die)
        sh("touch wakes-the-reader", root)
        ears.wait(lambda: ears.losses, "the loss")
        assert ears.losses[0][:2] == ("the reader failed: MemoryError: gone", b"/")


def test_a_directory_that_cannot_be_found_for_now_is_a_loss_and_is_found_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_mount: int, _handle: bytes) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with watching(dir_rule(root)) as (_, ears):
        with monkeypatch.context() as patch:
            patch.setattr(fanotify_calls, "open_handle", fail)
            sh("echo y > file", root)
            ears.wait(lambda: ears.losses, "told")
        assert {reason for reason, _, _ in ears.losses} == {
            "a directory could not be found again: Too many open files"
        }
        sh("echo z > file", root)
        ears.wait_paths(root / "file")


@pytest.mark.parametrize(
    ("failures", "said"), [(0, errno.ESTALE), (4, errno.ESTALE), (5, errno.ENOMEM)]
)
def test_want_of_memory_that_is_over_at_once_is_no_loss(
    monkeypatch: pytest.MonkeyPatch, failures: int, said: int
) -> None:
    """Linux says so of a directory that is being removed; it is gone at the next try."""
    answers = [errno.ENOMEM] * failures + [errno.ESTALE]

    def fail(_mount: int, _handle: bytes) -> int:
        number = answers.pop(0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fanotify_calls, "open_handle", fail)
    with pytest.raises(OSError) as told:  # its number is looked at
        fanotify_watch._open_handle(-1, b"handle")
    assert told.value.errno == said


def test_known_directories_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanotify_watch, "_DIRECTORIES_MAX", 5)
    with watching(dir_rule(root)) as (watcher, ears):
        sh("for n in 1 2 3 4 5 6 7 8 9; do mkdir d$n; touch d$n/f; done", root)
        ears.wait_paths(*(root / f"d{number}" / "f" for number in range(1, 10)))
        assert len(watcher._directories) <= 5


def test_a_kernel_without_fanotify_is_an_error_at_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fanotify_calls, "open_group", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PermissionError), watching(dir_rule(root)):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_older_kernel_gets_two_events_for_a_rename(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fanotify_calls.mark_file_system

    def mark(group: int, mask: int, path: bytes) -> None:
        if mask & fanotify_calls.RENAME:
            raise OSError(22, "Invalid argument")
        real(group, mask, path)

    monkeypatch.setattr(fanotify_calls, "mark_file_system", mark)
    with watching(dir_rule(root)) as (_, ears):
        sh("mv file sub/to", root)
        # Before it moves on: paths are those of the moment at which events are read.
        ears.wait_paths(root / "file", root / "sub" / "to")
        sh("mv sub other; touch other/after", root)
        ears.wait_paths(root / "other", root / "other" / "after")


def test_a_network_file_system_is_left_to_polling(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = Mount(999, b"0:999", b"/", bytes(root / "sub"), "nfs4")
    monkeypatch.setattr(fanotify_watch, "read_mounts", lambda: (*read_mounts(), made_up))
    with watching(dir_rule(root)) as (watcher, _):
        assert watcher.unwatched == {bytes(root / "sub"): "nfs4: others may write there"}


def test_a_bind_mount_is_told_under_each_path_that_a_rule_covers(
    root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    with mounted("--bind", str(source), str(root / "sub")), watching(dir_rule(root)) as (_, ears):
        sh("touch sub/deep/through", root)
        sh("touch deep/beside", source)
        ears.wait_paths(root / "sub" / "deep" / "through", root / "sub" / "deep" / "beside")


def test_a_file_system_that_is_mounted_later_is_watched_after_reconciling(root: Path) -> None:
    with (
        watching(dir_rule(root)) as (watcher, ears),
        mounted("-t", "tmpfs", "needfire-test", str(root / "sub")),
    ):
        watcher.reconcile()
        sh("mkdir sub/x; touch sub/x/inside", root)
        ears.wait_paths(root / "sub" / "x" / "inside")


def test_what_is_read_ahead_is_bounded_and_what_is_beyond_stays_in_the_queue(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FanotifyWatcher, "_run", lambda _self: None)
    monkeypatch.setattr(fanotify_watch, "_BUFFER_BYTES", 4_096)
    monkeypatch.setattr(fanotify_watch, "_BACKLOG_BYTES_MAX", 3 * 4_096)
    with watching(dir_rule(root)) as (watcher, ears):
        watcher._buffer = bytearray(4_096)
        sh("for n in $(seq 500); do echo x > sub/f$n; done", root)
        watcher._fill()
        assert 2 * 4_096 < watcher._backlog_bytes <= 3 * 4_096
        assert watcher._fill() == 0
        while watcher._backlog:
            watcher._take(watcher._backlog.popleft())
            watcher._fill()
        assert watcher._backlog_bytes == 0
        assert {bytes(root / "sub" / f"f{number}") for number in range(1, 501)} <= set(ears.paths)
        assert ears.losses == []


def test_many_changes_of_a_path_in_a_burst_are_told_once(root: Path) -> None:
    with watching(dir_rule(root)) as (watcher, ears):
        ears.hold.clear()
        sh("touch wakes-the-reader", root)
        before = watcher.health.events
        script = (
            "import os\n"
            "for n in range(300):\n"
            " for name in ('a', 'b'): os.close(os.open(name, os.O_CREAT | os.O_WRONLY))"
        )
        subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
        ears.hold.set()
        sh("touch sub/marker", root)
        ears.wait_paths(root / "sub" / "marker")
        assert watcher.health.events > before
        assert (ears.paths.count(bytes(root / "a")), ears.paths.count(bytes(root / "b"))) == (1, 1)


def test_a_process_that_runs_one_program_after_another_is_told_as_each_of_them(root: Path) -> None:
    """The same number is another program after the execution, also where both are read at once."""
    with watching(dir_rule(root)) as (_, ears):
        ears.hold.clear()
        sh("touch wakes-the-reader", root)
        sh("echo by-sh > one; exec touch two", root)
        ears.hold.set()
        sh("touch sub/marker", root)
        ears.wait_paths(root / "sub" / "marker")
        for name, program in (("one", "/bin/sh"), ("two", "/bin/touch")):
            assert ears.programs(root / name) == {os.fsencode(os.path.realpath(program))}


def test_of_two_mounts_on_one_point_the_one_that_is_seen_is_told_once(root: Path) -> None:
    with (
        mounted("-t", "tmpfs", "needfire-test-1", str(root / "sub")),
        mounted("-t", "tmpfs", "needfire-test-2", str(root / "sub")),
    ):
        sh("touch sub/inside", root)
        with watching(dir_rule(root)) as (watcher, ears):
            # One event; what touch does may be read, and told, in two pieces.
            sh("chmod 600 sub/inside", root)
            ears.wait_paths(root / "sub" / "inside")
            assert ears.paths.count(bytes(root / "sub" / "inside")) == 1
            assert watcher._lacking_points() == []
