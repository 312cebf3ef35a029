"""Every message survives its bytes; whatever else the bytes are, they give FormatError."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.codec import decode, encode
from needfire_protocol.errors import FormatError
from needfire_protocol.limits import (
    CHUNK_BYTES_MAX,
    DETAIL_TEXT_MAX,
    MESSAGE_DECODING,
    REPORT_BATCH_BYTES_MAX,
    REPORT_BODY_BYTES_MAX,
    REPORT_OVERHEAD_BYTES_MAX,
    REPORTS_PER_BATCH_MAX,
    SEALED_FRAME_BYTES_MAX,
    SEALED_TAG_BYTES,
)
from needfire_protocol.message_coding import (
    AGENT_MESSAGES,
    MESSAGE_KINDS,
    SERVER_MESSAGES,
    decode_message,
    encode_message,
)
from needfire_protocol.messages import (
    Announce,
    Command,
    CommandResult,
    FileChunk,
    FileKind,
    FileRequest,
    Goodbye,
    Heartbeat,
    ProposalBegin,
    ProposalEnd,
    Refusal,
    RefusalCode,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
)
from needfire_testkit.message_strategies import (
    AGENT_STRATEGIES,
    SERVER_STRATEGIES,
    agent_messages,
    server_messages,
)

ALL = {**AGENT_MESSAGES, **SERVER_MESSAGES}
ANNOUNCE = Announce(bytes(16), "boot", 1, "0.1.0", "run", False)
STREAM, SIGNATURE = bytes(16), bytes(32)


@given(agent_messages | server_messages)
def test_every_message_survives_its_bytes(message: Any) -> None:
    assert decode_message(encode_message(message), ALL) == message


@given(agent_messages)
def test_a_server_s_side_takes_an_agent_s_messages_and_an_agent_s_side_does_not(
    message: Any,
) -> None:
    encoded = encode_message(message)
    assert decode_message(encoded, AGENT_MESSAGES) == message
    with pytest.raises(FormatError, match="not allowed here"):
        decode_message(encoded, SERVER_MESSAGES)


@given(st.binary(max_size=200), st.sampled_from([None, *MESSAGE_KINDS.values()]))
def test_any_bytes_give_a_message_or_a_format_error(data: bytes, kind: int | None) -> None:
    if kind is not None:
        data = bytes((kind, 1)) + data
    try:
        message = decode_message(data, ALL)
    except FormatError:
        return
    assert decode_message(encode_message(message), ALL) == message


@given(st.sampled_from(list(ALL)), st.lists(st.none() | st.integers() | st.binary() | st.text()))
def test_any_fields_give_a_message_or_a_format_error(kind: Any, values: list[Any]) -> None:
    try:
        body = encode(values[: len(ALL[kind])])
    except FormatError:
        return
    try:
        message = decode_message(bytes((MESSAGE_KINDS[kind], 1)) + body, ALL)
    except FormatError:
        return
    assert type(message) is kind


def test_the_tables_name_exactly_the_fields_of_each_message_and_the_strategies_every_message() -> (
    None
):
    for kind, table in ALL.items():
        assert list(table) == [each.name for each in fields(kind)]
    assert set(AGENT_STRATEGIES) == set(AGENT_MESSAGES)
    assert set(SERVER_STRATEGIES) == set(SERVER_MESSAGES)


def test_the_kinds_on_the_wire_do_not_change() -> None:
    """Numbers are for ever: a new message takes the next one."""
    assert {message.__name__: number for message, number in MESSAGE_KINDS.items()} == {
        "Announce": 0x01,
        "ReportBatch": 0x02,
        "Heartbeat": 0x03,
        "Goodbye": 0x04,
        "FileRequest": 0x05,
        "CommandResult": 0x06,
        "ProposalBegin": 0x07,
        "ProposalChunk": 0x08,
        "ProposalEnd": 0x09,
        "AuditProofRequest": 0x0A,
        "Welcome": 0x41,
        "Acknowledge": 0x42,
        "FileBegin": 0x43,
        "FileChunk": 0x44,
        "FileEnd": 0x45,
        "FileRefused": 0x46,
        "Command": 0x47,
        "GoodbyeAccepted": 0x48,
        "ProposalAccepted": 0x49,
        "ProposalRefused": 0x4A,
        "SessionExpired": 0x4B,
        "Refusal": 0x4C,
        "AuditCheckpoint": 0x4D,
        "AuditProof": 0x4E,
    }
    assert [code.value for code in RefusalCode] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_message_is_kind_version_and_fields_in_order() -> None:
    assert encode_message(Heartbeat(7, 3, None)) == b"\x03\x01\x93\x07\x03\xc0"
    assert encode_message(SessionExpired()) == b"\x4b\x01\x90"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x03",
        b"\x03\x01",
        b"\x03\x02\x93\x07\x03\xc0",  # another version of the message
        b"\x03\x00\x93\x07\x03\xc0",
        b"\x0a\x01\x90",  # no such kind
        b"\x00\x01\x90",
        b"\x03\x01\x92\x07\x03",  # a field too few
        b"\x03\x01\x94\x07\x03\xc0\xc0",  # a field too many
        b"\x03\x01\x93\x07\x03\xc0\x00",  # a byte too many
        b"\x03\x01\x83\xa1a\x07\xa1b\x03\xa1c\xc0",  # a map
        b"\x03\x01\xc3",
        b"\x03\x01\x93\xc3\x03\xc0",  # true is not 1
        b"\x03\x01\x93\x07\xcb\x40\x08\x00\x00\x00\x00\x00\x00\xc0",  # 3.0 is not 3
    ],
)
def test_bytes_that_are_almost_a_message_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_message(data, ALL)


BAD_FIELDS: list[tuple[Any, dict[str, Any]]] = [
    (ANNOUNCE, {"instance": bytes(15)}),
    (ANNOUNCE, {"instance": bytes(17)}),
    (ANNOUNCE, {"instance": "x" * 16}),
    (ANNOUNCE, {"boot_id": ""}),
    (ANNOUNCE, {"boot_id": "x" * 65}),
    (ANNOUNCE, {"boot_id": "line\nbreak"}),
    (ANNOUNCE, {"boot_id": "ä"}),
    (ANNOUNCE, {"boot_id": b"boot"}),
    (ANNOUNCE, {"started_us": -1}),
    (ANNOUNCE, {"started_us": 253_402_300_800_000_000}),
    (ANNOUNCE, {"started_us": True}),
    (ANNOUNCE, {"version": "\x1b[31m"}),
    (ANNOUNCE, {"mode": "serve"}),
    (ANNOUNCE, {"mode": 1}),
    (ANNOUNCE, {"prior_exit_pending": 1}),
    (ANNOUNCE, {"prior_exit_pending": None}),
    (Heartbeat(1, 1, 1), {"spool_reports": -1}),
    (Heartbeat(1, 1, 1), {"spool_reports": 2**64}),
    (Heartbeat(1, 1, 1), {"spool_oldest_us": -1}),
    (Goodbye("exit"), {"reason": "EXIT"}),
    (FileRequest(FileKind.BASELINE), {"kind": "/etc/passwd"}),
    (FileRequest(FileKind.BASELINE), {"kind": None}),
    (CommandResult(1, "done", ""), {"command_id": 0}),
    (CommandResult(1, "done", ""), {"command_id": 2**63}),
    (ProposalBegin(1, SIGNATURE), {"size_bytes": 2**40 + 1}),
    (ProposalBegin(1, SIGNATURE), {"sha256": bytes(31)}),
    (FileChunk(b"x"), {"data": b""}),
    (FileChunk(b"x"), {"data": bytes(CHUNK_BYTES_MAX + 1)}),
    (Welcome(1, 1), {"session_lifetime_s": 2**32}),
    (Command(1, "scan"), {"verb": "rm -rf /"}),
    (Refusal(RefusalCode.BUSY, ""), {"code": 9}),
    (Refusal(RefusalCode.BUSY, ""), {"code": 0}),
    (Refusal(RefusalCode.BUSY, ""), {"code": "BUSY"}),
]


@pytest.mark.parametrize(("good", "changes"), BAD_FIELDS, ids=range(len(BAD_FIELDS)))
def test_a_field_out_of_bounds_is_refused_by_encoder_and_decoder(
    good: Any, changes: dict[str, Any]
) -> None:
    assert decode_message(encode_message(good), ALL) == good
    bad = replace(good, **changes)
    with pytest.raises(FormatError):
        encode_message(bad)
    values = []
    for each in fields(bad):
        value = getattr(bad, each.name)
        values.append(value.value if isinstance(value, (FileKind, RefusalCode)) else value)
    try:
        body = encode(values)
    except FormatError:
        return  # has no encoding at all
    with pytest.raises(FormatError):
        decode_message(bytes((MESSAGE_KINDS[type(bad)], 1)) + body, ALL)


def test_a_chunk_may_have_its_limit() -> None:
    chunk = FileChunk(bytes(CHUNK_BYTES_MAX))
    assert decode_message(encode_message(chunk), ALL) == chunk


def test_a_report_that_was_decoded_cannot_be_changed() -> None:
    sent = batch(Report(1, 1, b"body", bytes(32)))
    received: Any = decode_message(encode_message(sent), AGENT_MESSAGES)
    assert received == sent
    with pytest.raises(FrozenInstanceError):
        received.reports[0].body = b"other"


def batch(*reports: Report) -> ReportBatch:
    return ReportBatch(STREAM, reports)


def report(sequence: int, body: bytes = b"x") -> Report:
    return Report(sequence, 1, body, SIGNATURE)


@pytest.mark.parametrize(
    ("count", "fits"), [(0, False), (1, True), (499, True), (500, True), (501, False)]
)
def test_a_batch_has_one_to_500_reports(count: int, fits: bool) -> None:
    message = batch(*(report(number) for number in range(1, count + 1)))
    if fits:
        assert decode_message(encode_message(message), ALL) == message
    else:
        with pytest.raises(FormatError, match="1 to 500"):
            encode_message(message)
    assert REPORTS_PER_BATCH_MAX == 500


@pytest.mark.parametrize(("beyond", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_body_has_at_most_64_kib(beyond: int, fits: bool) -> None:
    message = batch(report(1, bytes(REPORT_BODY_BYTES_MAX + beyond)))
    if fits:
        assert decode_message(encode_message(message), ALL) == message
    else:
        with pytest.raises(FormatError):
            encode_message(message)


@pytest.mark.parametrize(("beyond", "fits"), [(-1, True), (0, True), (1, False)])
def test_the_size_of_a_batch_is_limited_and_what_is_within_fits_a_frame(
    beyond: int, fits: bool
) -> None:
    room = REPORT_BATCH_BYTES_MAX - 4 * REPORT_OVERHEAD_BYTES_MAX + beyond
    sizes = [65_500, 65_500, 65_500, room - 3 * 65_500]
    message = batch(*(report(2**62 + n, bytes(size)) for n, size in enumerate(sizes)))
    if fits:
        assert len(encode_message(message)) + 5 + SEALED_TAG_BYTES <= SEALED_FRAME_BYTES_MAX
    else:
        with pytest.raises(FormatError, match="exceed the limit"):
            encode_message(message)


@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=500))
def test_a_batch_that_keeps_the_documented_size_always_fits_a_frame(sizes: list[int]) -> None:
    while sum(size + REPORT_OVERHEAD_BYTES_MAX for size in sizes) > REPORT_BATCH_BYTES_MAX:
        sizes.pop()
    message = batch(*(report(2**62 + n, bytes(size)) for n, size in enumerate(sizes)))
    assert len(encode_message(message)) + 5 + SEALED_TAG_BYTES <= SEALED_FRAME_BYTES_MAX


@pytest.mark.parametrize("sequences", [(1, 1), (2, 1), (1, 3, 2), (5, 6, 6)])
def test_reports_of_a_batch_are_in_ascending_sequence(sequences: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match="ascending"):
        encode_message(batch(*(report(number) for number in sequences)))


@pytest.mark.parametrize(
    "bad",
    [
        [1, 1, b"x"],
        [1, 1, b"x", SIGNATURE, None],
        [0, 1, b"x", SIGNATURE],
        [2**63, 1, b"x", SIGNATURE],
        [1, 0, b"x", SIGNATURE],
        [1, 256, b"x", SIGNATURE],
        [1, True, b"x", SIGNATURE],
        [1, 1, b"", SIGNATURE],
        [1, 1, "x", SIGNATURE],
        [1, 1, b"x", SIGNATURE[1:]],
        [1, 1, b"x", SIGNATURE + b"x"],
        [1, 1, b"x", None],
        {},
        None,
    ],
    ids=range(14),
)
def test_a_malformed_report_is_refused(bad: object) -> None:
    encoded = bytes((MESSAGE_KINDS[ReportBatch], 1)) + encode([STREAM, [bad]])
    with pytest.raises(FormatError):
        decode_message(encoded, ALL)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([STREAM, [[1, 1, b"x", [[]]]]], "nested deeper than 3"),
        ([[[[[]]]]], "nested deeper than 3"),
        ([STREAM, [[1, 1, b"x", float("nan")]]], "not finite"),
        ([STREAM, [[1, 1, b"x", None]]], "field reports"),
        ([[[]]], "expected an array of 2 fields"),
    ],
    ids=range(5),
)
def test_what_no_message_may_hold_is_told_before_what_a_field_may_not(
    fields: list[object], told: str
) -> None:
    with pytest.raises(FormatError, match=told):
        decode_message(bytes((MESSAGE_KINDS[ReportBatch], 1)) + encode(fields), ALL)


@given(st.text(max_size=600))
def test_a_text_for_people_arrives_as_one_bounded_printable_line(text: str) -> None:
    received = decode_message(encode_message(CommandResult(1, "done", text)), ALL)
    assert isinstance(received, CommandResult)
    assert len(received.detail) <= DETAIL_TEXT_MAX
    assert received.detail.isprintable()


@pytest.mark.parametrize("length", [DETAIL_TEXT_MAX - 1, DETAIL_TEXT_MAX, DETAIL_TEXT_MAX + 1])
def test_a_text_for_people_is_cut_at_its_limit(length: int) -> None:
    received = decode_message(encode_message(CommandResult(1, "done", "x" * length)), ALL)
    assert isinstance(received, CommandResult)
    assert len(received.detail) == min(length, DETAIL_TEXT_MAX)


def test_a_text_for_people_that_is_not_printable_is_made_so_by_who_receives_it() -> None:
    encoded = bytes((MESSAGE_KINDS[CommandResult], 1)) + encode([1, "done", "a\nb\x1b[31m\u202e"])
    received = decode_message(encoded, ALL)
    assert isinstance(received, CommandResult)
    assert received.detail == r"a\x0ab\x1b[31m\xe2\x80\xae"


def test_the_decoding_limits_leave_room_for_what_the_tables_allow() -> None:
    assert decode(encode([["x" * DETAIL_TEXT_MAX]]), limits=MESSAGE_DECODING)
    assert encode_message(ProposalEnd()) == b"\x09\x01\x90"
