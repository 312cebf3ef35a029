"""``check``: one full check; prints the differences and exits 1 where there are any."""

import os

from needfire_client.check import Checker, CheckResult
from needfire_client.oneshot import run_oneshot
from needfire_client.oneshot_tools import OneShot
from needfire_client.options import Options
from needfire_client.policy import EVERYTHING, Selection
from needfire_client.position import PositionStore
from needfire_client.progress import ProgressBar
from needfire_client.terminal import complain, print_json, print_line, warn
from needfire_protocol.counted import counted
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["print_summary", "run", "status_of"]


def run(options: Options) -> ExitStatus:
    """Check all files once."""
    return run_oneshot(options, _check, needs_baseline=True)


async def _check(tools: OneShot) -> ExitStatus:
    baseline = tools.baseline
    assert baseline is not None

    options, settings = tools.runtime.options, tools.configuration.settings
    positions = PositionStore(tools.runtime.state.oneshot_position)
    if not options.resume:
        positions.clear()

    def work() -> CheckResult:
        with ProgressBar("checking") as bar, tools.runtime.console.beside(bar.make_way):
            checker = Checker(
                settings,
                baseline.path,
                tools.runtime.state.oneshot_overlay,
                tools.on_event,
                bar.update,
                reader=baseline.reader,
            )
            bar.expect(checker.meta.entries)
            try:
                return checker.full_check(
                    tools.should_stop,
                    _quick(settings) if options.quick else EVERYTHING,
                    positions=positions,
                )
            finally:
                checker.close()

    result = await tools.scan(work)
    print_summary(result, as_json=tools.runtime.options.as_json)
    return status_of(result)


def _quick(settings: AgentSettings) -> Selection:
    return Selection(quick=frozenset(rule.group for rule in settings.rules))


def status_of(result: CheckResult) -> ExitStatus:
    """Return the exit status of a check: what was not seen is not without differences."""
    if result.changes:
        return ExitStatus.DIFFERENCES
    if result.unreadable:
        return ExitStatus.LOCAL
    return ExitStatus.DONE if result.files else ExitStatus.CONFIGURATION


def print_summary(result: CheckResult, *, as_json: bool) -> None:
    """Print what a check saw, in one line, and warn of what it did not see."""
    if result.unreadable:
        count = counted(result.unreadable, "object")
        advice = "the events say why" if os.geteuid() == 0 else "run it as root"
        warn(f"{count} could not be read, so nobody knows whether they differ: {advice}")
    if not result.files:
        complain("nothing was there to look at: the rules cover no object of this host")
    if as_json:
        print_json(
            {
                "files": result.files,
                "hashed": result.hashed,
                "quick": result.quick,
                "bytes": result.bytes_read,
                "added": result.added,
                "missing": result.missing,
                "modified": result.modified,
                "unreadable": result.unreadable,
                "unstable": result.unstable,
                "findings": result.findings,
                "duration_s": round(result.duration_s, 3),
                "complete": result.is_complete,
            }
        )
        return
    seen = f"{counted(result.files, 'object')} in {result.duration_s:.1f} s"
    if not result.changes:
        found = "no differences"
    else:
        found = (
            f"{counted(result.changes, 'difference')} "
            f"({result.modified} modified, {result.added} added, {result.missing} missing)"
        )
    unknown = result.unreadable + result.unstable
    more = f", {unknown} could not be examined" if unknown else ""
    print_line(f"checked {seen}: {found}{more}")
