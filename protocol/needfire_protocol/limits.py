"""How large, how many, how deep: every bound of the wire protocol, with its reason.

A stranger can make us keep one small frame and nothing else. Only who has proved to know the
secret of a name may send larger ones, and never one that is larger than a message needs.
"""

from typing import Final

from needfire_protocol.plain_classes import dataclass

__all__ = [
    "CHUNK_BYTES_MAX",
    "DETAIL_TEXT_MAX",
    "EVENT_DECODING",
    "FRAME_HEADER_BYTES",
    "HANDSHAKE_DECODING",
    "HANDSHAKE_FRAME_BYTES_MAX",
    "MESSAGE_DECODING",
    "OFFERS_MAX",
    "PASSWORD_BYTES_MAX",
    "RANDOM_BYTES",
    "RECORDS_PER_KEY_MAX",
    "RELAYED_DECODING",
    "RELAYS_MAX",
    "REPORTS_PER_BATCH_MAX",
    "REPORT_BATCH_BYTES_MAX",
    "REPORT_BODY_BYTES_MAX",
    "REPORT_OVERHEAD_BYTES_MAX",
    "SEALED_FRAME_BYTES_MAX",
    "SEALED_TAG_BYTES",
    "TRANSFER_BYTES_MAX",
    "WORD_TEXT_MAX",
    "DecodingLimits",
]


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """What one decoded value may hold at most. A limit of 0 means: none of that kind."""

    size_bytes_max: int
    """Of the encoded bytes; checked before anything else."""
    text_bytes_max: int
    binary_bytes_max: int
    array_items_max: int
    map_items_max: int
    depth_max: int
    """Containers inside each other; 1 is a flat array or map."""


FRAME_HEADER_BYTES: Final = 5
"""One byte of type, four of length."""

HANDSHAKE_FRAME_BYTES_MAX: Final = 2_048
"""Bytes of a frame before the peer is authenticated, its header included.

The largest one (the agent's hello: 384 bytes of SRP, 255 of name) has less than 800. This is all
the memory that a stranger can make us keep for a connection.
"""

SEALED_FRAME_BYTES_MAX: Final = 256 * 1024
"""Bytes of a frame of an open session, its header included: three chunks or large reports."""

SEALED_TAG_BYTES: Final = 16
"""Bytes that sealing adds to a message, in either suite."""

RANDOM_BYTES: Final = 32
"""Bytes of fresh randomness that each side gives to a handshake."""

RECORDS_PER_KEY_MAX: Final = 2**26
"""Records under one traffic key: 9,000 a second for the two hours of a session.

Far below 2**64 (the counter that is the nonce) and small enough for AES-GCM: 2**26 full records
are 2**40 blocks, an advantage of 2**-49 by the bound (blocks ** 2 / 2**129) of its proof.
"""

OFFERS_MAX: Final = 8
"""Versions, and suites, that a hello may offer."""

PASSWORD_BYTES_MAX: Final = 1_024
"""Bytes of UTF-8. A generated password has 43."""

WORD_TEXT_MAX: Final = 64
"""Characters of a version, a boot id, an outcome: words for programs, printable ASCII."""

DETAIL_TEXT_MAX: Final = 512
"""Characters of a text for people: the detail of a refusal or of a command's result."""

CHUNK_BYTES_MAX: Final = 64 * 1024
"""Bytes of one piece of a file."""

TRANSFER_BYTES_MAX: Final = 2**40
"""Bytes that a transfer may announce. Receivers have their own, lower limits for each kind."""

AUDIT_NOTE_BYTES_MAX: Final = 4_096
"""Bytes of a checkpoint or of a handover of keys; ours have some 400."""

AUDIT_KEY_BYTES_MAX: Final = 256
"""Bytes of a public key of the audit log, as text."""

AUDIT_HANDOVERS_MAX: Final = 32
"""Handovers that come with a checkpoint. An agent that was away for more keys than that asks its
administrator."""

AUDIT_PROOF_HASHES_MAX: Final = 64
"""Hashes of a proof: one a level of the tree, and one more. 2**63 records have no longer one."""

REPORTS_PER_BATCH_MAX: Final = 500
"""Reports in one frame: about 200 KiB of usual events, committed by the server together."""

REPORT_BODY_BYTES_MAX: Final = 64 * 1024
"""Bytes of one report's body. A change with two paths of PATH_MAX, escaped, has 34,000."""

REPORT_OVERHEAD_BYTES_MAX: Final = 64
"""Bytes that a report adds to its body in a frame: number, type, signature, headers (51)."""

REPORT_BATCH_BYTES_MAX: Final = SEALED_FRAME_BYTES_MAX - 256
"""Bytes that the reports of one batch may need, each ``len(body) + REPORT_OVERHEAD_BYTES_MAX``."""

HANDSHAKE_DECODING: Final = DecodingLimits(
    size_bytes_max=HANDSHAKE_FRAME_BYTES_MAX - FRAME_HEADER_BYTES - 1,
    text_bytes_max=255,
    binary_bytes_max=384,
    array_items_max=16,
    map_items_max=0,
    depth_max=2,
)
"""A plain frame: an array of fields, two of which are arrays of small numbers."""

MESSAGE_DECODING: Final = DecodingLimits(
    size_bytes_max=SEALED_FRAME_BYTES_MAX - FRAME_HEADER_BYTES - SEALED_TAG_BYTES - 2,
    text_bytes_max=4 * DETAIL_TEXT_MAX,
    binary_bytes_max=CHUNK_BYTES_MAX,
    array_items_max=REPORTS_PER_BATCH_MAX,
    map_items_max=0,
    depth_max=3,
)
"""A sealed message: an array of fields; a batch holds an array of reports, each an array."""

EVENT_DECODING: Final = DecodingLimits(
    size_bytes_max=REPORT_BODY_BYTES_MAX,
    text_bytes_max=REPORT_BODY_BYTES_MAX,
    binary_bytes_max=0,
    array_items_max=0,
    map_items_max=96,
    depth_max=2,
)
"""The body of a report of type 1: the map of an event, and in it the map of its fields."""

RELAYS_MAX: Final = 4
"""Servers that a report may pass before the one that takes it. It bounds what a relay that lies
about the way can do in a circle of servers."""

RELAYED_DECODING: Final = DecodingLimits(
    size_bytes_max=REPORT_BODY_BYTES_MAX,
    text_bytes_max=REPORT_BODY_BYTES_MAX,
    binary_bytes_max=16,
    array_items_max=2 * RELAYS_MAX,
    map_items_max=96,
    depth_max=3,
)
"""The body of a report of type 2: names, path, and an event as in the body of type 1. A way that is
too long by a few relays can still be read, and be told apart from nonsense."""

assert HANDSHAKE_FRAME_BYTES_MAX < SEALED_FRAME_BYTES_MAX
assert REPORT_BODY_BYTES_MAX + REPORT_OVERHEAD_BYTES_MAX <= REPORT_BATCH_BYTES_MAX
assert max(CHUNK_BYTES_MAX, REPORT_BODY_BYTES_MAX) <= MESSAGE_DECODING.binary_bytes_max
assert RECORDS_PER_KEY_MAX < 2**64
