"""``update``: a check that also writes down the new state, as a baseline or as a proposal."""

from needfire_client.check import Checker, CheckResult
from needfire_client.commands.check import print_summary, status_of
from needfire_client.commands.init import bare_digest, out_path, propose
from needfire_client.oneshot import run_oneshot
from needfire_client.oneshot_tools import OneShot
from needfire_client.options import Options
from needfire_client.progress import ProgressBar
from needfire_client.runtime import clock_us
from needfire_client.terminal import print_line
from needfire_protocol.exit_status import ExitStatus

__all__ = ["run"]


def run(options: Options) -> ExitStatus:
    """Check, and write the new state."""
    return run_oneshot(options, _update, needs_baseline=True)


async def _update(tools: OneShot) -> ExitStatus:
    options, baseline = tools.runtime.options, tools.baseline
    assert baseline is not None
    path = out_path(tools)
    if options.upload:
        await tools.session()

    def work() -> CheckResult:
        with ProgressBar("checking") as bar, tools.runtime.console.beside(bar.make_way):
            checker = Checker(
                tools.configuration.settings,
                baseline.path,
                tools.runtime.state.oneshot_overlay,
                tools.on_event,
                bar.update,
                reader=baseline.reader,
            )
            try:
                return checker.update(
                    path,
                    host=tools.runtime.name,
                    configuration_sha256=bare_digest(tools.configuration.digest),
                    created_us=clock_us(),
                    stop=tools.should_stop,
                )
            finally:
                checker.close()

    result = await tools.scan(work)
    print_summary(result, as_json=options.as_json)
    if not result.files:
        return status_of(result)
    if options.upload:
        await propose(tools, path)
    elif not options.as_json:
        print_line(f"the new baseline is in {path}")
    return status_of(result)
