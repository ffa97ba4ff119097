"""Networks made in Python, written down: objects of the library as JSON, and back.

    {"of": "scratchmeta.nn:Linear", "n_in": 64, "n_out": 5, ...}    a class with its arguments
    {"function": "scratchmeta.ops.elementwise:relu"}                a function, by where it is

Only what the library itself defines is read back, so a run folder runs no code of its own.
"""

import json
from importlib import import_module
from types import FunctionType
from typing import Any

from scratchmeta import fields

_READABLE = ("scratchmeta.nn", "scratchmeta.ops", "scratchmeta.losses", "scratchmeta.algorithms")
_AS_THEY_ARE = str | int | float | bool | None


def is_of_library(cls: type) -> bool:
    """Whether a class is the library's own."""
    return cls.__module__.partition(".")[0] == "scratchmeta"


def written(value: Any) -> str:
    """The JSON of an object, a dict or a list of them; equal for equal ones.

    Raises ValueError, naming it, for a function that no name leads to, such as a lambda.
    """
    return json.dumps(_encoded(value))


def read(text: str) -> Any:
    """What `written` wrote; raises ValueError for anything but objects of the library."""
    try:
        return _decoded(json.loads(text))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"network: cannot be read: {type(error).__name__}: {error}") from error


def _encoded(value: Any) -> Any:
    if isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    if isinstance(value, dict):
        return {name: _encoded(one) for name, one in value.items()}
    if isinstance(value, FunctionType):
        return {"function": _name(value)}
    cls: Any = type(value)
    arguments = {f.name: _encoded(getattr(value, f.name)) for f in fields.fields(cls)}
    return {"of": _name(cls), **arguments}


def _name(value: Any) -> str:
    name = f"{value.__module__}:{value.__qualname__}"
    if "<" in name:  # <lambda>, <locals>
        raise ValueError(f"no name leads to {name}; define it at the top of a module")
    return name


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "function" in value:
        return _found(value["function"], FunctionType)
    rest = {name: _decoded(one) for name, one in value.items() if name != "of"}
    return _found(value["of"], type)(**rest) if "of" in value else rest


def _found(name: Any, kind: type) -> Any:
    """The class or function of a name, if it is the library's own."""
    place, _, attribute = str(name).partition(":")
    if place in _READABLE or place.startswith(tuple(f"{one}." for one in _READABLE)):
        try:
            found = getattr(import_module(place), attribute, None)
        except ImportError:
            found = None
        if isinstance(found, kind) and found.__module__ == place:
            return found
    raise ValueError(f"network: wanted the library's own layers and functions, got {name!r}")
