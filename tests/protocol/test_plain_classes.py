"""Classes that are cheap to make have to mean what those of ``dataclasses`` mean."""

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_protocol.plain_classes import dataclass, field, field_types, replace


def _classes(make: Any, a_field: Any) -> tuple[type[Any], ...]:
    """Return the same classes, made by one or the other decorator."""

    @make(frozen=True, slots=True)
    class Frozen:
        first: int
        second: str = "two"
        third: list[int] = a_field(default_factory=list)
        hidden: bytes = a_field(default_factory=bytes, repr=False)

    @make(slots=True)
    class Open:
        first: int
        second: str = "two"
        third: list[int] = a_field(default_factory=list)
        hidden: bytes = a_field(default_factory=bytes, repr=False)

    @make(frozen=True, slots=True, kw_only=True)
    class Named:
        second: str = "two"
        first: int
        third: list[int] = a_field(default_factory=list)
        hidden: bytes = a_field(default_factory=bytes, repr=False)

    @make(slots=True, eq=False)
    class Unequal:
        first: int
        second: str = "two"
        third: list[int] = a_field(default_factory=list)
        hidden: bytes = a_field(default_factory=bytes, repr=False)

    @make(slots=True, kw_only=True)
    class NamedOnly:
        first: int
        second: str
        third: list[int]
        hidden: bytes = a_field(repr=False)

    @make(slots=True)
    class Made:
        first: list[int] = a_field(default_factory=list)
        second: list[int] = a_field(default_factory=list)
        third: list[int] = a_field(default_factory=list)
        hidden: bytes = a_field(default_factory=bytes, repr=False)

    return Frozen, Open, Named, Unequal, NamedOnly, Made


PAIRS = list(
    zip(
        _classes(dataclass, field),
        _classes(dataclasses.dataclass, dataclasses.field),
        strict=True,
    )
)
NAMES = st.sampled_from(["first", "second", "third", "hidden", "other"])


NAMES_OF_MANY = tuple("abcdefgh")


def _of_required(make: Any) -> tuple[type[Any], ...]:
    """Return classes of none up to eight fields that all have to be given."""
    bodies = [dict.fromkeys(NAMES_OF_MANY[:count], int) for count in range(9)]
    return tuple(
        make(frozen=True, slots=True)(type("Required", (), {"__annotations__": body}))
        for body in bodies
    )


REQUIRED = list(zip(_of_required(dataclass), _of_required(dataclasses.dataclass), strict=True))


def _outcome(cls: type[Any], given_values: list[int], named: dict[str, int]) -> object:
    try:
        made = cls(*given_values, **named)
    except TypeError:
        return TypeError
    return [getattr(made, name) for name in ("first", "second", "third", "hidden")], (
        repr(made).rpartition(".")[2]
    )


@given(
    which=st.sampled_from(PAIRS),
    values=st.lists(st.integers(), max_size=5),
    named=st.dictionaries(NAMES, st.integers()),
)
def test_takes_and_refuses_the_same_values(
    which: tuple[type[Any], type[Any]], values: list[int], named: dict[str, int]
) -> None:
    ours, standard = which
    assert _outcome(ours, values, named) == _outcome(standard, values, named)


@given(st.data(), st.sampled_from(REQUIRED))
def test_of_any_number_of_fields_each_takes_its_own_value(
    data: st.DataObject, which: tuple[type[Any], type[Any]]
) -> None:
    names = which[1].__match_args__
    by_position = data.draw(st.integers(0, len(names)))
    surplus = data.draw(st.sampled_from([(), (8,), (8, 9)]))
    left_out = data.draw(st.sets(st.sampled_from(NAMES_OF_MANY), max_size=1))
    values = [*range(by_position), *surplus]
    named = {name: ord(name) for name in names[by_position:] if name not in left_out}

    def made(cls: type[Any]) -> object:
        try:
            return [getattr(cls(*values, **named), name) for name in names]
        except TypeError:
            return TypeError

    assert made(which[0]) == made(which[1])


