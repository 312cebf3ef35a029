"""In which words the agent says what is wrong with its connection, and with which exit status.

The texts are the documented error states (spec/error-states.md); one trouble is said once, and
again only when it changes or after ten minutes.
"""

import math
import time
from collections.abc import Callable

from needfire_client.address import ServerAddress
from needfire_client.link import (
    BrokenError,
    LinkError,
    LinkRefusedError,
    LocalTroubleError,
    UnreachableError,
)
from needfire_client.repeats import RepeatFilter
from needfire_client.reporter import Reporter
from needfire_protocol.exit_status import ExitStatus
from needfire_protocol.messages import RefusalCode

__all__ = ["LinkTroubles", "exit_status_of", "is_taken_over"]


class LinkTroubles:
    """Tells the log what is wrong with the connection, without repeating itself."""

    def __init__(self, reporter: Reporter, now_s: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._now_s = now_s
        self._by_server: dict[ServerAddress, RepeatFilter] = {}
        self._service = RepeatFilter()
        self._is_down = False

    def tell(self, error: LinkError) -> None:
        """Say what was wrong with one server, if it is news."""
        known = self._by_server.setdefault(error.server, RepeatFilter())
        in_negotiation = isinstance(error, BrokenError) and error.in_negotiation
        # That another agent has the session is one trouble, in whichever words we hear it.
        trouble = "taken over" if is_taken_over(error) else (str(error), in_negotiation)
        if not known.is_news(trouble, self._now_s()):
            return
        report, server = self._reporter.report, str(error.server)
        if isinstance(error, UnreachableError):
            report("CONNECTION_REFUSED", server=server, reason=error.reason)
        elif isinstance(error, BrokenError):
            report("CONNECTION_ERROR", server=server, reason=error.reason)
            if error.in_negotiation:
                report("SESSION_KEY_NEGOTIATION_FAILED", server=server)
        elif isinstance(error, LocalTroubleError):
            self._reporter.report_here("LOCAL_STORAGE_FAILED", reason=error.reason)
        elif isinstance(error, LinkRefusedError):
            self._tell_refused(error, server)

    def service_failed(self, error: LinkError, retry_s: float) -> None:
        """Say that reports wait now, if it is news."""
        self._is_down = True
        if self._service.is_news(str(error), self._now_s()):
            self._reporter.report(
                "SERVICE_FAILURE",
                service="log server",
                obj=str(error.server),
                retry_s=math.ceil(retry_s),
            )

    def recovered(self, server: ServerAddress, waiting: int) -> None:
        """Say that the server is there again, if it was away."""
        if self._is_down:
            self._reporter.report("CONNECTION_REESTABLISHED", server=str(server), waiting=waiting)
        self._is_down = False
        self._service.clear()
        self._by_server.clear()

    def _tell_refused(self, error: LinkRefusedError, server: str) -> None:
        if error.code is RefusalCode.AUTHENTICATION_FAILED:
            self._reporter.report("SESSION_KEY_NEGOTIATION_FAILED", server=server)
        elif is_taken_over(error):
            self._reporter.report("INVALID_CONNECTION_STATE", server=server)
        else:
            reason = error.detail or error.code.name.lower().replace("_", " ")
            self._reporter.report("REFUSED_BY_SERVER", server=server, reason=reason)


def is_taken_over(error: LinkError) -> bool:
    """True where another agent of this name holds the session (documented state 7).

    Only the server's own word counts: anyone on the way could forge a refusal without proof.
    """
    return (
        isinstance(error, LinkRefusedError)
        and error.is_authenticated
        and error.code in (RefusalCode.SESSION_SUPERSEDED, RefusalCode.SESSION_IN_USE)
    )


def exit_status_of(error: LinkError) -> ExitStatus:
    """Return the exit status of a verb that needed the server and met this."""
    if is_taken_over(error):
        return ExitStatus.TAKEN_OVER
    if isinstance(error, LinkRefusedError):
        is_login = error.code is RefusalCode.AUTHENTICATION_FAILED
        return ExitStatus.AUTHENTICATION if is_login else ExitStatus.REFUSED
    if isinstance(error, BrokenError) and error.in_negotiation:
        return ExitStatus.AUTHENTICATION
    if isinstance(error, LocalTroubleError):
        return ExitStatus.LOCAL
    return ExitStatus.UNREACHABLE
