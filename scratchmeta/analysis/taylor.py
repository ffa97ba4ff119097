"""The leading terms of the gradients of FOMAML, MAML and Reptile (Nichol et al. 2018, section 5.1).

k minibatches with losses L_0 ... L_{k−1} are gone through in every order. At the initial parameters
φ let g_i be the gradient and H_i the Hessian of L_i, and

    A = mean of g_i                      towards the minimum of the expected loss
    B = mean of H_i g_j over i ≠ j       ½ ∇ E[g_i · g_j]: makes the gradients of batches agree

With an inner rate α, averaged over all orders, and with errors of order α²,

    FOMAML    A − (k − 1) α B            k − 1 inner steps, the gradient at the last batch
    MAML      A − 2 (k − 1) α B          the same, through the inner steps
    Reptile   k A − ½ k (k − 1) α B      (φ − φ̃) / α after k inner steps

The measured gradients are those of this library's MAML and Reptile: an order of the batches is a
task. A term is right if the residual falls as α², which `measure` fits: the slope of log residual
over log α. Further down are identities, and the forms that the post gives them. docs/analysis.md
derives all of it and has the figure.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import core, losses, nn, ops, tree
from scratchmeta.algorithms import MAML, Reptile
from scratchmeta.data import Sinusoids
from scratchmeta.episodes import Episode

ALPHAS = tuple(10.0 ** (e / 4) for e in range(-16, 1))  # 0.0001 to 1
FITTED = 1.01e-3  # the largest α that is small enough for the slope
PROBLEMS = ("linear", "sinusoid")
MOST = 7  # minibatches, of which every order is a task: 5040


def log_cosh(prediction, target):
    """The mean of log cosh(prediction − target), smooth, not quadratic; (..., N, 1) -> (...)."""
    d = prediction - target
    return ops.mean(d + ops.softplus(-2.0 * d) - math.log(2.0), axis=(-2, -1))


class Problem(NamedTuple):
    """k minibatches for a network, and parameters φ to start from."""

    network: Any
    criterion: Any  # of outputs and targets, one number per task
    params: Any
    x: np.ndarray  # (k, examples, features)
    y: np.ndarray  # (k, examples, 1)

    @property
    def k(self) -> int:
        """The number of minibatches."""
        return len(self.x)

    def loss(self, i: int):
        """L_i, a function of the parameters."""
        return lambda params: ops.sum(
            self.criterion(self.network(params, self.x[i : i + 1]), self.y[i : i + 1])
        )

    def gradient(self, i: int, params: Any = None) -> np.ndarray:
        """g_i as one vector, at φ or at other parameters."""
        params = self.params if params is None else params
        return vector(core.value_and_grad(self.loss(i))(params)[1])

    def hessian_times(self, i: int, v: np.ndarray, params: Any = None) -> np.ndarray:
        """H_i v, at φ or at other parameters."""
        params = self.params if params is None else params
        return vector(core.hvp(self.loss(i), params, self.like(v)))

    def like(self, v: np.ndarray) -> Any:
        """A vector as parameters."""
        leaves, spec = tree.flatten(self.params)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = np.split(v, ends)
        return tree.unflatten(
            spec, [p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)]
        )

    def moved(self, v: np.ndarray) -> Any:
        """φ + v."""
        return tree.map(lambda p, d: p + d, self.params, self.like(v))


def problem(k: int = 3, seed: int = 0, kind: str = "linear") -> Problem:
    """k minibatches in float64.

    "linear": 5 random examples each, 6 features, a linear model and `log_cosh`. "sinusoid": 10
    points each of one sine wave, MAML's network of two layers of 40, new and with tanh for its
    kinked ReLU, and the squared error; wave and network are the same for every k.
    """
    if not 2 <= k <= MOST:
        raise ValueError(f"k: wanted 2 to {MOST} minibatches (all their orders are tried), got {k}")
    if seed < 0:
        raise ValueError(f"seed: wanted at least 0, got {seed}")
    if kind == "linear":
        rng = np.random.default_rng([seed, k])
        network: Any = nn.Linear(6, 1)
        params = tree.map(lambda p: rng.standard_normal(p.shape), network.init(rng))
        x = rng.standard_normal((k, 5, 6))
        return Problem(network, log_cosh, params, x, 2 * rng.standard_normal((k, 5, 1)))
    if kind != "sinusoid":
        raise ValueError(f"kind: wanted one of {', '.join(PROBLEMS)}, got {kind!r}")
    rng = np.random.default_rng(seed)
    network = nn.MLP([1, 40, 40, 1], activation=ops.tanh)
    params = tree.astype(network.init(rng), np.float64)
    x, y = (a.astype(np.float64).reshape(k, 10, 1) for a in Sinusoids().draw(rng, 1, 1, 10 * k))
    return Problem(network, losses.mse, params, x, y)


def vector(params: Any) -> np.ndarray:
    """All parameters one after another."""
    return np.concatenate([np.ravel(leaf) for leaf in tree.flatten(params)[0]])


# --- measured, by the library's algorithms --------------------------------------------------------


def _orders(problem: Problem) -> np.ndarray:
    return np.array(list(itertools.permutations(range(problem.k))))


def _maml(problem: Problem, alpha: float, first_order: bool) -> np.ndarray:
    orders = _orders(problem)
    x, y = problem.x[orders], problem.y[orders]  # (k!, k, examples, ...)

    def interleaved(a):  # fresh batches: inner step s takes every (k − 1)th example, from s on
        return a[:, :-1].swapaxes(1, 2).reshape(len(a), -1, a.shape[-1])

    episodes = Episode(interleaved(x), interleaved(y), x[:, -1], y[:, -1])
    algorithm = MAML(
        problem.network,
        alpha,
        problem.k - 1,
        first_order=first_order,
        inner_batches="fresh",
        loss=problem.criterion,
    )
    return vector(algorithm.meta_gradient(problem.params, episodes)[1])


def _reptile(problem: Problem, alpha: float) -> np.ndarray:
    orders = _orders(problem)
    x, y = (a[orders].reshape(len(orders), -1, a.shape[-1]) for a in (problem.x, problem.y))
    batch = problem.x.shape[1]
    n = x.shape[1] - batch
    algorithm = Reptile(
        problem.network,
        alpha,
        inner_steps=problem.k,
        inner_batch=batch,
        inner_optimizer="sgd",
        loss=problem.criterion,
    )
    _, gradient = algorithm.meta_gradient(
        {"network": problem.params}, Episode(x[:, :n], y[:, :n], x[:, n:], y[:, n:])
    )
    return vector(gradient) / alpha


MEASURED = {
    "FOMAML": lambda p, alpha: _maml(p, alpha, first_order=True),
    "MAML": lambda p, alpha: _maml(p, alpha, first_order=False),
    "Reptile": _reptile,
}


# --- predicted ------------------------------------------------------------------------------------


def terms(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """A and B."""
    g = [problem.gradient(i) for i in range(problem.k)]
    pairs = itertools.permutations(range(problem.k), 2)
    return np.mean(g, axis=0), np.mean([problem.hessian_times(i, g[j]) for i, j in pairs], axis=0)


def predicted(name: str, problem: Problem, alpha: float) -> np.ndarray:
    """The gradient to first order in α."""
    (a, b), k = terms(problem), problem.k
    return {
        "FOMAML": a - (k - 1) * alpha * b,
        "MAML": a - 2 * (k - 1) * alpha * b,
        "Reptile": k * a - k * (k - 1) / 2 * alpha * b,
    }[name]


class Expansion(NamedTuple):
    """|measured − predicted| / |measured| for each α, and how it falls with α.

    `without_b` are the residuals of the terms in A alone. A slope is that of the residual's
    logarithm over log α, for α up to FITTED.
    """

    name: str
    k: int
    alphas: tuple[float, ...]
    residuals: tuple[float, ...]
    without_b: tuple[float, ...]
    slope: float
    slope_without_b: float

    def at(self, alpha: float) -> tuple[float, float]:
        """The residual and that without B, at the α nearest to this one."""
        place = int(np.argmin(np.abs(np.log(self.alphas) - math.log(alpha))))
        return self.residuals[place], self.without_b[place]


def slope(alphas: Any, residuals: Any) -> float:
    """The exponent of α that the residuals fall with: least squares of logarithms, α ≤ FITTED."""
    small = np.array(alphas) <= FITTED
    return float(np.polyfit(np.log(alphas)[small], np.log(residuals)[small], 1)[0])


def measure(name: str, p: Problem, alphas: tuple[float, ...] = ALPHAS) -> Expansion:
    """The residuals of an algorithm of MEASURED with the minibatches of `p`."""
    residuals, without_b, in_a = [], [], predicted(name, p, 0.0)
    for alpha in alphas:
        found = MEASURED[name](p, alpha)
        length = np.linalg.norm(found)
        residuals.append(float(np.linalg.norm(found - predicted(name, p, alpha)) / length))
        without_b.append(float(np.linalg.norm(found - in_a) / length))
    slopes = slope(alphas, residuals), slope(alphas, without_b)
    return Expansion(name, p.k, tuple(alphas), tuple(residuals), tuple(without_b), *slopes)


# --- identities, and the post's forms that do not hold --------------------------------------------


def path(problem: Problem, alpha: float, batches: Any) -> tuple[list, list[np.ndarray]]:
    """Gradient descent from φ, a minibatch a step: the parameters before each, the gradients there.

    The last gradient is FOMAML's, their sum is Reptile's.
    """
    points, gradients = [problem.params], []
    for i in batches:
        gradients.append(problem.gradient(i, points[-1]))
        step = problem.like(alpha * gradients[-1])
        points.append(tree.map(lambda p, d: p - d, points[-1], step))
    return points[:-1], gradients


def product_form(problem: Problem, alpha: float, first_step_leftmost: bool = True) -> np.ndarray:
    """MAML's gradient for the order 0, 1, ..., k − 1 as a product,

        (I − αH_0)(I − αH_1) … (I − αH_{k−2}) g_{k−1},    H_i of L_i at the i-th inner point,

    or with the factors the other way round, as the post's notation can also be read.
    """
    points, gradients = path(problem, alpha, range(problem.k))
    v, steps = gradients[-1], range(problem.k - 1)
    for i in reversed(steps) if first_step_leftmost else steps:  # the rightmost factor acts first
        v = v - alpha * problem.hessian_times(i, v, points[i])
    return v


def maml_in_order(problem: Problem, alpha: float) -> np.ndarray:
    """MAML's gradient for the order 0, 1, ..., k − 1, differentiating through the inner steps."""

    def query_loss(params):
        for i in range(problem.k - 1):
            g = core.grad(problem.loss(i)(params), params, create_graph=True)
            params = tree.map(lambda p, d: p - alpha * d, params, g)
        return problem.loss(problem.k - 1)(params)

    return vector(core.value_and_grad(query_loss)(problem.params)[1])


def second_order_term(problem: Problem, alpha: float, power: int) -> float:
    """What (I − αH_0)(g_1 − αH_1 g_0) differs by from its expansion with the last term α^power:

        g_1 − αH_1 g_0 − αH_0 g_1 + α^power H_0 H_1 g_0

    The post writes the last factor as α² α; it is α².
    """
    h0, h1 = (lambda v, i=i: problem.hessian_times(i, v) for i in (0, 1))
    g0, g1 = problem.gradient(0), problem.gradient(1)
    inner = g1 - alpha * h1(g0)
    exact = inner - alpha * h0(inner)
    expanded = g1 - alpha * h1(g0) - alpha * h0(g1) + alpha**power * h0(h1(g0))
    return float(np.linalg.norm(exact - expanded))


def envelope(theta: np.ndarray, project, distance) -> float:
    """|∇ ½ dist(θ, W)² − (θ − P_W(θ))|, for the projection and the distance of a set W."""
    gradient = core.value_and_grad(lambda t: 0.5 * ops.square(distance(t)))(theta)[1]
    return float(np.linalg.norm(gradient - (theta - project(theta))))
