"""Mutants of training and evaluation: which episodes they see, and what is made of them."""

from mutation import Equivalent
from mutation._source import Source

_DRAWN = "sum((x.size for x in episodes.sample(dataset, *shape, seed=settings.seed)))"
_SIZE = f"small = {_DRAWN} < SMALL"

EQUIVALENT: Equivalent = {
    ("run.training.train", _SIZE): (
        "only whether episodes are sampled ahead hangs on it: they are the same either way",
        {_SIZE.replace("settings.seed", "0"), _SIZE.replace("<", "<=")},
    ),
    ("run.evaluation.module", "CHUNK_VALUES = 2 ** 18"): (
        "how many episodes are stacked decides memory and time, not the result",
        {"CHUNK_VALUES = 18", "CHUNK_VALUES = 2", "CHUNK_VALUES = 2 ** 19"},
    ),
}

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
        ["tests/test_shown.py", "-k", "notebook"],
        ["tests/test_options.py", "-k", "training or evaluate or test_train"],
        ["tests/test_training.py"],
        ["tests/test_cli.py", "-k", "resume"],
    ],
    equivalent=EQUIVALENT,
)
