"""Prototypical Networks (Snell, Swersky & Zemel, NIPS 2017, arXiv 1703.05175).

A class is represented by the mean of its embedded support examples, its prototype; a query belongs
to the class whose prototype is nearest.

    eq. 1   c_k = 1/|S_k| Σ_{(x, y) ∈ S_k} f_φ(x)                 prototypes
    eq. 2   p(y = k | x) = softmax_k(−d(f_φ(x), c_k))             Prototypical.logits
    alg. 1  J = −log p(y = k | x), mean over the queries          Prototypical.task_losses

Differs from the paper
    Batch-norm is a stated policy. The paper trains with the statistics of support and query
    together and tests with running averages: that is `batch_norm="running"`. The averages are
    taken by `calibrate` over given training episodes under the final weights, not accumulated on
    the way. The default, "transductive", uses each episode's own statistics in testing too.

Differs from the post
    The post says "inverse of the distances"; it is the negative distance. The mean is the right
    prototype for Bregman divergences such as the squared Euclidean distance (section 2.3), not for
    any differentiable distance.
"""

from typing import Any

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.protocol import chunks, mean_over_tasks, n_way
from scratchmeta.episodes import Episode
from scratchmeta.losses import cross_entropy

Tree = Any


def prototypes(features: Any, labels: Any, ways: int) -> Any:
    """c_k, the mean of each class's features: (T, N·K, D) with labels (T, N·K) -> (T, N, D)."""
    member = ops.one_hot(labels, ways, features.dtype)  # (T, N·K, N)
    share = member / member.sum(axis=1, keepdims=True)
    return ops.matmul(ops.matrix_transpose(share), features)


class Prototypical:
    """Prototypical Networks around any `network` with init(rng) and network(params, x) -> features.

    `distance` is a metric of `ops.pairwise_distance`; `batch_norm` a policy of `nn.embed`;
    `task_chunk` the number of tasks differentiated at a time (None: chosen by size).
    """

    def __init__(
        self,
        network: Any,
        distance: str = "sqeuclidean",
        batch_norm: nn.Policy = "transductive",
        task_chunk: int | None = None,
    ) -> None:
        self.network = network
        self.distance = distance
        self.batch_norm = batch_norm
        self.task_chunk = task_chunk

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters φ of the embedding."""
        return self.network.init(rng)

    def logits(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """−d(f(x), c_k) for every query and class: (T, N·Q, N)."""
        support, query = nn.embed(
            self.network, params, episodes.support_x, episodes.query_x, batch_norm
        )
        c = prototypes(support, episodes.support_y, n_way(episodes))
        return -ops.pairwise_distance(query, c, self.distance)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """J of every task (T,), with the statistics that training uses."""
        policy = "transductive" if self.batch_norm == "running" else self.batch_norm
        return cross_entropy(self.logits(params, episodes, policy), episodes.query_y)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The loss, a mean over tasks, and its gradient ∂J/∂φ; statistics stored in φ are
        ignored."""
        return mean_over_tasks(
            self.task_losses, nn.without_statistics(params), episodes, self.task_chunk
        )

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """log p(y = k | x) for every query: (T, N·Q, N)."""
        xp = backend.xp(episodes.query_x)
        return xp.concatenate(
            [
                ops.log_softmax(self.logits(params, part, self.batch_norm))
                for part in chunks(episodes, self.task_chunk)
            ]
        )

    def calibrate(self, params: Tree, episodes: Episode) -> Tree:
        """The parameters with the statistics that predict wants, averaged over these tasks."""
        if self.batch_norm != "running":
            return params
        images = ops.concat([episodes.support_x, episodes.query_x], axis=1)
        return nn.average_statistics(
            self.network.with_statistics(nn.without_statistics(params), images)
        )
