"""Hypothesis strategies for every message that agent and server can send."""

from typing import Any

from hypothesis import strategies as st

from needfire_protocol.messages import (
    Acknowledge,
    Announce,
    AuditCheckpoint,
    AuditProof,
    AuditProofRequest,
    Command,
    CommandResult,
    FileBegin,
    FileChunk,
    FileEnd,
    FileKind,
    FileRefused,
    FileRequest,
    Goodbye,
    GoodbyeAccepted,
    Heartbeat,
    ProposalAccepted,
    ProposalBegin,
    ProposalChunk,
    ProposalEnd,
    ProposalRefused,
    Refusal,
    RefusalCode,
    Report,
    ReportBatch,
    SessionExpired,
    Welcome,
)

__all__ = ["AGENT_STRATEGIES", "SERVER_STRATEGIES", "agent_messages", "server_messages"]

_id_16 = st.binary(min_size=16, max_size=16)
_digest = st.binary(min_size=32, max_size=32)
_time_us = st.integers(0, 253_402_300_799_999_999)
_row = st.integers(1, 2**63 - 1)
_size = st.integers(0, 2**40)
_word = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
_detail = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
_chunk = st.binary(min_size=1, max_size=200)
_kind = st.sampled_from(FileKind)


@st.composite
def _reports(draw: st.DrawFn) -> tuple[Report, ...]:
    sequences = sorted(draw(st.sets(_row, min_size=1, max_size=4)))
    return tuple(
        Report(
            sequence,
            draw(st.integers(1, 255)),
            draw(st.binary(min_size=1, max_size=60)),
            draw(_digest),
        )
        for sequence in sequences
    )


AGENT_STRATEGIES: dict[type[Any], st.SearchStrategy[Any]] = {
    Announce: st.builds(
        Announce,
        _id_16,
        _word,
        _time_us,
        _word,
        st.sampled_from(["run", "init", "check", "update", "relay"]),
        st.booleans(),
    ),
    ReportBatch: st.builds(ReportBatch, _id_16, _reports()),
    Heartbeat: st.builds(Heartbeat, _time_us, st.integers(0, 2**64 - 1), st.none() | _time_us),
    Goodbye: st.builds(Goodbye, st.sampled_from(["exit", "suspend"])),
    FileRequest: st.builds(FileRequest, _kind),
    CommandResult: st.builds(CommandResult, _row, _word, _detail),
    ProposalBegin: st.builds(ProposalBegin, _size, _digest),
    ProposalChunk: st.builds(ProposalChunk, _chunk),
    ProposalEnd: st.just(ProposalEnd()),
    AuditProofRequest: st.builds(AuditProofRequest, _row, _row),
}
SERVER_STRATEGIES: dict[type[Any], st.SearchStrategy[Any]] = {
    Welcome: st.builds(Welcome, _time_us, st.integers(0, 2**32 - 1)),
    Acknowledge: st.builds(Acknowledge, _id_16, st.integers(0, 2**64 - 1)),
    FileBegin: st.builds(FileBegin, _kind, _size, _digest),
    FileChunk: st.builds(FileChunk, _chunk),
    FileEnd: st.just(FileEnd()),
    FileRefused: st.builds(FileRefused, _kind),
    Command: st.builds(Command, _row, st.sampled_from(["reload", "scan", "stop"])),
    GoodbyeAccepted: st.just(GoodbyeAccepted()),
    ProposalAccepted: st.builds(ProposalAccepted, _row),
    ProposalRefused: st.builds(ProposalRefused, _detail),
    SessionExpired: st.just(SessionExpired()),
    Refusal: st.builds(Refusal, st.sampled_from(RefusalCode), _detail),
    AuditCheckpoint: st.builds(
        AuditCheckpoint, _chunk, _chunk, st.lists(_chunk, max_size=3).map(tuple)
    ),
    AuditProof: st.builds(AuditProof, _row, _row, st.lists(_digest, max_size=5).map(tuple)),
}
agent_messages = st.one_of(*AGENT_STRATEGIES.values())
server_messages = st.one_of(*SERVER_STRATEGIES.values())
