"""The signed audit log: its records, its Merkle tree, its signatures, and how all of it is checked."""
