"""Root is given up for good. Each test that does it runs in a process of its own."""

import multiprocessing
import os
import pwd
import socket
import stat
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from needfire_protocol.errors import ConfigError, StorageError
from needfire_server import privileges, server_user
from needfire_server.privileges import PrivilegeError, drop_privileges, forbid_new_privileges

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0"),
]


def _in_a_child(action: Callable[[], object]) -> None:
    """Run the assertions of action in a forked process; fail with what failed there."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(action, theirs))
    child.start()
    theirs.close()
    outcome = ours.recv() if ours.poll(30) else "the child said nothing"
    child.join(30)
    ours.close()
    assert outcome == "", outcome


def _run(action: Callable[[], object], pipe: Connection) -> None:
    try:
        action()
        pipe.send("")
    except BaseException:  # noqa: BLE001  # the parent has to see every failure
        pipe.send(traceback.format_exc())


class TestAsRoot:
    pytestmark = needs_root

    @pytest.fixture(autouse=True)
    def _inside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody but root may enter pytest's directories, so paths are relative to where we are."""
        tmp_path.chmod(0o755)
        monkeypatch.chdir(tmp_path)
        # The Python of whoever runs the tests may lie in a home directory.
        monkeypatch.setattr(privileges, "_program_paths", list)

    def test_a_python_that_the_user_cannot_read_is_told_before_anything_is_handed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home").mkdir(mode=0o700)
        (tmp_path / "home" / "os.py").write_text("")
        (tmp_path / "data").mkdir(mode=0o700)
        library = str(tmp_path / "home" / "os.py")
        monkeypatch.setattr(privileges, "_program_paths", lambda: ["/", library])

        def check() -> None:
            with pytest.raises(PrivilegeError, match=r"daemon cannot read Python in .*/os\.py"):
                drop_privileges("daemon", "data")
            assert os.geteuid() == 0

        _in_a_child(check)
        assert (tmp_path / "data").stat().st_uid == 0

    @pytest.mark.parametrize(
        ("files", "folders"),
        [
            (["passwd"], []),
            (["passwd", "rc.local"], ["init.d"]),
            ([], ["lock", "log"]),
            ([], ["proposals.d"]),
        ],
    )
    def test_a_directory_of_something_else_is_not_taken(
        self, tmp_path: Path, files: list[str], folders: list[str]
    ) -> None:
        (tmp_path / "etc").mkdir()
        for file in files:
            (tmp_path / "etc" / file).write_text("")
        for folder in folders:
            (tmp_path / "etc" / folder).mkdir()

        def check() -> None:
            with pytest.raises(StorageError, match="etc is not a Needfire data directory"):
                drop_privileges("daemon", "etc")

        _in_a_child(check)
        assert {path.stat().st_uid for path in (tmp_path / "etc", *tmp_path.rglob("*"))} == {0}

    @pytest.mark.parametrize("present", [["lost+found"], ["rc"], ["needfire.sqlite", "notes"]])
    def test_a_directory_of_ours_is_taken(self, tmp_path: Path, present: list[str]) -> None:
        (tmp_path / "data").mkdir()
        for name in present:
            (tmp_path / "data" / name).write_text("")

        _in_a_child(lambda: drop_privileges("daemon", "data"))

        assert (tmp_path / "data").stat().st_uid == pwd.getpwnam("daemon").pw_uid

    def test_files_for_clients_stay_roots_and_can_be_read(self, tmp_path: Path) -> None:
        secret, data = tmp_path / "secret", tmp_path / "data"
        data.mkdir()
        secret.write_text("")
        secret.chmod(0o600)
        for name, mode in (("rc", 0o660), ("rc.web1", 0o640), ("file.web1", 0o600)):
            (data / name).write_text(name)
            (data / name).chmod(mode)
        os.link(secret, data / "rc.web2")
        (data / "rc.web3").symlink_to(secret)

        def check() -> None:
            drop_privileges("daemon", "data")
            for name in ("rc", "rc.web1", "file.web1"):
                assert Path("data", name).read_text() == name
                assert not os.access(Path("data", name), os.W_OK)

        _in_a_child(check)
        assert (data / "rc.web1").stat().st_uid == 0
        assert (secret.stat().st_gid, stat.S_IMODE(secret.stat().st_mode)) == (0, 0o600)

    def test_root_cannot_be_taken_back(self, tmp_path: Path) -> None:
        def check() -> None:
            account = pwd.getpwnam("daemon")
            os.setgroups([0, 4242])
            assert drop_privileges("daemon", ".") == "daemon"
            assert os.getresuid() == (account.pw_uid,) * 3
            assert os.getresgid() == (account.pw_gid,) * 3
            assert not {0, 4242} & set(os.getgroups())
            for regain in (os.seteuid, os.setuid, os.setegid, os.setgid):
                with pytest.raises(PermissionError):
                    regain(0)
            status = Path("/proc/self/status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert "CapEff:\t0000000000000000" in status

        _in_a_child(check)

    def test_the_data_directory_is_handed_over(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        (data / "proposals").mkdir(parents=True)
        (data / "audit").mkdir()
        for name in (
            *("needfire.sqlite", "needfire.sqlite-wal", "seal.key", "log", "log.web1"),
            *("proposals/1", "audit/1.key"),
        ):
            (data / name).write_text("")
        for name in ("rc.web1", "file.web1", "rc"):
            (data / name).write_text("")

        def check() -> None:
            drop_privileges("daemon", "data")
            Path("data/log").write_text("we can write it")
            Path("data/new").write_text("and beside it")

        _in_a_child(check)
        uid = pwd.getpwnam("daemon").pw_uid
        owned = {path.name for path in data.rglob("*") if path.stat().st_uid == uid}
        assert owned == {
            *("needfire.sqlite", "needfire.sqlite-wal", "seal.key", "log", "log.web1", "proposals"),
            *("1", "new", "audit", "1.key"),
        }

    def test_a_data_directory_that_is_missing_is_made(self, tmp_path: Path) -> None:
        _in_a_child(lambda: drop_privileges("daemon", "data"))

        status = (tmp_path / "data").stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == pwd.getpwnam("daemon").pw_uid

    def test_a_data_directory_that_the_user_cannot_reach_is_told_at_the_start(
        self, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o700)

        def check() -> None:
            with pytest.raises(StorageError, match="the user daemon cannot use"):
                drop_privileges("daemon", str(tmp_path / "data"))

        _in_a_child(check)

    def test_no_link_in_the_data_directory_gives_away_a_file_of_root(self, tmp_path: Path) -> None:
        """The user who had the directory before may have prepared it."""
        secret, data = tmp_path / "secret", tmp_path / "data"
        secret.write_text("")
        (data / "proposals").mkdir(parents=True)
        os.link(secret, data / "log")
        (data / "needfire.sqlite").symlink_to(secret)
        os.link(secret, data / "proposals" / "1")
        os.mkfifo(data / "log.fifo")
        with socket.socket(socket.AF_UNIX) as admin:
            admin.bind(str(data / "control.sock"))

            _in_a_child(lambda: drop_privileges("daemon", "data"))

        assert secret.stat().st_uid == 0

    def test_what_somebody_else_owns_keeps_its_owner(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("")
        os.chown(tmp_path / "log", 12345, 12345)

        _in_a_child(lambda: drop_privileges("daemon", "."))

        assert (tmp_path / "log").stat().st_uid == 12345

    def test_without_a_name_it_is_the_first_user_that_exists(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_user, "USERS", ("no-such-user", "root", "nobody"))

        def check() -> None:
            assert drop_privileges(None, ".") == "nobody"

        _in_a_child(check)

    def test_it_refuses_to_stay_root_unless_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_user, "USERS", ("root", "no-such-user"))

        def check() -> None:
            with pytest.raises(ConfigError, match="the server does not run as root"):
                drop_privileges(None, ".")
            assert drop_privileges("root", ".") is None
            assert os.geteuid() == 0

        _in_a_child(check)

    def test_a_user_that_does_not_exist_is_a_mistake_of_the_configuration(
        self, tmp_path: Path
    ) -> None:
        for user in ("no-such-user", "4294967294", "99999999999999999999", ""):
            with pytest.raises(ConfigError, match="there is no user"):
                drop_privileges(user, ".")

    def test_a_kernel_that_keeps_root_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(privileges, "_become", lambda account: None)

        def check() -> None:
            with pytest.raises(PrivilegeError, match="not the one that was asked for"):
                drop_privileges("daemon", ".")

        _in_a_child(check)

    def test_a_saved_root_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def become_half(account: pwd.struct_passwd) -> None:
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, 0)

        monkeypatch.setattr(privileges, "_become", become_half)

        def check() -> None:
            with pytest.raises(PrivilegeError):
                drop_privileges("daemon", ".")

        _in_a_child(check)


def test_nothing_that_is_started_can_have_more_rights() -> None:
    def check() -> None:
        forbid_new_privileges()
        assert "NoNewPrivs:\t1" in Path("/proc/self/status").read_text()

    _in_a_child(check)


def test_who_is_not_root_stays_who_he_is(tmp_path: Path) -> None:
    def check() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        uid = os.geteuid()
        assert drop_privileges("daemon", ".") is None
        assert os.geteuid() == uid

    _in_a_child(check)
