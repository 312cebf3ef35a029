"""Who makes room for whom, and that no bound can be passed or used up."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_server.anteroom import (
    PROOF_PATIENCE_S,
    SILENT_FACTOR,
    Anteroom,
    Visit,
    share_of_one_source,
)


@dataclass
class Door:
    """An anteroom, and who was sent away from it."""

    room: Anteroom = field(default_factory=Anteroom)
    gone: list[Visit] = field(default_factory=list)

    now_s: float = 100.0

    def visit(
        self, source: str, places: int, after_s: float = 2.0, *, is_familiar: bool = False
    ) -> Visit:
        self.now_s += after_s
        visit = Visit(source, lambda: self.gone.append(visit), is_familiar)
        self.room.enter(visit, places, self.now_s)
        return visit


@pytest.mark.parametrize(
    ("places", "share"), [(1, 4), (16, 4), (19, 4), (20, 5), (23, 5), (256, 64)]
)
def test_a_source_has_a_quarter_and_never_less_than_four(places: int, share: int) -> None:
    assert share_of_one_source(places) == share


@pytest.mark.parametrize("count", [15, 16, 17])
def test_silent_peers_of_many_sources_displace_the_oldest_beyond_the_limit(count: int) -> None:
    door = Door()
    visits = [door.visit(f"192.0.2.{number}", places=1) for number in range(count)]
    assert door.gone == visits[: max(0, count - 16)]
    assert len(door.room) == min(count, 16)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_silent_peers_of_one_source_displace_each_other_only(count: int) -> None:
    door = Door()
    bystander = door.visit("192.0.2.1", places=1)
    visits = [door.visit("192.0.2.2", places=1) for _ in range(count)]
    assert door.gone == visits[: max(0, count - 4)]
    assert bystander not in door.gone


@pytest.mark.parametrize(("after_s", "stays"), [(0.9, True), (1.0, True), (1.1, False)])
@pytest.mark.parametrize("is_one_source", [True, False])
def test_in_a_stampede_nobody_is_sent_away_who_has_just_come(
    after_s: float, stays: bool, is_one_source: bool
) -> None:
    door = Door()
    count = 4 if is_one_source else 16
    sources = ["192.0.2.1"] * 4 if is_one_source else [f"192.0.2.{each}" for each in range(16)]
    visits = [door.visit(source, places=1, after_s=0) for source in sources]
    newcomer = door.visit("192.0.2.1" if is_one_source else "192.0.2.99", 1, after_s)
    assert door.gone == [newcomer if stays else visits[0]]
    assert len(door.room) == count


def test_who_lingers_after_a_refusal_makes_room_at_once() -> None:
    door = Door()
    visits = [door.visit("192.0.2.1", places=1, after_s=0) for _ in range(4)]
    assert door.room.negotiate(visits[0], 1, door.now_s)
    others = [door.visit("192.0.2.1", places=1, after_s=0)]
    door.room.refused(visits[0])
    for visit in (*visits[1:], *others):
        door.room.leave(visit)
    for _ in range(4):
        door.visit("192.0.2.1", places=1, after_s=0)
    assert door.gone == [visits[0]]


def test_places_are_given_up_to_the_limit_and_again_after_somebody_left() -> None:
    door = Door()
    visits = [door.visit(f"192.0.2.{number}", places=2) for number in range(4)]
    assert [door.room.negotiate(visit, 2, 0.0) for visit in visits] == [True, True, False, False]
    door.room.leave(visits[0])
    assert door.room.negotiate(visits[2], 2, 0.0)
    door.room.refused(visits[1])
    assert door.room.negotiate(visits[3], 2, 0.0)
    assert not door.gone


@pytest.mark.parametrize("count", [3, 4, 5])
def test_one_source_gets_its_share_of_the_places(count: int) -> None:
    door = Door()
    granted = [
        door.room.negotiate(door.visit("192.0.2.1", places=10), 10, 0.0) for _ in range(count)
    ]
    assert sum(granted) == min(count, 4)
    assert door.room.negotiate(door.visit("192.0.2.2", places=10), 10, 0.0)


@pytest.mark.parametrize(
    ("waited_s", "makes_room"), [(PROOF_PATIENCE_S, False), (PROOF_PATIENCE_S + 0.001, True)]
)
def test_who_owes_its_proof_for_too_long_makes_room(waited_s: float, makes_room: bool) -> None:
    door = Door()
    debtor, newcomer = door.visit("192.0.2.1", places=1), door.visit("192.0.2.2", places=1)
    assert door.room.negotiate(debtor, 1, 0.0)
    debtor.owes_since_s = 100.0
    assert door.room.negotiate(newcomer, 1, 100.0 + waited_s) is makes_room
    assert door.gone == [debtor] * makes_room


def test_work_that_is_ours_is_never_thrown_away() -> None:
    door = Door()
    visit, newcomer = door.visit("192.0.2.1", places=1), door.visit("192.0.2.2", places=1)
    assert door.room.negotiate(visit, 1, 0.0)
    assert not door.room.negotiate(newcomer, 1, 1e9)


def test_who_was_sent_away_gets_no_place() -> None:
    door = Door()
    first = door.visit("192.0.2.1", places=1)
    for _ in range(4):
        door.visit("192.0.2.1", places=1)
    assert door.gone == [first]
    assert not door.room.negotiate(first, 1, 0.0)
    door.room.leave(first)


def test_for_the_familiar_a_stranger_makes_room_at_once() -> None:
    door = Door()
    known = door.visit("198.51.100.1", places=1, after_s=0, is_familiar=True)
    strangers = [door.visit(f"192.0.2.{each}", places=1, after_s=0) for each in range(15)]
    assert not door.gone
    door.visit("198.51.100.2", places=1, after_s=0, is_familiar=True)
    assert door.gone == strangers[:1]
    assert known not in door.gone


def test_among_the_familiar_alone_the_usual_patience_holds() -> None:
    door = Door()
    for each in range(16):
        door.visit(f"192.0.2.{each}", places=1, after_s=0, is_familiar=True)
    newcomer = door.visit("198.51.100.1", places=1, after_s=0.5, is_familiar=True)
    assert door.gone == [newcomer]


@pytest.mark.parametrize(("places", "open_to_all"), [(1, 1), (7, 7), (8, 7), (16, 14), (256, 224)])
def test_an_eighth_of_the_places_is_for_the_familiar(places: int, open_to_all: int) -> None:
    door = Door()
    strangers = [door.visit(f"192.0.{each // 250}.{each % 250}", places) for each in range(places)]
    granted = [door.room.negotiate(visit, places, 0.0) for visit in strangers]
    assert sum(granted) == open_to_all
    for number in range(places - open_to_all + 1):
        known = door.visit(f"198.51.100.{number}", places, is_familiar=True)
        assert door.room.negotiate(known, places, 0.0) is (number < places - open_to_all)


def test_room_is_made_by_strangers_only() -> None:
    door = Door()
    door.visit("198.51.100.1", places=1, is_familiar=True)
    stranger = door.visit("192.0.2.1", places=1)
    assert door.room.make_room()
    assert door.gone == [stranger]
    assert not door.room.make_room()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("enter", "negotiate", "refused", "leave")),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    max_size=120,
)


@given(steps=STEPS, places=st.integers(1, 6))
def test_no_order_of_visits_passes_a_bound_or_leaves_something_behind(
    steps: list[tuple[str, int, int]], places: int
) -> None:
    door = Door()
    visits: list[Visit] = []
    for now_s, (step, which, source) in enumerate(steps):
        if step == "enter":
            visits.append(door.visit(f"192.0.2.{source}", places))
        elif visits:
            visit = visits[which % len(visits)]
            if step == "negotiate" and door.room.negotiate(visit, places, now_s):
                visit.owes_since_s = now_s
            elif step == "refused":
                door.room.refused(visit)
            elif step == "leave":
                door.room.leave(visit)
        assert len(door.room._negotiating) <= places
        # Those who linger after a refusal have come out of places that are bounded themselves.
        assert len(door.room) <= places * (SILENT_FACTOR + 1)
        share = share_of_one_source(places)
        assert all(number <= share for number in door.room._negotiating_of.values())
        most = share_of_one_source(places * SILENT_FACTOR) + share
        assert all(number <= most for number in door.room._silent_of.values())
    for visit in visits:
        door.room.leave(visit)
    assert len(door.room) == 0
    assert not door.room._silent_of
    assert not door.room._negotiating_of
