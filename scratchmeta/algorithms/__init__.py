"""The algorithms, one file a paper, all with the same three methods.

    init(rng) -> params
    meta_gradient(params, episodes) -> (loss, grads)
    predict(params, episodes) -> log-probabilities (T, N·Q, N), or values in regression

Their fields are their options; `protocol.Algorithm` has what else one may say of itself. A file in
this folder is found by itself: its classes with these methods are names of this package. The files
are read when one of the names is first asked for, so that importing the library does not wait.
"""

import functools
import pkgutil
from importlib import import_module
from typing import Any

METHODS = ("init", "meta_gradient", "predict")
_MODULES = [module.name for module in pkgutil.iter_modules(__path__)]


def is_algorithm(value: Any) -> bool:
    """Whether this is a class with an algorithm's methods."""
    return isinstance(value, type) and all(callable(getattr(value, m, None)) for m in METHODS)


@functools.cache
def _classes() -> dict[str, type]:
    """{name: class} of the algorithms in this folder."""
    modules = [import_module(f"{__name__}.{name}") for name in _MODULES]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if is_algorithm(value) and value.__module__ == module.__name__
    }


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name == "__all__":
        return list(_classes())
    if not name.startswith("__") and name in _classes():
        return _classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_classes()})
