"""How the path of an object is made of its directory and its name there. Pure."""

__all__ = ["join", "split"]


def join(path: bytes, name: bytes) -> bytes:
    """Return the path of the entry ``name`` of the directory ``path``."""
    if not path:
        return name
    return path + name if path == b"/" else path + b"/" + name


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory that a path is an entry of, and its name there."""
    if path == b"/":
        return b"", b"/"
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name
