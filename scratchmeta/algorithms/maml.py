"""MAML, model-agnostic meta-learning, and its first-order form (Finn, Abbeel & Levine, ICML 2017,
arXiv 1703.03400).

Parameters are sought from which a few steps of gradient descent on a task's support set lead to a
small loss on its query set.

    eq. 1, alg. 2 line 7   θ'ᵢ = θ − α ∇_θ L_i(f_θ)          MAML.adapt
    sec. 2.2               min_θ Σᵢ L_i(f_θ'ᵢ)               MAML.task_losses
    alg. 2 line 10         θ ← θ − β ∇_θ Σᵢ L_i(f_θ'ᵢ)       MAML.meta_gradient, and an optimiser

All tasks are adapted at once: fast weights carry a leading task axis, and the gradient of the sum
of the tasks' losses with respect to them holds every task's own gradient.

The meta-gradient goes through the inner steps. For one step,

    ∇_θ L(θ') = (I − α ∇²L_S(θ)) ∇L_Q(θ'),

and `first_order=True` (FOMAML, section 5.2) treats the inner gradient as a constant, leaving
∇L_Q(θ').

Differs from the paper
    The loss is a mean over examples, as the paper's text has it. The authors' code divides the sum
    over all N·K examples by K only, so its inner rate for N-way tasks is N α: the preset
    `author-code` uses that rate, and 2.0 in 20 ways (`author-code-20-way`); first-order it does
    not bear it. Batch-norm has scale and offset here, both adapted (there: an offset, not adapted),
    and 1e-3 for its ε in `author-code` only. Weights start as in the rest of the library.

Differs from the post
    The post takes the same batch for all inner steps, and in its section on Reptile a new one for
    each: `inner_batches` is "same" or "fresh".
    The post's product for k steps leaves the order open; for column gradients the factor of the
    first step stands leftmost: (I − αH₀)(I − αH₁)…(I − αH_{k−1}) g_k.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scratchmeta import backend, core, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, query_outputs
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given, Natural, Positive
from scratchmeta.losses import cross_entropy

Tree = Any


@dataclass(frozen=True)
class MAML(Algorithm):
    """MAML around any `network` with init(rng) and network(params, x) -> logits, or values.

    With `first_order` it is FOMAML. `loss` maps outputs (T, N, D) and targets to one number per
    task. `batch_norm` "transductive" is the authors' code. `task_chunk` is the number of tasks at a
    time (None: chosen by size).
    """

    head: ClassVar[bool] = True

    network: Given[Any]
    inner_lr: Positive = 0.01
    """α, the inner loop's learning rate."""
    inner_steps: Count = 1
    """Inner gradient steps in training."""
    first_order: bool = False
    """Take the inner gradients for constants."""
    inner_batches: Literal["same", "fresh"] = "same"
    """The whole support in each inner step, or other shots of it in each."""
    loss: Given[Callable] = cross_entropy
    eval_inner_steps: Natural | None = None
    """Inner gradient steps in validation and test; as in training if not given."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""
    task_chunk: Given[int | None] = None

    def __post_init__(self) -> None:
        if self.batch_norm == "running":
            raise ValueError(
                "MAML: wanted batch_norm 'transductive' or 'support', got 'running': statistics "
                "collected before adaptation do not describe the adapted network"
            )
        if self.eval_inner_steps is None:
            object.__setattr__(self, "eval_inner_steps", self.inner_steps)
        super().__post_init__()

    @property
    def equal_shots(self) -> bool:
        """Fresh batches are chosen shot by shot."""
        return self.inner_batches == "fresh"

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters θ."""
        return self.network.init(rng)

    def inner_batch(self, episodes: Episode, step: int) -> tuple[Any, Any]:
        """The support examples of an inner step: all, or of every class the shots s with s mod
        `inner_steps` = step mod `inner_steps`."""
        x, y = episodes.support_x, episodes.support_y
        if self.inner_batches == "same":
            return x, y
        shots = x.shape[1] // (int(y.max()) + 1 if y.dtype.kind == "i" else 1)
        if shots < self.inner_steps:
            raise ValueError(
                f"MAML: wanted at least {self.inner_steps} shots, one for each inner step with "
                f"fresh batches, got {shots}"
            )
        turn = step % self.inner_steps
        chosen = [i for i in range(x.shape[1]) if i % shots % self.inner_steps == turn]
        return x[:, chosen], y[:, chosen]

    def inner_step(self, fast: Tree, episodes: Episode, step: int, create_graph: bool) -> Tree:
        """θ' = θ − α ∇L_S(θ) for the fast weights of every task."""
        x, y = self.inner_batch(episodes, step)
        losses = self.loss(self.network(fast, x), y)  # (T,)
        change = core.grad(losses, fast, create_graph, cotangent=-self.inner_lr)  # −α ∇L_S(θ)
        return tree.map(lambda p, d: p + d, fast, change)

    def query_outputs(self, fast: Tree, episodes: Episode) -> Any:
        """The adapted networks' outputs for the queries: (T, N·Q, D)."""
        return query_outputs(self.network, fast, episodes, self.batch_norm)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """L_i(f_θ'ᵢ), the query loss after adaptation, of every task (T,)."""
        fast = self.per_task(params, episodes)
        for step in range(self.inner_steps):
            fast = self.inner_step(fast, episodes, step, create_graph=not self.first_order)
        return self.loss(self.query_outputs(fast, episodes), episodes.query_y)

    def per_task(self, params: Tree, episodes: Episode) -> Tree:
        """One copy of θ for each task: every array with a leading task axis."""
        tasks = len(episodes.support_x)
        return tree.map(lambda p: ops.broadcast_to(p, (tasks, *p.shape)), params)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The query loss after adaptation, a mean over tasks, and its gradient ∂/∂θ."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def adapt(self, params: Tree, episodes: Episode, inner_steps: int) -> Tree:
        """The fast weights of every task after `inner_steps` steps, as raw arrays (T, ...)."""
        fast = self.per_task(params, episodes)
        for step in range(inner_steps):
            live = tree.map(core.Tensor, fast)
            fast = tree.map(core.raw, self.inner_step(live, episodes, step, create_graph=False))
        return fast

    def predict(self, params: Tree, episodes: Episode, inner_steps: int | None = None) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        steps: Any = self.eval_inner_steps if inner_steps is None else inner_steps
        outputs = backend.xp(episodes.query_x).concatenate(
            [
                self.query_outputs(self.adapt(params, part, steps), part)
                for part in chunks(episodes, self.task_chunk)
            ]
        )
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs
