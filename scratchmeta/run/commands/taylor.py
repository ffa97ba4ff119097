"""`scratchmeta taylor`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scratchmeta.run.commands.plot import drawing
from scratchmeta.run.options import UsageError, parse


@dataclass(frozen=True)
class TaylorOptions:
    """Compare the gradients of FOMAML, MAML and Reptile with their leading terms in α.

    Prints how much is left, and how fast it falls with α: as α to the power of 2 if the terms are
    right, of 1 without those in B. docs/analysis.md says what A and B are.
    """

    k: tuple[int, ...] = (2, 3, 4)
    """Numbers of minibatches, 2 to 7."""
    problem: Literal["linear", "sinusoid"] = "linear"
    """A linear model on random data, or MAML's network (with tanh) on a sine wave."""
    seed: int = 0
    """Decides the problem."""
    plot: Path | None = None
    """Draw the residuals over α into this file."""
    json: bool = False
    """Print a JSON list: name, k, alphas, residuals, without_b, slope, slope_without_b of each."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(TaylorOptions, argv, "taylor")
    if not options.k:
        raise UsageError("k: wanted one or more numbers of minibatches, got none")
    from scratchmeta.analysis import taylor

    problems = [taylor.problem(k, options.seed, options.problem) for k in options.k]
    found = [taylor.measure(name, problem) for problem in problems for name in taylor.MEASURED]
    if options.plot:
        drawing("taylor").expansions(found, options.plot)
    if options.json:
        print(json.dumps([expansion._asdict() for expansion in found]))
        return 0
    print(f"what is left of the gradients of a {options.problem} problem, relative to them")
    print(f"{'':<15}{'less the terms in A':^32}{'less those in A and B':^32}")
    columns = f"{'α = 0.01':>10}{'0.1':>9}{'∝ α to the':>13}"
    print(f"{'gradient of':<12}{'k':>3}{columns}{columns}")
    for each in found:
        (with_1, without_1), (with_2, without_2) = each.at(0.01), each.at(0.1)
        print(
            f"{each.name:<12}{each.k:>3}"
            f"{without_1:>10.1e}{without_2:>9.1e}{each.slope_without_b:>13.3f}"
            f"{with_1:>10.1e}{with_2:>9.1e}{each.slope:>13.3f}"
        )
    return 0
