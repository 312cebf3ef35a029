"""What is wrong with a configuration file, and what deserves a notice: collected, bounded, sorted."""

from typing import Final

from needfire_protocol.errors import ConfigError, Problem

__all__ = ["ERRORS_MAX", "NOTICES_MAX", "Findings"]

ERRORS_MAX: Final = 100
"""Errors that are named. A file with more is not a configuration, and each costs a search for the
name that was meant."""
NOTICES_MAX: Final = 1_000


class Findings:
    """Problems of one file."""

    __slots__ = ("_errors", "_notices", "_omitted", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._errors: list[Problem] = []
        self._notices: list[Problem] = []
        self._omitted = 0

    def error(self, line: int | None, text: str, hint: str | None = None) -> None:
        """Note that the file cannot be used.

        Raises:
            ConfigError: this is one error too many; reading on is pointless.
        """
        if len(self._errors) >= ERRORS_MAX:
            text = f"more than {ERRORS_MAX} errors; the rest was not read"
            raise ConfigError([*_in_order(self._errors), Problem(self.source, line, text)])
        self._errors.append(Problem(self.source, line, text, hint))

    def notice(self, line: int | None, text: str, hint: str | None = None) -> None:
        """Note that something has no effect or deserves a second look."""
        if len(self._notices) >= NOTICES_MAX:
            self._omitted += 1
        else:
            self._notices.append(Problem(self.source, line, text, hint))

    def notices(self) -> tuple[Problem, ...]:
        """Return every notice in the order of the file.

        Raises:
            ConfigError: there are errors.
        """
        if self._errors:
            raise ConfigError(_in_order(self._errors))
        notices = _in_order(self._notices)
        if self._omitted:
            notices.append(
                Problem(self.source, None, f"{self._omitted} more notices are not shown")
            )
        return tuple(notices)


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.line or 0)
