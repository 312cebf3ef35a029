"""What has changed since it was last known: settings, versions, the catalogue, the audit log's key.

What was last known lies in the store. It is compared and told in one commit, so a change is told
once, also one that was made while no server ran. What was never known before is only noted.
"""

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from needfire_protocol import __version__
from needfire_protocol.catalogue import CATALOGUE
from needfire_protocol.catalogue_entry import Entry
from needfire_protocol.errors import StorageError
from needfire_protocol.escape import printable
from needfire_protocol.event import FieldValue, make_event
from needfire_protocol.rc.changes import InForce, settings_changes
from needfire_server.audit.drafts import draft_of_event
from needfire_server.change_text import ChangeText
from needfire_server.clock import monotonic_s, now_us
from needfire_server.config import ServerSettings
from needfire_server.journal import Journal
from needfire_server.rate_limit import RateLimiter
from needfire_server.storage.base import Store, Told

__all__ = ["Provisioning", "server_key"]

_AGENT: Final = "agent "
_VERSION_TEXT_MAX: Final = 64
_VERSIONS: Final = 5
_VERSIONS_PER_S: Final = 1 / 600
"""So often is it told that one client's program is another. What comes between is not even looked at:
the next log-in that is tells of what has become of it by then."""
_DIGITS: Final = 16
"""Of the digest of one entry: enough to tell that it is another one."""


def server_key(store: Store, data_directory: str) -> str:
    """Return what a server is called among those at its store."""
    return f"{socket.gethostname()}:{data_directory}" if store.is_shared else ""


class Provisioning:
    """Compares and tells. In the event loop's thread only."""

    def __init__(self, store: Store, journal: Journal, data_directory: str) -> None:
        self._store = store
        self._journal = journal
        self._key = server_key(store, data_directory)
        self._agents: dict[str, str] = {}
        self._versions = RateLimiter(burst=_VERSIONS, per_s=_VERSIONS_PER_S)
        self._is_start_told = asyncio.Event()
        self._is_signed: bool | None = None

    async def started(self, settings: ServerSettings) -> None:
        """Tell what is another than when this server ran last."""
        try:
            # At one stroke: a fleet that comes back with the versions that it had writes nothing.
            self._agents |= await self._store.all_known(_AGENT)
        except StorageError as error:
            self._journal.store_failed(error)
        await asyncio.gather(
            self._compare(f"software {self._key}", __version__, _software_told),
            self._compare(f"catalogue {self._key}", _packed(_catalogue()), _catalogue_told),
            self._compare_settings(settings),
        )
        self._is_start_told.set()

    async def configured(self, settings: ServerSettings) -> None:
        """Tell which settings are others than those that this server had last.

        A reload right after the start waits: else the old settings would be told as the new ones.
        """
        await self._is_start_told.wait()
        await self._compare_settings(settings)

    async def _compare_settings(self, settings: ServerSettings) -> None:
        now = {
            "path": settings.source,
            "hash": f"sha256:{settings.sha256}",
            "in_force": settings.in_force,
        }
        await self._compare(f"settings {self._key}", _packed(now), _settings_told)

    def has_seen(self, client: str, version: str) -> bool:
        """True where ``agent_seen`` has nothing to do: it is the version that was last seen."""
        return self._agents.get(client) == printable(version, _VERSION_TEXT_MAX)

    async def agent_seen(self, client: str, version: str) -> None:
        """Tell that a client's program has another version than when it was last seen."""
        if self.has_seen(client, version):
            return
        shown = printable(version, _VERSION_TEXT_MAX)
        if client in self._agents and not self._versions.admit(client, monotonic_s()):
            return

        def told(old: str, new: str) -> Sequence[Told]:
            return [
                _told(
                    "SOFTWARE_CHANGED",
                    client=client,
                    program="needfire-agent",
                    version=new,
                    version_old=old,
                )
            ]

        if await self._compare(f"{_AGENT}{client}", shown, told):
            self._agents[client] = shown

    async def audit_log_signed(self, is_signed: bool, *, is_told: bool) -> None:
        """Note whether this server signs the audit log, so that a restart ends no alarm unheard.

        Args:
            is_told: that it is signed again has just been told.
        """
        if is_signed is self._is_signed:
            return
        tells = is_signed and not is_told
        if await self._compare(
            f"audit log {self._key}",
            "signed" if is_signed else "not signed",
            lambda _old, _new: [_told("AUDIT_LOG_SIGNED")] if tells else [],
        ):
            self._is_signed = is_signed

    async def _compare(
        self, name: str, value: str, told: Callable[[str, str], Sequence[Told]]
    ) -> bool:
        """Compare with what was known; False where the store did not take it: next time it will."""
        try:
            events = await self._store.remember(
                name, value, lambda before: [] if before is None else told(before, value)
            )
        except StorageError as error:
            self._journal.store_failed(error)
            return False
        for event in events:
            self._journal.already_stored(event)
        return True


def _told(code: str, /, **fields: FieldValue) -> Told:
    event = make_event(code, time_us=now_us(), random_10_bytes=os.urandom(10), **fields)
    return event, draft_of_event(event)


def _software_told(old: str, new: str) -> Sequence[Told]:
    return [_told("SOFTWARE_CHANGED", program="needfire-server", version=new, version_old=old)]


def _settings_told(old: str, new: str) -> Sequence[Told]:
    before, after = _unpacked(old), _unpacked(new)
    changes = settings_changes(_in_force(before), _in_force(after))
    if not changes.count and before.get("hash") == after["hash"]:
        return []
    return [
        _told(
            "SETTINGS_CHANGED",
            path=after["path"],
            hash=after["hash"],
            hash_old=before.get("hash"),
            changed=changes.count,
            changes=changes.text,
            changes_left_out=changes.left_out,
        )
    ]


def _in_force(data: Mapping[str, Any]) -> InForce:
    found = data.get("in_force")
    if not isinstance(found, dict):
        return {}
    return {
        name: values
        for name, values in found.items()
        if isinstance(values, list) and all(isinstance(each, str) for each in values)
    }


def _catalogue_told(old: str, new: str) -> Sequence[Told]:
    before, after = _unpacked(old), _unpacked(new)
    marks = dict.fromkeys(after.keys() - before.keys(), "A")
    marks |= dict.fromkeys(before.keys() - after.keys(), "D")
    marks |= {code: "M" for code in after.keys() & before.keys() if after[code] != before[code]}
    text = ChangeText()
    for code, mark in sorted(marks.items()):
        text.add(f"{mark} {code}".encode())
    kinds = list(marks.values())
    return [
        _told(
            "CATALOGUE_CHANGED",
            hash=_digest(new),
            hash_old=_digest(old),
            added=kinds.count("A"),
            removed=kinds.count("D"),
            modified=kinds.count("M"),
            diff=str(text),
            diff_left_out=text.left_out,
        )
    ]


def _catalogue() -> Mapping[str, str]:
    return {code: _entry_digest(entry) for code, entry in CATALOGUE.items()}


def _entry_digest(entry: Entry) -> str:
    return hashlib.sha256(_packed(entry.as_data()).encode()).hexdigest()[:_DIGITS]


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _packed(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _unpacked(text: str) -> dict[str, Any]:
    """Return what was kept; nothing where somebody else wrote it, so that all of it is told."""
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
