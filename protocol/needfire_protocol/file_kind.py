"""Which files an agent may ask the server for. Stands alone: a check without a server needs it."""

from enum import Enum

__all__ = ["FileKind"]


class FileKind(Enum):
    """What an agent may ask for. It never names a path: the server knows where the file is."""

    CONFIGURATION = "configuration"
    BASELINE = "baseline"
