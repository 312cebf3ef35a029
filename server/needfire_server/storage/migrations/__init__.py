"""How a database comes to the schema of this version: numbered steps, taken by Alembic.

A step is a file ``versions/NNNN_what.py`` with ``revision``, ``down_revision`` and ``upgrade()``;
the numbers rise by one. ``upgrade`` uses ``alembic.op`` and ``columns.py``, which give each database
its own words. There is no way down: the way back is the copy that is made before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

__all__ = ["KNOWN", "VERSION_TABLE", "Steps"]

VERSION_TABLE: Final = "needfire_schema"
"""Not Alembic's usual name: a database may be shared with another program that uses Alembic."""


class Steps:
    """The steps that a program knows, oldest first.

    Read at the import: later the process may not have the right to read the program's files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = ScriptDirectory(str(directory))
        self._steps: Mapping[str, Script] = {
            step.revision: step for step in reversed(list(self._directory.walk_revisions()))
        }
        numbers = [int(revision) for revision in self._steps]
        assert numbers == list(range(1, len(numbers) + 1)), "steps are numbered without gaps"

    @property
    def latest(self) -> int:
        """The number of the last step."""
        return len(self._steps)

    def taken(self, connection: sa.Connection) -> int | None:
        """Return the number of the last step that a database has taken; 0 for none.

        None where it is at a step that this program does not know.
        """
        heads = self._context(connection).get_current_heads()
        if not heads:
            return 0
        return int(heads[0]) if len(heads) == 1 and heads[0] in self._steps else None

    def adopt(self, connection: sa.Connection, number: int) -> None:
        """Note that a database is at a step, which somebody else has taken."""
        self._context(connection).stamp(self._directory, f"{number:04}")

    def take(self, connection: sa.Connection) -> None:
        """Take all steps that are left, within the caller's transaction."""
        context = self._context(connection)
        taken = self.taken(connection) or 0
        for number, (revision, step) in enumerate(self._steps.items(), 1):
            if number > taken:
                with Operations.context(context):
                    step.module.upgrade()
                context.stamp(self._directory, revision)

    @staticmethod
    def _context(connection: sa.Connection) -> MigrationContext:
        return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})


KNOWN: Final = Steps(Path(__file__).parent)
