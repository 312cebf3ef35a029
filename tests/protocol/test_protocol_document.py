"""docs/protocol.md says what the code does: every number, label, name and limit of it."""

from pathlib import Path

import pytest

from needfire_protocol import limits, srp
from needfire_protocol.event import FIELD_COUNT_MAX
from needfire_protocol.framing import FrameType
from needfire_protocol.handshake import AUTHENTICATION_REFUSAL
from needfire_protocol.handshake_frames import FRAME_TABLES
from needfire_protocol.keys import KeyLabel
from needfire_protocol.message_coding import AGENT_MESSAGES, MESSAGE_KINDS, SERVER_MESSAGES
from needfire_protocol.messages import RefusalCode
from needfire_protocol.names import CLIENT_NAME_BYTES_MAX
from needfire_protocol.seal import Direction, Suite
from needfire_protocol.states import (
    AGENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    AgentState,
    Answer,
    ServerState,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in DOCUMENT.splitlines()
    if line.startswith("| ")
]


def row(*first: str) -> list[str]:
    found = [cells for cells in ROWS if tuple(cells[: len(first)]) == first]
    assert len(found) == 1, f"{len(found)} rows begin with {first!r}"
    return found[0]


@pytest.mark.parametrize("frame_type", FrameType)
def test_every_frame_type_has_its_row(frame_type: FrameType) -> None:
    cells = row(f"{frame_type.value:#04x}", frame_type.name)
    assert int(cells[-1]) == frame_type.frame_bytes_max


@pytest.mark.parametrize("kind", FRAME_TABLES)
def test_every_plain_frame_has_as_many_fields_as_its_table(kind: type) -> None:
    frame_type, table = FRAME_TABLES[kind]
    assert len(row(frame_type.name)[1].split(" · ")) == len(table)


@pytest.mark.parametrize("label", KeyLabel)
def test_every_key_label_has_its_row(label: KeyLabel) -> None:
    row(f"`{label.value.decode()}`")


@pytest.mark.parametrize("direction", Direction)
def test_every_direction_is_named(direction: Direction) -> None:
    assert f'"{direction.value.decode()}"' in DOCUMENT


@pytest.mark.parametrize("suite", Suite)
def test_every_suite_has_its_row(suite: Suite) -> None:
    cipher = suite.name.replace("_", "-").replace("CHACHA20-POLY", "ChaCha20-Poly")
    row(str(suite.value), cipher)


@pytest.mark.parametrize("message", MESSAGE_KINDS)
def test_every_message_has_its_row(message: type) -> None:
    cells = row(f"{MESSAGE_KINDS[message]:#04x}", message.__name__)
    table = {**AGENT_MESSAGES, **SERVER_MESSAGES}[message]
    assert bool(table) == (len(cells[2]) > 1)
    for name in table:
        assert name in cells[2]


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_code_has_its_row(code: RefusalCode) -> None:
    row(str(code.value), code.name)


def test_the_refusal_of_strangers_is_given_byte_by_byte() -> None:
    assert f"`{AUTHENTICATION_REFUSAL.hex()}`" in DOCUMENT


def test_the_tables_of_states_are_the_code_s() -> None:
    told = {tuple(cells) for cells in ROWS if len(cells) == 3}
    for (state, step), following in SERVER_TRANSITIONS.items():
        frame = "nothing from the network" if isinstance(step, Answer) else step.name
        assert (state.value, frame, following.value) in told
    for (agent_state, step), agent_following in AGENT_TRANSITIONS.items():
        origin = "any of these" if step is FrameType.REFUSAL else agent_state.value
        assert (origin, step.name, agent_following.value) in told
    for state in (*AgentState, *ServerState):
        assert state.value in DOCUMENT


@pytest.mark.parametrize(
    ("what", "value"),
    [
        (
            "frame before authentication, and so what a stranger can make us keep",
            limits.HANDSHAKE_FRAME_BYTES_MAX,
        ),
        ("frame of an open connection", limits.SEALED_FRAME_BYTES_MAX),
        ("offers of versions, and of suites", limits.OFFERS_MAX),
        ("client name", CLIENT_NAME_BYTES_MAX),
        ("password", limits.PASSWORD_BYTES_MAX),
        ("reports in a batch", limits.REPORTS_PER_BATCH_MAX),
        ("body of a report", limits.REPORT_BODY_BYTES_MAX),
        ("reports of a batch together, with 64 bytes each", limits.REPORT_BATCH_BYTES_MAX),
        ("piece of a file", limits.CHUNK_BYTES_MAX),
        (
            "size that a transfer may announce (receivers have lower ones)",
            limits.TRANSFER_BYTES_MAX,
        ),
        ("word", limits.WORD_TEXT_MAX),
        ("text for people", limits.DETAIL_TEXT_MAX),
        ("checkpoint, or handover of keys, of the audit log", limits.AUDIT_NOTE_BYTES_MAX),
        ("public key of the audit log", limits.AUDIT_KEY_BYTES_MAX),
        ("handovers with a checkpoint", limits.AUDIT_HANDOVERS_MAX),
        ("hashes of a proof", limits.AUDIT_PROOF_HASHES_MAX),
        ("records under one key", limits.RECORDS_PER_KEY_MAX),
        ("fields of an event", FIELD_COUNT_MAX),
    ],
)
def test_every_limit_has_its_number(what: str, value: int) -> None:
    assert int(row(what)[1].split()[0]) == value


def test_the_overhead_of_a_report_is_the_documented_one() -> None:
    assert limits.REPORT_OVERHEAD_BYTES_MAX == 64


def test_the_pinned_release_is_named() -> None:
    assert f"release {srp.BACKEND.split()[1]}" in DOCUMENT
