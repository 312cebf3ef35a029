"""The agent as a real process: signals, orders, reloads, crashes, and what the server hears of it."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from needfire_client.facts import HostFacts
from needfire_client.new_baseline import init_baseline
from needfire_protocol.catalogue_entry import EventClass
from needfire_protocol.event import Event
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import Command, FileKind
from needfire_protocol.rc.agent import parse_agent_rc
from needfire_testkit.pairs import NAME, PASSWORD
from needfire_testkit.server import ScriptedServer, running_server, until

PROGRAM = (sys.executable, "-m", "needfire_client")


class Home:
    """The files of one agent, and the ways to run it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir(mode=0o700)
        self.tree = root / "tree"
        self.tree.mkdir()
        (self.tree / "file").write_text("first\n")
        self.rc = root / "agentrc"
        self.write_rc()
        (self.state / "password").write_text(PASSWORD + "\n")
        (self.state / "password").chmod(0o600)
        self.baseline = root / "baseline"

    def rc_text(self, misc: str = "") -> str:
        return (
            f"[Misc]\nSetFilecheckTime=3600\nSetLoopTime=1\n{misc}\n[Log]\nPrintSeverity=*\nExportSeverity=notice\n"
            f"[ReadOnly]\ndir=99{self.tree}\n"
        )

    def write_rc(self, misc: str = "") -> None:
        self.rc.write_text(self.rc_text(misc))

    async def run(self, verb: str, *arguments: str) -> tuple[int, str]:
        """Run a verb to its end; return exit status and output."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            verb,
            *("--state-dir", str(self.state), "--name", NAME, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    def record_baseline(self) -> None:
        settings = parse_agent_rc(self.rc.read_bytes(), source="rc", facts=HostFacts(NAME))
        init_baseline(
            settings,
            self.baseline,
            lambda _code, _severity, _fields: None,
            host=NAME,
            configuration_sha256="",
            created_us=1,
        )

    @property
    def local(self) -> tuple[str, ...]:
        """Options for configuration and baseline from local files."""
        return ("--rc", str(self.rc), "--baseline", str(self.baseline))


class Running:
    """A daemon, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def count(self, text: str) -> int:
        return sum(text in line for line in self.output.splitlines())

    async def says(self, text: str, count: int = 1) -> None:
        """Wait until the text stands in so many lines."""

        def holds() -> bool:
            if self.count(text) >= count:
                return True
            assert self.process.returncode is None, f"ended before {text!r}:\n{self.output}"
            return False

        try:
            await until(holds, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ends(self, limit_s: float = 20) -> int:
        async with asyncio.timeout(limit_s):
            return await self.process.wait()


@asynccontextmanager
async def daemon(home: Home, *arguments: str) -> AsyncIterator[Running]:
    """A daemon in a process of its own; killed at the end if it still runs."""
    log = home.root / f"log.{os.urandom(4).hex()}"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("run", "--state-dir", str(home.state), "--name", NAME, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield Running(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def at(server: ScriptedServer) -> tuple[str, str]:
    return ("--server", str(server.address))


def has(server: ScriptedServer, code: str, count: int = 1) -> Callable[[], bool]:
    return lambda: server.codes().count(code) >= count


def event_of(server: ScriptedServer, code: str) -> Event:
    return next(event for event in server.events if event.code == code)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.record_baseline()
    return home


async def test_a_life_with_local_files_from_start_to_exit(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        (home.tree / "file").write_text("changed\n")
        await until(has(server, "POLICY_MODIFIED"), "the change")
        agent.send(signal.SIGTERM)
        assert await agent.ends() == 0
        assert server.goodbyes == ["exit"]
        assert server.codes()[0] == "START"
        assert server.codes()[-1] == "EXIT"
        start, exit_ = event_of(server, "START"), event_of(server, "EXIT")
        assert start.fields["path"] == str(home.rc)
        assert start.fields["path_data"] == str(home.baseline)
        receipt = event_of(server, "CHECK_COMPLETED")
        assert receipt.fields["configuration"] == start.fields["hash"]
        assert receipt.fields["watcher"] == event_of(server, "REALTIME_STARTED").fields["method"]
        assert int(str(receipt.fields["watched"])) >= 1
        assert str(start.fields["hash"]).startswith("sha256:")
        assert str(start.fields["hash_data"]).startswith("sha256:")
        assert exit_.fields["status"] == "Terminated"
        assert event_of(server, "POLICY_MODIFIED").fields["path"] == str(home.tree / "file")
        assert "TIMESTAMP" not in server.codes()
        assert server.heartbeats


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, "Interrupt"), (signal.SIGQUIT, "Quit")]
)
async def test_every_way_to_stop_it_is_told(
    home: Home, number: signal.Signals, status: str
) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        agent.send(number)
        assert await agent.ends() == 0
        assert event_of(server, "EXIT").fields["status"] == status
        assert server.goodbyes == ["exit"]


async def test_without_a_server_it_watches_and_prints(home: Home) -> None:
    async with daemon(home, *home.local) as agent:
        await agent.says("File check completed.")
        (home.tree / "new").write_text("x")
        await agent.says('msg="POLICY ADDED"')
        agent.send(signal.SIGTERM)
        assert await agent.ends() == 0
        assert 'msg="EXIT"' in agent.output.splitlines()[-1]
    assert not (home.state / "spool.sqlite").exists()


async def test_a_clean_stop_while_the_server_is_away_is_delivered_by_the_next_run(
    home: Home,
) -> None:
    async with running_server() as server:
        async with daemon(home, *home.local, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            await server.stop()
            agent.send(signal.SIGTERM)
            assert await agent.ends() == 0
            assert "EXIT" not in server.codes()
        await server.start()
        async with daemon(home, *home.local, *at(server)):
            await until(has(server, "CHECK_COMPLETED", 2), "the second life")
            assert server.announcements[0].prior_exit_pending is False
            assert server.announcements[-1].prior_exit_pending is True
            assert server.announcements[0].instance != server.announcements[-1].instance
            lives = [code for code in server.codes() if code in ("START", "EXIT")]
            assert lives == ["START", "EXIT", "START"]


async def test_a_check_knows_of_the_clean_stop_that_waits_in_the_spool_of_the_service(
    home: Home,
) -> None:
    async with running_server() as server:
        async with daemon(home, *home.local, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            await server.stop()
            agent.send(signal.SIGTERM)
            assert await agent.ends() == 0
        await server.start()
        for is_pending in (True, False):
            status, output = await home.run("check", *home.local, *at(server))
            assert status == 0, output
            # The second time the server has heard of a process since.
            assert server.announcements[-1].prior_exit_pending is is_pending


async def test_suspended_it_stops_at_once(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        agent.send(signal.SIGUSR2)
        await until(lambda: not server.peers, "the end of the connection")
        agent.send(signal.SIGTERM)
        assert await agent.ends(limit_s=4) == 0  # less than the wait for a goodbye
        assert len(server.announcements) == 1, "it does not take the session back"


async def test_an_interrupted_init_leaves_nothing_and_removes_what_a_killed_one_left(
    home: Home,
) -> None:
    abandoned = home.state / ".baseline.0123456789abcdef.tmp"
    abandoned.write_bytes(b"half")
    # Work for many seconds, almost without disk: each as large as sparse files are still read.
    for number in range(300):
        with (home.tree / f"large{number}").open("wb") as file:
            file.truncate(1 << 26)
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("init", "--state-dir", str(home.state), "--name", NAME, "--rc", str(home.rc)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(
            lambda: not abandoned.exists() and any(home.state.glob(".baseline.*.tmp")), "its file"
        )
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not list(home.state.glob(".baseline.*.tmp"))


async def test_killed_it_loses_no_report_and_does_not_pretend_to_have_stopped(home: Home) -> None:
    async with running_server() as server:
        async with daemon(home, *home.local, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            await server.stop()
            (home.tree / "made while away").write_text("x")
            await agent.says("made while away")
            await agent.says("TIMESTAMP", agent.count("TIMESTAMP") + 1)
            agent.send(signal.SIGKILL)
            assert await agent.ends() == -signal.SIGKILL
        await server.start()
        async with daemon(home, *home.local, *at(server)):
            await until(has(server, "CHECK_COMPLETED", 2), "the second life")
            assert server.announcements[-1].prior_exit_pending is False
            codes = server.codes()
            assert codes.index("POLICY_ADDED") < codes.index("START", 1)
            assert [sequence for _, sequence in sorted(server.reports)] == list(
                range(1, len(server.reports) + 1)
            )


async def test_suspended_it_is_gone_and_awake_it_reports_what_changed(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        agent.send(signal.SIGUSR2)
        await until(lambda: not server.peers, "the end of the connection")
        assert server.codes()[-1] == "SUSPEND"
        assert server.goodbyes == ["suspend"]
        (home.tree / "file").write_text("changed meanwhile\n")
        status, output = await home.run("check", *home.local, *at(server))
        assert status == 1, output
        assert agent.count("POLICY") == 0, "it waits, and looks at nothing"
        agent.send(signal.SIGUSR2)
        await until(has(server, "WAKEUP"), "waking up")
        await agent.says('msg="POLICY [ReadOnly]')
        assert server.negotiations == [True, True, True]
        instances = [each.instance for each in server.announcements]
        assert instances[0] == instances[2] != instances[1]
        assert "Invalid connection state" not in agent.output
        agent.send(signal.SIGTERM)
        assert await agent.ends() == 0


async def test_hup_reads_the_configuration_again(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        home.write_rc("SetLoopTime=7")
        agent.send(signal.SIGHUP)
        await until(has(server, "CONFIGURATION_RELOADED"), "the reload")
        await until(has(server, "CHECK_COMPLETED", 2), "the check that follows")
        assert event_of(server, "CONFIGURATION_RELOADED").fields["path"] == str(home.rc)


async def test_what_is_taken_into_use_is_told_at_a_reload_and_at_a_start(home: Home) -> None:
    old, old_baseline = home.rc.read_bytes(), home.baseline.read_bytes()
    async with running_server() as server:
        async with daemon(home, *home.local, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            assert "CONFIGURATION_TAKEN" not in server.codes(), "there was none before"
            home.write_rc("SetLoopTime=7")
            agent.send(signal.SIGHUP)
            await until(has(server, "CONFIGURATION_TAKEN"), "the reload")
            told = event_of(server, "CONFIGURATION_TAKEN")
            assert told.event_class is EventClass.PROVISIONING
            assert told.fields["hash_old"] == f"sha256:{hashlib.sha256(old).hexdigest()}"
            digest = hashlib.sha256(home.rc.read_bytes()).hexdigest()
            assert told.fields["hash"] == f"sha256:{digest}"
            assert json.loads(str(told.fields["changes"]))["SetLoopTime"][1] == "7"
            await until(has(server, "CHECK_COMPLETED", 2), "the check that follows")
            agent.send(signal.SIGTERM)
            assert await agent.ends() == 0
        # While it does not run somebody changes both.
        home.rc.write_bytes(home.rc.read_bytes() + b"# a comment\n")
        (home.tree / "one more").write_text("new\n")
        home.baseline.unlink()
        home.record_baseline()
        async with daemon(home, *home.local, *at(server)):
            await until(has(server, "CHECK_COMPLETED", 3), "the second life")
        fields = event_of(server, "BASELINE_TAKEN").fields
        assert fields["hash_old"] == f"sha256:{hashlib.sha256(old_baseline).hexdigest()}"
        assert int(str(fields["files"])) == int(str(fields["files_old"])) + 1
        codes = server.codes()
        assert codes.count("CONFIGURATION_TAKEN") == 2
        assert codes.count("BASELINE_TAKEN") == 1
        async with daemon(home, *home.local, *at(server)):
            await until(has(server, "START", 3), "the third life")
            await until(has(server, "CHECK_COMPLETED", 4), "its check")
        assert server.codes().count("CONFIGURATION_TAKEN") == 2, "nothing is new then"


async def test_a_broken_configuration_changes_nothing(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        home.rc.write_text("[Misc]\nSetLoopTme=1\n")
        agent.send(signal.SIGHUP)
        await until(has(server, "CONFIGURATION_UNUSABLE"), "the complaint")
        assert f"{home.rc}:2" in event_of(server, "CONFIGURATION_UNUSABLE").msg
        (home.tree / "file").write_text("changed\n")
        await until(has(server, "POLICY_MODIFIED"), "the change")
        home.rc.unlink()
        agent.send(signal.SIGHUP)
        await until(has(server, "CONFIGURATION_UNUSABLE", 2), "the complaint")


async def test_hup_with_the_server_away_does_not_kill_it(home: Home) -> None:
    files = {
        FileKind.CONFIGURATION: home.rc_text().encode(),
        FileKind.BASELINE: home.baseline.read_bytes(),
    }
    async with running_server(files=files) as server, daemon(home, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        assert event_of(server, "START").fields["path"] == "REQ_FROM_SERVER"
        for text in ("Downloading configuration file", "Downloading database file"):
            await agent.says(f'msg="{text}"')
        await agent.says('msg="File download completed" kind="baseline"')
        server.files = {}
        agent.send(signal.SIGHUP)
        await agent.says('msg="File download failed"')
        await until(has(server, "CONFIGURATION_UNUSABLE"), "the complaint")
        (home.tree / "file").write_text("changed\n")
        await until(has(server, "POLICY_MODIFIED"), "the change")
        assert agent.process.returncode is None


@pytest.mark.parametrize(
    ("name", "code"), [("rc", "CONFIGURATION_UNUSABLE"), ("baseline", "BASELINE_UNUSABLE")]
)
async def test_a_file_from_the_server_that_cannot_be_kept_changes_nothing(
    home: Home, name: str, code: str
) -> None:
    files = {
        FileKind.CONFIGURATION: home.rc_text().encode(),
        FileKind.BASELINE: home.baseline.read_bytes(),
    }
    async with running_server(files=files) as server, daemon(home, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        kept = home.state / "cache" / name
        kept.unlink()
        (kept / "in the way").mkdir(parents=True)
        agent.send(signal.SIGHUP)
        await until(has(server, code), "the complaint")
        assert f"{kept}: Is a directory" in event_of(server, code).msg
        agent.send(signal.SIGTERM)
        assert await agent.ends() == 0


async def test_extra_checks_verbosity_and_unknown_people_are_no_reason_to_stop(home: Home) -> None:
    home.rc.write_text(home.rc_text().replace("PrintSeverity=*", "PrintSeverity=crit"))
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        agent.send(signal.SIGTTOU)
        await until(has(server, "CHECK_COMPLETED", 2), "the extra check")
        assert "File check completed" not in agent.output
        agent.send(signal.SIGUSR1)
        agent.send(signal.SIGTTOU)
        await agent.says("File check completed.")
        assert agent.process.returncode is None


async def test_orders_are_carried_out_once_and_answered_until_heard(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        await server.order(1, "scan")
        await server.order(1, "scan")
        await until(has(server, "CHECK_COMPLETED", 2), "the scan")
        await until(lambda: server.results, "the answer")
        announced, answered = len(server.announcements), len(server.results)
        server.drop()
        await until(lambda: len(server.announcements) > announced, "the next connection")
        await server.order(1, "scan")
        await until(lambda: len(server.results) > answered, "the answer once more")
        assert {(each.command_id, each.outcome) for each in server.results} == {(1, "done")}
        assert server.codes().count("COMMAND_RECEIVED") == 1
        await server.order(2, "reload")
        await until(has(server, "CONFIGURATION_RELOADED"), "the reload")
        await until(lambda: server.results[-1].command_id == 2, "its answer")
        await server.order(3, "stop")
        assert await agent.ends() == 0
        assert server.results[-1].command_id == 3
        assert event_of(server, "EXIT").fields["status"] == "Quit"
        assert server.goodbyes == ["exit"]


async def test_a_second_one_of_the_same_directory_is_refused(home: Home) -> None:
    async with daemon(home, *home.local) as agent:
        await agent.says("File check completed.")
        status, output = await home.run("run", *home.local)
        assert status == ExitStatus.LOCAL
        assert f"process {agent.process.pid}" in output
        assert agent.process.returncode is None


async def test_a_check_beside_a_running_daemon_works(home: Home) -> None:
    async with daemon(home, *home.local) as agent:
        await agent.says("File check completed.")
        status, output = await home.run("check", *home.local)
        assert status == 0, output


async def test_the_files_of_the_server_are_kept_for_times_without_it(home: Home) -> None:
    files = {
        FileKind.CONFIGURATION: home.rc_text().encode(),
        FileKind.BASELINE: home.baseline.read_bytes(),
    }
    async with running_server(files=files) as server:
        async with daemon(home, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            agent.send(signal.SIGTERM)
            await agent.ends()
        await server.stop()
        async with daemon(home, *at(server)) as agent:
            await agent.says('msg="No file from server, trying local file"', 2)
            await agent.says("File check completed.")
            (home.tree / "file").write_text("changed\n")
            await agent.says("POLICY [ReadOnly]")
            await server.start()
            await until(has(server, "POLICY_MODIFIED"), "the delivery")


async def test_a_broken_configuration_from_the_server_does_not_replace_the_good_one(
    home: Home,
) -> None:
    files = {
        FileKind.CONFIGURATION: home.rc_text().encode(),
        FileKind.BASELINE: home.baseline.read_bytes(),
    }
    async with running_server(files=files) as server:
        async with daemon(home, *at(server)) as agent:
            await until(has(server, "CHECK_COMPLETED"), "the first check")
            server.files = {FileKind.CONFIGURATION: b"[Misc]\nNoSuchThing=1\n"}
            agent.send(signal.SIGHUP)
            await until(has(server, "CONFIGURATION_UNUSABLE"), "the complaint")
            agent.send(signal.SIGTERM)
            await agent.ends()
        async with daemon(home, *at(server)) as agent:
            await agent.says('msg="No file from server, trying local file"', 2)
            await agent.says("File check completed.")


@pytest.mark.parametrize("verb", ["init", "check", "update"])
async def test_a_check_that_saw_no_file_is_no_success(home: Home, verb: str) -> None:
    home.write_rc()
    home.rc.write_text(home.rc.read_text().replace(str(home.tree), f"{home.tree}-gone"))
    good = home.baseline.read_bytes()
    output_here = () if verb == "check" else ("--output", str(home.baseline))
    status, output = await home.run(verb, *home.local, *output_here)
    assert status == ExitStatus.CONFIGURATION
    assert 'msg="File check saw no files."' in output
    assert "nothing was there to look at" in output
    assert home.baseline.read_bytes() == good


@pytest.mark.parametrize("verb", ["run", "check"])
async def test_what_cannot_start_says_why_and_with_which_status(home: Home, verb: str) -> None:
    async with running_server() as server:
        status, output = await home.run(verb, *at(server))
        assert status == ExitStatus.DOWNLOAD
        assert 'msg="File download failed"' in output
        assert server.goodbyes == ["exit"], "a start that failed is no crash"
        server.verifiers[NAME] = "another password"
        status, output = await home.run(verb, *at(server))
        assert status == ExitStatus.AUTHENTICATION
        assert 'msg="Session key negotiation failed"' in output
        server.resets_at_once = True
        status, output = await home.run(verb, *at(server))
        assert status == ExitStatus.AUTHENTICATION
        first = output.index('msg="Connection error: Connection reset by peer"')
        assert output.index('msg="Session key negotiation failed"') > first
        await server.stop()
        status, output = await home.run(verb, *at(server))
        assert status == ExitStatus.UNREACHABLE
        assert 'msg="Connection refused"' in output
        assert "hint:" in output
        (home.state / "password").unlink()
        status, output = await home.run(verb, *at(server))
        assert status == ExitStatus.AUTHENTICATION
        assert "set-password" in output


async def test_a_wrong_password_is_tried_again_by_a_daemon_that_has_what_it_needs(
    home: Home,
) -> None:
    async with (
        running_server(verifiers={NAME: "another password"}) as server,
        daemon(home, *home.local, *at(server)) as agent,
    ):
        await agent.says("Session key negotiation failed")
        await agent.says("File check completed.")
        server.verifiers[NAME] = PASSWORD
        await until(has(server, "CHECK_COMPLETED"), "the delivery")
        assert agent.count("Session key negotiation failed") == 1


async def test_state_7_a_daemon_that_lost_its_session_goes_on_watching(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        await server.supersede()
        await agent.says('msg="Invalid connection state"')
        (home.tree / "new").write_text("x")
        await agent.says('msg="POLICY ADDED"')
        assert server.negotiations == [True]


async def test_state_7_a_check_that_lost_its_session_says_so_with_its_status(home: Home) -> None:
    async with running_server(acknowledges=False) as server:
        check = asyncio.ensure_future(home.run("check", *home.local, *at(server)))
        await until(has(server, "EXIT"), "its last report")
        await server.supersede()
        status, output = await check
        assert status == ExitStatus.TAKEN_OVER, output
        assert 'msg="Invalid connection state"' in output


async def test_a_damaged_spool_is_set_aside_and_reported(home: Home) -> None:
    (home.state / "spool.sqlite").write_bytes(b"this is no database" * 1000)
    async with running_server() as server, daemon(home, *home.local, *at(server)):
        await until(has(server, "SPOOL_DAMAGED"), "the report")
        aside = event_of(server, "SPOOL_DAMAGED").fields["path"]
    with open(str(aside), "rb") as file:  # noqa: ASYNC230 -- a small one, in a test
        assert file.read().startswith(b"this is no database")


async def test_a_full_spool_holds_checking_up_loses_nothing_and_lets_the_exit_through(
    home: Home,
) -> None:
    home.write_rc("SpoolSizeLimit=1M")
    async with running_server() as server:
        await server.stop()
        async with daemon(home, *home.local, *at(server)) as agent:
            await agent.says("File check completed.")
            for number in range(4_000):
                (home.tree / f"new{number}").write_text("x")
            await agent.says('msg="Spool full, checking waits"')
            found = agent.count("POLICY ADDED")
            assert found < 4_000
            await server.start()
            await until(has(server, "POLICY_ADDED", 4_000), "all of them", 30)
            assert agent.count("Spool full") >= 1
            await until(has(server, "SPOOL_HAS_ROOM"), "the end of the alarm")
            await server.stop()
            for number in range(4_000):
                (home.tree / f"new{number}").unlink()
            await agent.says('msg="Spool full, checking waits"', 2)
            agent.send(signal.SIGTERM)
            assert await agent.ends() == 0
            await server.start()
        async with daemon(home, *home.local, *at(server)):
            await until(has(server, "START", 2), "the next life")
            assert server.announcements[-1].prior_exit_pending
            lives = [code for code in server.codes() if code in ("START", "EXIT")]
            assert lives == ["START", "EXIT", "START"]


async def test_a_signal_during_a_slow_start_ends_it(home: Home) -> None:
    async with (
        running_server(is_slow_with_files=True) as server,
        daemon(home, *at(server)) as agent,
    ):
        await until(lambda: server.file_requests, "the request")
        agent.send(signal.SIGTERM)
        assert await agent.ends() == 0
        assert server.goodbyes == ["exit"]


async def test_a_log_file_and_the_json_form(home: Home) -> None:
    log = home.root / "agent.log"
    home.rc.write_text(
        home.rc_text().replace("[Log]", f"SetLogfilePath={log}\n[Log]\nLogSeverity=*")
    )
    async with daemon(home, *home.local, "--log-format", "json") as agent:
        await agent.says("File check completed.")
        agent.send(signal.SIGTERM)
        await agent.ends()
    for text in (agent.output, log.read_text()):
        codes = [json.loads(line)["code"] for line in text.splitlines()]
        assert codes[-1] == "EXIT"
        assert "START" in codes
    assert log.stat().st_mode & 0o777 == 0o600


async def test_every_order_is_answered_however_many_come_at_once(home: Home) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        for number in range(1, 121):
            await server.order(number, "reload")
        await until(lambda: len({each.command_id for each in server.results}) == 120, "all answers")
        assert {each.outcome for each in server.results} <= {"done", "failed"}
        assert agent.process.returncode is None


async def test_every_order_to_stop_is_answered_so_that_none_stops_the_next_process(
    home: Home,
) -> None:
    async with running_server() as server, daemon(home, *home.local, *at(server)) as agent:
        await until(has(server, "CHECK_COMPLETED"), "the first check")
        # At once: one that comes while the agent ends is counted as done by the server itself.
        await server.say(*(Command(number, "stop") for number in (1, 2, 3)))
        assert await agent.ends() == 0
        assert {each.command_id for each in server.results} == {1, 2, 3}
