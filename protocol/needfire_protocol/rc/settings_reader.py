"""Directives become settings: one loop over the table, for both programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from needfire_protocol.errors import FormatError
from needfire_protocol.rc.directives import (
    DIRECTIVES,
    SECTIONS,
    DirectiveRow,
    Honoured,
    Inert,
    Program,
    suggest_directive,
)
from needfire_protocol.rc.findings import Findings
from needfire_protocol.rc.policies import Policy
from needfire_protocol.rc.syntax import Directive
from needfire_protocol.rc.values import WithoutEffect, quoted

__all__ = ["Merger", "read_settings"]

Merger = Callable[[Directive, Any, Any], Any]
"""Takes the directive, its parsed value and what the field (or its entry for the policy) holds;
returns what it holds then. For a field that repeats it returns the item to append, or None for
none. May raise FormatError and WithoutEffect, like a parser."""


def read_settings(
    directives: Sequence[Directive],
    program: Program,
    defaults: Mapping[str, Any],
    findings: Findings,
    mergers: Mapping[str, Merger],
) -> dict[str, Any]:
    """Return the fields that the directives decide, by name.

    Args:
        defaults: what each field of the settings holds before the first line.
        findings: takes errors and notices; a line with an error changes nothing.
        mergers: for the fields to which a value is not simply assigned or appended.
    """
    reader = _SettingsReader(program, defaults, findings, mergers)
    for directive in directives:
        reader.read(directive)
    repeated = {field: tuple(items) for field, items in reader.items.items()}
    return reader.values | repeated


class _SettingsReader:
    def __init__(
        self,
        program: Program,
        defaults: Mapping[str, Any],
        findings: Findings,
        mergers: Mapping[str, Merger],
    ) -> None:
        self.values: dict[str, Any] = {}
        self.items: dict[str, list[Any]] = {}
        """Of the fields that repeat; the first line replaces the default."""
        self._program = program
        self._defaults = defaults
        self._findings = findings
        self._mergers = mergers
        self._lines: dict[tuple[str, Policy | None], int] = {}

    def read(self, directive: Directive) -> None:
        row = self._row_of(directive)
        if row is None:
            return
        match row.treatment(self._program):
            case Inert(reason):
                self._findings.notice(directive.line, f"{row.name} has no effect: {reason}")
            case Honoured() as honoured:
                try:
                    self._assign(directive, honoured, row.kind.parse(directive.value))
                except FormatError as error:
                    self._findings.error(directive.line, f"{row.name}: {error}", _hint(directive))
                except WithoutEffect as reason:
                    self._findings.notice(directive.line, f"{row.name} has no effect: {reason}")

    def _row_of(self, directive: Directive) -> DirectiveRow | None:
        row = DIRECTIVES.get(directive.key)
        if row is None:
            self._report_unknown(directive)
            return None
        if directive.section not in (section.lower() for section in row.sections):
            wanted = " or ".join(f"[{section}]" for section in row.sections)
            self._findings.error(
                directive.line,
                f"{row.name} may not stand under [{SECTIONS[directive.section]}]; "
                f"it belongs under {wanted}",
                f"move it under [{row.sections[0]}]",
            )
            return None
        return row

    def _report_unknown(self, directive: Directive) -> None:
        near = suggest_directive(directive.key)
        meant = "" if near is None else f"; the nearest known name is {near}"
        self._findings.error(
            directive.line,
            f"unknown directive {quoted(directive.written)}{meant}",
            None if near is None else f"replace it with {near}",
        )

    def _assign(self, directive: Directive, honoured: Honoured, value: object) -> None:
        field = honoured.field
        merge = self._mergers.get(field)
        if honoured.repeats:
            item = value if merge is None else merge(directive, value, None)
            if item is not None:
                self.items.setdefault(field, []).append(item)
            return
        current = self.values.get(field, self._defaults[field])
        entry = current if honoured.policy is None else current[honoured.policy]
        if merge is None:
            self._report_repeated(directive, honoured)
        changed = value if merge is None else merge(directive, value, entry)
        self.values[field] = (
            changed if honoured.policy is None else {**current, honoured.policy: changed}
        )

    def _report_repeated(self, directive: Directive, honoured: Honoured) -> None:
        key = (honoured.field, honoured.policy)
        earlier = self._lines.get(key)
        self._lines[key] = directive.line
        if earlier is not None:
            name = DIRECTIVES[directive.key].name
            self._findings.notice(
                directive.line, f"{name} stands in line {earlier} as well; this line counts"
            )


def _hint(directive: Directive) -> str | None:
    if b" #" in directive.value or b" //" in directive.value:
        return "a comment must stand on a line of its own"
    return None
