"""ANIL, almost no inner loop (Raghu, Raghu, Bengio & Vinyals, ICLR 2020, arXiv 1909.09157).

MAML whose inner loop adapts only the head, the network's last layer; all layers below it, the body,
are learned in the outer loop and are the same for every task.

    sec. 4      θ = (θ₁ … θ_l);  θ'_l = θ_l − α ∇_{θ_l} L_S(f_θ)     ANIL.inner_step
                min_θ Σᵢ L_Q(f_{θ₁ … θ_{l−1}, θ'_l})                 ANIL.task_losses

The features of support and queries are computed once, and an inner step is a product and its
gradient, whatever the size of the body. The meta-gradient goes through the inner steps, and by the
support's features to the body as well.

Differs from the paper
    The inner loss is a mean over examples; as in MAML's code, on which the paper's rests, it may be
    a sum over the classes, whose rate for N-way tasks is N times as large. The NIL algorithm of
    section 5, which drops the head in the test and compares features by their cosines, is not here:
    `Matching` is that comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scratchmeta import backend, core, nn, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, query_outputs
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given, Natural, Positive
from scratchmeta.losses import cross_entropy

Tree = Any


@dataclass(frozen=True)
class ANIL(Algorithm):
    """ANIL around a `network` of layers (`nn.Sequential`) that ends in a linear one, the head.

    `loss` maps outputs (T, N, D) and targets to one number per task. `task_chunk` is the number of
    tasks at a time (None: chosen by size). Raises ValueError for a network without such a head.
    """

    head: ClassVar[bool] = True

    network: Given[Any]
    inner_lr: Positive = 0.01
    """α, the head's learning rate."""
    inner_steps: Natural = 1
    """Inner gradient steps in training."""
    loss: Given[Callable] = cross_entropy
    eval_inner_steps: Natural | None = None
    """Inner gradient steps in validation and test; as in training if not given."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""
    task_chunk: Given[int | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        *_, (_, last) = getattr(self.network, "layers", [("", None)])
        if not isinstance(last, nn.Linear):
            raise ValueError(
                f"ANIL: wanted a network of layers that ends in Linear, got {self.network!r}"
            )

    @property
    def body(self) -> nn.Sequential:
        """All layers but the last."""
        return nn.Sequential(self.network.layers[:-1])

    @property
    def last(self) -> tuple[str, nn.Linear]:
        """The head: its name in the parameters, and the layer."""
        return self.network.layers[-1]

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters θ."""
        return self.network.init(rng)

    def features(self, params: Tree, episodes: Episode) -> tuple[Any, Any]:
        """What the body makes of support (T, N·K, F) and queries (T, N·Q, F)."""
        support = self.body(params, episodes.support_x)
        return support, query_outputs(self.body, params, episodes, self.batch_norm)

    def per_task(self, params: Tree, episodes: Episode) -> Tree:
        """One copy of the head's weights θ_l for each task: (T, ...)."""
        (name, _), tasks = self.last, len(episodes.support_x)
        return tree.map(lambda p: ops.broadcast_to(p, (tasks, *p.shape)), params[name])

    def outputs(self, weights: Tree, features: Any) -> Any:
        """The outputs (T, N, D) of heads with these weights (T, ...) for features (T, N, F)."""
        _, head = self.last
        return head(weights, features)

    def inner_step(self, weights: Tree, features: Any, targets: Any, create_graph: bool) -> Tree:
        """θ'_l = θ_l − α ∇_{θ_l} L_S for the head of every task."""
        losses = self.loss(self.outputs(weights, features), targets)  # (T,)
        change = core.grad(losses, weights, create_graph, cotangent=-self.inner_lr)  # −α ∇L_S
        return tree.map(lambda p, d: p + d, weights, change)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """The query loss with the adapted head, of every task (T,)."""
        support, query = self.features(params, episodes)
        weights = self.per_task(params, episodes)
        for _ in range(self.inner_steps):
            weights = self.inner_step(weights, support, episodes.support_y, create_graph=True)
        return self.loss(self.outputs(weights, query), episodes.query_y)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The query loss after adaptation, a mean over tasks, and its gradient ∂/∂θ."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def adapted(self, params: Tree, episodes: Episode, inner_steps: int) -> Any:
        """The outputs for the queries after so many inner steps, as raw arrays (T, N·Q, D)."""
        support, query = self.features(params, episodes)
        weights = self.per_task(params, episodes)
        for _ in range(inner_steps):
            live = tree.map(core.Tensor, weights)
            stepped = self.inner_step(live, support, episodes.support_y, create_graph=False)
            weights = tree.map(core.raw, stepped)
        return self.outputs(weights, query)

    def predict(self, params: Tree, episodes: Episode, inner_steps: int | None = None) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        given = self.eval_inner_steps if inner_steps is None else inner_steps
        steps = self.inner_steps if given is None else given
        parts = [self.adapted(params, e, steps) for e in chunks(episodes, self.task_chunk)]
        outputs = backend.xp(episodes.query_x).concatenate(parts)
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs
