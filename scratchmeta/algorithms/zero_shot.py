"""Zero-shot Prototypical Networks (Snell, Swersky & Zemel, NIPS 2017, arXiv 1703.05175, sec. 2.6).

Nobody shows an example of a class; it is described by a vector of attributes. A second network
makes its prototype from them, and all else is as with examples.

    sec. 2.6    c_k = g_ϑ(v_k) / ‖g_ϑ(v_k)‖                           ZeroShot.prototypes
    eq. 2       p(y = k | x) = softmax_k(−‖f_φ(x) − c_k‖²)            ZeroShot.log_probabilities
    alg. 1      J = −log p(y = k | x), mean over the queries          MetricLearner.task_losses

Prototypes have unit length because attributes and images are of different kinds; f is left free.
As ‖c_k‖ = 1, −‖f − c_k‖² is 2 f · c_k up to what all classes share: the direction of f chooses the
class, its length says how surely.

An episode holds v_k as the support, one for each class: support_x (T, N, A), and images or their
features as queries (`data.Described` draws them).

Differs from the paper
    On birds f and g are linear, from features that another network had computed: preset `paper`.
    On glyphs f is the four-block network with a linear layer, g has a hidden layer.

Differs from the post
    The post has no more of it than a figure's caption.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np

from scratchmeta import nn, ops
from scratchmeta.algorithms import prototypical
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.data import Described, Splits
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given
from scratchmeta.ops.reference import unit


@dataclass(frozen=True)
class ZeroShot(MetricLearner):
    """Prototypical Networks for described classes: f, `network`, and g, `attribute_network`.

    Both have init(rng) and network(params, x) -> features (T, ·, D), of the same D. `batch_norm`
    normalises the queries (there is no support that could), the rest is as in `MetricLearner`.
    """

    attribute_network: Given[Any]
    _: KW_ONLY
    batch_norm: Literal["transductive", "running"] = "transductive"
    """Batch-norm by the statistics of the queries, or of training episodes."""

    def __post_init__(self) -> None:
        if self.batch_norm == "support":
            raise ValueError(
                "batch_norm: wanted 'transductive' or 'running', got 'support': a support of "
                "attributes has no statistics of images"
            )
        super().__post_init__()

    def datasets(self, splits: Splits) -> Splits:
        """The same with described classes, their attributes on one scale."""
        reference = None if splits.train.on_one_scale else splits.train
        return Splits(*(Described(part, reference) for part in splits))

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network: φ, attributes: ϑ}."""
        return {**super().init(rng), "attributes": self.attribute_network.init(rng)}

    def inputs(self, episodes: Episode) -> Any:
        """What f sees: the queries (T, N·Q, ...) only."""
        return episodes.query_x

    def prototypes(self, params: Tree, episodes: Episode) -> Any:
        """c_k = g(v_k) / ‖g(v_k)‖: (T, N, D)."""
        g = self.attribute_network(params["attributes"], episodes.support_x)
        c = prototypical.prototypes(g, episodes.support_y, n_way(episodes))
        return unit(c)

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax_k(−‖f(x) − c_k‖²) for every query: (T, N·Q, N)."""
        φ = params["network"]
        if batch_norm == "running":
            nn.require_statistics(φ)
        else:
            φ = nn.without_statistics(φ)
        f = self.network(φ, episodes.query_x)
        return ops.log_softmax(-ops.pairwise_distance(f, self.prototypes(params, episodes)))
