"""The tree's hashes and proofs, against published vectors and against RFC 9162 read literally."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
)

# The leaves and roots of the test data of Certificate Transparency and Go's transparency log.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


class Tree:
    """A tree in memory that gives the hashes of its full subtrees."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves

    def subtree(self, level: int, index: int) -> bytes:
        width = 1 << level
        part = self.leaves[index * width : (index + 1) * width]
        assert len(part) == width
        return tree_hash(part)


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def test_the_roots_of_the_published_leaves_are_the_published_ones() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == root


def test_the_published_inclusion_proof_is_made_and_holds() -> None:
    proof = inclusion_proof(5, 8, Tree(LEAVES).subtree)
    assert [each.hex() for each in proof] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert is_included(leaf_hash(LEAVES[5]), 5, 8, bytes.fromhex(ROOTS[7]), proof)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            1,
            8,
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ],
)
def test_the_published_consistency_proofs_are_made_and_hold(
    old: int, new: int, expected: list[str]
) -> None:
    proof = consistency_proof(old, new, Tree(LEAVES[:new]).subtree)
    assert [each.hex() for each in proof] == expected
    old_root, new_root = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1])
    assert is_consistent(old, old_root, new, new_root, proof)


@given(st.integers(0, 70))
def test_the_frontier_s_root_is_that_of_the_definition(count: int) -> None:
    frontier = Frontier()
    for leaf in numbered(count):
        frontier.append(leaf_hash(leaf))
    assert frontier.root() == tree_hash(numbered(count))
    assert Frontier(frontier.size, frontier.hashes).root() == frontier.root()


@given(st.integers(0, 70))
def test_a_leaf_completes_the_subtrees_that_end_with_it(count: int) -> None:
    tree, frontier = Tree(numbered(count + 1)), Frontier()
    for leaf in numbered(count):
        frontier.append(leaf_hash(leaf))
    done = frontier.complete(leaf_hash(str(count).encode()))
    assert [(level, index) for level, index, _ in done] == [
        (level, count >> level) for level in range(1, 8) if (count + 1) % (1 << level) == 0
    ]
    assert all(each == tree.subtree(level, index) for level, index, each in done)
    assert frontier.root() == tree_hash(numbered(count + 1))
    assert frontier.size == count + 1


@given(st.data())
def test_every_inclusion_proof_holds_and_for_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 66))
    index = data.draw(st.integers(0, size - 1))
    leaves = numbered(size)
    proof = inclusion_proof(index, size, Tree(leaves).subtree)
    leaf, root = leaf_hash(leaves[index]), tree_hash(leaves)
    assert is_included(leaf, index, size, root, proof)
    assert not is_included(leaf_hash(b"another"), index, size, root, proof)
    assert not is_included(leaf, index, size, EMPTY_ROOT, proof)
    assert not is_included(leaf, index, size, root, [*proof, bytes(32)])
    assert not is_included(leaf, size, size, root, proof)
    if proof:
        assert not is_included(leaf, index, size, root, proof[:-1])
        assert not is_included(leaf, index, size, root, [bytes(32), *proof[1:]])
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index)) if size > 1 else -1
    assert not is_included(leaf, other, size, root, proof)


@given(st.data())
def test_every_consistency_proof_holds_and_for_no_other_history(data: st.DataObject) -> None:
    new = data.draw(st.integers(0, 66))
    old = data.draw(st.integers(0, new))
    leaves = numbered(new)
    proof = consistency_proof(old, new, Tree(leaves).subtree)
    old_root, new_root = tree_hash(leaves[:old]), tree_hash(leaves)
    assert is_consistent(old, old_root, new, new_root, proof)
    assert not is_consistent(old, old_root, new, new_root, [*proof, bytes(32)])
    if 0 < old < new:
        position = data.draw(st.integers(0, old - 1))
        rewritten = [*leaves[:position], b"rewritten", *leaves[position + 1 :]]
        assert not is_consistent(old, tree_hash(rewritten[:old]), new, new_root, proof)
        other = consistency_proof(old, new, Tree(rewritten).subtree)
        assert not is_consistent(old, old_root, new, tree_hash(rewritten), other)
        assert not is_consistent(old, old_root, new, new_root, [])
    assert not is_consistent(new + 1, new_root, new, new_root, proof)


@pytest.mark.parametrize(("size", "hashes"), [(1, 0), (0, 1), (-1, 0), (6, 3)])
def test_a_frontier_that_cannot_be_is_refused(size: int, hashes: int) -> None:
    with pytest.raises(ValueError):
        Frontier(size, [bytes(32)] * hashes)


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_there_is_no_inclusion_proof_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError):
        inclusion_proof(index, size, Tree(numbered(4)).subtree)
