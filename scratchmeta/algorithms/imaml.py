"""iMAML, MAML with implicit gradients (Rajeswaran, Finn, Kakade & Levine, NeurIPS 2019, arXiv
1909.04630).

A task's weights minimise its support loss with a penalty on their distance from θ. The gradient of
a minimum follows from the minimum alone, whatever the way there, and so needs no graph of it.

    eq. 4     φ* = argmin_φ L_S(φ) + λ/2 ‖φ − θ‖²             minimum, IMAML.adapt
    lemma 1   ∂φ*/∂θ = (I + 1/λ ∇²L_S(φ*))⁻¹                  the rule of `minimum`
    alg. 2    (I + 1/λ ∇²L_S(φ*)) g = ∇L_Q(φ*), for g         conjugate_gradients
    alg. 1    min_θ Σᵢ L_Q(φ*ᵢ(θ))                            IMAML.task_losses, meta_gradient

φ* is written as an operation with its rule, like those of `scratchmeta.ops`: forward, gradient
descent on eq. 4; backward, the linear system of lemma 1, solved by conjugate gradients, which only
ask for products of the Hessian with vectors, ∇⟨∇L_S(φ), v⟩. All tasks are solved at once: φ is
(T, P), a row of P weights for each task, and a product with T vectors gives every task's own.

The system is that of a minimum only where I + 1/λ ∇²L_S is positive definite. A network with
batch-norm is far from that, and many conjugate gradients then leave for infinity. One of them gives
a multiple of the first-order gradient; few of them, or δ in 1/(λ + δ), keep near it.

Differs from the paper
    The authors' code takes plain gradient steps on L_S, then one on the penalty alone, and solves
    2 I + 1/(λ + 10) ∇²L_S in the place of lemma 1's matrix; it tests without a penalty. Here both
    are as the paper has them unless δ is given, and predict minimises what training does. Their
    second inner optimiser, Hessian-free, and a λ that is learned are not here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scratchmeta import backend, core, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, query_outputs
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given, Natural, NonNegative, Positive
from scratchmeta.losses import cross_entropy

Tree = Any


def conjugate_gradients(product: Callable, b: Any, steps: int) -> Any:
    """x with A x = b in so many steps, for symmetric positive definite A; product(v) is A v.

    b is (T, P), with an A of its own for every row (Hestenes & Stiefel 1952). Exact after P steps.
    """

    def ratio(a, b):  # 0 where a row is solved and both are 0
        solved = ops.raw(b) == 0
        return ops.where(solved, 0.0, a / ops.where(solved, 1.0, b))

    def squared(r):
        return ops.sum(r * r, axis=-1, keepdims=True)  # (T, 1)

    x, r, p = 0.0 * b, b, b
    rr = squared(r)
    for _ in range(steps):
        a_p = product(p)
        step = ratio(rr, ops.sum(p * a_p, axis=-1, keepdims=True))  # rᵀr / pᵀA p
        x, r = x + step * p, r - step * a_p
        before, rr = rr, squared(r)
        p = r + ratio(rr, before) * p
    return x


@core.primitive(lambda g, φ, θ, descend, implicit: implicit(g, φ), None, None)
def minimum(θ, descend, implicit):
    """φ* for θ, rows (T, P), as `descend(θ)` finds it; g becomes `implicit(g, φ*)`."""
    return descend(θ)


@dataclass(frozen=True)
class IMAML(Algorithm):
    """iMAML around any `network` with init(rng) and network(params, x) -> logits, or values.

    `loss` maps outputs (T, N, D) and targets to one number per task. `task_chunk` is the number of
    tasks at a time (None: chosen by size).
    """

    head: ClassVar[bool] = True

    network: Given[Any]
    penalty: Positive = 2.0
    """λ, which keeps a task's weights near θ."""
    inner_lr: Positive = 0.1
    """The learning rate of gradient descent towards φ*."""
    inner_steps: Natural = 16
    """Its steps in training."""
    cg_steps: Count = 5
    """Conjugate gradients, each a product with the Hessian."""
    damping: NonNegative = 0.0
    """δ, which weakens the Hessian where it is not positive definite."""
    loss: Given[Callable] = cross_entropy
    eval_inner_steps: Natural | None = None
    """Steps towards φ* in validation and test; as in training if not given."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""
    task_chunk: Given[int | None] = None

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters θ."""
        return self.network.init(rng)

    def adapt(self, params: Tree, episodes: Episode, inner_steps: int) -> Tree:
        """φ* of every task, weights (T, ...): differentiable in θ, to any order."""
        leaves, treedef = tree.flatten(params)
        tasks, λ, δ = len(episodes.support_x), self.penalty, self.damping

        def weights(φ):  # (T, P) -> (T, ...)
            parts = zip(ops.split(φ, [p.size for p in leaves]), leaves, strict=True)
            return tree.unflatten(treedef, [ops.reshape(v, (tasks, *p.shape)) for v, p in parts])

        def gradient(φ, create_graph):  # ∇L_S(φ) (T, P)
            losses = self.loss(self.network(weights(φ), episodes.support_x), episodes.support_y)
            return core.grad(losses, φ, create_graph, cotangent=1.0)

        def descend(θ):
            φ = θ
            for _ in range(inner_steps):
                slope = gradient(core.Tensor(φ), create_graph=False) + λ * (φ - θ)
                φ = φ - self.inner_lr * slope
            return φ

        def implicit(g, φ):  # (I + 1/(λ + δ) ∇²L_S(φ*))⁻¹ g
            again = isinstance(g, core.Tensor)  # the gradient is to be differentiated itself
            φ = φ if again else core.Tensor(φ)
            slope = gradient(φ, create_graph=True)
            return conjugate_gradients(
                lambda v: v + core.grad(slope, φ, again, cotangent=v) / (λ + δ),  # H v: ∇⟨∇L_S, v⟩
                g,
                self.cg_steps,
            )

        θ = ops.concat(leaves, axis=None)
        θ = ops.broadcast_to(θ, (tasks, *θ.shape))
        return weights(minimum(θ, descend, implicit))

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """L_Q(φ*), the query loss after adaptation, of every task (T,)."""
        fast = self.adapt(params, episodes, self.inner_steps)
        outputs = query_outputs(self.network, fast, episodes, self.batch_norm)
        return self.loss(outputs, episodes.query_y)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The query loss after adaptation, a mean over tasks, and its implicit gradient ∂/∂θ."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def predict(self, params: Tree, episodes: Episode, inner_steps: int | None = None) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        given = self.eval_inner_steps if inner_steps is None else inner_steps
        steps = self.inner_steps if given is None else given
        parts = [
            query_outputs(self.network, self.adapt(params, e, steps), e, self.batch_norm)
            for e in chunks(episodes, self.task_chunk)
        ]
        outputs = backend.xp(episodes.query_x).concatenate(parts)
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs
