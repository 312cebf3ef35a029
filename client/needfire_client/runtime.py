"""What every verb that looks at files begins with: its log, before and after it is configured."""

import contextlib
import os
import sys
import time
from pathlib import Path

from needfire_client.bugs import innermost, record_bug, where_of
from needfire_client.configuration import Configuration
from needfire_client.logbook import FORMATS, ConsoleSink, FileSink, Logbook
from needfire_client.options import Options
from needfire_client.repeats import RepeatFilter
from needfire_client.reporter import PROGRAM, Reporter
from needfire_client.statedir import StateDir
from needfire_protocol.rc.agent import AgentSettings

__all__ = ["Runtime", "clock_us"]


def clock_us() -> int:
    """Return microseconds since 1970 by this host's clock."""
    return time.time_ns() // 1000


class Runtime:
    """Name, state directory and log of one run of a verb.

    Args:
        findings_on_stdout: integrity events are the result that the verb prints.

    Raises:
        CommandError: the name that is given cannot be one.
        StorageError: the state directory cannot be used.
    """

    def __init__(self, options: Options, *, findings_on_stdout: bool = False) -> None:
        self.options = options
        self._name = None if options.name is None else _agent_name(options.name)
        self.state = StateDir(options.state_dir)
        self.state.prepare()
        defaults = AgentSettings()
        self.console = ConsoleSink(
            FORMATS[options.log_format or defaults.log_format],
            defaults.print_severity,
            others=sys.stderr,
            findings=sys.stdout if findings_on_stdout else None,
        )
        self._logbook = Logbook(self.console)
        self.reporter = Reporter(self._logbook, clock_us=clock_us, random_bytes=os.urandom)
        self.reporter.select_export(defaults.export_severity)
        self._bugs = RepeatFilter()

    @property
    def name(self) -> str:
        """The name to claim; the host's own is looked up when somebody needs it.

        Raises:
            CommandError: the host has no usable name.
        """
        if self._name is None:
            self._name = _agent_name(None)
        return self._name

    def configure(self, configuration: Configuration) -> None:
        """Log as the configuration says, and say what there is to know about it."""
        settings = configuration.settings
        form = FORMATS[self.options.log_format or settings.log_format]
        self.console.configure(form, settings.print_severity)
        self.reporter.select_export(settings.export_severity)
        path = None if settings.log_file is None else Path(os.fsdecode(settings.log_file))
        if path is not None and configuration.is_from_server and not _is_log_place(path):
            # A server that was broken into must not get root here to append to any file.
            self.reporter.report(
                "CONFIGURATION_NOTICE",
                text=f"SetLogfilePath={path} has no effect: a configuration from the server may "
                "name a file NAME.log in /var/log only",
                path=configuration.path,
                line=None,
            )
            path = None
        if path is None:
            self._logbook.replace(self.console)
        else:
            file = FileSink(path, form, settings.log_severity, on_trouble=_warn)
            self._logbook.replace(self.console, file)
        for notice in settings.notices:
            self.reporter.report(
                "CONFIGURATION_NOTICE", text=notice.text, path=notice.source, line=notice.line
            )
        if not settings.rules:
            self.reporter.report("NOTHING_TO_CHECK", path=configuration.path)

    def bug(self, error: BaseException) -> None:
        """Report an error that nobody foresaw, and keep the details for whoever mends it.

        The same one is said again only after a while: a file name that trips us must not be able
        to fill the server's disk.
        """
        cause = innermost(error)
        kind, where = type(cause).__name__, where_of(cause)
        if not self._bugs.is_news((kind, where), time.monotonic()):
            return
        record_bug(self.state.internal_errors, error)
        self.reporter.report("AGENT_INTERNAL_ERROR", error=kind, detail=where)


def _agent_name(claimed: str | None) -> str:
    # Here, because a check without a server has nobody to give a name to.
    from needfire_client.identity import agent_name

    return agent_name(claimed)


def _warn(text: str) -> None:
    # Not through the logbook: it is the logbook that has the trouble.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{PROGRAM}: warning: {text}\n")


def _is_log_place(path: Path) -> bool:
    return path.parent == Path("/var/log") and path.suffix == ".log"
