"""Reptile (Nichol, Achiam & Schulman 2018, arXiv 1803.02999).

The initial parameters move towards those that some steps of ordinary training on a task lead to.

    alg. 1, line 4   φ̃ = U^k_τ(φ), k steps of Adam on task τ         Reptile.adapt
    alg. 1, line 5   φ ← φ + ε (φ̃ − φ)                              meta_gradient, and an optimizer
    alg. 2           φ ← φ + ε 1/n Σ_i (φ̃_i − φ)                    the same with n tasks at a time

There is no query set: the support and query examples of a training episode are together the task's
training data, N (K + Q) examples. Its minibatches go round them shot by shot (the first drawing of
every class, then the second, ...), so they are balanced and nothing is drawn at random.

`meta_gradient` returns φ − 1/n Σ φ̃_i, which an optimizer treats as a gradient: plain SGD of rate ε
is the paper's update.

The inner Adam has β₁ = 0, and its second moments go on from task to task. They are part of what
moves: a task's steps start from φ and v and end at φ̃ and ṽ,

    v ← β₂ v + (1 − β₂) g²;   n ← β₂ n + (1 − β₂);   φ̃ ← φ̃ − α g / (√(v / n) + 10⁻⁸),

with n the weight of the gradients that v has seen, which corrects its start at zero. They are no
part of the outer step, and do not know ε: over the k inner steps of each of n tasks they go on as

    v ← v + (1 + β + ... + βⁿ⁻¹) 1/n Σ_i (ṽ_i − v),   β = β₂ᵏ,

which is what v would be if the tasks came one after another, a mean over their orders: 0.999 of it
is kept at every inner step. `meta_gradient` returns the change of v and n beside the gradient, and
`carried` says that no optimizer moves them.

Differs from the paper
    The authors' code takes the tasks of a step one after another, each with the moments that the
    one before has left; here all steps of Adam see those from before the step. With one task a step
    they are the same. Its minibatches are drawn at random. Its network for Omniglot flattens the
    last maps, where the presets' takes their mean, as MAML's does; its weights start by Glorot's
    rule, here by `nn`'s. Its training has turns of a character as classes, and its test is on
    characters as they are, with one query of each class (presets `paper`): where queries are
    normalised together, fifteen of a class are harder (in `quick`; see docs/results.md).

Differs from the post
    The post writes α for both rates; here the inner one is `inner_lr`, the outer one ε the outer
    optimizer's. The question it leaves open, whether φ − φ̃ is the gradient of a distance to the
    task's solutions, is answered in scratchmeta.analysis.taylor: the gradient of ½ dist(φ, W)² is
    φ − P_W(φ), by the envelope theorem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scratchmeta import backend, core, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given, Natural, Positive
from scratchmeta.losses import cross_entropy

Tree = Any

BETA2, EPS = 0.999, 1e-8  # Adam's, as everywhere


def shot_by_shot(x: Any, ways: int) -> Any:
    """(T, N·K, ...), class after class, as (T, K·N, ...): every class's first, every second, ..."""
    tasks, examples, *rest = x.shape
    by_class = x.reshape(tasks, ways, examples // ways, *rest)
    return by_class.swapaxes(1, 2).reshape(tasks, examples, *rest)


@dataclass(frozen=True)
class Reptile(Algorithm):
    """Reptile around any `network` with init(rng) and network(params, x) -> logits, or values.

    Parameters are {network: φ}, and with Adam also {square: v, weight: n}. `one_by_one` normalises
    every query with the support only, as if it came alone; else all queries are normalised together
    ("transduction" in the paper). `inner_optimizer` "sgd" is for comparison with MAML and for the
    analysis. `loss` maps outputs (T, N, D) and targets to one number per task.
    """

    head: ClassVar[bool] = True
    carried: ClassVar[tuple[str, ...]] = ("square", "weight")

    network: Given[Any]
    inner_lr: Positive = 1e-3
    """Learning rate of Adam (β₁ = 0) within a task."""
    inner_steps: Count = 5
    """Inner steps in training."""
    inner_batch: Count = 10
    """Examples in an inner step, in training."""
    eval_inner_steps: Natural = 50
    """Inner steps in validation and test."""
    eval_batch: Count = 5
    """Examples of the support in an inner step, at most all, in validation and test."""
    one_by_one: bool = False
    """Normalise every query with the support alone, not with the other queries."""
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    """Adam as in the paper, or plain gradient descent."""
    loss: Given[Callable] = cross_entropy
    task_chunk: Given[int | None] = None

    @property
    def equal_shots(self) -> bool:
        """Support examples are gone round shot by shot."""
        return True

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network: φ}; with Adam also v and n, which are 0."""
        network = self.network.init(rng)
        if self.inner_optimizer == "sgd":
            return {"network": network}
        zeros = tree.map(lambda p: 0.0 * p, network)
        return {"network": network, "square": zeros, "weight": backend.asarray([0.0], "float32")}

    def adapt(self, params: Tree, x: Any, y: Any, steps: int, size: int) -> tuple[Tree, Any]:
        """φ̃ of every task, with Adam also ṽ and n, each (T, ...), and the mean loss (T,) of the
        minibatches on the way.

        x (T, M, ...) and y (T, M, ...) are gone round in minibatches of `size`.
        """
        tasks, m = x.shape[:2]
        fast = tree.map(lambda p: ops.broadcast_to(p, (tasks, *p.shape)), params)
        losses = 0.0
        for step in range(steps):
            batch = [i % m for i in range(step * size, (step + 1) * size)]
            live = tree.map(core.Tensor, fast["network"])
            loss = self.loss(self.network(live, x[:, batch]), y[:, batch])
            gradient = tree.map(core.raw, core.grad(ops.sum(loss), live, create_graph=False))
            fast = self.inner_step(fast, gradient)
            losses = losses + core.raw(loss) / steps
        return fast, losses

    def inner_step(self, fast: Tree, gradient: Tree) -> Tree:
        """One step of every task, by Adam or plain gradient descent."""
        φ, α = fast["network"], self.inner_lr
        if self.inner_optimizer == "sgd":
            return {"network": tree.map(lambda p, g: p - α * g, φ, gradient)}
        v = tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, fast["square"], gradient)
        n = BETA2 * fast["weight"] + (1 - BETA2)  # (T, 1)

        def moved(p, g, v):
            return p - α * g / (ops.sqrt(v / n.reshape(-1, *(1,) * (v.ndim - 1))) + EPS)

        return {"network": tree.map(moved, φ, gradient, v), "square": v, "weight": n}

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The mean loss of the minibatches and φ − 1/n Σ φ̃_i, with Adam also −1 times the change
        of v and n."""
        total, moved = 0.0, None
        for part in chunks(episodes, self.task_chunk):
            x, y = self.training_data(part)
            fast, losses = self.adapt(params, x, y, self.inner_steps, self.inner_batch)
            total = total + losses.sum()
            change = tree.map(lambda p, f: (p - f).sum(axis=0), params, fast)
            moved = change if moved is None else tree.map(lambda a, b: a + b, moved, change)
        tasks = len(episodes.support_x)
        change = tree.map(lambda d: d / tasks, moved)
        # 1 + β + ... + βⁿ⁻¹, β = β₂ᵏ
        passed = sum(BETA2 ** (self.inner_steps * i) for i in range(tasks))
        moments = {name: change[name] for name in self.carried if name in change}
        return total / tasks, {**change, **tree.map(lambda d: passed * d, moments)}

    def training_data(self, episodes: Episode) -> tuple[Any, Any]:
        """Support and query as one set of examples, shot by shot: x (T, M, ...), y (T, M, ...)."""
        ways = self.ways(episodes)
        xs = shot_by_shot(episodes.support_x, ways), shot_by_shot(episodes.query_x, ways)
        ys = shot_by_shot(episodes.support_y, ways), shot_by_shot(episodes.query_y, ways)
        return ops.concat(xs, axis=1), ops.concat(ys, axis=1)

    def ways(self, episodes: Episode) -> int:
        """The number of classes, 1 in regression."""
        return int(episodes.support_y.max()) + 1 if self.loss is cross_entropy else 1

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        parts = [self._outputs(params, part) for part in chunks(episodes, self.task_chunk)]
        outputs = backend.xp(episodes.query_x).concatenate(parts)
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs

    def _outputs(self, params, episodes):
        ways = self.ways(episodes)
        x, y = (shot_by_shot(a, ways) for a in (episodes.support_x, episodes.support_y))
        size = min(self.eval_batch, x.shape[1])
        fast = self.adapt(params, x, y, self.eval_inner_steps, size)[0]["network"]
        query = episodes.query_x
        if not self.one_by_one:
            return self.network(fast, query)
        outputs = [
            self.network(fast, ops.concat([x, query[:, i : i + 1]], axis=1))[:, -1:]
            for i in range(query.shape[1])
        ]
        return ops.concat(outputs, axis=1)
