"""Prototypical Networks (Snell, Swersky & Zemel, NIPS 2017, arXiv 1703.05175).

A class is represented by the mean of its embedded support examples, its prototype; a query belongs
to the class whose prototype is nearest.

    eq. 1   c_k = 1/|S_k| Σ_{(x, y) ∈ S_k} f_φ(x)                 prototypes
    eq. 2   p(y = k | x) = softmax_k(−d(f_φ(x), c_k))             Prototypical.log_probabilities
    alg. 1  J = −log p(y = k | x), mean over the queries          MetricLearner.task_losses

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

from dataclasses import dataclass
from typing import Any, Literal

from scratchmeta import nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.episodes import Episode


def prototypes(features: Any, labels: Any, ways: int) -> Any:
    """c_k, the mean of each class's features: (T, N·K, D) with labels (T, N·K) -> (T, N, D)."""
    member = ops.one_hot(labels, ways, features.dtype)  # (T, N·K, N)
    share = member / ops.sum(member, axis=1, keepdims=True)
    return ops.matmul(ops.matrix_transpose(share), features)


@dataclass(frozen=True)
class Prototypical(MetricLearner):
    """Prototypical Networks around any `network` with init(rng) and network(params, x) -> features.

    The rest as in `MetricLearner`.
    """

    distance: Literal["sqeuclidean", "cosine", "cityblock"] = "sqeuclidean"
    """Distance of a query's features to the prototypes."""

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax_k(−d(f(x), c_k)) for every query: (T, N·Q, N)."""
        support, query = self.embed(params, episodes, batch_norm)
        c = prototypes(support, episodes.support_y, n_way(episodes))
        return ops.log_softmax(-ops.pairwise_distance(query, c, self.distance))
