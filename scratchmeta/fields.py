"""Options, stated once: the typed and documented fields of a class.

    @dataclass(frozen=True)
    class Nearest:
        network: Given[Any]

        temperature: Positive = 1.0
        \"""Divides the distances.\"""

`temperature` is an option: the command line, config.json and the checks of values are made from its
type, its default and the docstring below it. What a class needs of its surroundings (its network,
the number of features, a loss) is `Given`, and is filled in by name. A class that is no dataclass
states the same in the signature of its constructor.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import numbers
import textwrap
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Bound:
    """What a value must be, and how that is said."""

    holds: Callable[[Any], bool]
    wanted: str


def at_least(lowest: float) -> Bound:
    """A finite number, no smaller than this one."""
    return Bound(lambda x: lowest <= x < math.inf, f"at least {lowest}")


def lengths(lowest: int) -> Bound:
    """The shortest and the longest of something."""
    return Bound(lambda v: lowest <= v[0] <= v[1], f"{lowest} or more, then no less")


_GIVEN = object()
Given = Annotated[T, _GIVEN]  # no option: filled in from what surrounds the object

Count = Annotated[int, at_least(1)]
Sizes = tuple[Count, ...]
Natural = Annotated[int, at_least(0)]
Positive = Annotated[float, Bound(lambda x: 0 < x < math.inf, "a positive number")]
NonNegative = Annotated[float, at_least(0)]
Interval = Annotated[
    tuple[float, float], Bound(lambda v: v[0] <= v[1], "the lower end first")
]  # fmt: skip


# --- the fields of a class ----------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field of a class: `default` is dataclasses.MISSING where it has none."""

    name: str
    hint: Any
    default: Any
    given: bool


@functools.cache
def fields(cls: Any) -> tuple[Field, ...]:
    """The fields of a dataclass, or the parameters of a class's constructor."""
    if dataclasses.is_dataclass(cls):
        hints = get_type_hints(cls, include_extras=True)
        found = [(f.name, f.default) for f in dataclasses.fields(cls) if f.init]
    else:
        hints = get_type_hints(cls.__init__, include_extras=True)
        found = [
            (p.name, dataclasses.MISSING if p.default is p.empty else p.default)
            for p in inspect.signature(cls).parameters.values()
        ]
    made = []
    for name, default in found:
        if name not in hints:
            raise ValueError(f"{cls.__name__}: {name}: wanted a type")
        hint = hints[name]
        made.append(Field(name, hint, default, _GIVEN in getattr(hint, "__metadata__", ())))
    return tuple(made)


@functools.cache
def options(cls: type) -> type:
    """A dataclass of the options of `cls`, without what is given; `options(cls).of` is `cls`.

    Its objects are a class's options before there is what surrounds it: they are compared, written
    to config.json and checked. Raises ValueError for an option without a default.
    """
    chosen = [f for f in fields(cls) if not f.given]
    for f in chosen:
        if f.default is dataclasses.MISSING:
            raise ValueError(
                f"{cls.__name__}: {f.name}: wanted a default, or Given[...] where it is no option"
            )
    made = dataclasses.make_dataclass(
        cls.__name__,
        [(f.name, f.hint, dataclasses.field(default=f.default)) for f in chosen],
        frozen=True,
        namespace={"__post_init__": check, "of": cls, "__doc__": cls.__doc__},
    )
    made.__module__ = __name__
    return made


def build(chosen: Any, offered: Any, **changes: Any) -> Any:
    """The object whose options are `chosen`; what is given is taken from `offered`, by name.

    A given field that `offered` has no attribute for keeps its default. Raises ValueError where it
    has none.
    """
    cls = type(chosen).of
    values = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)} | changes
    for f in fields(cls):
        if f.given and hasattr(offered, f.name):
            values[f.name] = getattr(offered, f.name)
        elif f.given and f.default is dataclasses.MISSING:
            raise ValueError(f"{cls.__name__}: {f.name}: is given to no class")
    return cls(**values)


