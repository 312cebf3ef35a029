"""The exit statuses of all three programs: one table, shown by ``--help`` and the documents."""

from enum import IntEnum

__all__ = ["MEANINGS", "ExitStatus"]


class ExitStatus(IntEnum):
    """Exit status of needfire-server, needfire-agent and needfire-admin."""

    DONE = 0
    DIFFERENCES = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    AUTHENTICATION = 5
    DOWNLOAD = 6
    TAKEN_OVER = 7
    LOCAL = 8
    REFUSED = 9
    STORAGE_FULL = 10
    INTERNAL = 70


MEANINGS = {
    ExitStatus.DONE: "done; for check: no difference",
    ExitStatus.DIFFERENCES: "check found differences",
    ExitStatus.USAGE: "wrong usage of the command line",
    ExitStatus.CONFIGURATION: "configuration error; for check, init and update: no file was there",
    ExitStatus.UNREACHABLE: "the server could not be reached",
    ExitStatus.AUTHENTICATION: "authentication failed (Session key negotiation failed)",
    ExitStatus.DOWNLOAD: "File download failed",
    ExitStatus.TAKEN_OVER: "Invalid connection state (the session was taken over)",
    ExitStatus.LOCAL: "local storage or permission error",
    ExitStatus.REFUSED: "the server refused for another reason, named in the message",
    ExitStatus.STORAGE_FULL: "the server ended because there is no room (DiskFullAction halt)",
    ExitStatus.INTERNAL: "internal error (a bug): please report it; the log has the details",
}
