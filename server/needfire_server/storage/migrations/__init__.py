"""How a database comes to the schema of this version: numbered steps, taken by Alembic.

A step is a file ``versions/NNNN_what.py`` with ``revision``, ``down_revision`` and ``upgrade()``;
the numbers rise by one. ``upgrade`` uses ``alembic.op`` and ``columns.py``, which give each database
its own words. There is no way down: the way back is the copy that is made before.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory

__all__ = ["KNOWN", "VERSION_TABLE", "Steps"]

VERSION_TABLE: Final = "needfire_schema"
"""Not Alembic's usual name: a database may be shared with another program that uses Alembic."""

_NUMBER_CHARACTERS: Final = 4


class Steps:
    """The steps that a program knows, oldest first.

    Which there are is read at once; what they do, and Alembic, only where one has to be taken: that
    costs more than everything else of a short command. ``load`` does it earlier, for who may not
    have the right to read the program's files later.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory
        names = os.listdir(directory / "versions")
        self._revisions = sorted(
            name[:_NUMBER_CHARACTERS] for name in names if name.endswith(".py") and name[0] != "_"
        )
        self._loaded: tuple[ScriptDirectory, Mapping[str, Script]] | None = None

    @property
    def latest(self) -> int:
        """The number of the last step."""
        return len(self._revisions)

    def taken(self, connection: sa.Connection) -> int | None:
        """Return the number of the last step that a database has taken; 0 for none.

        None where it is at a step that this program does not know.
        """
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return 0
        # As Alembic keeps it: a row for each end of the line of steps, and ours has one.
        table = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text()))
        heads = connection.execute(sa.select(table.c.version_num)).scalars().all()
        if not heads:
            return 0
        return int(heads[0]) if len(heads) == 1 and heads[0] in self._revisions else None

    def adopt(self, connection: sa.Connection, number: int) -> None:
        """Note that a database is at a step, which somebody else has taken."""
        directory, _ = self.load()
        _context(connection).stamp(directory, f"{number:04}")

    def take(self, connection: sa.Connection) -> None:
        """Take all steps that are left, within the caller's transaction."""
        taken = self.taken(connection) or 0
        if taken == self.latest:
            return
        from alembic.operations import Operations

        directory, steps = self.load()
        context = _context(connection)
        for number, (revision, step) in enumerate(steps.items(), 1):
            if number > taken:
                with Operations.context(context):
                    step.module.upgrade()
                context.stamp(directory, revision)

    def load(self) -> "tuple[ScriptDirectory, Mapping[str, Script]]":
        """Read the steps, which need no file of the program any more then."""
        if self._loaded is None:
            from alembic.script import ScriptDirectory

            directory = ScriptDirectory(str(self._path))
            found = reversed(list(directory.walk_revisions()))
            steps: Mapping[str, Script] = {step.revision: step for step in found}
            numbers = [int(revision) for revision in steps]
            assert numbers == list(range(1, self.latest + 1)), "steps are numbered without gaps"
            self._loaded = directory, steps
        return self._loaded


def _context(connection: sa.Connection) -> "MigrationContext":
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})


KNOWN: Final = Steps(Path(__file__).parent)