@given(which=st.sampled_from(PAIRS[:3]), left=st.integers(0, 1), right=st.integers(0, 1))
def test_is_equal_where_the_standard_one_is(
    which: tuple[type[Any], type[Any]], left: int, right: int
) -> None:
    ours, standard = which
    assert (ours(first=left) == ours(first=right)) == (
        standard(first=left) == standard(first=right)
    )
    assert ours(first=left) != standard(first=left)


def test_is_equal_to_itself_alone_where_equality_was_not_wanted() -> None:
    cls: Any = PAIRS[3][0]
    one = cls(1)
    assert one == one
    assert one != cls(1)
    assert len({one, cls(1)}) == 2


def test_can_be_a_key_where_frozen_and_nowhere_else() -> None:
    @dataclass(frozen=True, slots=True)
    class Key:
        first: int
        second: str

    assert len({Key(1, "a"), Key(1, "a"), Key(2, "a")}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(PAIRS[1][0](1))


def test_lets_nobody_change_a_frozen_one() -> None:
    made = PAIRS[0][0](1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="first"):
        made.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="first"):
        del made.first
    with pytest.raises(dataclasses.FrozenInstanceError, match="unknown"):
        made.unknown = 2
    assert made.first == 1


def test_has_no_place_for_anything_else() -> None:
    made = PAIRS[1][0](1)
    made.first = 2
    assert made.first == 2
    with pytest.raises(AttributeError):
        made.unknown = 2


def test_gives_each_its_own_list() -> None:
    cls: Any = PAIRS[1][0]
    cls(1).third.append(1)
    assert cls(1).third == []


def test_refuses_a_default_that_all_would_share() -> None:
    with pytest.raises(TypeError, match="values would be shared"):

        @dataclass(slots=True)
        class _Shared:
            values: list[int] = []  # noqa: RUF012 -- what is asked here


def test_refuses_to_be_made_without_slots() -> None:
    with pytest.raises(TypeError, match="slots"):
        dataclass(slots=False)


def test_runs_what_comes_after_the_values() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")

    assert Checked(0).number == 0
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)


def test_adds_to_the_fields_of_a_base() -> None:
    @dataclass(frozen=True, slots=True)
    class Base:
        first: int

    @dataclass(frozen=True, slots=True)
    class Derived(Base):
        second: str

    made = Derived(1, "two")
    assert (made.first, made.second) == (1, "two")
    assert field_types(Derived) == {"first": int, "second": str}
    assert made != Base(1)


@pytest.mark.parametrize("cls", [pair[0] for pair in PAIRS[:3]])
def test_is_understood_by_the_standard_functions(cls: Any) -> None:
    made = cls(first=1, third=[3])
    assert dataclasses.replace(made, first=2) == cls(first=2, third=[3])
    assert dataclasses.asdict(made) == {
        "first": 1,
        "second": "two",
        "third": [3],
        "hidden": b"",
    }
    assert {each.name for each in dataclasses.fields(cls)} == set(field_types(cls))
    assert dataclasses.is_dataclass(cls)
    assert copy.deepcopy(made) == copy.copy(made) == made


def test_replaces_what_it_is_told_and_keeps_the_rest() -> None:
    made = PAIRS[2][0](first=1, second="2")
    assert replace(made, first=3) == PAIRS[2][0](first=3, second="2")
    with pytest.raises(TypeError, match="unknown"):
        replace(made, other=1)


def test_can_be_matched_by_position() -> None:
    match PAIRS[0][0](1, "x"):
        case found:
            assert type(found).__match_args__ == ("first", "second", "third", "hidden")
    assert PAIRS[2][0].__match_args__ == ()


def test_the_standard_fields_are_made_once() -> None:
    """``replace`` of the standard library asks for them at each call, and making them takes 5 ms."""
    cls = PAIRS[0][0]
    assert dataclasses.fields(cls)[0] is dataclasses.fields(cls(1))[0]
