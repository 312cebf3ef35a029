"""What ends a verb before its time, with the exit status and the advice that a person gets."""

from needfire_protocol.errors import ConfigError, NeedfireError
from needfire_protocol.exit_status import ExitStatus

__all__ = ["CommandError", "command_error"]


class CommandError(NeedfireError):
    """A verb cannot go on. ``cli`` prints it as ``error:`` and ``hint:`` lines.

    Attributes:
        status: exit status of the process.
        hint: what to do about it, or None where the text says it all.
        is_told: the log has said it already in the words of the catalogue; only the hint is left.
    """

    def __init__(
        self, status: ExitStatus, text: str, *, hint: str | None = None, is_told: bool = False
    ) -> None:
        super().__init__(text)
        self.status = status
        self.hint = hint
        self.is_told = is_told


def command_error(error: NeedfireError) -> CommandError:
    """Return what ends a verb that met this error, which is none of a connection."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, ConfigError):
        return CommandError(
            ExitStatus.CONFIGURATION,
            "\n".join(str(problem) for problem in error.problems),
            # The hint of one among several would seem to be about the last.
            hint=error.problems[0].hint if len(error.problems) == 1 else None,
        )
    return CommandError(ExitStatus.LOCAL, str(error))
