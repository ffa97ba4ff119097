"""MAML, FOMAML and Reptile side by side: their gradients at the same parameters on the same tasks.

All three adapt by the same gradient descent, with rate α and `inner_steps` steps. MAML and FOMAML
take the support in each, and the loss of the query after them; Reptile goes round support and query
together in minibatches of the support's size. Its φ − φ̃ is divided by α, to be comparable.
"""

import math
import time
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import backend, tree
from scratchmeta.algorithms import MAML, Reptile
from scratchmeta.episodes import Episode

MOST_STEPS = 1000  # all are recorded: memory grows with them


class Row(NamedTuple):
    """An algorithm's meta-gradient, and how it lies to MAML's."""

    name: str
    loss: float
    norm: float
    norm_ratio: float
    cosine: float
    seconds: float


def compare(
    network: Any,
    params: Any,
    episodes: Episode,
    inner_lr: float = 0.4,
    inner_steps: int = 1,
    rounds: int = 3,
    **options: Any,
) -> list[Row]:
    """One row for each of MAML, FOMAML and Reptile; times are medians of `rounds`.

    `options` (loss, task_chunk) go to all three. Raises ValueError for an α or a number of steps
    that is not positive, and for an α that leaves no finite loss, or no direction to compare.
    """
    if not 0 < inner_lr < math.inf:
        raise ValueError(f"inner_lr: wanted a positive number, got {inner_lr}")
    if not 1 <= inner_steps <= MOST_STEPS:
        raise ValueError(f"inner_steps: wanted 1 to {MOST_STEPS}, got {inner_steps}")
    algorithms: dict[str, Any] = {
        "maml": MAML(network, inner_lr, inner_steps, **options),
        "fomaml": MAML(network, inner_lr, inner_steps, first_order=True, **options),
        "reptile": Reptile(
            network,
            inner_lr,
            inner_steps + 1,
            episodes.support_x.shape[1],
            inner_optimizer="sgd",
            **options,
        ),
    }
    rows: list[Row] = []
    reference = None
    for name, algorithm in algorithms.items():
        theta = {"network": params} if name == "reptile" else params
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            with np.errstate(all="ignore"):  # what is not finite is refused below
                loss, gradient = algorithm.meta_gradient(theta, episodes)
            backend.synchronize()
            times.append(time.perf_counter() - start)
        leaves = [np.ravel(backend.to_numpy(g)) for g in tree.flatten(gradient)[0]]
        g = np.concatenate(leaves).astype(np.float64)
        if name == "reptile":
            g = g / inner_lr
        length = np.linalg.norm(g)
        if not (math.isfinite(loss) and 0 < length < math.inf):
            raise ValueError(
                f"inner_lr: wanted a rate at which {name} has a finite loss and a gradient other "
                f"than 0, got {inner_lr:g}: loss {float(loss):g}, norm {length:g}"
            )
        reference = g if reference is None else reference
        other = np.linalg.norm(reference)
        rows.append(
            Row(
                name,
                float(loss),
                float(length),
                float(length / other),
                float(g @ reference / (length * other)),
                float(np.median(times)),
            )
        )
    return rows
