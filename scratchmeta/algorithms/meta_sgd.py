"""Meta-SGD (Li, Zhou, Chen & Li 2017, arXiv 1707.09835).

MAML with the inner learning rate learned as well, one for each parameter: length and direction of
the inner step are then part of what is learned, and one step is enough.

    sec. 3   θ' = θ − α ∘ ∇L_S(θ)                              MetaSGD.inner_step
             min_{θ, α} Σᵢ L_Q(θ'ᵢ)                            MetaSGD.task_losses
    alg. 1   (θ, α) ← (θ, α) − β ∇_{(θ, α)} Σᵢ L_Q(θ'ᵢ)        meta_gradient, and an optimiser

α is a tree like θ. It may become negative, where the step is to go up a coordinate.

Differs from the paper
    There is one inner step there; `inner_steps` takes several with the same α. The range that α
    starts in is an option, and so is the outer optimiser. Losses are means over examples, so that
    α is N times what it would be for a sum over N classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scratchmeta import backend, core, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, query_outputs
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given, Interval, Natural
from scratchmeta.losses import cross_entropy

Tree = Any


@dataclass(frozen=True)
class MetaSGD(Algorithm):
    """Meta-SGD around any `network` with init(rng) and network(params, x) -> logits, or values.

    Parameters are {network: θ, rate: α}. `loss` maps outputs (T, N, D) and targets to one number
    per task. `task_chunk` is the number of tasks at a time (None: chosen by size).
    """

    head: ClassVar[bool] = True

    network: Given[Any]
    rate: Interval = (0.005, 0.1)
    """Range that every rate in α is drawn from in the beginning."""
    inner_steps: Natural = 1
    """Inner gradient steps in training."""
    loss: Given[Callable] = cross_entropy
    eval_inner_steps: Natural | None = None
    """Inner gradient steps in validation and test; as in training if not given."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""
    task_chunk: Given[int | None] = None

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network: θ, rate: α}."""
        network = self.network.init(rng)

        def rates(p):
            return backend.asarray(rng.uniform(*self.rate, p.shape).astype(np.float32))

        return {"network": network, "rate": tree.map(rates, network)}

    def inner_step(self, fast: Tree, rate: Tree, episodes: Episode, create_graph: bool) -> Tree:
        """θ' = θ − α ∘ ∇L_S(θ) for the fast weights of every task."""
        losses = self.loss(self.network(fast, episodes.support_x), episodes.support_y)  # (T,)
        gradient = core.grad(losses, fast, create_graph, cotangent=1.0)
        return tree.map(lambda p, a, g: p - a * g, fast, rate, gradient)

    def per_task(self, params: Tree, episodes: Episode) -> Tree:
        """One copy of θ for each task: every array with a leading task axis."""
        tasks = len(episodes.support_x)
        return tree.map(lambda p: ops.broadcast_to(p, (tasks, *p.shape)), params["network"])

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """L_Q(θ'), the query loss after adaptation, of every task (T,)."""
        fast = self.per_task(params, episodes)
        for _ in range(self.inner_steps):
            fast = self.inner_step(fast, params["rate"], episodes, create_graph=True)
        outputs = query_outputs(self.network, fast, episodes, self.batch_norm)
        return self.loss(outputs, episodes.query_y)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The query loss after adaptation, a mean over tasks, and its gradient ∂/∂(θ, α)."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def outputs(self, params: Tree, episodes: Episode, inner_steps: int) -> Any:
        """The outputs for the queries after so many inner steps, as raw arrays (T, N·Q, D)."""
        fast = self.per_task(params, episodes)
        for _ in range(inner_steps):
            live = tree.map(core.Tensor, fast)
            stepped = self.inner_step(live, params["rate"], episodes, create_graph=False)
            fast = tree.map(core.raw, stepped)
        return query_outputs(self.network, fast, episodes, self.batch_norm)

    def predict(self, params: Tree, episodes: Episode, inner_steps: int | None = None) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        given = self.eval_inner_steps if inner_steps is None else inner_steps
        steps = self.inner_steps if given is None else given
        parts = [self.outputs(params, e, steps) for e in chunks(episodes, self.task_chunk)]
        outputs = backend.xp(episodes.query_x).concatenate(parts)
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs
