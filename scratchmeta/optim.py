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


def _vector(params: Tree) -> Any:
    """All arrays of the tree as one vector."""
    leaves = tree.flatten(params)[0]
    dtypes = {leaf.dtype for leaf in leaves}
    if len(dtypes) > 1:
        raise ValueError(f"optim: wanted arrays of one dtype, got {sorted(map(str, dtypes))}")
    return ops.concat(leaves, axis=None)


def _like(params: Tree, vector: Any) -> Tree:
    """A vector cut up into a tree like this one."""
    leaves, treedef = tree.flatten(params)
    parts, start = [], 0
    for leaf in leaves:
        parts.append(ops.reshape(vector[start : start + leaf.size], leaf.shape))
        start += leaf.size
    return tree.unflatten(treedef, parts)


def _zeros(params: Tree) -> Any:
    return 0.0 * _vector(params)


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
        p, g = _vector(params), _vector(grads)
        if self.momentum:
            g = new["velocity"] = self.momentum * state["velocity"] + g
        return _like(params, p - lr * g), new


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
        p, g = _vector(params), _vector(grads)
        n = rho * state["square"] + (1 - rho) * g * g
        new = {"step": _counted(state), "square": n}
        if self.centered:
            m = new["mean"] = rho * state["mean"] + (1 - rho) * g
            n = n - m * m
        v = new["velocity"] = self.momentum * state["velocity"] + g / ops.sqrt(n + self.eps)
        return _like(params, p - lr * v), new


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
        p, g = _vector(params), _vector(grads)
        if self.weight_decay:
            g = g + self.weight_decay * p
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        # With c = √(1 − β₂ᵗ):  lr m̂ / (√v̂ + ε) = (c lr / (1 − β₁ᵗ)) m / (√v + c ε).
        c = math.sqrt(1 - b2**t)
        rate, eps = c * lr / (1 - b1**t), c * self.eps
        return _like(params, p - rate * m / (_root(v) + eps)), {"step": step, "m": m, "v": v}


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
    return _root(sum(ops.sum(ops.square(g)) for g in tree.flatten(grads)[0]))


def clip_by_norm(grads: Tree, max_norm: float) -> Tree:
    """The gradients, shortened together to this norm where they are longer."""
    scale = max_norm / ops.maximum(global_norm(grads), max_norm)
    return tree.map(lambda g: scale * g, grads)


def clip_by_value(grads: Tree, bound: float) -> Tree:
    """The gradients with every entry between −bound and bound."""
    return tree.map(lambda g: ops.clip(g, -bound, bound), grads)
