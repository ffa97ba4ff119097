"""Mutants of initial parameters: of every layer, and of every algorithm."""

import pkgutil

import scratchmeta.algorithms
from mutation import Equivalent
from mutation._source import Source

ALGORITHMS = pkgutil.iter_modules(scratchmeta.algorithms.__path__, "scratchmeta.algorithms.")

EQUIVALENT: Equivalent = {}

SUBJECT = Source(
    parts=[
        "scratchmeta.nn:normal",
        "scratchmeta.nn:_constant",
        "scratchmeta.nn:*.init",
        "scratchmeta.nn:Conv4",
        "scratchmeta.nn:MLP",
        *(f"{module.name}:*.init" for module in ALGORITHMS),
    ],
    tests=[["tests/test_initial_parameters.py"], ["tests/test_nn.py"]],
    equivalent=EQUIVALENT,
)
