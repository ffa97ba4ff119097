"""What the papers compare with: an ordinary classifier, and what its features are worth.

A network is trained to tell all classes of the training set apart. A new task then gets

    BaselineNN          the label of the support image whose features have the largest cosine
    BaselineFinetune    a new last layer, trained on the support together with the features

Both are in Matching Networks (Vinyals et al. 2016, section 4.1: the baseline classifier, with and
without fine-tuning) and in Ravi & Larochelle (2017, section 5: "baseline-nearest-neighbor",
"baseline-finetune").

    L = −1/M Σ_m log softmax(W f(x_m) + b)[y_m]                     Baseline.task_losses
    y = y_i,  i = argmax_i cos(f(x), f(x_i))                        BaselineNN.log_probabilities
    φ ← φ − α ∇_φ L_S(φ),  φ = (f, a new W and b)                   BaselineFinetune.adapt

This training knows no tasks. An episode of `data.Numbered` is a batch for it: support and query
alike are images of some classes, each with the number of its class in the whole training set.

Differs from the papers
    Ravi & Larochelle choose rate and number of the fine-tuning steps on validation tasks; here they
    are options. The new layer starts at 0, so before the first step all classes are equally
    likely. Vinyals et al. do not say what is fine-tuned; here it is everything, as by Ravi &
    Larochelle, or the new layer alone with `only_head`. After it queries are normalised by their
    own statistics unless `batch_norm` is "support": they help one another (Vinyals et al. do not
    say).

Differs from the post
    The post shows these rows in its results and does not describe them.
"""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np

from scratchmeta import backend, core, nn, ops, tree
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way, query_outputs
from scratchmeta.data import Numbered, Splits
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given, Natural, Positive, at_least
from scratchmeta.losses import cross_entropy


@dataclass(frozen=True)
class Baseline(MetricLearner):
    """A classifier of all training classes around a `network` with features (T, M, n_features).

    The rest as in `MetricLearner`.
    """

    classes: Annotated[int, at_least(2)] = 615
    """Training classes: the dataset's, turned ones included."""
    n_features: Given[int] = 64
    _: KW_ONLY
    batch_norm: nn.Policy = "running"
    """Batch-norm by the statistics of the episode, of its support, or of training batches."""

    @cached_property
    def classifier(self) -> nn.Sequential:
        """The network, and a linear layer for all training classes."""
        return nn.Sequential(
            [("network", self.network), ("head", nn.Linear(self.n_features, self.classes))]
        )

    def datasets(self, splits: Splits) -> Splits:
        """Trained on batches in which a class has its number in the whole dataset."""
        train = splits.train
        if train.n_classes != self.classes:
            raise ValueError(
                f"classes: wanted the {train.n_classes} of {train}, got {self.classes}"
            )
        return splits._replace(train=Numbered(train))

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, head}."""
        return self.classifier.init(rng)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of the true class among all training classes, a mean over each batch (T,)."""
        x = ops.concat([episodes.support_x, episodes.query_x], axis=1)
        y = ops.concat([episodes.support_y, episodes.query_y], axis=1)
        highest = int(y.max())
        if highest >= self.classes:
            raise ValueError(
                f"{type(self).__name__}: wanted labels below classes={self.classes}, got {highest}"
            )
        return cross_entropy(self.classifier(params, x), y)


@dataclass(frozen=True)
class BaselineNN(Baseline):
    """The nearest neighbour by the cosine of features."""

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax_k of the largest cosine with an image of class k: (T, N·Q, N)."""
        support, query = self.embed(params, episodes, batch_norm)
        cosine = 1 - ops.pairwise_distance(query, support, "cosine")  # (T, N·Q, N·K)
        member = ops.one_hot(episodes.support_y, n_way(episodes), bool)  # (T, N·K, N)
        # −2 is less than any cosine: an image of another class is never the largest
        of_class = ops.where(member[:, None], cosine[..., None], -2.0)  # (T, N·Q, N·K, N)
        return ops.log_softmax(ops.max(of_class, axis=-2))


@dataclass(frozen=True)
class BaselineFinetune(Baseline):
    """A new last layer and the features, trained on the support by gradient descent.

    Every step is on the whole support.
    """

    finetune_steps: Natural = 20
    """Steps on the support."""
    finetune_lr: Positive = 0.01
    """Their learning rate."""
    only_head: bool = False
    """Train the new layer only, and leave the features as they are."""
    _: KW_ONLY
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by the support's, under the new
    weights."""

    def __post_init__(self) -> None:
        if self.batch_norm == "running":
            raise ValueError(
                "BaselineFinetune: wanted batch_norm 'transductive' or 'support', got 'running': "
                "statistics of the training classes do not describe the fine-tuned network"
            )
        super().__post_init__()

    def adapt(self, params: Tree, episodes: Episode) -> Tree:
        """The weights {network, head} of every task (T, ...) after fine-tuning, raw."""
        tasks, ways, like = len(episodes.support_x), n_way(episodes), params["head"]["weight"]
        shapes = {"weight": (tasks, self.n_features, ways), "bias": (tasks, ways)}
        weights = {
            "network": tree.map(
                lambda p: ops.broadcast_to(p, (tasks, *p.shape)),
                nn.without_statistics(params["network"]),
            ),
            "head": {k: backend.xp(like).zeros(s, dtype=like.dtype) for k, s in shapes.items()},
        }
        trained = ("head",) if self.only_head else ("head", "network")
        for _ in range(self.finetune_steps):
            live = tree.map(core.Tensor, {name: weights[name] for name in trained})
            losses = cross_entropy(
                self.classifier(weights | live, episodes.support_x), episodes.support_y
            )
            gradient = core.grad(ops.sum(losses), live)
            weights |= tree.map(lambda w, g: w.data - self.finetune_lr * g, live, gradient)
        return weights

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log softmax of the fine-tuned classifiers' outputs: (T, N·Q, N)."""
        weights = self.adapt(params, episodes)
        return ops.log_softmax(query_outputs(self.classifier, weights, episodes, batch_norm))
