"""Mutants of what takes options to where they are wanted: commands, and what is made of them."""

from mutation import Equivalent
from mutation._source import Source

_CHECKED = "results = cases.run(names, options.seed, lambda done, total, last: {})"

_ENTERED = "if {}not (outside.is_outside(name) or name in outside.brought()):"

EQUIVALENT: Equivalent = {
    ("run.commands.check._entered", _ENTERED.format("name in CASES or ")): (
        "saves a look at what is installed; a row that is there is not made again either way",
        {_ENTERED.format("")},
    ),
    ("run.commands.check.main", _CHECKED.format("bar.update(done, last.name)")): (
        "the bar on a terminal, which is no result",
        {_CHECKED.format("done")},
    ),
}

SUBJECT = Source(
    parts=[
        "scratchmeta.run.commands.bench",
        "scratchmeta.run.commands.check",
        "scratchmeta.run.commands.compare",
        "scratchmeta.run.commands.evaluate",
        "scratchmeta.run.commands.list",
        "scratchmeta.run.commands.plot",
        "scratchmeta.run.commands.taylor",
        "scratchmeta.run.commands.train:_*",
        "scratchmeta.run.experiment",
        "scratchmeta.run.training:start",
    ],
    tests=[
        ["tests/test_options.py"],
        ["tests/test_evaluation.py"],
        ["tests/test_cli.py", "-k", "not signal and not killed"],
    ],
    equivalent=EQUIVALENT,
)
