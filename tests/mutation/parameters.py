"""Mutants of initial parameters: of every layer, and of every algorithm."""

from mutation import Equivalent
from mutation._source import Source

EQUIVALENT: Equivalent = {}

SUBJECT = Source(
    parts=[
        "scratchmeta.nn:Linear.init",
        "scratchmeta.nn:Conv2d.init",
        "scratchmeta.nn:LSTM.init",
    ],
    tests=[["tests/test_nn.py"]],
    equivalent=EQUIVALENT,
)
