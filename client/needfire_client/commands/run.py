"""``run``: watch and report until told to stop."""

import asyncio

from needfire_client.daemon import Daemon
from needfire_client.options import Options
from needfire_client.runtime import Runtime
from needfire_protocol.exit_status import ExitStatus

__all__ = ["run"]


def run(options: Options) -> ExitStatus:
    """Run the daemon in the foreground, as a service manager wants it."""
    runtime = Runtime(options)
    with runtime.state.exclusive(runtime.state.lock, "needfire-agent"):
        asyncio.run(_run(runtime))
    return ExitStatus.DONE


async def _run(runtime: Runtime) -> None:
    await Daemon(runtime).run()
