"""The algorithms, one file a paper, all with the same three methods.

    init(rng) -> params
    meta_gradient(params, episodes) -> (loss, grads)
    predict(params, episodes) -> log-probabilities (T, N·Q, N), or values in regression

and `calibrate(params, episodes) -> params`, which puts in running batch-norm statistics where the
policy asks for them.
"""

from typing import NamedTuple

from scratchmeta.algorithms.maml import MAML
from scratchmeta.algorithms.prototypical import Prototypical


class Entry(NamedTuple):
    """An algorithm as `scratchmeta list` shows it."""

    algorithm: type
    paper: str
    family: str


REGISTRY: dict[str, Entry] = {
    "prototypical": Entry(Prototypical, "Snell, Swersky & Zemel 2017", "metric"),
    "maml": Entry(MAML, "Finn, Abbeel & Levine 2017", "optimization"),
    "fomaml": Entry(MAML, "Finn, Abbeel & Levine 2017, section 5.2", "optimization"),
}

__all__ = ["MAML", "REGISTRY", "Entry", "Prototypical"]
