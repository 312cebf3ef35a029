"""An agent that has seen a server's audit log notices when it is shown another one."""

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from needfire_client.witness import Witness
from needfire_protocol.audit.merkle import consistency_proof
from needfire_protocol.audit.note import parse_checkpoint, parse_note
from needfire_protocol.messages import AuditCheckpoint, AuditProof, AuditProofRequest
from needfire_testkit.audit_logs import AuditLog, private_key, subtree_of

DAY_S = 24 * 3600.0


@dataclass
class Agent:
    """A witness, and what it reported."""

    directory: Path
    reports: list[dict[str, Any]] = field(default_factory=list)
    mended: list[dict[str, Any]] = field(default_factory=list)
    now_s: float = 1_000.0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.witness = Witness(
            self.directory / "audit-checkpoint", self._report, clock=lambda: self.now_s
        )

    def _report(self, code: str, **fields: Any) -> None:
        told = {"AUDIT_LOG_INCONSISTENT": self.reports, "AUDIT_LOG_CONSISTENT": self.mended}
        told[code].append(fields)

    def kept_size(self) -> int:
        return parse_checkpoint(parse_note((self.directory / "audit-checkpoint").read_text())).size


def shown(log: AuditLog, number: int = -1) -> AuditCheckpoint:
    handovers = tuple(each.encode() for each in log.handovers)
    return AuditCheckpoint(log.notes[number].encode(), str(log.key).encode(), handovers)


def proof(log: AuditLog, request: AuditProofRequest) -> AuditProof:
    hashes = consistency_proof(request.old, request.new, subtree_of(log.records))
    return AuditProof(request.old, request.new, tuple(hashes))


def grow(log: AuditLog, count: int = 7) -> None:
    for _ in range(count):
        log.add()
    log.checkpoint()


def visit(agent: Agent, log: AuditLog) -> None:
    """The server shows its latest checkpoint, and proves what it is asked to."""
    request = agent.witness.hear(shown(log))
    if request is not None:
        assert isinstance(request, AuditProofRequest)
        agent.witness.hear(proof(log, request))


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def test_a_log_that_grows_is_followed_across_restarts(agent: Agent) -> None:
    log = AuditLog()
    for _ in range(10):
        grow(log)
        visit(agent, log)
        agent.restart()
        visit(agent, log)
        assert agent.kept_size() == log.frontier.size
    assert agent.reports == []
    assert stat.S_IMODE((agent.directory / "audit-checkpoint").stat().st_mode) == 0o600


