"""How a verb comes by its configuration and its baseline, and what it does where it cannot."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from needfire_client.configuration import Baseline, Configuration, Provider
from needfire_client.downloads import FileRefusedError
from needfire_client.failures import CommandError, command_error
from needfire_client.link import LinkError
from needfire_client.troubles import exit_status_of
from needfire_protocol.errors import ConfigError, FormatError, NeedfireError, StorageError
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.rc.agent import AgentSettings

if TYPE_CHECKING:
    from needfire_client.network import Network

__all__ = ["as_command_error", "obtain_baseline", "obtain_rc"]

_HINTS: Final[Mapping[ExitStatus, str]] = MappingProxyType(
    {
        ExitStatus.UNREACHABLE: "start the server; check address, port and network "
        "(needfire-agent doctor)",
        ExitStatus.AUTHENTICATION: "the server's log has the reason; "
        "needfire-agent explain SESSION_KEY_NEGOTIATION_FAILED",
        ExitStatus.DOWNLOAD: "needfire-agent explain FILE_DOWNLOAD_FAILED",
        ExitStatus.TAKEN_OVER: "needfire-agent explain INVALID_CONNECTION_STATE",
    }
)


async def obtain_rc(provider: Provider, network: "Network", *, may_be_old: bool) -> Configuration:
    """Return the configuration that the server has for this agent.

    Args:
        may_be_old: where it cannot be had, the last one that the server gave will do.

    Raises:
        CommandError: there is none; it has the exit status of the reason.
    """
    try:
        return await provider.fetch_rc(await network.uplink.first())
    except (LinkError, FileRefusedError, ConfigError, StorageError) as error:
        if may_be_old and (configuration := provider.cached_rc()) is not None:
            if isinstance(error, ConfigError):
                provider.tell_unusable(error)
            return configuration
        raise as_command_error(error) from None


async def obtain_baseline(
    provider: Provider, network: "Network | None", settings: AgentSettings, *, may_be_old: bool
) -> Baseline:
    """Return the baseline to compare with.

    Raises:
        CommandError: there is none; it has the exit status of the reason.
    """
    if network is None or not provider.is_baseline_from_server(settings):
        try:
            return provider.local_baseline()
        except (FormatError, StorageError) as error:
            raise as_command_error(error) from None
    try:
        return await provider.fetch_baseline(await network.uplink.first())
    except (LinkError, FileRefusedError, FormatError, StorageError) as error:
        if may_be_old and (baseline := provider.cached_baseline()) is not None:
            return baseline
        raise as_command_error(error) from None


def as_command_error(error: NeedfireError) -> CommandError:
    """Return what ends a verb that met this error, with status and advice."""
    if isinstance(error, LinkError):
        status = exit_status_of(error)
        return CommandError(status, str(error), hint=_HINTS.get(status), is_told=True)
    if isinstance(error, FileRefusedError):
        hint = _HINTS[ExitStatus.DOWNLOAD]
        return CommandError(ExitStatus.DOWNLOAD, str(error), hint=hint, is_told=True)
    return command_error(error)
