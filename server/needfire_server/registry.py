"""Who may speak: the registered names and the verifiers of their passwords.

A client is registered in one of two places: a line ``Client=NAME@SALT@VERIFIER`` under [Clients] of
the server's file, or the store (``needfire-admin register``). Where one is in both, **the store
counts**: who registers a client again because its password leaked must not be overruled by a line
that stands in a file since years. Each double entry is reported with both places, because it is
the usual reason of a "Session key mismatch" that nobody understands.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from needfire_protocol.srp import Verifier
from needfire_server.storage.base import ClientRecord

__all__ = ["STORE_ENTRY", "ListedClient", "ListedTwice", "Registration", "Registry"]

STORE_ENTRY: Final = "the store (needfire-admin register)"


class ListedClient(Protocol):
    """A usable line of [Clients]."""

    @property
    def name(self) -> str: ...
    @property
    def verifier(self) -> Verifier: ...
    @property
    def line(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """A name that may speak, and the entry that counts for it."""

    name: str
    verifier: Verifier | None
    """None where the store has one that cannot be opened: the name may not speak."""
    entry: str
    """Where it stands: the file and line, or ``STORE_ENTRY``."""
    record: ClientRecord | None
    """The store's entry; None where it is a line of the file."""


@dataclass(frozen=True, slots=True)
class ListedTwice:
    """A client with two entries, of which only one counts."""

    client: str
    used: str
    other: str


class Registry:
    """The names that may speak. Owned by one thread; ``lookup`` sees a change at once and whole."""

    def __init__(
        self,
        listed: Iterable[ListedClient] = (),
        records: Iterable[ClientRecord] = (),
    ) -> None:
        """Args:
        listed: the lines of [Clients]; of two with one name the last counts, as in Samhain.
        records: the registrations of the store.
        """
        self._records = {record.name: record for record in records}
        self._listed, self._repeated = _by_name(listed)
        self._registrations: Mapping[str, Registration] = {}
        self.version = 0
        """Rises with each change: who has read the store knows by it whether that is old news."""
        self._merge()

    def lookup(self, name: str) -> Verifier | None:
        """Return the verifier that counts for a name in any case; None where it may not speak."""
        found = self._registrations.get(name.lower())
        return None if found is None else found.verifier

    def registration(self, name: str) -> Registration | None:
        """Return the entry that counts for a name in any case."""
        return self._registrations.get(name.lower())

    def unreadable(self) -> tuple[str, ...]:
        """Return the names whose verifiers cannot be opened."""
        return tuple(name for name in self.names() if self._registrations[name].verifier is None)

    def registrations(self) -> tuple[Registration, ...]:
        """Return all entries that count, by name."""
        return tuple(self._registrations[name] for name in self.names())

    def names(self) -> tuple[str, ...]:
        """Return every registered name, sorted."""
        return tuple(sorted(self._registrations))

    def listed_entry(self, name: str) -> str | None:
        """Return file and line of the client's line under [Clients], whether it counts or not."""
        listed = self._listed.get(name.lower())
        return None if listed is None else listed.entry

    def listed_twice(self) -> tuple[ListedTwice, ...]:
        """Return what to report as CLIENT_LISTED_TWICE, in the file or in file and store.

        Two lines of the file are named even where they hold the same: the documented advice for
        a wrong password is to look out for double entries.
        """
        in_both = tuple(
            ListedTwice(name, STORE_ENTRY, self._listed[name].entry)
            for name in sorted(self._listed.keys() & self._records.keys())
            if self._listed[name].verifier != self._records[name].verifier
        )
        return self._repeated + in_both

    def reload(self, listed: Iterable[ListedClient]) -> frozenset[str]:
        """Take the lines of a file that was read again; return names that may no longer speak."""
        before = frozenset(self._registrations)
        self._listed, self._repeated = _by_name(listed)
        self._merge()
        return before - frozenset(self._registrations)

    def put(self, record: ClientRecord) -> None:
        """Take a registration that the store has just been given."""
        self._records[record.name] = record
        self._merge()

    def take_out(self, name: str) -> None:
        """Forget the store's registration of a name; a line of the file then counts again."""
        self._records.pop(name.lower(), None)
        self._merge()

    def stored(self, name: str) -> ClientRecord | None:
        """Return what the store is known to have of a name."""
        return self._records.get(name.lower())

    def stored_names(self) -> frozenset[str]:
        """Return the names that the store is known to have."""
        return frozenset(self._records)

    def _merge(self) -> None:
        self.version += 1
        stored = {
            record.name: Registration(record.name, record.verifier, STORE_ENTRY, record)
            for record in self._records.values()
        }
        # One assignment: whoever looks up sees the old list or the new one, never a half of each.
        self._registrations = {**self._listed, **stored}


def _by_name(
    listed: Iterable[ListedClient],
) -> tuple[dict[str, Registration], tuple[ListedTwice, ...]]:
    """Return the lines that count, by name, and those that do not."""
    found: dict[str, Registration] = {}
    repeated: list[ListedTwice] = []
    for client in listed:
        name, entry = client.name.lower(), f"[Clients], line {client.line}"
        earlier = found.get(name)
        if earlier is not None:
            repeated.append(ListedTwice(name, entry, earlier.entry))
        found[name] = Registration(name, client.verifier, entry, None)
    return found, tuple(repeated)
