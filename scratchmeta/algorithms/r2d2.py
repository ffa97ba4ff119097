"""R2-D2, ridge regression differentiable discriminator (Bertinetto, Henriques, Torr & Vedaldi,
ICLR 2019, arXiv 1805.08136).

The classifier of an episode is the ridge regression of its one-hot labels on the embedded support:
a closed form, through which the gradient goes to the embedding.

    sec. 3.2   W = argmin ‖X W − Y‖² + λ ‖W‖² = (Xᵀ X + λ I)⁻¹ Xᵀ Y      ridge
               W = Xᵀ (X Xᵀ + λ I)⁻¹ Y, by Woodbury's identity           ridge, of few rows
               Ŷ = α X' W + β                                            R2D2.log_probabilities

X (N·K, D) are the features of the support, X' those of the queries. Woodbury's form inverts a
matrix of N·K rows in the place of one of D. λ, α and β are learned with the embedding.

Differs from the paper
    What is learned of λ is its logarithm, so that it stays positive. In the authors' code λ is
    fixed by default, X has a column of ones, and X and Y are divided by √(N·K), which makes their λ
    N·K times as large. β adds the same to all classes, so the softmax takes it out again and it
    stays as it is. The network is Conv4 here; theirs for the main table is wider, has leaky ReLU
    and dropout, and gives the maps of its last two blocks. The number of ways and shots is the same
    in all training episodes, where theirs varies the shots.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.episodes import Episode
from scratchmeta.fields import Positive


def ridge(x: Any, y: Any, penalty: Any) -> Any:
    """W (T, D, N), which minimises ‖X W − Y‖² + λ ‖W‖² for X (T, N·K, D), Y (T, N·K, N)."""
    rows, columns = x.shape[-2:]
    identity = backend.xp(ops.raw(x)).eye(min(rows, columns), dtype=x.dtype)
    xt = ops.matrix_transpose(x)
    if rows < columns:
        return ops.matmul(xt, ops.solve(ops.matmul(x, xt) + penalty * identity, y))
    return ops.solve(ops.matmul(xt, x) + penalty * identity, ops.matmul(xt, y))


@dataclass(frozen=True)
class R2D2(MetricLearner):
    """R2-D2 around any `network` with init(rng) and network(params, x) -> features.

    Parameters are {network, log_penalty: log λ, scale: α, bias: β}; β starts as 0. The rest as in
    `MetricLearner`.
    """

    penalty: Positive = 1.0
    """λ in the beginning."""
    scale: Positive = 10.0
    """α in the beginning."""

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, log_penalty, scale, bias}."""
        start = {"log_penalty": math.log(self.penalty), "scale": self.scale, "bias": 0.0}
        numbers = {name: backend.asarray(np.array(v, np.float32)) for name, v in start.items()}
        return {**super().init(rng), **numbers}

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax(α X' W + β) for every query: (T, N·Q, N)."""
        support, query = self.embed(params, episodes, batch_norm)
        y = ops.one_hot(episodes.support_y, n_way(episodes), support.dtype)
        w = ridge(support, y, ops.exp(params["log_penalty"]))  # (T, D, N)
        return ops.log_softmax(params["scale"] * ops.matmul(query, w) + params["bias"])