@functools.cache
def docs(cls: type) -> dict[str, str]:
    """{field: the docstring below it}, those of base classes too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # built in, or made without a file
            continue
        defined: Any = ast.parse(source).body[0]
        for field, below in itertools.pairwise(defined.body):
            is_doc = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and is_doc:
                found[field.target.id] = inspect.cleandoc(below.value.value)
    return found


# --- checks -------------------------------------------------------------------------------------


def check(section: Any) -> None:
    """Raises ValueError, naming the field, where a value of an object is out of its bounds."""
    _refuse(section, vars(section), strictly=False)


def check_choices(section: Any) -> None:
    """Raises ValueError, naming class and field, where a value is not among its choices.

    What is made in Python may be out of bounds that a run's options keep: no inner steps, a rate of
    0. What is no choice has no meaning anywhere.
    """
    for f in fields(_class_of(section)):
        if get_origin(f.hint) is Literal and (
            wrong := _complaint(getattr(section, f.name), f.hint, strictly=False)
        ):
            raise ValueError(f"{type(section).__name__}: {f.name}: {wrong}")


def check_types(section: type, values: dict) -> None:
    """Raises ValueError if a value has not the type of the section's field of its name."""
    _refuse(section, values, strictly=True)


def _class_of(section: Any) -> Any:
    return section if isinstance(section, type) else type(section)


def _refuse(section: Any, values: dict, strictly: bool) -> None:
    for f in fields(_class_of(section)):
        asked = f.name in values and not f.given
        if asked and (wrong := _complaint(values[f.name], f.hint, strictly)):
            raise ValueError(f"{f.name}: {wrong}")


def _complaint(value: Any, hint: Any, strictly: bool) -> str:
    """What is wrong with a value, or nothing."""
    bare: Any = hint
    bounds: list[Any] = []
    if get_origin(hint) is Annotated:
        bare, *bounds = get_args(hint)
    kind, inner = get_origin(bare), get_args(bare)
    if kind is Literal:
        return "" if value in inner else f"wanted {_either(map(repr, inner))}, got {value!r}"
    if kind in (Union, types.UnionType):
        wrong = [_complaint(value, one, strictly) for one in inner]
        fits = [_is(value, one) for one in inner]
        return "" if "" in wrong else wrong[fits.index(True) if True in fits else 0]
    if strictly and not _is(value, bare):
        return f"wanted {type_name(bare)}, got {value!r}"
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    for bound in bounds:
        comparable = isinstance(value, numbers.Real | tuple)
        if isinstance(bound, Bound) and comparable and not bound.holds(value):
            return f"wanted {bound.wanted}, got {shown}"
    if kind is tuple and isinstance(value, tuple):
        of = inner[:1] * len(value) if inner[-1] is ... else inner
        for one in map(lambda v, h: _complaint(v, h, strictly), value, of):
            if one:
                return f"{one.rpartition(', got')[0]} in every place, got {value}"
    return ""


def _is(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _is(value, inner[0])
    if kind is Literal:
        return value in inner
    if kind is tuple:
        inner = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is ... else inner
        same = isinstance(value, tuple) and len(value) == len(inner)
        return same and all(map(_is, value, inner))
    if kind in (Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if hint in (None, type(None), Any):
        return value is None or hint is Any
    return type(value) is hint or (hint is float and type(value) is int)


def type_name(hint: Any) -> str:
    """A type as one writes it, without its bounds."""
    if get_origin(hint) is Annotated:
        return type_name(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return f"tuple[{', '.join('...' if h is ... else type_name(h) for h in get_args(hint))}]"
    return hint.__name__ if isinstance(hint, type) else str(hint).removeprefix("typing.")


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def choose(what: str, name: str, among: Iterable[str]) -> str:
    """`name` if it is one of `among`; else raises ValueError with the names that come close."""
    among = list(among)
    if name in among:
        return name
    close = difflib.get_close_matches(name, among)
    hint = f"did you mean {' or '.join(close)}?" if close else f"wanted one of {', '.join(among)}"
    raise ValueError(f"unknown {what} {name!r}: {hint}")
