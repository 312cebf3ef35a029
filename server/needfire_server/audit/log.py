"""The audit log of one server: its keys, its checkpoints, its proofs, and the check of its store."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from needfire_protocol.audit.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
)
from needfire_protocol.audit.note import (
    Checkpoint,
    Note,
    PublicKey,
    handover_note,
    handover_text,
    parse_checkpoint,
    parse_note,
    public_key_of,
    sign_note,
)
from needfire_protocol.audit.record import KEY_HANDED_OVER, KEY_MADE, Draft
from needfire_protocol.audit.verdict import Finding, Verdict, Verification
from needfire_protocol.errors import FormatError, StorageError
from needfire_protocol.limits import AUDIT_HANDOVERS_MAX
from needfire_server import clock
from needfire_server.audit.export import log_lines
from needfire_server.audit.keys import AuditFiles
from needfire_server.audit.scrub import Scrubber
from needfire_server.audit.standing import Standing
from needfire_server.audit.stored import check_stored
from needfire_server.storage.audit_base import (
    AuditHead,
    AuditIncompleteError,
    AuditTables,
    StoredCheckpoint,
    StoredKey,
)

__all__ = ["AuditLog", "Inclusion", "Shown", "readable_checkpoint"]

_ORIGIN: Final = "needfire.audit/"
_ORIGIN_BYTES: Final = 16
_ROOTS_MAX: Final = 1_024
_NUMBER_MAX: Final = 2**63 - 1
"""Of a checkpoint: what a database takes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What agents are shown: the latest checkpoint, its key, and how the log came to that key."""

    checkpoint: StoredCheckpoint
    key: str
    handovers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A record with what shows that it is in the log, and what leads from older keys to the signer.

    Attributes:
        line: empty where the store does not have it any more.
        handovers: notes by which each key named the next one, the first one first.
    """

    number: int
    line: bytes
    checkpoint: StoredCheckpoint
    proof: tuple[bytes, ...]
    key: PublicKey
    handovers: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it shows that; not where the store holds something else than was signed."""
        note = readable_checkpoint(self.checkpoint.note)
        if note is None:
            return False
        signed = parse_checkpoint(note)
        leaf = leaf_hash(self.line)
        return self.key.verifies(note) and is_included(
            leaf, self.number, signed.size, signed.root, self.proof
        )


class OtherKeysError(StorageError):
    """The store names other keys of the log than those that it had, or what is no key at all."""


class AuditLog:
    """Made by ``open``. One for a store, in the process that has the store open."""

    def __init__(
        self, tables: AuditTables, files: AuditFiles, random_bytes: Callable[[int], bytes]
    ) -> None:
        """Use ``open``."""
        self._tables = tables
        self._files = files
        self._random_bytes = random_bytes
        self._keys: list[StoredKey] = []
        self._private: Ed25519PrivateKey | None = None
        self._signing = asyncio.Lock()
        self._shown: Shown | None = None
        self._roots: dict[int, bytes] = {}
        """Of the last checkpoints that were shown, by their size."""
        self._kept_number = 0
        self._kept_before = self._files.kept_checkpoint()
        """What this process found beside the store: the log must have grown out of it."""
        self._looking = asyncio.Lock()
        self._looks = 0
        self._scrubber = Scrubber(tables)
        self._is_another = False
        self._has_met_forgery = False
        """A key or a checkpoint was met that is not the log's: all of it has to be read."""
        self.key_trouble: str | None = None
        """Why nothing can be signed; None while it can. Each checkpoint tries again."""
        self.finding: Finding | None = None
        """What is wrong with the log, as far as this process has noticed."""
        self._accepted: Finding | None = None
        self._standing = Standing(self._files)

    @classmethod
    async def open(
        cls,
        tables: AuditTables,
        data_directory: str,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> "AuditLog":
        """Return the log of a store; with its first record and its key where it is new.

        A key that cannot be loaded is no reason to fail: records are kept, and are signed once it
        is there again.

        Raises:
            StorageError: the store or the directory cannot be read or written.
        """
        log = cls(tables, AuditFiles(data_directory), random_bytes)
        log._keys = await log._stored_keys()
        if not log._keys:
            await log._make_first_key()
        else:
            log._load_key()
        await asyncio.to_thread(log._compare_public)
        log._files.keep_public(log.public_keys())
        log._show(await tables.last_checkpoint())
        return log

    def public_keys(self) -> list[PublicKey]:
        """Return every key that the log had, the newest last."""
        return [PublicKey.parse(each.key) for each in self._keys]

    @property
    def standing(self) -> Finding | None:
        """What was found wrong, by whichever process of this server, and nobody has accepted."""
        return self._standing.finding

    def accept(self) -> Finding | None:
        """End what stands: somebody knows of it. Return it; None where nothing stood.

        From here on the log counts as it is; what is wrong with it still is found anew.

        Raises:
            StorageError: it stands on, because its file cannot be removed.
        """
        ended = self._standing.accept()
        if ended is not None:
            self._accepted, self.finding = self.finding, None
            self._scrubber = Scrubber(self._tables)
        return ended

    def take_accepted(self) -> Finding | None:
        """Return what this process had noticed and somebody has accepted since the last call."""
        taken, self._accepted = self._accepted, None
        return taken

    @property
    def shown(self) -> Shown | None:
        """What agents are shown now."""
        return self._shown

    async def catch_up(self) -> None:
        """Show from now on what other servers on the store had signed when this was called.

        An agent that comes from one of them has seen that: anything older would look to it like a
        log that was cut off. However many come at once, the store is asked twice at most.

        Raises:
            StorageError: the store cannot be asked.
        """
        # A look that has begun already may miss what was signed since.
        wanted = self._looks + 1
        async with self._looking:
            if self._looks < wanted:
                self._looks += 1
                await self._latest()

    # ---- writing --------------------------------------------------------------------------------

    async def append(self, *drafts: Draft) -> None:
        """Record what has no other write to be part of."""
        await self._tables.append(drafts)

    async def checkpoint(self) -> StoredCheckpoint | None:
        """Sign what the log is now, unless that is signed already; return the latest checkpoint.

        None where nothing was ever signed, because the key is not there.

        Raises:
            StorageError: it could not be kept. Where it is not in the store, nothing of it was
                shown to anybody; where only its file is missing, the next call writes that.
        """
        async with self._signing:
            await self._follow_keys()
            if self._private is None:
                self._load_key()
            # Before the head is read: a key that takes over meanwhile is not ours to sign for.
            private, key = self._private, self._keys[-1].key
            last = await self._latest()
            await self._keep(last)
            if private is None:
                return last
            head = await self._tables.head()
            shown = None if self._shown is None else self._shown.checkpoint
            if last is not None and shown is not None and last.number == shown.number:
                # What its row says beside the note is not signed, and could say that all is.
                self._has_met_forgery |= last != shown
                last = shown
            if last is not None and last.size == head.size:
                return last
            number = 1 if last is None else last.number + 1
            if number > _NUMBER_MAX:
                raise StorageError(
                    f"checkpoint {number - 1} in the store leaves no number for the next one: "
                    "somebody put it there; needfire-admin audit verify --store"
                )
            root = head.frontier.root()
            origin = PublicKey.parse(key).name
            text = Checkpoint(origin, head.size, root, number, clock.now_us()).text()
            made = StoredCheckpoint(number, head.size, sign_note(text, origin, private))
            if not await self._tables.add_checkpoint(made, key=key):
                # Another server on this store was faster, and has signed as much, or nearly; or it
                # has just changed the key.
                return await self._latest()
            self._show(made)
            await self._keep(made)
            return made

    async def rotate(self, user: str, request: str | None = None) -> PublicKey:
        """Make a new key, let the old one hand over to it, and forget the old private key.

        Raises:
            StorageError: the old key is not there to hand over, another server was first, or the
                handover could not be stored: then nothing is changed. Or it is stored, and what follows
                failed: the file of public keys, forgetting the old private key, the first checkpoint.
                The new key signs then, and the next start (the checkpoint: the next one) does the rest.
        """
        async with self._signing:
            old = self._private
            if old is None:
                raise StorageError(self.key_trouble or "the audit log has no key")
            before = self.public_keys()[-1]
            new = self._files.make_key(before.name, self._random_bytes)
            public = public_key_of(before.name, new)
            signed = sign_note(handover_text(public), before.name, old)
            signature = signed.removesuffix("\n").rpartition("\n")[2]
            fields = {"key": str(public), "signature": signature}
            draft = Draft(KEY_HANDED_OVER, subject=user, request=request, fields=fields)
            key = StoredKey(str(public), signature)
            if not await self._tables.announce_key(key, draft, after=str(before)):
                self._files.drop_key(public)
                raise StorageError("another server on this store has just changed the key")
            if self._keys[-1] != key:
                self._keys = [*self._keys, key]
            self._private = new
            self._files.keep_public(self.public_keys())
            self._files.drop_key(before)
        await self.checkpoint()
        return public

    # ---- proofs ---------------------------------------------------------------------------------

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Return the proof that the log of ``old`` records is the beginning of that of ``new``.

        Empty where this process knows that its log is not what it was: it does not vouch for it.
        What would prove nothing, because the store has just been changed, is not shown either: an
        agent would take it for another log, and go on with that.

        Raises:
            StorageError: the store cannot be read.
        """
        head = await self._tables.head()
        if self.finding is not None or not 0 < old < new <= head.size:
            return ()
        try:
            proof = await self._proof(lambda subtree: consistency_proof(old, new, subtree))
        except AuditIncompleteError:
            return ()
        roots = self._roots.get(old), self._roots.get(new)
        if roots[0] is None or roots[1] is None:
            return proof
        return proof if is_consistent(old, roots[0], new, roots[1], proof) else ()

    async def inclusion(self, number: int) -> Inclusion | None:
        """Return a record with its proof; None where it is not there or not signed yet.

        Raises:
            StorageError: the log lacks something.
        """
        checkpoint = await self.checkpoint()
        if checkpoint is None or not 0 <= number < checkpoint.size:
            return None
        rows = await asyncio.to_thread(self._tables.records_now, number, 1)
        line = rows[0][1] if rows and rows[0][0] == number else b""
        size = checkpoint.size
        try:
            proof = await self._proof(lambda subtree: inclusion_proof(number, size, subtree))
        except AuditIncompleteError:
            # There is none that holds; who asks is told what is wrong.
            proof, line = (), b""
        keys = self.public_keys()
        # The latest key may be one that has signed nothing yet.
        signer = _signer(keys, checkpoint) or 0
        handovers = _handovers(self._keys[: signer + 1], len(keys))
        return Inclusion(number, line, checkpoint, proof, keys[signer], handovers)

    async def _proof(
        self, make: Callable[[Callable[[int, int], bytes]], list[bytes]]
    ) -> tuple[bytes, ...]:
        """Learn which subtrees a proof needs, read them in one go, and make it."""
        wanted: list[tuple[int, int]] = []

        def note(level: int, position: int) -> bytes:
            wanted.append((level, position))
            return b""

        make(note)
        found = dict(zip(wanted, await self._tables.subtrees(wanted), strict=True))
        return tuple(make(lambda level, position: found[level, position]))

    # ---- checking -------------------------------------------------------------------------------

    async def check_all(self) -> Verification | None:
        """Read the whole log of the store and hold it against the keys and the kept checkpoint.

        None where the store has nothing that was signed; where something was, that is a finding.

        Raises:
            StorageError: the store cannot be read, or what was found cannot be kept.
        """
        result, found = await self._whole()
        if found is not None and not self._is_another:
            # It tells better which record it is than the checkpoint that does not fit.
            self.finding = found
        await self._note(found)
        return result

    async def _whole(self) -> tuple[Verification | None, Finding | None]:
        while True:
            keys = self._keys
            closing, head = await self._tables.last_checkpoint(), await self._tables.head()
            try:
                await self._follow_keys()
            except OtherKeysError as error:
                return None, Finding(Verdict.WRONG_KEY, 0, 0, 0, str(error))
            if keys == self._keys:
                # All of one moment: no other server changed the key meanwhile.
                break
        result = found = None
        if closing is not None:
            # Any of the keys: a crash may have come before the latest one signed anything.
            named = [PublicKey.parse(each.key) for each in keys]
            result = await asyncio.to_thread(
                check_stored, self._tables, named, named, closing, head, kept=self._anchor()
            )
            found = result.finding
        elif self._anchor() is not None:
            found = await self._contradiction()
        # Last, so that what is mended meanwhile is not found in two forms.
        return result, found or await self._head_finding(head)

    async def check_recent(self) -> Finding | None:
        """Read what is new, and the next part of what is old; return what is wrong, once.

        What was read once is known by its hashes, which are kept in memory: a store that is
        changed under a running server does not fit them.
        """
        if self.finding is not None:
            return None
        self.finding = await asyncio.to_thread(self._scrubber.step)
        if self.finding is None and self._has_met_forgery:
            self._has_met_forgery = False
            await self.check_all()
        elif self.finding is not None:
            # The whole log tells better which record it is, unless all of it was made anew.
            _, better = await self._whole()
            self.finding = self.finding if better is None else better
            await self._note(self.finding)
        return self.finding

    async def check_again(self) -> Finding | None:
        """Read the whole log once more after a finding; return what is wrong now.

        Once nothing is, neither by its signatures nor by what was read of it before, this server
        vouches for its log again; that something was wrong stays known until it is accepted. That
        another log was put in place is not mended by anything.

        Raises:
            StorageError: the store cannot be read, or what was found cannot be kept.
        """
        if self.finding is None or self._is_another:
            return self.finding
        _, found = await self._whole()
        self.finding = found or await asyncio.to_thread(self._scrubber.read_all)
        # Where it could not be kept when it was found, the disk was full say.
        await self._note(self.finding)
        return self.finding

    async def _note(self, found: Finding | None) -> None:
        """Keep what was found, and what shows it, before anything of that is overwritten.

        Raises:
            StorageError: it cannot be kept; it is known to this process.
        """
        if found is None:
            return
        self.finding = self.finding or found
        is_new = self.standing is None or await self._contradiction() is not None
        if is_new and self._kept_before is not None:
            kept = self._kept_before
            await asyncio.to_thread(self._files.keep_evidence, "checkpoint", kept)
        await asyncio.to_thread(self._standing.note, found, clock.now_us())

    async def _contradiction(self) -> Finding | None:
        """Return how the log differs from the checkpoint that was found beside its store.

        By its state alone, and so at once; the records are read by ``check_all``.
        """
        anchor = self._anchor()
        if anchor is None:
            return None
        kept, head = parse_checkpoint(anchor), await self._tables.head()
        which = f"checkpoint {kept.number} that was kept beside the store"
        if kept.size > head.size:
            text = f"{head.size} records are there, but {kept.size} were at the {which}"
            return Finding(Verdict.CUT_OFF, head.size, head.size, 0, text)
        if await self._root(kept.size) != kept.root:
            text = f"the first {kept.size} records are not those of the {which}"
            return Finding(Verdict.CHANGED, 0, max(0, kept.size - 1), 0, text)
        before = max(0, kept.number - 1)
        rows = await asyncio.to_thread(self._tables.checkpoints_now, before, 1)
        if not any(_is_the_same(anchor, each) for each in rows):
            return Finding(Verdict.MISSING_CHECKPOINT, 0, 0, 0, f"the {which} is not there")
        return None

    async def _head_finding(self, head: AuditHead) -> Finding | None:
        """Return how the records differ from what the store says of their end."""
        last = max(0, head.size - 1)
        rows = await asyncio.to_thread(self._tables.records_now, last, 2)
        hashes = {number: leaf_hash(line) for number, line in rows}
        if head.size in hashes and (await self._tables.head()).size <= head.size:
            text = f"there is a record {head.size}, and the log has {head.size} records"
            return Finding(Verdict.INSERTED, head.size, head.size, 0, text)
        is_right = not head.size or hashes.get(last) == head.previous
        if is_right and await self._root(head.size) == head.frontier.root():
            return None
        text = "the end of the log is not what its records come to"
        return Finding(Verdict.CHANGED, last, last, 0, text)

    async def _root(self, size: int) -> bytes | None:
        """Return the root over the first records by the store's tree; None where it lacks some."""
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        wanted = [(level, (size >> level) - 1) for level in levels]
        try:
            return Frontier(size, await self._tables.subtrees(wanted)).root()
        except (StorageError, ValueError):
            return None

    def _anchor(self) -> Note | None:
        return readable_checkpoint(self._kept_before)

    def lines(self, closing: StoredCheckpoint) -> Iterator[bytes]:
        """Yield the lines of the log up to a checkpoint; blocks: for a thread."""
        return log_lines(self._tables, self.public_keys(), closing)

    # ---- keys -----------------------------------------------------------------------------------

    async def _make_first_key(self) -> None:
        origin = _ORIGIN + self._random_bytes(_ORIGIN_BYTES).hex()
        private = self._files.make_key(origin, self._random_bytes)
        public = public_key_of(origin, private)
        key, draft = StoredKey(str(public), None), Draft(KEY_MADE, fields={"key": str(public)})
        if await self._tables.announce_key(key, draft, after=None):
            self._keys = [key]
            self._private = private
            return
        # Another server on this store began the log meanwhile.
        self._files.drop_key(public)
        self._keys = await self._stored_keys()
        self._load_key()

    async def _follow_keys(self) -> None:
        """Notice where another server on this store has changed the key.

        Raises:
            OtherKeysError: nothing is signed for those.
            StorageError: the store cannot be read.
        """
        keys = await self._stored_keys()
        if len(keys) > len(self._keys):
            self._keys = keys
            self._files.keep_public(self.public_keys())
            self._load_key()

    async def _stored_keys(self) -> list[StoredKey]:
        """Return the keys that the store names, those that are known already the first ones.

        Raises:
            OtherKeysError: it holds others, or what is no key.
            StorageError: the store cannot be read.
        """
        known = self._keys
        keys = await self._tables.keys()
        before: PublicKey | None = None
        for number, each in enumerate(keys, 1):
            try:
                key = PublicKey.parse(each.key)
            except FormatError as error:
                raise self._other_keys(f"key {number} is damaged: {error}") from error
            if before is not None and not _is_handed_over(before, key, each.signature):
                # Who can write into the store alone can put one there. Believed, it would make
                # this server delete the private key that it has.
                raise self._other_keys(f"key {number} is none that the one before handed over to")
            before = key
        if keys[: len(known)] != known:
            raise self._other_keys("they are others than before: somebody changed them")
        return keys

    def _other_keys(self, what: str) -> OtherKeysError:
        self._has_met_forgery = True
        return OtherKeysError(
            f"the keys of the audit log in the store (audit_keys): {what}; "
            f"{self._files.public_path} has what they were"
        )

    async def _latest(self) -> StoredCheckpoint | None:
        """Return the latest checkpoint of all servers, which agents are shown from now on."""
        last = await self._tables.last_checkpoint()
        if last is not None and self._is_news(last):
            # It may be signed by a key that has just taken over.
            await self._follow_keys()
            self._show(last)
        return last

    def _is_news(self, checkpoint: StoredCheckpoint) -> bool:
        return self._shown is None or checkpoint.number > self._shown.checkpoint.number

    async def _keep(self, checkpoint: StoredCheckpoint | None) -> None:
        """Write it beside the store, once, if it was shown; while ``_signing`` is held."""
        shown = None if self._shown is None else self._shown.checkpoint
        if checkpoint is not None and checkpoint.number > self._kept_number and shown == checkpoint:
            if not self._kept_number:
                found = await self._contradiction()
                # The whole log tells better which record it is.
                better = None if found is None else (await self._whole())[1]
                await self._note(better or found)
            await asyncio.to_thread(self._files.keep_checkpoint, checkpoint.note)
            self._kept_number = checkpoint.number

    def _load_key(self) -> None:
        self._private = self.key_trouble = None
        try:
            self._private = self._files.load_key(self.public_keys()[-1])
        except StorageError as error:
            self.key_trouble = str(error)
        for old in self.public_keys()[:-1]:
            # A crash came between the handover, which that one has signed, and this.
            self._files.drop_key(old)

    def _compare_public(self) -> None:
        """Hold the store's keys against those that were kept beside it: another log has others."""
        kept, named = self._files.kept_public(), self.public_keys()
        if kept != named[: len(kept)]:
            text = f"the store names other keys than {self._files.public_path} did"
            self.finding = Finding(Verdict.WRONG_KEY, 0, 0, 0, text)
            self._is_another = True
            self._files.keep_evidence("public-keys", "".join(f"{key}\n" for key in kept))
            self._standing.note(self.finding, clock.now_us())

    def _show(self, checkpoint: StoredCheckpoint | None) -> None:
        if checkpoint is None or not self._is_news(checkpoint):
            return
        keys = self.public_keys()
        signer = _signer(keys, checkpoint)
        if signer is None:
            self._has_met_forgery = True
        else:
            self._roots[checkpoint.size] = parse_checkpoint(parse_note(checkpoint.note)).root
            if len(self._roots) > _ROOTS_MAX:
                del self._roots[next(iter(self._roots))]
            self._shown = Shown(
                checkpoint,
                str(keys[signer]),
                _handovers(self._keys[: signer + 1], AUDIT_HANDOVERS_MAX),
            )


def readable_checkpoint(text: str | None) -> Note | None:
    """Return the checkpoint of a text; None where it is none."""
    try:
        note = None if text is None else parse_note(text)
        if note is not None:
            parse_checkpoint(note)
    except FormatError:
        return None
    return note


def _signer(keys: Sequence[PublicKey], checkpoint: StoredCheckpoint) -> int | None:
    """Return which key signed a checkpoint of the store, the latest one; None where none did."""
    note = readable_checkpoint(checkpoint.note)
    if note is None:
        return None
    signed = parse_checkpoint(note)
    if (signed.number, signed.size) != (checkpoint.number, checkpoint.size):
        return None
    return max((i for i, key in enumerate(keys) if key.verifies(note)), default=None)


def _is_handed_over(before: PublicKey, key: PublicKey, signature: str | None) -> bool:
    try:
        note = parse_note(handover_note(key, signature or ""))
    except FormatError:
        return False
    return key.name == before.name and before.verifies(note)


def _is_the_same(anchor: Note, stored: StoredCheckpoint) -> bool:
    found = readable_checkpoint(stored.note)
    return found is not None and found.text == anchor.text


def _handovers(keys: Sequence[StoredKey], at_most: int) -> tuple[str, ...]:
    return tuple(
        handover_note(PublicKey.parse(each.key), each.signature)
        for each in keys[-at_most:]
        if each.signature is not None
    )
