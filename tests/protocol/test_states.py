"""The tables of states, over the full product of states and steps."""

import pytest

from needfire_protocol.errors import LocalProtocolError
from needfire_protocol.framing import FrameType
from needfire_protocol.states import (
    AGENT_TRANSITIONS,
    SERVER_TRANSITIONS,
    AgentState,
    Answer,
    Machine,
    ServerState,
    Step,
)

STEPS: tuple[Step, ...] = (*FrameType, *Answer)

AGENT_ALLOWED: dict[AgentState, dict[Step, AgentState]] = {
    AgentState.AWAIT_CHALLENGE: {
        FrameType.CHALLENGE: AgentState.AWAIT_CONFIRMATION,
        FrameType.REFUSAL: AgentState.CLOSED,
    },
    AgentState.AWAIT_CONFIRMATION: {
        FrameType.CONFIRMATION: AgentState.OPEN,
        FrameType.REFUSAL: AgentState.CLOSED,
    },
    AgentState.AWAIT_RESUMPTION_ANSWER: {
        FrameType.RESUMPTION_ANSWER: AgentState.OPEN,
        FrameType.REFUSAL: AgentState.CLOSED,
    },
    AgentState.OPEN: {FrameType.SEALED: AgentState.OPEN},
    AgentState.CLOSED: {},
}
SERVER_ALLOWED: dict[ServerState, dict[Step, ServerState]] = {
    ServerState.AWAIT_FIRST_FRAME: {
        FrameType.HELLO: ServerState.AWAIT_VERIFIER,
        FrameType.RESUME: ServerState.AWAIT_SESSION,
    },
    ServerState.AWAIT_VERIFIER: {Answer.CHALLENGE: ServerState.AWAIT_PROOF},
    ServerState.AWAIT_PROOF: {FrameType.PROOF: ServerState.AWAIT_VERIFICATION},
    ServerState.AWAIT_VERIFICATION: {Answer.CONFIRM: ServerState.OPEN},
    ServerState.AWAIT_SESSION: {Answer.RESUME: ServerState.AWAIT_RESUMPTION_PROOF},
    ServerState.AWAIT_RESUMPTION_PROOF: {FrameType.RESUMPTION_PROOF: ServerState.OPEN},
    ServerState.OPEN: {FrameType.SEALED: ServerState.OPEN},
    ServerState.CLOSED: {},
}


@pytest.mark.parametrize("state", AgentState)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_of_an_agent_in_every_state(state: AgentState, step: Step) -> None:
    machine = Machine(state, AGENT_TRANSITIONS, AgentState.CLOSED)
    allowed = AGENT_ALLOWED[state]
    if step in allowed:
        machine.advance(step)
        assert machine.state is allowed[step]
    else:
        with pytest.raises(LocalProtocolError):
            machine.advance(step)
        assert machine.state is state


@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_of_a_server_in_every_state(state: ServerState, step: Step) -> None:
    machine = Machine(state, SERVER_TRANSITIONS, ServerState.CLOSED)
    allowed = SERVER_ALLOWED[state]
    if step in allowed:
        machine.advance(step)
        assert machine.state is allowed[step]
    else:
        with pytest.raises(LocalProtocolError):
            machine.advance(step)
        assert machine.state is state


@pytest.mark.parametrize("state", AgentState)
def test_the_frames_that_an_agent_takes_are_those_of_the_table(state: AgentState) -> None:
    machine = Machine(state, AGENT_TRANSITIONS, AgentState.CLOSED)
    assert machine.allowed_frames() == set(AGENT_ALLOWED[state])


@pytest.mark.parametrize("state", ServerState)
def test_the_frames_that_a_server_takes_are_those_of_the_table(state: ServerState) -> None:
    machine = Machine(state, SERVER_TRANSITIONS, ServerState.CLOSED)
    assert machine.allowed_frames() == set(SERVER_ALLOWED[state]) & set(FrameType)


@pytest.mark.parametrize("state", ServerState)
def test_every_state_can_be_closed_and_closed_leads_nowhere(state: ServerState) -> None:
    machine = Machine(state, SERVER_TRANSITIONS, ServerState.CLOSED)
    machine.close()
    assert machine.is_closed
    assert machine.allowed_frames() == frozenset()


def test_messages_are_sealed_frames_of_an_open_connection_only() -> None:
    """Nothing sealed is taken before both sides have proved themselves, nothing plain after."""
    for transitions, is_open in (
        (AGENT_TRANSITIONS, AgentState.OPEN),
        (SERVER_TRANSITIONS, ServerState.OPEN),
    ):
        sealed = {state for state, step in transitions if step is FrameType.SEALED}
        taken_open = {step for state, step in transitions if state is is_open}
        assert sealed == {is_open}
        assert taken_open == {FrameType.SEALED}
