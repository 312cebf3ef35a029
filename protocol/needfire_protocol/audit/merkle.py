"""Merkle tree hashes and proofs, as RFC 6962 and RFC 9162 section 2.1 define them.

A tree of ``size`` leaves is a fixed shape: every function here takes sizes and positions from
callers that may have them from a peer, and gives False for whatever does not fit. Nothing here
keeps more than one hash a level.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "Subtree",
    "consistency_proof",
    "inclusion_proof",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "node_hash",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Subtree: TypeAlias = Callable[[int, int], bytes]
"""Gives the hash of the full subtree of ``2**level`` leaves that begins at ``index * 2**level``."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf. Its prefix keeps a leaf from passing for an inner node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree as far as it must be known to go on: the roots of its full subtrees, largest first."""

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Take up a tree where ``hashes`` left it.

        Raises:
            ValueError: so many hashes do not belong to a tree of this size.
        """
        if size < 0 or len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} full subtrees")
        if not {HASH_BYTES}.issuperset(map(len, hashes)):
            raise ValueError(f"a hash has {HASH_BYTES} bytes")
        self._size = size
        self._hashes = list(hashes)

    @property
    def size(self) -> int:
        """Leaves."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """One hash for each bit of the size that is set, from the highest on."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        index = self._size
        while index & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            index >>= 1
        self._hashes.append(leaf)
        self._size += 1

    def complete(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash; return (level, index, hash) of each inner node that it completes."""
        index, level, hashes = self._size, 0, self._hashes
        nodes = []
        while index & 1:
            leaf = node_hash(hashes.pop(), leaf)
            index >>= 1
            level += 1
            nodes.append((level, index, leaf))
        hashes.append(leaf)
        self._size += 1
        return nodes

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for each in reversed(self._hashes[:-1]):
            root = node_hash(each, root)
        return root

    def copy(self) -> "Frontier":
        """Return another one that goes its own way."""
        return Frontier(self._size, self._hashes)


# ---- proofs: what the log answers -----------------------------------------------------------


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return what shows that leaf ``index`` is in the tree of ``size`` leaves (RFC 9162 2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    return _path(index, 0, size, subtree)


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Return what shows that the tree of ``old`` leaves is the beginning of the new one.

    RFC 9162 2.1.4.1. Empty where there is nothing to show.

    Raises:
        ValueError: the sizes do not fit.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in (0, new):
        return []
    return _sub_proof(old, 0, new, subtree, is_whole=True)


def _path(index: int, begin: int, size: int, subtree: Subtree) -> list[bytes]:
    if size == 1:
        return []
    left = _split(size)
    if index < left:
        return [
            *_path(index, begin, left, subtree),
            _range_hash(begin + left, size - left, subtree),
        ]
    return [
        *_path(index - left, begin + left, size - left, subtree),
        _range_hash(begin, left, subtree),
    ]


def _sub_proof(old: int, begin: int, size: int, subtree: Subtree, *, is_whole: bool) -> list[bytes]:
    if old == size:
        return [] if is_whole else [_range_hash(begin, size, subtree)]
    left = _split(size)
    if old <= left:
        return [
            *_sub_proof(old, begin, left, subtree, is_whole=is_whole),
            _range_hash(begin + left, size - left, subtree),
        ]
    return [
        *_sub_proof(old - left, begin + left, size - left, subtree, is_whole=False),
        _range_hash(begin, left, subtree),
    ]


def _range_hash(begin: int, size: int, subtree: Subtree) -> bytes:
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtree(level, begin >> level)
    left = _split(size)
    return node_hash(
        _range_hash(begin, left, subtree), _range_hash(begin + left, size - left, subtree)
    )


def _split(size: int) -> int:
    """The largest power of two below the size: where a tree divides."""
    return 1 << ((size - 1).bit_length() - 1)


# ---- proofs: how they are checked -----------------------------------------------------------


def is_included(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """True where the proof shows that the leaf stands there (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            found = node_hash(each, found)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            found = node_hash(found, each)
        position >>= 1
        last >>= 1
    return last == 0 and found == root


def is_consistent(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """True where the proof shows that nothing of the old tree is changed (RFC 9162 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        # Everything goes on from nothing.
        return not proof and old_root == EMPTY_ROOT
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    found_old = found_new = hashes[0]
    for each in hashes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            found_old, found_new = node_hash(each, found_old), node_hash(each, found_new)
            while position and not position & 1:
                position >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, each)
        position >>= 1
        last >>= 1
    return last == 0 and found_old == old_root and found_new == new_root
