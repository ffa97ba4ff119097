"""Convolutional Siamese networks (Koch, Zemel & Salakhutdinov, ICML deep learning workshop 2015).

A network learns verification, to say whether two images show the same character; a query then
belongs to the class whose support image it most likely shares.

    sec. 3.1  p = σ(Σ_j α_j |h_1j − h_2j|)                            Siamese.logits, pair_logits
    sec. 3.2  L = −y log p − (1 − y) log(1 − p)                       Siamese.task_losses
    sec. 3.2  affine distortions                                      data.images.distorted
    sec. 4.2  pairs, verification accuracy                data.Pairs, Siamese.verification_accuracy
    sec. 4.3  C* = argmax_c p^(c)                                     Siamese.log_probabilities

`distance` has others in place of the paper's vector, as the post invites; each is one number, and α
with it: p = σ(α d(h_1, h_2) + b), with d = Σ_j (h_1j − h_2j)² for "sqeuclidean" (L2's square, which
has a slope where features are equal, and the same order), d = 1 − cos(h_1, h_2) for "cosine".

The loss of a task is that of a pair of its support and its queries, which is of either kind with
probability 1/2. A task of `data.Pairs` with one way is one pair, and 128 of them the paper's
minibatch (preset `paper`). Of an ordinary episode all pairs count at once, 1 in N of which show the
same character (preset `quick`): from as many embeddings it learns faster (after 300 steps on
Omniglot 91 % of 5-way episodes right, not 86), and on the episodes of the other algorithms.

Differs from the paper
    σ has a bias: distances are not negative, so with weights of one sign p would stay on one side
    of 1/2. (The usual count of the network's parameters, 38,951,745, has it too.) Both characters
    of a different pair are of one alphabet, of which the paper says only that all are represented
    alike. Lake's split, 25 alphabets for training, 5 for validation and 20 for testing, not 30, 10
    and 10, and all 20 drawers in each. Adam, with a rate halved every 69 epochs where the paper's
    falls by a factor of 0.99 in each, without L2: rates, momenta and L2 weights were fitted for
    each layer and are not published. (`--optimizer sgd` and `--weight-decay` are offered, one for
    all layers; momentum is not.) Weights start as in the rest of the library.
    With several shots the logits of a class are averaged in `quick`; `paper` takes its most similar
    image, as the text does (`shots`). log p(y = k | x) is the log-softmax of the logits: the same
    choice as by the largest p. Koch's validation tasks are within an alphabet, these among all
    characters of the five. `quick` has the four-block network with batch-norm, which the paper's
    network has not.

Differs from the post
    The loss there, as in the paper, lacks its minus sign. The distance is a vector, weighted by
    learned α, not one number per pair.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.data import Pairs, Splits
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given

KOCH_FEATURES = 4096


def halved(x: Any) -> Any:
    """Maps (..., N, H, W, C) after 2 x 2 max-pooling."""
    return ops.max_pool2d(x, 2)


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
            layers.append((f"pool{i + 1}", nn.Function(halved)))
        n_in = n_out
    layers.append(("flatten", nn.Function(nn.flatten_images)))
    layers.append(("linear", nn.Linear(6 * 6 * 256, KOCH_FEATURES)))
    layers.append(("sigmoid", nn.Function(ops.sigmoid)))
    return nn.Sequential(layers)


@dataclass(frozen=True)
class Siamese(MetricLearner):
    """Siamese networks around any `network` with network(params, x) -> features (T, N, D).

    D is `n_features`; the rest as in `MetricLearner`.
    """

    n_features: Given[int] = 64
    pairs: Literal["episode", "drawn"] = "episode"
    """Train on all pairs of an episode, or on drawn ones, a pair in each task with 1 way (Koch)."""
    distance: Literal["cityblock", "sqeuclidean", "cosine"] = "cityblock"
    """Of features: |h − h'| by learned weights (L1, Koch), the square of L2, or 1 − cosine."""
    shots: Literal["mean", "most-similar"] = "mean"
    """Of several images of a class, the mean logit or that of the most similar one (Koch)."""

    def datasets(self, splits: Splits) -> Splits:
        """Trained on `Pairs` if they are drawn."""
        pairs = Pairs(splits.train)  # refuses turns that would part two of a kind
        return splits._replace(train=pairs) if self.pairs == "drawn" else splits

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, alpha, bias}.

        α starts at −8 / D and the bias at 4: far apart is not the same, and the logit is 4 for
        equal features, −4 for those that differ by 1 on average. For cosines α is −8, and −4 the
        logit of orthogonal features. α is (D,) for "cityblock", else one number.
        """
        shape = (self.n_features,) if self.distance == "cityblock" else ()
        start = -8.0 if self.distance == "cosine" else -8 / self.n_features
        alpha = np.full(shape, start, np.float32)
        bias = np.full((), 4.0, np.float32)
        return {
            **super().init(rng),
            "alpha": backend.asarray(alpha),
            "bias": backend.asarray(bias),
        }

    def pair_logits(self, params: Tree, first: Any, second: Any, batch_norm: nn.Policy) -> Any:
        """α d(h_1, h_2) + b of pairs of images: (P, ...) and (P, ...) -> (P,)."""
        h = nn.embed(self.network, params["network"], first[None], second[None], batch_norm)
        h1, h2 = (ops.reshape(x, (-1, 1, self.n_features)) for x in h)  # (P, 1, D)
        return ops.reshape(self.compare(params, h1, h2), (-1,))

    def compare(self, params: Tree, x: Any, y: Any) -> Any:
        """α d(x, y) + b: features (..., N, D) and (..., M, D) -> (..., N, M)."""
        α, b = params["alpha"], params["bias"]
        if self.distance == "cityblock":  # Σ_j α_j |x_j − y_j|
            return ops.pairwise_distance(x, y, "cityblock", α) + b
        return α * ops.pairwise_distance(x, y, self.distance) + b

    def logits(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """Those of every query with every support image: (T, N·Q, N·K)."""
        support, query = self.embed(params, episodes, batch_norm)
        return self.compare(params, query, support)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of what the pairs are, same and different classes weighing one half each (T,)."""
        z = self.logits(params, episodes, self.training_policy)
        same = episodes.query_y[:, :, None] == episodes.support_y[:, None]
        y = same.astype(z.dtype)
        losses = ops.softplus(z) - y * z
        share = y.mean(axis=(-2, -1), keepdims=True)
        kinds = (share > 0).astype(y.dtype) + (share < 1)  # one kind alone weighs all
        xp, least = backend.xp(y), 1 / (2 * y[0].size)
        weight = y / xp.maximum(share, least) + (1 - y) / xp.maximum(1 - share, least)
        return ops.mean(weight / kinds * losses, axis=(-2, -1))

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax_k of the mean logit with the images of class k, or of the largest: (T, N·Q,
        N)."""
        z = self.logits(params, episodes, batch_norm)
        if self.shots == "most-similar":
            of_class = ops.one_hot(episodes.support_y, n_way(episodes), bool)[:, None]
            largest = ops.where(of_class, z[..., None], -np.inf)  # (T, N·Q, N·K, N)
            return ops.log_softmax(ops.max(largest, axis=2))
        member = ops.one_hot(episodes.support_y, n_way(episodes), z.dtype)  # (T, N·K, N)
        return ops.log_softmax(ops.matmul(z, member / ops.sum(member, axis=1, keepdims=True)))

    def verification_accuracy(self, params: Tree, episodes: Episode) -> float:
        """The share of pairs whose p is on the right side of 1/2: query i with support image i."""
        first, second = (
            x.reshape(-1, *x.shape[2:]) for x in (episodes.support_x, episodes.query_x)
        )
        said = self.pair_logits(params, first, second, self.batch_norm) > 0
        return float((said == (episodes.support_y == episodes.query_y).reshape(-1)).mean())
