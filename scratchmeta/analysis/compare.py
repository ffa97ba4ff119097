"""MAML, FOMAML and Reptile side by side: their gradients at the same parameters on the same tasks.

All three adapt by the same gradient descent, with rate α and `inner_steps` steps. MAML and FOMAML
take the support in each, and the loss of the query after them; Reptile goes round support and query
together in minibatches of the support's size. Its φ − φ̃ is divided by α, to be comparable.
"""

import time
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import backend, tree
from scratchmeta.algorithms import MAML, Reptile
from scratchmeta.episodes import Episode


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

    `options` (loss, task_chunk) go to all three.
    """
    algorithms = {
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
            loss, gradient = algorithm.meta_gradient(theta, episodes)
            backend.synchronize()
            times.append(time.perf_counter() - start)
        leaves = [np.ravel(backend.to_numpy(g)) for g in tree.flatten(gradient)[0]]
        g = np.concatenate(leaves).astype(np.float64)
        if name == "reptile":
            g = g / inner_lr
        reference = g if reference is None else reference
        length, other = np.linalg.norm(g), np.linalg.norm(reference)
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
