"""Which store belongs to a data directory: the SQLite file in it, or the database that a URL names.

A server that uses a database leaves a note in its data directory, so that the admin tool finds the
same store while no server runs, and does not begin a second one. There is no secret in the note.
"""

import contextlib
import importlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from needfire_protocol.errors import Problem, StorageError
from needfire_server.storage.engine import Engine
from needfire_server.storage.migrations import KNOWN
from needfire_server.storage.sqlite import SqliteEngine, SqliteStore
from needfire_server.storage.store import DatabaseStore

if TYPE_CHECKING:
    from needfire_server.config import ServerSettings

__all__ = [
    "NOTE_NAME",
    "OpenStore",
    "how_to_open",
    "how_to_open_again",
    "load_drivers",
    "load_migrations",
    "notices_of_store",
    "reading_engine",
]

OpenStore: TypeAlias = Callable[[], DatabaseStore]
"""Opens the store; raises StorageError."""

NOTE_NAME: Final = "store.json"
_CREDENTIAL: Final = "store-password"
_FILE_BYTES_MAX: Final = 4_096


def how_to_open(data_directory: str, url: str | None, password_file: str | None) -> OpenStore:
    """Return what opens the store of a server.

    To be called before rights are given up: here the password is read and the driver loaded.

    Args:
        url: None for the SQLite file.
        password_file: None for the systemd credential, if there is one.

    Raises:
        StorageError: the password cannot be read or may be read by everybody, or the driver is
            not installed.
    """
    note = os.path.join(data_directory, NOTE_NAME)
    if url is None:
        path = _sqlite_path(data_directory)
        return lambda: _noted(note, None, SqliteStore.open(path))
    password_file = password_file or _credential()
    password = None if password_file is None else _read_password(password_file)
    open_postgres = _postgres()
    content = json.dumps({"url": url, "password_file": password_file})
    return lambda: _noted(note, content, open_postgres(url, data_directory, password))


def notices_of_store(settings: "ServerSettings") -> Iterator[Problem]:
    """Yield why this host could not open the store of a configuration that is right in itself.

    The database is not asked: who looks at a file must not make the host connect anywhere.
    """
    try:
        how_to_open("", settings.store_url, settings.store_password_file)
    except StorageError as error:
        yield Problem(settings.source, None, f"the server would not start here: {error}")


def how_to_open_again(data_directory: str) -> OpenStore:
    """Return what opens the store that the last server on this data directory used.

    To be called with the rights of the directory's owner: whoever has those can write the note, and
    must not be able to make root send the first line of any file to any host.

    Raises:
        StorageError: as ``how_to_open``, or the note is damaged.
    """
    return how_to_open(data_directory, *_note_in(data_directory))


def reading_engine(data_directory: str) -> Engine:
    """Return the engine of that store, for reading beside a server that may have it open.

    To be called, and used, with the rights of the directory's owner: SQLite makes files beside its
    own, which the server must be able to use.

    Raises:
        StorageError: as ``how_to_open_again``, or there is no store.
    """
    url, password_file = _note_in(data_directory)
    if url is None:
        path = _sqlite_path(data_directory)
        try:
            os.stat(path)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None
        return SqliteEngine(path)
    password_file = password_file or _credential()
    password = None if password_file is None else _read_password(password_file)
    engine: Engine = _postgresql().PostgresEngine(url, password)
    return engine


def load_drivers(data_directory: str) -> None:
    """Load what opening the store of a directory needs, while the program's files can be read.

    Whose directory it is does not matter here: what it holds only decides what is loaded.
    """
    if os.path.lexists(os.path.join(data_directory, NOTE_NAME)):
        with contextlib.suppress(StorageError):
            _postgres()
        load_migrations()
    elif _schema_of(_sqlite_path(data_directory)) != KNOWN.latest:
        load_migrations()


def load_migrations() -> None:
    """Load what brings a store to the schema of this version; few starts need it."""
    KNOWN.load()
    from alembic import operations  # noqa: F401  # is loaded when the first step is taken


def _schema_of(path: str) -> int | None:
    """Return ``PRAGMA user_version`` of a file, as far as its header knows; None where it is none.

    https://www.sqlite.org/fileformat.html, 1.3
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int.from_bytes(os.pread(handle, 4, 60), "big")
    except OSError:
        return None
    finally:
        os.close(handle)


def _noted(path: str, content: str | None, store: DatabaseStore) -> DatabaseStore:
    """Write the note of a store that could be opened, or remove an older one."""
    try:
        if content is None:
            if os.path.lexists(path):
                os.unlink(path)
        else:
            _replace(path, content)
    except OSError as error:
        store.close()
        raise StorageError(f"{path}: {error.strerror}") from error
    return store


def _replace(path: str, content: str) -> None:
    partial = f"{path}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600), "w") as file:
        file.write(content)
    os.replace(partial, path)


def _note_in(data_directory: str) -> tuple[str | None, str | None]:
    """Return the URL and the password's file that the last server used; (None, None) for SQLite."""
    path = os.path.join(data_directory, NOTE_NAME)
    try:
        note = json.loads(_read(path))
        return str(note["url"]), note["password_file"]
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} does not say where the store is ({error}); start the server, which writes it"
        ) from error


def _sqlite_path(data_directory: str) -> str:
    return os.path.join(data_directory, "needfire.sqlite")


def _postgres() -> Callable[[str, str, str | None], DatabaseStore]:
    store = _postgresql().PostgresStore
    return lambda url, directory, password: store.open(url, directory, password=password)


def _postgresql() -> Any:
    try:
        return importlib.import_module("needfire_server.storage.postgresql")
    except ImportError as error:
        raise StorageError(
            f"StoreURL needs a driver that is not there ({error}); install it with: "
            "pip install 'needfire[postgres]'"
        ) from error


def _credential() -> str | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = None if directory is None else os.path.join(directory, _CREDENTIAL)
    return path if path is not None and os.path.exists(path) else None


def _read_password(path: str) -> str:
    try:
        content = _read(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise StorageError(f"the password in {path} cannot be read: {reason}") from None
    if os.stat(path).st_mode & stat.S_IROTH:
        raise StorageError(f"everybody may read the password in {path}; chmod o-r {path}")
    password = content.partition("\n")[0].rstrip("\r")
    if not password:
        raise StorageError(f"the first line of {path} is empty; expected the password for StoreURL")
    return password


def _read(path: str) -> str:
    # O_NONBLOCK: a FIFO would make the start wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(_FILE_BYTES_MAX).decode("utf-8")
