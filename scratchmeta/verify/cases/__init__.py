"""The table of everything that `scratchmeta check` verifies: one row per operation, layer, loss,
optimiser and algorithm, a file for each family.

A row is a generator of examples: small float64 inputs, drawn from the `rng` it is given, at which
the function is smooth by construction. Numbers keep a distance from the kinks of abs, relu and
sign (`away_from_zero`), from each other where a maximum is taken (`distinct`), and from 0 where a
logarithm is (`positive`). Networks cannot be kept from kinks by construction; there the slopes take
smaller steps, down to 6e-8, and a kink nearer than that is reported, not passed.

    for result in run(["softmax", "maml"]):
        print(result)
"""

from importlib import import_module

from scratchmeta.verify.cases.rows import (
    CASES,
    KINDS,
    Case,
    Result,
    UnknownCase,
    row,
    run,
    select,
    summary,
    table,
)

# Importing a family enters its rows; in this order they are checked and printed.
FAMILIES = (
    "elementwise",
    "reduction",
    "shape",
    "linalg",
    "images",
    "kernels",
    "training",
    "layers",
    "algorithms",
)
for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")

__all__ = [
    "CASES",
    "KINDS",
    "Case",
    "Result",
    "UnknownCase",
    "row",
    "run",
    "select",
    "summary",
    "table",
]
