"""What makes a class of plain values out of its annotations at a fraction of the price.

``dataclasses`` writes source text for each class and compiles it anew at every start, 0.8 to 1.5 ms
a class, and loads what takes programs apart to do it. A check of some thousand files was over in
the time that our classes took. This decorator makes the same out of closures, in some 30 µs.

A class means the same as one of ``dataclasses``: to the type checker, in its behaviour, and to
``dataclasses.replace``, ``fields`` and ``asdict``, for which the real thing is made when they ask.
Only what we use is there: always slots, no ordering, no ``InitVar``, no ``ClassVar``, no ``KW_ONLY``.
"""

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, dataclass_transform

__all__ = ["dataclass", "field", "field_types", "replace"]

_Class = TypeVar("_Class", bound=type)
_Value = TypeVar("_Value")

_FIELDS: Final = "__plain_fields__"
_NOT_GIVEN: Final = object()


class _Field(NamedTuple):
    """What is known of one field."""

    name: str
    kind: Any
    default: Any = _NOT_GIVEN
    default_factory: Callable[[], Any] | None = None
    in_repr: bool = True
    keyword_only: bool = False

    def value(self) -> Any:
        """Return what it is where nobody says; _NOT_GIVEN where somebody has to."""
        return self.default if self.default_factory is None else self.default_factory()


class _Said(NamedTuple):
    """What a class body says of a field besides its type."""

    default_factory: Callable[[], Any] | None
    in_repr: bool


def field(*, default_factory: Callable[[], Any] | None = None, repr: bool = True) -> Any:
    """Stand for a field whose value is made anew each time, or that its text leaves out."""
    return _Said(default_factory, repr)


@dataclass_transform(field_specifiers=(field,))
def dataclass(
    *, slots: bool, frozen: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[_Class], _Class]:
    """Return the decorator, as ``dataclasses.dataclass`` does. ``slots`` has to be True."""
    if not slots:
        raise TypeError("these classes always have slots")
    return lambda cls: _made(cls, frozen=frozen, eq=eq, kw_only=kw_only)


def field_types(cls: type) -> dict[str, Any]:
    """Return the names of a class's fields, in their order, with their annotations."""
    return {each.name: each.kind for each in getattr(cls, _FIELDS)}


def replace(value: _Value, **changes: Any) -> _Value:
    """Return a copy with other values in some fields."""
    kept = {name: getattr(value, name) for name in field_types(type(value)) if name not in changes}
    return type(value)(**kept, **changes)


# ---- making --------------------------------------------------------------------------------------


def _made(cls: _Class, *, frozen: bool, eq: bool, kw_only: bool) -> _Class:
    own = [
        _read(name, kind, cls.__dict__.get(name, _NOT_GIVEN), kw_only)
        # inspect.get_annotations would load what this module is there to do without.
        for name, kind in cls.__dict__.get("__annotations__", {}).items()  # noqa: RUF063
    ]
    inherited = {each.name: each for base in cls.__mro__[:0:-1] for each in _fields_of(base)}
    every = tuple((inherited | {each.name: each for each in own}).values())
    own_names = [each.name for each in own]
    body = {name: value for name, value in cls.__dict__.items() if name not in own_names}
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    body["__slots__"] = tuple(name for name in own_names if name not in inherited)
    body[_FIELDS] = every
    body["__dataclass_fields__"] = _STANDARD_FIELDS
    body["__match_args__"] = tuple(each.name for each in every if not each.keyword_only)
    body.setdefault("__repr__", _repr)
    body.setdefault("__getstate__", _values)
    if eq:
        body.setdefault("__eq__", _eq)
        body.setdefault("__hash__", _hash if frozen else None)
    if frozen:
        body["__setattr__"], body["__delattr__"] = _refuse_set, _refuse_delete
    made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    setters = [getattr(made, each.name).__set__ for each in every]
    made.__setstate__ = _setter_of_all(setters)
    if "__init__" not in body:
        has_more = "__post_init__" in body
        made.__init__ = (
            _initializer(every, setters, has_more=has_more)
            if has_more or len(every) not in _OF_SO_MANY or not all(map(_has_to_be_given, every))
            else _direct_initializer(made, every, setters)
        )
    finished: _Class = made
    return finished


def _fields_of(cls: type) -> tuple[_Field, ...]:
    found: tuple[_Field, ...] = cls.__dict__.get(_FIELDS, ())
    return found


def _read(name: str, kind: object, value: object, keyword_only: bool) -> _Field:
    if isinstance(value, _Said):
        return _Field(name, kind, _NOT_GIVEN, value.default_factory, value.in_repr, keyword_only)
    if isinstance(value, list | dict | set):
        raise TypeError(f"the default of {name} would be shared by all: give a default_factory")
    return _Field(name, kind, value, None, True, keyword_only)


_Setter = Callable[[object, object], None]
_Setters = list[_Setter]
"""Of the slots: they go past the refusal of a frozen class."""


def _has_to_be_given(each: _Field) -> bool:
    has_default = each.default is not _NOT_GIVEN or each.default_factory is not None
    return not has_default and not each.keyword_only


