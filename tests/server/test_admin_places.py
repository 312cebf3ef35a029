"""Nobody keeps the administrators out of the admin socket by holding connections open."""

import pytest

from needfire_server.admin.places import Places, Standing
from needfire_server.admin.requests import AdminRefusedError

MEMBERS = 8
SHARE = 2


class Hall:
    """Places, and whose connections had to end."""

    def __init__(self) -> None:
        self.places = Places(MEMBERS)
        self.ended: list[str] = []
        self.now_s = 0.0

    def take(
        self, name: str, uid: int, standing: Standing = Standing.MEMBER, *, is_busy: bool = False
    ) -> None:
        self.now_s += 1
        place = self.places.take(uid, standing, lambda: self.ended.append(name), self.now_s)
        if is_busy:
            place.idle_since_s = None


def test_one_user_has_a_share_and_makes_room_for_itself() -> None:
    hall = Hall()
    hall.take("other", 2)
    for number in range(SHARE + 2):
        hall.take(f"auditor {number}", 1)
    assert hall.ended == ["auditor 0", "auditor 1"]


def test_a_user_who_is_busy_on_all_connections_gets_no_other() -> None:
    hall = Hall()
    for number in range(SHARE):
        hall.take(f"auditor {number}", 1, is_busy=True)
    with pytest.raises(AdminRefusedError, match="too many"):
        hall.take("one more", 1)
    assert hall.ended == []


def test_however_many_hold_connections_who_steers_gets_one() -> None:
    hall = Hall()
    for number in range(MEMBERS):
        hall.take(f"member {number}", 1 + number // SHARE, is_busy=True)
    with pytest.raises(AdminRefusedError):
        hall.take("one more member", 99)
    for _ in range(MEMBERS):
        hall.take("root", 0, Standing.STEERING, is_busy=True)
    # And leaves a few to others who do.
    with pytest.raises(AdminRefusedError):
        hall.take("root", 0, Standing.STEERING)
    for _ in range(SHARE):
        hall.take("ann", 5, Standing.STEERING, is_busy=True)
    with pytest.raises(AdminRefusedError):
        hall.take("bob", 6, Standing.STEERING)


def test_the_longest_idle_connection_of_whoever_has_most_makes_room() -> None:
    hall = Hall()
    hall.take("single", 1)
    for number in range(1, MEMBERS):
        hall.take(f"{number}", 1 + (number + 1) // SHARE)
    hall.take("new", 99)
    assert hall.ended == ["1"]


@pytest.mark.parametrize(("uids", "most"), [([7] * 10, 2), (list(range(10, 40)), 8)])
def test_strangers_have_few_places_and_take_none_from_others(uids: list[int], most: int) -> None:
    hall = Hall()
    for uid in uids[:most]:
        hall.take("stranger", uid, Standing.STRANGER)
    with pytest.raises(AdminRefusedError):
        hall.take("one more", uids[most], Standing.STRANGER)
    for number in range(MEMBERS):
        hall.take("member", 100 + number, is_busy=True)
    assert hall.ended == []


def test_who_leaves_makes_room() -> None:
    places = Places(MEMBERS)
    for _ in range(50):
        place = places.take(3, Standing.MEMBER, lambda: None, 0.0)
        place.idle_since_s = None
        places.leave(place)
        places.leave(place)
