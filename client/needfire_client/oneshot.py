"""A verb that looks at all files once and ends: what init, check and update have in common."""

from needfire_client.baseline import remove_abandoned
from needfire_client.configuration import Configuration, Provider
from needfire_client.failures import command_error
from needfire_client.oneshot_alone import run_alone
from needfire_client.oneshot_tools import Work
from needfire_client.options import Options
from needfire_client.runtime import Runtime
from needfire_protocol.errors import NeedfireError
from needfire_protocol.exit_status import ExitStatus

__all__ = ["run_oneshot"]


def run_oneshot(options: Options, work: Work, *, needs_baseline: bool) -> ExitStatus:
    """Run a verb's own part between START and EXIT, connected where a server is given.

    Raises:
        CommandError: it cannot be done; the log has the reason already where it is a state.
        StorageError: the state directory cannot be used.
    """
    runtime = Runtime(options, findings_on_stdout=True)
    with runtime.state.exclusive(runtime.state.oneshot_lock, "needfire-agent init/check/update"):
        for place in (runtime.state.baseline, runtime.state.proposal):
            remove_abandoned(place)
        provider = Provider(
            runtime.options, runtime.state, runtime.reporter, name=lambda: runtime.name
        )
        configuration = None
        if not provider.is_rc_from_server:
            configuration = _local_configuration(runtime, provider)
            if not provider.servers(configuration.settings):
                return run_alone(
                    runtime, provider, configuration, work, needs_baseline=needs_baseline
                )
        # Loads the network side, which takes longer than many a check.
        from needfire_client.oneshot_connected import run_connected

        return run_connected(runtime, provider, configuration, work, needs_baseline=needs_baseline)


def _local_configuration(runtime: Runtime, provider: Provider) -> Configuration:
    try:
        configuration = provider.local_rc()
    except NeedfireError as error:
        runtime.reporter.report_exit_here("Failed")
        raise command_error(error) from None
    runtime.configure(configuration)
    return configuration