def test_a_log_that_was_cut_off_is_noticed_once(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    old = shown(log)
    grow(log)
    visit(agent, log)
    agent.restart()
    agent.witness.hear(old)
    agent.witness.hear(old)
    (told,) = agent.reports
    assert "cut off" in told["reason"]
    assert (told["size"], told["kept_size"]) == (8, 15)
    evidence = json.loads(Path(told["evidence"]).read_text())
    assert (evidence["kept"], evidence["shown"]) == (log.notes[1], log.notes[0])


def test_a_history_that_was_rewritten_and_signed_anew_is_noticed(agent: Agent) -> None:
    log, rewritten = AuditLog(), AuditLog(word="rewritten")
    grow(log)
    visit(agent, log)
    grow(rewritten, 20)
    visit(agent, rewritten)
    (told,) = agent.reports
    assert "goes on" in told["reason"]
    grow(rewritten)
    visit(agent, rewritten)
    assert len(agent.reports) == 1
    # And the next rewriting is noticed too.
    grow(log, 60)
    visit(agent, log)
    assert len(agent.reports) == 2


def test_another_history_of_the_same_size_is_noticed(agent: Agent) -> None:
    log, rewritten = AuditLog(), AuditLog(word="rewritten")
    grow(log)
    grow(rewritten)
    visit(agent, log)
    visit(agent, rewritten)
    assert "rewritten" in agent.reports[0]["reason"]


def test_a_new_key_counts_only_with_the_word_of_the_old_one(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    for number in (2, 3):
        log.hand_over(private_key(number))
        grow(log)
    visit(agent, log)
    assert agent.reports == []
    agent.restart()
    forged = AuditLog()
    forged.private = private_key(66)
    forged.hand_over(private_key(67))
    grow(forged, 100)
    visit(agent, forged)
    assert "hand over" in agent.reports[0]["reason"]


def test_another_log_is_noticed(agent: Agent) -> None:
    log, other = AuditLog(), AuditLog(origin="needfire.audit/other")
    grow(log)
    grow(other)
    visit(agent, log)
    visit(agent, other)
    assert "another log" in agent.reports[0]["reason"]


def test_a_server_that_proves_nothing_is_noticed(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    grow(log)
    request = agent.witness.hear(shown(log))
    assert request is not None
    agent.witness.hear(AuditProof(request.old, request.new, ()))
    assert "has no proof" in agent.reports[0]["reason"]


def refuse(agent: Agent, log: AuditLog) -> None:
    """The server shows a new checkpoint and does not vouch for it."""
    grow(log)
    request = agent.witness.hear(shown(log))
    assert request is not None
    agent.witness.hear(AuditProof(request.old, request.new, ()))


def test_a_server_that_does_not_vouch_for_its_log_is_told_once_a_day(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    for _ in range(50):
        agent.now_s += 60
        refuse(agent, log)
        agent.restart()
    (told,) = agent.reports
    assert told["kept_size"] == agent.kept_size() == 8
    agent.now_s += DAY_S - 1
    refuse(agent, log)
    assert len(agent.reports) == 1
    agent.now_s += 1
    refuse(agent, log)
    refuse(agent, log)
    first, again = agent.reports
    # It is the same thing, with the evidence that is there.
    assert (again["evidence"], again["kept_size"]) == (first["evidence"], 8)
    assert len(list((agent.directory / "audit-evidence").iterdir())) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_server_that_vouches_for_its_log_again_ends_it(agent: Agent, is_restarted: bool) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    refuse(agent, log)
    refuse(agent, log)
    if is_restarted:
        agent.restart()
    grow(log)
    visit(agent, log)
    assert agent.kept_size() == log.frontier.size
    assert agent.mended == [{"size": log.frontier.size, "kept_size": 8}]
    grow(log)
    visit(agent, log)
    assert (len(agent.reports), len(agent.mended)) == (1, 1)
    # The next time is another one.
    refuse(agent, log)
    assert len(agent.reports) == 2
    assert agent.reports[0]["evidence"] != agent.reports[1]["evidence"]


def test_a_contradiction_after_no_proof_is_told_and_followed(agent: Agent) -> None:
    log, rewritten = AuditLog(), AuditLog(word="rewritten")
    grow(log)
    visit(agent, log)
    refuse(agent, log)
    grow(rewritten, 40)
    visit(agent, rewritten)
    assert len(agent.reports) == 2
    assert "nothing proves" in agent.reports[1]["reason"]
    grow(rewritten)
    visit(agent, rewritten)
    assert (len(agent.reports), agent.mended) == (2, [])
    assert agent.kept_size() == rewritten.frontier.size


def test_a_server_that_never_answers_is_noticed(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    for _ in range(3):
        grow(log)
        assert agent.witness.hear(shown(log)) is not None
        assert agent.reports == []
    assert agent.witness.hear(shown(log)) is None
    assert "does not prove" in agent.reports[0]["reason"]


def test_answers_to_nothing_and_to_earlier_questions_do_not_count(agent: Agent) -> None:
    log = AuditLog()
    grow(log)
    agent.witness.hear(AuditProof(1, 2, ()))
    visit(agent, log)
    agent.witness.hear(AuditProof(1, 2, ()))
    grow(log)
    first = agent.witness.hear(shown(log))
    grow(log)
    second = agent.witness.hear(shown(log))
    assert first is not None
    assert second is not None
    agent.witness.hear(proof(log, first))
    assert agent.kept_size() == 8
    agent.witness.hear(proof(log, second))
    assert (agent.kept_size(), agent.reports) == (log.frontier.size, [])


@pytest.mark.parametrize(
    ("note", "key"), [(b"\xff", None), (b"text", None), (None, b"no key"), (None, b"\xff")]
)
def test_what_is_no_checkpoint_is_told(agent: Agent, note: bytes | None, key: bytes | None) -> None:
    log = AuditLog()
    grow(log)
    right = shown(log)
    agent.witness.hear(AuditCheckpoint(note or right.note, key or right.key, ()))
    assert "is none" in agent.reports[0]["reason"]
    visit(agent, log)
    assert agent.kept_size() == 8


def test_what_is_no_checkpoint_is_told_once_a_day(agent: Agent) -> None:
    for count in (1, 2):
        for _ in range(10):
            agent.witness.hear(AuditCheckpoint(b"none", b"none", ()))
        assert len(agent.reports) == count
        agent.now_s += DAY_S
    assert len(list((agent.directory / "audit-evidence").iterdir())) == 1


def test_evidence_is_bounded(agent: Agent) -> None:
    for number in range(40):
        other = AuditLog(origin=f"needfire.audit/{number}")
        grow(other)
        visit(agent, other)
    assert len(agent.reports) == 39
    assert len(list((agent.directory / "audit-evidence").iterdir())) == 16


@pytest.mark.parametrize("name", ["audit-checkpoint", "audit-keys"])
def test_a_damaged_file_is_as_none(agent: Agent, name: str) -> None:
    log = AuditLog()
    grow(log)
    visit(agent, log)
    (agent.directory / name).write_bytes(b"\xff damaged")
    agent.restart()
    visit(agent, log)
    assert (agent.reports, agent.kept_size()) == ([], 8)
