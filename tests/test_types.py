"""Types: a user's script that mypy reads runs as well, and the public surface has them."""

import inspect
import runpy
from pathlib import Path

import pytest

import scratchmeta as sm

MODULES = (sm, sm.episodes, sm.losses, sm.nn, sm.ops, sm.optim, sm.tree, sm.backend)


def public(module):
    """(name, function or method) of all that a module has to offer."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
    for name in names:
        thing = getattr(module, name)
        own = getattr(thing, "__module__", "").startswith("scratchmeta")
        if inspect.isfunction(thing) and own:
            yield f"{module.__name__}.{name}", thing
        elif inspect.isclass(thing) and own and not getattr(thing, "_is_protocol", False):
            for key, method in vars(thing).items():
                if inspect.isfunction(method) and (
                    key[0] != "_" or key in ("__init__", "__call__")
                ):
                    yield f"{module.__name__}.{name}.{key}", method


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_public_surface_has_types(module):
    found = dict(public(module))
    assert found
    for name, function in found.items():
        signature = inspect.signature(function)
        untyped = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not untyped, f"{name}: {untyped}"
        init = name.endswith("__init__")
        assert init or signature.return_annotation is not signature.empty, f"{name}: its result"


def test_the_typed_script_runs():
    runpy.run_path(str(Path(__file__).with_name("typed_script.py")))
