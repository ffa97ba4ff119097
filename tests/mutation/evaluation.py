"""Mutants of training and evaluation: which episodes they see, and what is made of them."""

from mutation import Equivalent
from mutation._source import Source

EQUIVALENT: Equivalent = {}

SUBJECT = Source(
    parts=[
        "scratchmeta.run.evaluation",
        "scratchmeta.run.training:train",
        "scratchmeta.run.training:step",
        "scratchmeta.run.training:_refuse*",
        "scratchmeta.run.training:_validate",
        "scratchmeta.run.training:_stale",
    ],
    tests=[
        ["tests/test_evaluation.py"],
        ["tests/test_options.py", "-k", "training or evaluate or test_train"],
        ["tests/test_training.py"],
        ["tests/test_cli.py", "-k", "resume"],
    ],
    equivalent=EQUIVALENT,
)
