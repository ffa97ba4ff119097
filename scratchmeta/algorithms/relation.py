"""Relation Networks (Sung, Yang, Zhang, Xiang, Torr & Hospedales, CVPR 2018, arXiv 1711.06025).

How alike a query and a class are is itself learned, by a network that sees both feature maps.

    eq. 1     r_kj = g_φ(C(f_φ(x_k), f_φ(x_j)))            Relation.scores
    sec. 3.2  several shots: the sum of their maps         class_maps
    eq. 2     Σ_kj (r_kj − 1[y_k = y_j])²                  Relation.task_losses

f keeps maps (H, W, C); C puts two of them on top of each other; g is two convolution blocks and
two linear layers that end in a sigmoid.

The first convolution of g is linear, so that of [a, b] is w_a ∗ a + w_b ∗ b. Maps of classes and of
queries are convolved once each and then added in pairs: N + N·Q convolutions, not N · N·Q, and no
concatenation in memory: a training step of 20 ways, 1 shot and 10 queries each takes 145 MiB.

Differs from the paper
    The loss is a mean over pairs, as in the authors' code. log p(y = k | x) in `predict` is the
    logarithm of the scores, normalised over the classes: the same choice as by the largest score.
    Batch-norm uses the statistics of what passes through it in training and in testing, those of
    the support and of the queries apart, as the authors' code does (it never calls eval): no other
    policy is offered. Gradients are clipped together; there, those of f and of g apart. Weights
    start as in the rest of the library. The paper's 20-way numbers are of networks trained in 20
    ways apart (preset `paper-20-way`): the authors' own 5-way weights have 57.7 % there.

Differs from the post
    The post leaves out that the maps of several shots are summed.
"""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from scratchmeta import nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given


def embedding(n_channels: int = 64, in_channels: int = 1) -> nn.Sequential:
    """f: images (..., N, H, W, in_channels) -> maps (..., N, H', W', n_channels).

    Two blocks of unpadded convolution and pooling, two padded ones without pooling (the authors'
    code): H' = 5 for 28 x 28, 19 for 84 x 84.
    """
    blocks = [
        nn.ConvBlock(in_channels, n_channels, padding="valid"),
        nn.ConvBlock(n_channels, n_channels, padding="valid"),
        nn.ConvBlock(n_channels, n_channels, pooling="none"),
        nn.ConvBlock(n_channels, n_channels, pooling="none"),
    ]
    return nn.Sequential([(f"block{i + 1}", block) for i, block in enumerate(blocks)])


def class_maps(maps: Any, labels: Any, ways: int) -> Any:
    """The sum of each class's maps: (T, N·K, H, W, C) with labels (T, N·K) -> (T, N, H, W, C)."""
    member = ops.one_hot(labels, ways, maps.dtype)  # (T, N·K, N)
    tasks, shots, *size = maps.shape
    sums = ops.matmul(ops.matrix_transpose(member), ops.reshape(maps, (tasks, shots, -1)))
    return ops.reshape(sums, (tasks, ways, *size))


@dataclass(frozen=True)
class Relation(MetricLearner):
    """Relation Networks around any `network` with network(params, x) -> maps (T, N, H, W, C).

    C is `n_channels`; `map_size` is H = W. The rest as in `MetricLearner`. Raises ValueError when g
    would halve its maps to nothing.
    """

    n_channels: Given[int] = 64
    map_size: Given[int] = 5
    hidden: Count = 8
    """Units between the two linear layers of the relation module g."""
    padding: Literal["same", "valid"] = "same"
    """Whether g's convolutions pad (the authors' for Omniglot) or not (mini-ImageNet)."""
    _: KW_ONLY
    batch_norm: Given[nn.Policy] = "transductive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            least = 4 + 3 * self.cut
            raise ValueError(f"Relation: wanted map_size of at least {least}, got {self.map_size}")

    @property
    def cut(self) -> int:
        """What a convolution takes off a side."""
        return 2 if self.padding == "valid" else 0

    @property
    def side(self) -> int:
        """That of the maps which g's linear layers see."""
        return ((self.map_size - self.cut) // 2 - self.cut) // 2

    @cached_property
    def first(self) -> nn.ConvBlock:
        """g's first block."""
        return nn.ConvBlock(2 * self.n_channels, self.n_channels, padding=self.padding)

    @cached_property
    def second(self) -> nn.ConvBlock:
        """g's second block."""
        return nn.ConvBlock(self.n_channels, self.n_channels, padding=self.padding)

    @cached_property
    def last(self) -> nn.Sequential:
        """g's linear layers."""
        return nn.MLP([self.side * self.side * self.n_channels, self.hidden, 1])

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, first, second, head}: of f, and of the layers of g."""
        parts: dict[str, Any] = {"first": self.first, "second": self.second, "head": self.last}
        return {**super().init(rng), **{name: part.init(rng) for name, part in parts.items()}}

    def first_block(self, params: Tree, classes: Any, queries: Any) -> Any:
        """The first block of g on every pair [class, query]: (T, N·Q · N, H', W', C)."""
        p, c = params["first"], classes.shape[-1]
        w = p["conv"]["weight"]
        of_class = ops.conv2d(classes, w[..., :c, :], padding=self.first.padding)
        of_query = ops.conv2d(queries, w[..., c:, :], padding=self.first.padding)
        y = of_query[:, :, None] + of_class[:, None]  # (T, N·Q, N, H, W, C)
        y = ops.reshape(y, (y.shape[0], -1, *y.shape[3:]))
        return ops.norm_relu_pool(y, p["norm"]["scale"], p["norm"]["offset"])

    def logits(self, params: Tree, episodes: Episode) -> Any:
        """What the sigmoid of g is taken of, for every query and class: (T, N·Q, N)."""
        f = nn.without_statistics(params["network"])
        support, query = self.network(f, episodes.support_x), self.network(f, episodes.query_x)
        classes = class_maps(support, episodes.support_y, n_way(episodes))
        x = self.second(params["second"], self.first_block(params, classes, query))
        return ops.reshape(
            self.last(params["head"], nn.flatten_images(x)),
            (*query.shape[:2], classes.shape[1]),
        )

    def scores(self, params: Tree, episodes: Episode) -> Any:
        """r, between 0 and 1, for every query and class: (T, N·Q, N)."""
        return ops.sigmoid(self.logits(params, episodes))

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """The mean of (r − 1[same class])² over the pairs of every task (T,)."""
        r = self.scores(params, episodes)
        same = ops.one_hot(episodes.query_y, r.shape[-1], r.dtype)
        return ops.mean(ops.square(r - same), axis=(-2, -1))

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log (r_k / Σ_j r_j) for every query: (T, N·Q, N)."""
        return ops.log_softmax(-ops.softplus(-self.logits(params, episodes)))
