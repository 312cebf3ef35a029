"""Which client a request means: only one that is registered."""

from needfire_protocol.names import parse_client_name
from needfire_server.admin.requests import AdminRefusedError
from needfire_server.admin.subject import Subject
from needfire_server.registry import Registration

__all__ = ["registered"]


def registered(subject: Subject, name: str) -> Registration:
    """Return the registration of a client.

    Raises:
        FormatError: the name cannot be one.
        AdminRefusedError: it is not registered.
    """
    clean = parse_client_name(name)
    entry = subject.registry.registration(clean)
    if entry is None:
        raise AdminRefusedError(f"{clean} is not registered", "needfire-admin clients list")
    return entry
