"""Convolutional Siamese networks (Koch, Zemel & Salakhutdinov, ICML deep learning workshop 2015).

A network learns to say whether two images show the same character; a query then belongs to the
class whose support image it most likely shares.

    sec. 3.1  p = σ(Σ_j α_j |h_1j − h_2j|)                            Siamese.logits
    sec. 3.2  L = −y log p − (1 − y) log(1 − p)                       Siamese.task_losses
    sec. 4.3  C* = argmax_c p^(c)                                     Siamese.log_probabilities

The pairs of an episode are all its queries with all its support images, of which 1 in N shows the
same character. Both kinds weigh the same, as if as many had been drawn of either.

Differs from the paper
    σ has a bias: distances are not negative, so with weights of one sign p would stay on one side
    of 1/2. Support and query together are a sample of pairs within and between alphabets; the paper
    draws pairs uniformly over alphabets. With several shots the logits of a class are averaged.
    log p(y = k | x) is the log-softmax of the logits: the same choice as by the largest p. Adam
    takes the place of the layer-wise momentum schedule found by Bayesian optimisation. `quick` has
    the four-block network with batch-norm, which the paper's network has not.

Differs from the post
    The loss there, as in the paper, lacks its minus sign. The distance is a vector, weighted by
    learned α, not one number per pair.
"""

from typing import Any

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.episodes import Episode

KOCH_FEATURES = 4096


def koch_network() -> nn.Sequential:
    """The paper's twin: images (..., N, 105, 105, 1) -> features (..., N, KOCH_FEATURES).

    64 filters of 10 x 10, 128 of 7 x 7, 128 of 4 x 4, 256 of 4 x 4, unpadded, each with ReLU and
    the first three with 2 x 2 max-pooling; then a linear layer and a sigmoid (figure 4). No
    batch-norm. Weights start as `nn.Conv2d` and `nn.Linear` have it; the paper's N(0, 0.2²) for the
    linear layer saturates the sigmoids.
    """
    layers: list[tuple[str, Any]] = []
    n_in = 1
    for i, (n_out, size) in enumerate(((64, 10), (128, 7), (128, 4), (256, 4))):
        layers.append((f"conv{i + 1}", nn.Conv2d(n_in, n_out, size, padding="valid")))
        layers.append((f"relu{i + 1}", nn.Function(ops.relu)))
        if i < 3:
            layers.append((f"pool{i + 1}", nn.Function(lambda x: ops.max_pool2d(x, 2))))
        n_in = n_out
    layers.append(("flatten", nn.Function(nn.flatten_images)))
    layers.append(("linear", nn.Linear(6 * 6 * 256, KOCH_FEATURES)))
    layers.append(("sigmoid", nn.Function(ops.sigmoid)))
    return nn.Sequential(layers)


class Siamese(MetricLearner):
    """Siamese networks around any `network` with network(params, x) -> features (T, N, D).

    D is `n_features`; the rest as in `MetricLearner`.
    """

    def __init__(
        self,
        network: Any,
        n_features: int = 64,
        batch_norm: nn.Policy = "transductive",
        task_chunk: int | None = None,
    ) -> None:
        super().__init__(network, batch_norm, task_chunk)
        self.n_features = n_features

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, alpha, bias}; α starts at −1 / D: far apart is not the same."""
        alpha = np.full(self.n_features, -1 / self.n_features, np.float32)
        bias = np.zeros((), np.float32)
        return {
            **super().init(rng),
            "alpha": backend.asarray(alpha),
            "bias": backend.asarray(bias),
        }

    def logits(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """Σ_j α_j |h_1j − h_2j| + b of every query with every support image: (T, N·Q, N·K)."""
        support, query = self.embed(params, episodes, batch_norm)
        distance = ops.pairwise_distance(query, support, "cityblock", params["alpha"])
        return distance + params["bias"]

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of what the pairs are, same and different classes weighing one half each (T,)."""
        z = self.logits(params, episodes, self.training_policy)
        same = episodes.query_y[:, :, None] == episodes.support_y[:, None]
        y = same.astype(z.dtype)
        losses = ops.softplus(z) - y * z
        share = y.mean(axis=(-2, -1), keepdims=True)
        weight = y / (2 * share) + (1 - y) / (2 * (1 - share))
        return ops.mean(weight * losses, axis=(-2, -1))

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax_k of the mean logit with the images of class k: (T, N·Q, N)."""
        z = self.logits(params, episodes, batch_norm)
        member = ops.one_hot(episodes.support_y, n_way(episodes), z.dtype)  # (T, N·K, N)
        return ops.log_softmax(ops.matmul(z, member / member.sum(axis=1, keepdims=True)))
