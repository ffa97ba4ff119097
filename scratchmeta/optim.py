"""Optimisers as pure functions: `params, state = optimiser.step(params, grads, state)`.

They are written in the library's own operations, so they work on raw arrays and, inside an inner
loop, on Tensors, through which the gradient flows. `lr` is a number or a schedule: a function of
the number of steps already taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchmeta import ops, tree
from scratchmeta.core import Tensor

Tree = Any
Schedule = Callable[[int], float]


def _zeros(params: Tree) -> Tree:
    return tree.map(lambda p: 0.0 * p, params)


def _rate(lr: float | Schedule, state: dict) -> float:
    return lr(int(state["step"])) if callable(lr) else lr


def _root(v):
    """√v with derivative 0 at v = 0, where a parameter that never had a gradient stands."""
    if not isinstance(v, Tensor):
        return ops.sqrt(v)
    zero = v == 0
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, v)))


def _counted(state: dict) -> np.ndarray:
    return np.asarray(int(state["step"]) + 1)


@dataclass(frozen=True)
class SGD:
    """Gradient descent: v ← μ v + g;  θ ← θ − lr v, with momentum μ."""

    lr: float | Schedule
    momentum: float = 0.0

    def init(self, params: Tree) -> dict:
        """The state before the first step."""
        state = {"step": np.asarray(0)}
        return {**state, "velocity": _zeros(params)} if self.momentum else state

    def step(self, params: Tree, grads: Tree, state: dict) -> tuple[Tree, dict]:
        """The parameters and the state after one step."""
        lr, new = _rate(self.lr, state), {"step": _counted(state)}
        if self.momentum:
            grads = tree.map(lambda v, g: self.momentum * v + g, state["velocity"], grads)
            new["velocity"] = grads
        return tree.map(lambda p, g: p - lr * g, params, grads), new


@dataclass(frozen=True)
class RMSProp:
    """n ← ρ n + (1 − ρ) g²;  v ← μ v + g / √(n − m² + ε);  θ ← θ − lr v   (Graves 2013, eqs.
    38-41).

    `centered` keeps the mean m ← ρ m + (1 − ρ) g and subtracts m²; without it m = 0.
    """

    lr: float | Schedule
    decay: float = 0.95
    momentum: float = 0.9
    eps: float = 1e-4
    centered: bool = True

    def init(self, params: Tree) -> dict:
        """The state before the first step."""
        state = {"step": np.asarray(0), "square": _zeros(params), "velocity": _zeros(params)}
        return {**state, "mean": _zeros(params)} if self.centered else state

    def step(self, params: Tree, grads: Tree, state: dict) -> tuple[Tree, dict]:
        """The parameters and the state after one step."""
        lr, rho = _rate(self.lr, state), self.decay
        new = {"step": _counted(state)}
        n = tree.map(lambda n, g: rho * n + (1 - rho) * g * g, state["square"], grads)
        new["square"] = n
        if self.centered:
            m = tree.map(lambda m, g: rho * m + (1 - rho) * g, state["mean"], grads)
            new["mean"] = m
            n = tree.map(lambda n, m: n - m * m, n, m)
        v = tree.map(
            lambda v, g, n: self.momentum * v + g / ops.sqrt(n + self.eps),
            state["velocity"],
            grads,
            n,
        )
        new["velocity"] = v
        return tree.map(lambda p, v: p - lr * v, params, v), new


@dataclass(frozen=True)
class Adam:
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − lr m̂ / (√v̂ + ε)   (Kingma & Ba
    2015).

    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) correct the bias of starting at zero. `weight_decay`
    λ adds λ θ to the gradient (an L2 penalty, as in the few-shot papers; not the decoupled AdamW).
    """

    lr: float | Schedule
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def init(self, params: Tree) -> dict:
        """The state before the first step."""
        return {"step": np.asarray(0), "m": _zeros(params), "v": _zeros(params)}

    def step(self, params: Tree, grads: Tree, state: dict) -> tuple[Tree, dict]:
        """The parameters and the state after one step."""
        lr, b1, b2 = _rate(self.lr, state), self.beta1, self.beta2
        step = _counted(state)
        t = int(step)
        if self.weight_decay:
            grads = tree.map(lambda g, p: g + self.weight_decay * p, grads, params)
        m = tree.map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], grads)
        v = tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state["v"], grads)
        # With c = √(1 − β₂ᵗ):  lr m̂ / (√v̂ + ε) = (c lr / (1 − β₁ᵗ)) m / (√v + c ε).
        c = math.sqrt(1 - b2**t)
        rate, eps = c * lr / (1 - b1**t), c * self.eps
        new = tree.map(lambda p, m, v: p - rate * m / (_root(v) + eps), params, m, v)
        return new, {"step": step, "m": m, "v": v}


# --- schedules ----------------------------------------------------------------------------------


def step_decay(lr: float, every: int, factor: float = 0.5) -> Schedule:
    """lr times `factor` for each `every` steps taken."""
    return lambda step: lr * factor ** (step // every)


def linear_decay(lr: float, steps: int) -> Schedule:
    """From lr at step 0 down to 0 at `steps`, and 0 from there on."""
    return lambda step: lr * max(0.0, 1.0 - step / steps)


# --- clipping -----------------------------------------------------------------------------------


def global_norm(grads: Tree) -> Any:
    """√Σ g² over all arrays of the tree."""
    return ops.sqrt(sum(ops.sum(ops.square(g)) for g in tree.flatten(grads)[0]))


def clip_by_norm(grads: Tree, max_norm: float) -> Tree:
    """The gradients, shortened together to this norm where they are longer."""
    scale = min(1.0, max_norm / max(float(global_norm(grads)), 1e-30))
    return grads if scale == 1.0 else tree.map(lambda g: scale * g, grads)


def clip_by_value(grads: Tree, bound: float) -> Tree:
    """The gradients with every entry between −bound and bound."""
    return tree.map(lambda g: ops.clip(g, -bound, bound), grads)
