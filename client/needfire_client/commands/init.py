"""``init``: walk, and write down what the files are as a baseline."""

from pathlib import Path

from needfire_client.failures import CommandError
from needfire_client.new_baseline import init_baseline
from needfire_client.oneshot import run_oneshot
from needfire_client.oneshot_tools import OneShot
from needfire_client.options import Options
from needfire_client.progress import ProgressBar
from needfire_client.runtime import clock_us
from needfire_client.scan import CheckResult
from needfire_client.terminal import advise, print_json, print_line
from needfire_protocol.counted import counted
from needfire_protocol.exit_status import ExitStatus

__all__ = ["bare_digest", "out_path", "propose", "run"]


def run(options: Options) -> ExitStatus:
    """Write a baseline to a file, or offer one to the server."""
    return run_oneshot(options, _init, needs_baseline=False)


async def _init(tools: OneShot) -> ExitStatus:
    options = tools.runtime.options
    path = out_path(tools)
    if options.upload:
        await tools.session()  # before the work, not after it

    def work() -> CheckResult:
        with ProgressBar("recording") as bar, tools.runtime.console.beside(bar.make_way):
            return init_baseline(
                tools.configuration.settings,
                path,
                tools.on_event,
                host=tools.runtime.name,
                configuration_sha256=bare_digest(tools.configuration.digest),
                created_us=clock_us(),
                progress=bar.update,
                stop=tools.should_stop,
            )

    result = await tools.scan(work)
    if not result.files:
        raise CommandError(
            ExitStatus.CONFIGURATION,
            "nothing was there to look at: a baseline of nothing replaces none, and is not offered",
            hint="needfire-agent check-config says which rules there are",
        )
    print_written(result, path, is_kept=not options.upload, as_json=options.as_json)
    if options.upload:
        await propose(tools, path)
    elif options.servers and options.output is None:
        name = tools.runtime.name
        advise(f"put it on the server: needfire-admin baseline put {name} FILE, or use --upload")
    return ExitStatus.DONE


def out_path(tools: OneShot) -> Path:
    """Return where the new baseline goes: where the options say, else where check looks."""
    options, state = tools.runtime.options, tools.runtime.state
    if options.output is not None:
        return options.output
    return state.proposal if options.upload else state.baseline


def print_written(result: CheckResult, path: Path, *, is_kept: bool, as_json: bool) -> None:
    """Print what was written, in one line."""
    if as_json:
        print_json(
            {
                "path": str(path) if is_kept else None,
                "files": result.files,
                "sha256": result.baseline_sha256,
                "duration_s": round(result.duration_s, 3),
            }
        )
    else:
        place = f" to {path}" if is_kept else ""
        print_line(
            f"wrote a baseline of {counted(result.files, 'object')}{place} in {result.duration_s:.1f} s"
        )


async def propose(tools: OneShot, path: Path) -> None:
    """Offer a baseline to the server, and remove the copy that was made for that alone.

    Raises:
        CommandError: the server does not take it.
        LinkError: the connection ended.
    """
    # Here, because most have no server, and none of what comes with it.
    import asyncio

    from needfire_client.session import ProposalRefusedError

    report = tools.runtime.reporter.report
    session = await tools.session()
    try:
        proposal = await session.propose(path)
    except ProposalRefusedError as error:
        report("PROPOSAL_REFUSED", client=tools.runtime.name, reason=str(error))
        raise CommandError(ExitStatus.REFUSED, f"the server does not take it: {error}") from None
    number = proposal.number
    report(
        "BASELINE_PROPOSED",
        proposal=number,
        bytes=proposal.size_bytes,
        hash=f"sha256:{proposal.sha256}",
    )
    print_line(f"the server has it as proposal {number}; it replaces nothing by itself")
    if tools.runtime.options.output is None:
        await asyncio.to_thread(path.unlink, missing_ok=True)


def bare_digest(digest: str) -> str:
    """Return the hexadecimal digits of ``sha256:…``."""
    return digest.partition(":")[2]
