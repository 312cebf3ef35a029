"""``enroll``: join with a token. Tokens are not available in this version; it says what is."""

from needfire_client.failures import CommandError
from needfire_client.options import Options
from needfire_protocol.exit_status import ExitStatus

__all__ = ["run"]


def run(_options: Options) -> ExitStatus:
    """Say how a host joins in this version.

    Raises:
        CommandError: always.
    """
    raise CommandError(
        ExitStatus.USAGE,
        "enrolment tokens are not available in this version",
        hint="on the server: needfire-admin register NAME; here: needfire-agent set-password "
        "--password-file FILE",
    )
