"""The algorithms, one file a paper, all with the same three methods.

    init(rng) -> params
    meta_gradient(params, episodes) -> (loss, grads)
    predict(params, episodes) -> log-probabilities (T, N·Q, N), or values in regression

Their fields are their options; `protocol.Algorithm` has what else one may say of itself. A file in
this folder is found by itself: its classes with these methods are names of this package.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

METHODS = ("init", "meta_gradient", "predict")


def is_algorithm(value: Any) -> bool:
    """Whether this is a class with an algorithm's methods."""
    return isinstance(value, type) and all(callable(getattr(value, m, None)) for m in METHODS)


if TYPE_CHECKING:  # names that are found below

    def __getattr__(name: str) -> Any: ...


__all__ = []
for _module in pkgutil.iter_modules(__path__):
    for _name, _class in vars(import_module(f"{__name__}.{_module.name}")).items():
        if is_algorithm(_class) and _class.__module__ == f"{__name__}.{_module.name}":
            globals()[_name] = _class
            __all__.append(_name)
