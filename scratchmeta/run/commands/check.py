"""`scratchmeta check`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scratchmeta import backend, presets
from scratchmeta.run import outside
from scratchmeta.run.options import Backend, Names, at_least, parse
from scratchmeta.run.progress import Progress, coloured


@dataclass(frozen=True)
class CheckOptions:
    """Verify gradients numerically, first and second order, and print a line for each subject.

    The exit status is 1 when one of them is wrong.
    """

    names: Names = ()
    """Operations, layers, losses, optimisers, algorithms, or a kind such as "layer"; else all."""
    seed: int = 0
    """Decides the numbers at which gradients are checked."""
    no_kernels: bool = False
    """Check the plain references in place of the kernels."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: passed, and results, one for each subject."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(CheckOptions, argv, "check", CheckOptions(backend=backend.current()))
    at_least(0, "seed", options.seed)
    from scratchmeta.verify import cases  # after the options: --help need not wait for the table

    names = [_entered(name) for name in options.names]
    total = len(cases.select(names))
    with (
        backend.use(options.backend),
        backend.use_kernels(not options.no_kernels),
        Progress("check", total) as bar,
    ):
        results = cases.run(
            names, options.seed, lambda done, total, last: bar.update(done, last.name)
        )
    passed = all(result.passed for result in results)
    if options.json:
        print(json.dumps({"passed": passed, "results": [r.as_dict() for r in results]}))
    else:
        print(coloured(cases.table(results), {"ok": "green", "FAIL": "red"}))
    return 0 if passed else 1


def _entered(name: str) -> str:
    """The name of a row, which is made where the name is that of an algorithm from outside."""
    from scratchmeta.verify.cases import CASES, algorithms

    if name in CASES or not (outside.is_outside(name) or name in outside.brought()):
        return name
    entry = presets.entry(name)
    if entry.name not in CASES:
        algorithms.enter(entry)
    return entry.name
