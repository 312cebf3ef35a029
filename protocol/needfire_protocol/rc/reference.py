"""The table of directives as documents: for docs/configuration.md and the commented files in etc/.

``scripts/write-configuration-reference`` puts the texts in place; a test keeps them there.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from needfire_protocol.rc.directives import DIRECTIVES, DirectiveRow, Honoured, Inert, Program
from needfire_protocol.rc.policies import DEFAULT_MASKS, Check, Policy

__all__ = ["GENERATED", "with_generated_regions"]

_WIDTH: Final = 96


def with_generated_regions(text: str) -> str:
    """Return a document with every region between its two marker lines made anew.

    The lines hold ``begin generated: NAME`` and ``end generated: NAME``, NAME of ``GENERATED``.
    """

    def replace(match: re.Match[str]) -> str:
        return match["begin"] + GENERATED[match["name"]]() + match["end"]

    return _REGION.sub(replace, text)


_REGION: Final = re.compile(
    r"(?P<begin>^[^\n]*begin generated: (?P<name>[a-z-]+)[^\n]*\n)"
    r".*?"
    r"(?P<end>^[^\n]*end generated: (?P=name)\b)",
    re.DOTALL | re.MULTILINE,
)


# ---- the commented files ----------------------------------------------------------


def _commented(program: Program) -> str:
    """Every directive that a program honours, commented out, with its default."""
    lines: list[str] = []
    section = ""
    field = ""
    for row in _honoured(program):
        treatment = row.treatment(program)
        assert isinstance(treatment, Honoured)
        if row.sections[0] != section:
            section = row.sections[0]
            lines += ["", f"[{section}]"]
        if treatment.policy is None or treatment.field != field:
            lines += ["", *_comment(row)]
        field = treatment.field
        if row.example:
            lines.append(f"# {row.name} = {row.default or row.example}")
    return "\n".join(lines[1:]) + "\n"


def _comment(row: DirectiveRow) -> list[str]:
    default = "" if row.default is not None or not row.example else " No default; an example:"
    text = f"{row.name}: {row.help} Value: {row.kind.words}.{default}"
    return textwrap.wrap(
        text, _WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False
    )


def _honoured(program: Program) -> list[DirectiveRow]:
    """By section, so that each heading stands once."""
    rows = [row for row in DIRECTIVES.values() if isinstance(row.treatment(program), Honoured)]
    order = list(dict.fromkeys(row.sections[0] for row in rows))
    return sorted(rows, key=lambda row: order.index(row.sections[0]))


# ---- the tables of the manual -------------------------------------------------------


def _directive_table(program: Program) -> str:
    rows = [("Directive", "Section", "Default", "Meaning")]
    for row in _honoured(program):
        sections = (
            "a policy" if row.name in ("dir", "file") else ", ".join(f"[{s}]" for s in row.sections)
        )
        name = f"`{row.name}`" + (" (ours)" if row.is_ours else "")
        default = "-" if row.default is None else f"`{row.default}`"
        rows.append((name, sections, default, f"{row.help} Value: {row.kind.words}."))
    return _table(rows)


def _inert_table() -> str:
    """Directives that neither program honours, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in DIRECTIVES.values():
        if isinstance(row.agent, Inert) and isinstance(row.server, Inert):
            by_reason.setdefault(row.agent.reason, []).append(f"`{row.name}`")
    return _table(
        [
            ("Directives", "Why they have no effect"),
            *((", ".join(names), reason) for reason, names in by_reason.items()),
        ]
    )


def _policy_table() -> str:
    flags = [flag.name or "" for flag in Check]
    rows = [("Policy", *flags)]
    for policy in Policy:
        mask = DEFAULT_MASKS[policy]
        heading = "GrowingLogFiles" if policy is Policy.GROWING_LOG_FILES else policy.value
        rows.append((f"[{heading}]", *("x" if flag in mask else "" for flag in Check)))
    return _table(rows)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * (lines[0].count(" | ") + 1))
    return "\n".join(["", *lines, "", ""])


GENERATED: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "agent-directives": lambda: _commented(Program.AGENT),
        "server-directives": lambda: _commented(Program.SERVER),
        "agent-table": lambda: _directive_table(Program.AGENT),
        "server-table": lambda: _directive_table(Program.SERVER),
        "inert-table": _inert_table,
        "policy-table": _policy_table,
    }
)
"""The generated texts by the name that the markers give."""
