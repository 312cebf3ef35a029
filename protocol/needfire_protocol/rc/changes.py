"""Which settings differ between two configurations, in the words of their files. Pure.

Directives are compared and not lines: what stands in a comment, in another order or under a
condition that does not hold for this host changes nothing. Both programs tell a reload like this.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from needfire_protocol.escape import escape_bytes, printable
from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.directives import DIRECTIVES, SECTIONS, Honoured, Program
from needfire_protocol.rc.secrecy import masked_line
from needfire_protocol.rc.syntax import Directive

__all__ = ["CHANGES_TEXT_MAX", "InForce", "SettingsChanges", "in_force", "settings_changes"]

CHANGES_TEXT_MAX: Final = 4_000
"""Characters of ``SettingsChanges.text``; a record of the audit log takes 4,096 in one field."""
_VALUE_TEXT_MAX: Final = 200
_VALUES_MAX: Final = 10
"""Values of a directive that may be repeated that are shown of each side."""
_MORE: Final = "{} more"

InForce = Mapping[str, Sequence[str]]
"""The values of each directive, by a name that says where it stands, in the order of the file."""


@dataclass(frozen=True, slots=True)
class SettingsChanges:
    """What differs.

    Attributes:
        count: directives with another value.
        text: a JSON object, ``{"SetFilecheckTime": ["600", "300"]}``: the directive, and its value
            before and now; null where it is not set. Of those that are repeated, lists of what only
            one side has.
        left_out: directives for which there was no room.
    """

    count: int
    text: str
    left_out: int


def in_force(directives: Sequence[Directive], program: Program) -> dict[str, list[str]]:
    """Return what a program makes use of in a file, without what must stay secret.

    What stands twice and may not be repeated counts as it stood last. The names are unique: a rule
    names its policy and its group, a line of an output its output.
    """
    found: dict[str, list[str]] = {}
    output = ""
    for each in directives:
        row = DIRECTIVES.get(each.key)
        treatment = None if row is None else row.treatment(program)
        if row is None or not isinstance(treatment, Honoured):
            continue
        if each.key == "openoutput":
            output = each.value.decode("utf-8", "replace").lower()
        name = row.name
        if treatment.field == "outputs":
            name = f"{name} ({output})"
        elif treatment.field == "rules":
            name = f"{name} [{SECTIONS[each.section]}]"
        if each.group:
            name = f"{name} %{each.group}"
        value = _shown(row.name, each.value)
        if treatment.repeats:
            found.setdefault(printable(name, 128), []).append(value)
        else:
            found[printable(name, 128)] = [value]
    return found


def _shown(name: str, value: bytes) -> str:
    # With its name before it: that decides what is secret.
    prefix = name.encode() + b"="
    shown = escape_bytes(masked_line(prefix + value)[len(prefix) :])
    if name != "Client":
        return shown
    # A verifier is salted, so that a few digits of its digest help nobody to guess the password.
    return f"{shown} ({hashlib.sha256(value).hexdigest()[:8]})"


def settings_changes(old: InForce, new: InForce) -> SettingsChanges:
    """Return what differs between two configurations, in the order of the new one."""
    names = [*new, *(name for name in old if name not in new)]
    changed = [name for name in names if list(old.get(name, ())) != list(new.get(name, ()))]
    pieces: list[str] = []
    length = len("{}")
    for name in changed:
        piece = f"{_json(name)}:{_json(_sides(old.get(name, ()), new.get(name, ())))}"
        length += len(piece) + (1 if pieces else 0)
        if length > CHANGES_TEXT_MAX:
            break
        pieces.append(piece)
    return SettingsChanges(len(changed), f"{{{','.join(pieces)}}}", len(changed) - len(pieces))


def _sides(old: Sequence[str], new: Sequence[str]) -> list[object]:
    if len(old) <= 1 and len(new) <= 1:
        return [_cut(side[0]) if side else None for side in (old, new)]
    before, after = set(old), set(new)
    only_old = [value for value in old if value not in after]
    only_new = [value for value in new if value not in before]
    if not only_old and not only_new:
        # The same in another order, or more often.
        only_old, only_new = list(old), list(new)
    return [_few(only_old), _few(only_new)]


def _few(values: list[str]) -> list[str]:
    shown = [_cut(value) for value in values[:_VALUES_MAX]]
    more = len(values) - len(shown)
    return [*shown, _MORE.format(more)] if more else shown


def _cut(value: str) -> str:
    return printable(value, _VALUE_TEXT_MAX)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
