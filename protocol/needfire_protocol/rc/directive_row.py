"""The form of one row of the table of directives."""

from enum import Enum

from needfire_protocol.plain_classes import dataclass
from needfire_protocol.rc.policies import Policy
from needfire_protocol.rc.values import Kind

__all__ = ["DirectiveRow", "Honoured", "Inert", "Program", "Treatment"]


class Program(Enum):
    """Whose configuration file it is; the value is what people call it."""

    AGENT = "agent"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Honoured:
    """The directive decides a field of the program's settings.

    Attributes:
        field: name of the field.
        policy: where the field is a mapping by policy, the key that the directive sets.
        repeats: each line adds to the field, which is a tuple; otherwise the last line counts.
    """

    field: str
    policy: Policy | None = None
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Inert:
    """The directive is known but does nothing in the program; one notice a line says why."""

    reason: str


Treatment = Honoured | Inert


@dataclass(frozen=True, slots=True)
class DirectiveRow:
    """One directive: everything that is known about it, in one place.

    Attributes:
        name: as documents spell it; files may use any case.
        sections: headings under which it may stand, the usual one first, as documents spell them.
        kind: what its value may be.
        default: the value that holds where no line gives one, as a file would have it; None: none.
        example: another proper value, for the documents and the tests; never the default.
        help: what it does, for a person.
        agent: what the agent makes of it.
        server: what the server makes of it.
        is_ours: Samhain does not have it.
    """

    name: str
    sections: tuple[str, ...]
    kind: Kind
    default: str | None
    example: str
    help: str
    agent: Treatment
    server: Treatment
    is_ours: bool = False

    def treatment(self, program: Program) -> Treatment:
        """Return what a program makes of it."""
        return self.agent if program is Program.AGENT else self.server