def _direct_initializer(
    cls: type, every: tuple[_Field, ...], setters: _Setters
) -> Callable[..., None]:
    """Return an initializer whose parameters are the fields: a call sorts them, and not a loop.

    It takes half the instructions of ``_initializer``, and nothing has to be compiled.
    """
    made = _OF_SO_MANY[len(every)](*setters)
    names = ("self", *(each.name for each in every))
    made.__code__ = made.__code__.replace(co_varnames=names)
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _of_one(set_a: _Setter) -> Any:
    def initialize(self: Any, a: Any) -> None:
        set_a(self, a)

    return initialize


def _of_two(set_a: _Setter, set_b: _Setter) -> Any:
    def initialize(self: Any, a: Any, b: Any) -> None:
        set_a(self, a)
        set_b(self, b)

    return initialize


def _of_three(set_a: _Setter, set_b: _Setter, set_c: _Setter) -> Any:
    def initialize(self: Any, a: Any, b: Any, c: Any) -> None:
        set_a(self, a)
        set_b(self, b)
        set_c(self, c)

    return initialize


def _of_four(set_a: _Setter, set_b: _Setter, set_c: _Setter, set_d: _Setter) -> Any:
    def initialize(self: Any, a: Any, b: Any, c: Any, d: Any) -> None:
        set_a(self, a)
        set_b(self, b)
        set_c(self, c)
        set_d(self, d)

    return initialize


def _of_five(set_a: _Setter, set_b: _Setter, set_c: _Setter, set_d: _Setter, set_e: _Setter) -> Any:
    def initialize(self: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
        set_a(self, a)
        set_b(self, b)
        set_c(self, c)
        set_d(self, d)
        set_e(self, e)

    return initialize


def _of_six(
    set_a: _Setter, set_b: _Setter, set_c: _Setter, set_d: _Setter, set_e: _Setter, set_f: _Setter
) -> Any:
    def initialize(self: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> None:
        set_a(self, a)
        set_b(self, b)
        set_c(self, c)
        set_d(self, d)
        set_e(self, e)
        set_f(self, f)

    return initialize


_OF_SO_MANY: Final[dict[int, Callable[..., FunctionType]]] = {
    1: _of_one,
    2: _of_two,
    3: _of_three,
    4: _of_four,
    5: _of_five,
    6: _of_six,
}


def _initializer(
    every: tuple[_Field, ...], setters: _Setters, *, has_more: bool
) -> Callable[..., None]:
    names = tuple(each.name for each in every)
    all_of_them = len(names)
    count = 0 if any(each.keyword_only for each in every) else all_of_them
    known = frozenset(names)
    by_name = tuple(zip(names, setters, strict=True))

    def initialize(self: Any, *given: Any, **named: Any) -> None:
        # As a rule all values are given in one way, and nothing has to be looked for.
        if not named and len(given) == all_of_them == count:
            for setter, value in zip(setters, given):  # noqa: B905  # faster, and of one length
                setter(self, value)
        elif not given and len(named) == all_of_them and known.issuperset(named):
            for name, setter in by_name:
                setter(self, named[name])
        else:
            find_each(self, given, named)
        if has_more:
            self.__post_init__()

    def find_each(self: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(given) > count:
            raise TypeError(f"{type(self).__name__}() takes {count} values, not {len(given)}")
        for setter, value in zip(setters, given, strict=False):
            setter(self, value)
        for index in range(len(given), len(names)):
            each = every[index]
            value = named.pop(each.name) if each.name in named else each.value()
            if value is _NOT_GIVEN:
                raise TypeError(f"{type(self).__name__}() lacks a value for {each.name!r}")
            setters[index](self, value)
        if named:
            what = "twice a value for" if named.keys() <= known else "an unknown"
            raise TypeError(f"{type(self).__name__}() got {what} {', '.join(named)}")

    return initialize


def _setter_of_all(setters: _Setters) -> Callable[[object, list[Any]], None]:
    def set_all(self: object, state: list[Any]) -> None:
        for setter, value in zip(setters, state, strict=True):
            setter(self, value)

    return set_all


# ---- what instances do ---------------------------------------------------------------------------


def _values(self: object) -> list[Any]:
    return [getattr(self, each.name) for each in getattr(self, _FIELDS)]


def _repr(self: object) -> str:
    shown = [
        f"{each.name}={getattr(self, each.name)!r}"
        for each in getattr(self, _FIELDS)
        if each.in_repr
    ]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: object, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return self is other or _values(self) == _values(other)


def _hash(self: object) -> int:
    return hash(tuple(_values(self)))


def _refuse_set(_self: object, name: str, _value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


class _StandardFields:
    """What ``dataclasses`` looks for in a class or an instance, made when it does."""

    def __get__(self, _instance: object, owner: Any) -> dict[str, Any]:
        return _standard_fields(owner)


@lru_cache(maxsize=1_024)
def _standard_fields(owner: Any) -> dict[str, Any]:
    """Return them; made once a class, because ``replace`` asks for them at each call."""
    import dataclasses

    made = dataclasses.make_dataclass(
        owner.__name__,
        [
            (each.name, each.kind, dataclasses.field(repr=each.in_repr, kw_only=True))
            for each in getattr(owner, _FIELDS)
        ],
    )
    return dict(vars(made)["__dataclass_fields__"])


_STANDARD_FIELDS: Final = _StandardFields()
