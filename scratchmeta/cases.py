"""The table of everything that `scratchmeta check` verifies: one row per operation, layer, loss,
optimiser and algorithm.

A row is a generator of examples: small float64 inputs, drawn from the `rng` it is given, at which
the function is smooth by construction. Numbers keep a distance from the kinks of abs, relu and
sign (`away_from_zero`), from each other where a maximum is taken (`distinct`), and from 0 where a
logarithm is (`positive`). Networks cannot be kept from kinks by construction; there the slopes take
smaller steps, down to 6e-8, and a kink nearer than that is reported, not passed.

    for result in run(["softmax", "maml"]):
        print(result)
"""

import difflib
import functools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import algorithms, backend, core, losses, nn, ops, optim, tree
from scratchmeta.algorithms.preprocessing import preprocess
from scratchmeta.algorithms.protocol import query_outputs
from scratchmeta.core import primitive
from scratchmeta.episodes import Episode
from scratchmeta.gradcheck import GradientError, NonSmoothPoint, Report, combine, gradcheck
from scratchmeta.ops.fused import identity
from scratchmeta.ops.linalg import project, times_transposed, transposed_times

KINDS = ("operation", "kernel", "layer", "loss", "optimiser", "algorithm")


class Example(NamedTuple):
    """One check of a row: function(*inputs, **options)."""

    function: Callable
    inputs: tuple
    options: dict
    order: int

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs, **self.options)

    def check(self, name: str, **settings: Any) -> Report:
        """gradcheck of this example; a GPU may add in another order each time."""
        f = functools.partial(self.function, **self.options) if self.options else self.function
        settings.setdefault("nondet_tol", 1e-12 if backend.current() == "cupy" else 0.0)
        return gradcheck(f, *self.inputs, name=name, order=self.order, **settings)


def call(function: Callable, *inputs: Any, order: int = 2, **options: Any) -> Example:
    """An example: function(*inputs, **options), checked up to `order`."""
    return Example(function, inputs, options, order)


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    kind: str
    examples: Callable[[np.random.Generator], Iterator[Example]]
    analytic: bool = False  # whether the complex step applies
    directions: int = 3

    def inputs(self, seed: int = 0) -> list[Example]:
        """The row's examples for a seed, on the backend in use."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return list(self.examples(rng))

    def check(self, seed: int = 0) -> Report:
        """One report on all examples; raises GradientError or NonSmoothPoint where one fails."""
        settings = {"directions": self.directions, "analytic": self.analytic, "rng": seed}
        reports = []
        for k, example in enumerate(self.inputs(seed)):
            try:
                reports.append(example.check(self.name, **settings))
            except (GradientError, NonSmoothPoint) as error:
                where = f"inputs: scratchmeta.cases.CASES[{self.name!r}].inputs({seed})[{k}].inputs"
                raise type(error)(f"{error}\n  {where}") from None
        return combine(self.name, reports)


CASES: dict[str, Case] = {}


def row(kind: str, name: str = "", **settings: Any) -> Callable:
    """Enters a generator of examples into the table, under its own name or another."""

    def enter(examples):
        case = Case(name or examples.__name__.strip("_"), kind, examples, **settings)
        if case.name in CASES:
            raise ValueError(f"row: there are two rows named {case.name!r}")
        CASES[case.name] = case
        return examples

    return enter


# --- running rows ---------------------------------------------------------------------------------


class UnknownCase(ValueError):
    """There is no row, and no kind of rows, of this name."""


def select(names: Iterable[str] = ()) -> list[Case]:
    """The rows of these names, or of these kinds ("layer", ...); all of them without names.

    Raises UnknownCase with the names that come close.
    """
    chosen: dict[str, Case] = {}
    for name in names:
        found = [c for c in CASES.values() if name in (c.name, c.kind)]
        if not found:
            close = difflib.get_close_matches(name, [*CASES, *KINDS])
            hint = f"did you mean {' or '.join(close)}?" if close else f"kinds: {', '.join(KINDS)}"
            raise UnknownCase(f"nothing to check is called {name!r}: {hint}")
        chosen.update((c.name, c) for c in found)
    return list(chosen.values()) if chosen else list(CASES.values())


@dataclass(frozen=True)
class Result:
    """What came of checking one row; `str(result)` is one aligned line, then the error, if any."""

    name: str
    kind: str
    seconds: float
    report: Report | None = None
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every example passed."""
        return self.report is not None

    def __str__(self) -> str:
        if self.report is None:
            return f"FAIL {self.name}\n{self.error}"
        return f"ok   {self.report}"

    def as_dict(self) -> dict:
        """For JSON."""
        row = {"name": self.name, "kind": self.kind, "passed": self.passed}
        row |= {"seconds": round(self.seconds, 4)}
        if self.report is None:
            return row | {"error": self.error}
        r = self.report
        return row | {
            "backend": r.backend,
            "kernels": r.kernels,
            "order": r.order,
            "directions": r.directions,
            "worst_relative_error": r.worst,
            "error_estimate": r.estimate,
            "complex_step_error": r.complex_step,
        }


def run(
    names: Iterable[str] = (),
    seed: int = 0,
    progress: Callable[[int, int, Result], None] | None = None,
) -> list[Result]:
    """Checks rows on the backend in use; an error of one does not keep the others from being run.

    `progress(done, total, result)` is called after each. Raises UnknownCase for unknown names.
    """
    cases, results = select(names), []
    for case in cases:
        start, report, error = time.perf_counter(), None, ""
        try:
            report = case.check(seed)
        except (GradientError, NonSmoothPoint) as failure:
            error = str(failure)
        seconds = time.perf_counter() - start
        results.append(Result(case.name, case.kind, seconds, report, error))
        if progress is not None:
            progress(len(results), len(cases), results[-1])
    return results


def summary(results: list[Result]) -> str:
    """The last line of the table."""
    failed = [r.name for r in results if not r.passed]
    seconds = sum(r.seconds for r in results)
    directions = sum(r.report.directions for r in results if r.report)
    verdict = f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed"
    return f"{len(results)} checked along {directions} directions in {seconds:.1f} s, {verdict}"


def table(results: list[Result]) -> str:
    """One aligned line per row, errors under theirs, and a summary."""
    return "\n".join([*map(str, results), summary(results)])


# --- numbers --------------------------------------------------------------------------------------


def normal(rng, *shape):
    """Standard normal."""
    return backend.asarray(rng.standard_normal(shape))


def positive(rng, *shape):
    """Between 0.5 and 2."""
    return backend.asarray(rng.uniform(0.5, 2.0, shape))


def away_from_zero(rng, *shape):
    """Between 0.3 and 1.5 in magnitude, of either sign."""
    return backend.asarray(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 1.5, shape))


def distinct(rng, *shape):
    """No two nearer than 0.2: for maxima."""
    n = int(np.prod(shape))
    spread = 0.3 * (rng.permutation(n) - n / 2) + rng.uniform(-0.05, 0.05, n)
    return backend.asarray(spread.reshape(shape))


def integers(values):
    """A constant array of integers."""
    return backend.asarray(np.asarray(values))


def float64(params, rng):
    """A layer's parameters in float64, none of them exactly 0 or 1."""
    return tree.map(lambda p: p.astype(np.float64) + 0.1 * normal(rng, *p.shape), params)


# --- elementwise ----------------------------------------------------------------------------------


def _binary(op, left=normal, right=normal):
    """Equal shapes, either side broadcast, both, and against a scalar array."""

    def examples(rng):
        yield call(op, left(rng, 3, 4), right(rng, 3, 4))
        yield call(op, left(rng, 3, 4), right(rng, 4))
        yield call(op, left(rng, 1, 4), right(rng, 2, 3, 1))
        yield call(op, left(rng), right(rng, 3))

    return examples


def _unary(op, numbers=normal):
    def examples(rng):
        yield call(op, numbers(rng, 3, 4))
        yield call(op, numbers(rng))

    return examples


for _name in ("add", "subtract", "multiply"):
    row("operation", _name, analytic=True)(_binary(getattr(ops, _name)))
row("operation", "divide", analytic=True)(_binary(ops.divide, right=away_from_zero))
for _name in ("negative", "exp", "square", "sin", "cos", "tanh", "sigmoid"):
    row("operation", _name, analytic=True)(_unary(getattr(ops, _name)))
for _name in ("log", "log1p", "sqrt"):
    row("operation", _name, analytic=True)(_unary(getattr(ops, _name), positive))
row("operation", "softplus")(_unary(ops.softplus))
for _name in ("relu", "abs", "sign"):
    row("operation", _name)(_unary(getattr(ops, _name), away_from_zero))


@row("operation", analytic=True)
def power(rng):
    yield from _binary(ops.power, left=positive)(rng)
    yield call(ops.power, normal(rng, 4), 3.0)
    yield call(ops.power, normal(rng, 4), 0.0)
    yield call(ops.power, away_from_zero(rng, 4), -2)
    yield call(ops.power, 2.5, normal(rng, 4))
    yield call(ops.power, 0.5, normal(rng, 4))
    yield call(ops.power, positive(rng, 3), backend.asarray(np.array([0.0, 1.0, 2.0])))


@row("operation")
def maximum(rng):
    a = away_from_zero(rng, 3, 4)
    yield call(ops.maximum, a, 0.0)
    yield call(ops.maximum, distinct(rng, 2, 6)[0], distinct(rng, 3, 1) + 0.1)
    yield call(ops.maximum, a, a[::-1] + away_from_zero(rng, 3, 4))


@row("operation")
def minimum(rng):
    a = away_from_zero(rng, 3, 4)
    yield call(ops.minimum, 0.0, a)
    yield call(ops.minimum, distinct(rng, 2, 6)[0], distinct(rng, 3, 1) + 0.1)
    yield call(ops.minimum, a, a[::-1] + away_from_zero(rng, 3, 4))


@row("operation")
def clip(rng):
    yield call(ops.clip, distinct(rng, 12) + 0.15, low=-0.9, high=0.6)
    yield call(ops.clip, distinct(rng, 6) + 0.15, None, 0.6)
    yield call(ops.clip, distinct(rng, 12), distinct(rng, 2, 1) - 0.6, distinct(rng, 1) + 1.3)
    yield call(ops.clip, distinct(rng, 4), 0.05, None)
    yield call(ops.clip, distinct(rng, 6), distinct(rng, 6) + 0.1, distinct(rng, 6) + 0.2)
    yield call(ops.clip, distinct(rng, 4), None, distinct(rng, 4) + 0.1)
    yield call(ops.clip, distinct(rng, 4), distinct(rng, 4) + 0.1, None)


@row("operation", analytic=True)
def where(rng):
    condition = integers([[True, False, True], [False, False, True]])
    yield call(ops.where, condition, normal(rng, 2, 3), normal(rng, 2, 3))
    yield call(ops.where, condition, normal(rng, 3), normal(rng, 2, 1))
    yield call(ops.where, condition, normal(rng, 2, 3), 0.0)


@row("operation")
def astype(rng):
    yield call(ops.astype, normal(rng, 3), dtype=np.float64)


@row("operation", analytic=True)
def identity_(rng):
    yield call(identity, normal(rng, 3))


@row("operation", "preprocess")
def preprocess_(rng):
    """Numbers on both sides of e^−p, and of both signs."""
    size = backend.asarray(rng.choice([0.01, 1.0, 10.0], (3, 4)))  # e^−2 is between the first two
    yield call(preprocess, size * away_from_zero(rng, 3, 4), p=2.0)
    yield call(preprocess, away_from_zero(rng) * 1e-2, p=7.0)


# --- reductions -----------------------------------------------------------------------------------


def _reduction(op, numbers=normal):
    """All axes, one, several, and with the reduced axes kept."""

    def examples(rng):
        yield call(op, numbers(rng, 3, 4))
        yield call(op, numbers(rng, 2, 3, 4), axis=1)
        yield call(op, numbers(rng, 2, 3, 4), axis=(0, -1))
        yield call(op, numbers(rng, 2, 3, 2), axis=-2)
        yield call(op, numbers(rng, 3, 2), axis=-2, keepdims=True)
        yield call(op, numbers(rng, 2, 3), axis=-1, keepdims=True)
        yield call(op, numbers(rng), axis=None, keepdims=True)

    return examples


def _along_axis(op, numbers=normal):
    """Along the last axis, and along another."""

    def examples(rng):
        yield call(op, numbers(rng, 3, 4))
        yield call(op, numbers(rng, 2, 3, 4), axis=1)
        yield call(op, numbers(rng, 3, 1), axis=-1)

    return examples


for _name in ("sum", "mean", "mean_square", "logsumexp", "var"):
    row("operation", _name, analytic=True)(_reduction(getattr(ops, _name)))
for _name in ("max", "min"):
    row("operation", _name)(_reduction(getattr(ops, _name), distinct))
for _name in ("softmax", "log_softmax", "cumsum"):
    row("operation", _name, analytic=True)(_along_axis(getattr(ops, _name)))


@row("operation", analytic=True)
def prod(rng):
    yield from _along_axis(ops.prod)(rng)
    with_zeros = normal(rng, 2, 5)
    with_zeros[:, [0, 3]] = 0.0
    yield call(ops.prod, with_zeros)


@row("operation", analytic=True)
def norm(rng):
    yield from _along_axis(ops.norm)(rng)
    yield call(ops.norm, normal(rng, 2, 3, 4), axis=(-2, -1), keepdims=True)


@row("operation")
def top_k_mask(rng):
    yield call(ops.top_k_mask, distinct(rng, 2, 5), k=2)


@row("operation")
def one_hot(rng):
    labels = integers([[2, 0], [1, 1]])
    yield call(lambda x: x * ops.one_hot(labels, 3, x.dtype), normal(rng, 2, 2, 3))


# --- shape ----------------------------------------------------------------------------------------


@row("operation", analytic=True)
def broadcast_to(rng):
    yield call(ops.broadcast_to, normal(rng, 3, 1), shape=(2, 3, 4))
    yield call(ops.broadcast_to, normal(rng), shape=(2,))


@row("operation", analytic=True)
def sum_to(rng):
    yield call(ops.sum_to, normal(rng, 2, 3, 4), shape=(3, 1))
    yield call(ops.sum_to, normal(rng, 2, 3), shape=())


@row("operation", analytic=True)
def reshape(rng):
    yield call(ops.reshape, normal(rng, 2, 6), shape=(3, -1))


@row("operation", analytic=True)
def transpose(rng):
    yield call(ops.transpose, normal(rng, 2, 3))
    yield call(ops.transpose, normal(rng, 2, 3, 4), axes=(1, 2, 0))


@row("operation", analytic=True)
def matrix_transpose(rng):
    yield call(ops.matrix_transpose, normal(rng, 2, 3, 4))


@row("operation", analytic=True)
def moveaxis(rng):
    yield call(ops.moveaxis, normal(rng, 2, 3, 4), source=0, destination=-1)


@row("operation", analytic=True)
def expand_dims(rng):
    yield call(ops.expand_dims, normal(rng, 2, 3), axis=-2)


@row("operation", analytic=True)
def squeeze(rng):
    yield call(ops.squeeze, normal(rng, 2, 1, 3), axis=1)


@row("operation", analytic=True)
def getitem(rng):
    x = normal(rng, 4, 5)
    yield call(ops.getitem, x, index=1)
    yield call(ops.getitem, x, index=(slice(None, None, -2), None, 3))
    yield call(ops.getitem, x, index=(..., slice(1, 4)))
    yield call(ops.getitem, x, index=integers([[0, 2], [2, 2]]))
    yield call(ops.getitem, x, index=(integers([0, 3, 0]), integers([4, 4, 4])))
    yield call(ops.getitem, x, index=integers(np.arange(20).reshape(4, 5) % 3 == 0))


@row("operation", analytic=True)
def scatter_add(rng):
    yield call(ops.scatter_add, normal(rng, 3), index=(slice(0, 3), 1), shape=(4, 2))
    yield call(ops.scatter_add, normal(rng, 4, 2), index=integers([0, 2, 2, 1]), shape=(3, 2))
    yield call(ops.scatter_add, normal(rng, 1), index=slice(0, 3), shape=(4,))


@row("operation", analytic=True)
def take(rng):
    yield call(ops.take, normal(rng, 4, 3), integers([[3, 0], [3, 1]]))
    yield call(ops.take, normal(rng, 4, 3), integers([2, 2, 0]), axis=-1)


@row("operation", analytic=True)
def take_along_axis(rng):
    yield call(ops.take_along_axis, normal(rng, 2, 4), integers([[3, 0, 3], [1, 1, 1]]))
    yield call(ops.take_along_axis, normal(rng, 3, 2), integers([[0, 2], [2, 1]]), axis=0)


@row("operation", analytic=True)
def split(rng):
    yield call(ops.split, normal(rng, 2, 6), parts=3)
    yield call(ops.split, normal(rng, 5, 2), parts=[1, 0, 4], axis=0)


@row("operation", analytic=True)
def concat(rng):
    yield call(ops.concat, [normal(rng, 2, 3), normal(rng, 1, 3)])
    yield call(ops.concat, [normal(rng, 2, 1), normal(rng, 2, 0), normal(rng, 2, 2)], axis=-1)
    yield call(ops.concat, [normal(rng, 2, 2), normal(rng), normal(rng, 3)], axis=None)


@row("operation", analytic=True)
def stack(rng):
    yield call(ops.stack, [normal(rng, 2, 3), normal(rng, 2, 3)], axis=1)
    yield call(ops.stack, [normal(rng), normal(rng), normal(rng)])


@row("operation", analytic=True)
def pad(rng):
    yield call(ops.pad, normal(rng, 2, 3), widths=[(1, 0), (0, 2)], value=0.5)


@row("operation", analytic=True)
def flip(rng):
    yield call(ops.flip, normal(rng, 2, 3), axis=-1)
    yield call(ops.flip, normal(rng, 2, 3), axis=(0, 1))


@row("operation", analytic=True)
def roll(rng):
    yield call(ops.roll, normal(rng, 2, 5), shift=2, axis=-1)


# --- products -------------------------------------------------------------------------------------


@row("operation", analytic=True)
def matmul(rng):
    yield call(ops.matmul, normal(rng, 3, 4), normal(rng, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 3, 4), normal(rng, 4, 2))
    yield call(ops.matmul, normal(rng, 3, 4), normal(rng, 2, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 1, 3, 4), normal(rng, 3, 4, 2))
    yield call(ops.matmul, normal(rng, 2, 3, 1), normal(rng, 1, 2))
    yield call(ops.matmul, normal(rng, 4), normal(rng, 4))
    yield call(ops.matmul, normal(rng, 2, 3, 4), normal(rng, 4))
    yield call(ops.matmul, normal(rng, 4), normal(rng, 2, 4, 3))


@row("operation", "times_transposed", analytic=True)
def times_transposed_(rng):
    yield call(times_transposed, normal(rng, 3, 4), normal(rng, 2, 4))
    yield call(times_transposed, normal(rng, 2, 3, 4), normal(rng, 2, 4))
    yield call(times_transposed, normal(rng, 2, 1, 3, 4), normal(rng, 3, 2, 4))
    yield call(times_transposed, normal(rng, 2, 3, 1), normal(rng, 2, 1))


@row("operation", "transposed_times", analytic=True)
def transposed_times_(rng):
    yield call(transposed_times, normal(rng, 4, 3), normal(rng, 4, 2))
    yield call(transposed_times, normal(rng, 2, 4, 3), normal(rng, 4, 2))
    yield call(transposed_times, normal(rng, 4, 3), normal(rng, 2, 4, 2))
    yield call(transposed_times, normal(rng, 2, 1, 3), normal(rng, 1, 2))


@row("operation", "project", analytic=True)
def project_(rng):
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 4, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 2, 4, 2))
    yield call(project, normal(rng, 2, 4), normal(rng, 2, 4, 2))
    yield call(project, normal(rng, 2, 3, 2, 4), normal(rng, 2, 4, 2))


@row("operation", analytic=True)
def affine(rng):
    yield call(project, normal(rng, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 3, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 4, 2), normal(rng, 2))
    yield call(project, normal(rng, 2, 3, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))
    yield call(project, normal(rng, 1, 3, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))
    yield call(project, normal(rng, 2, 3, 2, 4), normal(rng, 2, 4, 2), normal(rng, 2, 2))


def invertible(rng, *lead, n):
    """Matrices (..., n, n) far from singular: 2 I and a little noise."""
    return backend.asarray(2.0 * np.eye(n)) + 0.3 * normal(rng, *lead, n, n)


@row("operation", analytic=True)
def solve(rng):
    yield call(ops.solve, invertible(rng, n=3), normal(rng, 3, 2), order=3)
    yield call(ops.solve, invertible(rng, 2, n=2), normal(rng, 2, 2, 3))
    yield call(ops.solve, invertible(rng, n=2), normal(rng, 2, 2, 1))
    yield call(ops.solve, invertible(rng, 2, n=2), normal(rng, 2, 1), order=3)
    yield call(ops.solve, invertible(rng, 2, 1, n=2), normal(rng, 3, 2, 1))
    yield call(ops.solve, invertible(rng, 2, n=3), normal(rng, 3))


@row("operation", analytic=True)
def einsum(rng):
    yield call(ops.einsum, "nd,md->nm", normal(rng, 2, 3), normal(rng, 4, 3))
    yield call(ops.einsum, "...nd,...df->...fn", normal(rng, 2, 1, 3, 2), normal(rng, 3, 2, 4))
    yield call(ops.einsum, "ij,jk,k->i", normal(rng, 2, 3), normal(rng, 3, 4), normal(rng, 4))
    yield call(ops.einsum, "ijk->j", normal(rng, 2, 3, 2))
    yield call(ops.einsum, "ij,ij->ij", normal(rng, 2, 1), normal(rng, 2, 3))
    yield call(ops.einsum, "ij,ij->i", normal(rng, 2, 3), normal(rng, 2, 1))
    yield call(ops.einsum, "...i,...i->i", normal(rng, 3, 2), normal(rng, 1, 2))
    yield call(ops.einsum, "nd,md->nm", normal(rng, 0, 3), normal(rng, 2, 3))


# --- images ---------------------------------------------------------------------------------------


@row("operation")
def max_pool2d(rng):
    yield call(ops.max_pool2d, distinct(rng, 2, 4, 4, 2))
    yield call(ops.max_pool2d, distinct(rng, 2, 1, 5, 3, 1))
    yield call(ops.max_pool2d, distinct(rng, 1, 4, 5, 1))
    yield call(ops.max_pool2d, distinct(rng, 1, 7, 6, 1), size=3)


@row("operation", analytic=True)
def avg_pool2d(rng):
    yield call(ops.avg_pool2d, normal(rng, 2, 5, 4, 2))
    yield call(ops.avg_pool2d, normal(rng, 1, 3, 7, 1), size=3)


# --- operations with kernels: one order more ------------------------------------------------------


@row("kernel", analytic=True, directions=1)
def conv2d(rng):
    yield call(ops.conv2d, normal(rng, 2, 4, 5, 2), normal(rng, 3, 3, 2, 3))
    yield call(ops.conv2d, normal(rng, 1, 5, 4, 2), normal(rng, 2, 3, 2, 1), padding="valid")
    yield call(ops.conv2d, normal(rng, 2, 5, 6, 1), normal(rng, 3, 2, 1, 2), stride=2)
    yield call(ops.conv2d, normal(rng, 1, 3, 4, 1), normal(rng, 2, 2, 1, 2), stride=2, padding=1)
    yield call(ops.conv2d, normal(rng, 2, 2, 3, 3, 1), normal(rng, 2, 3, 3, 1, 2))
    yield call(ops.conv2d, normal(rng, 2, 3, 3, 1), normal(rng, 2, 2, 2, 1, 2))
    yield call(ops.conv2d, normal(rng, 2, 1, 3, 3, 2), normal(rng, 1, 1, 2, 2, 1))
    # channels and filters enough for the kernels on the CPU, which take them by the vector
    yield call(ops.conv2d, normal(rng, 2, 3, 3, 4), normal(rng, 2, 2, 4, 4), order=3)
    yield call(ops.conv2d, normal(rng, 2, 4, 3, 2), normal(rng, 3, 3, 2, 4))
    yield call(ops.conv2d, normal(rng, 2, 2, 4, 3, 1), normal(rng, 2, 2, 2, 1, 8), stride=2)


@row("kernel", analytic=True, directions=1)
def conv2d_input(rng):
    same = {"stride": 1, "padding": "same"}
    yield call(
        ops.conv2d_input,
        normal(rng, 2, 4, 3, 2),
        normal(rng, 3, 2, 2, 2),
        shape=(2, 4, 3, 2),
        **same,
    )
    yield call(
        ops.conv2d_input,
        normal(rng, 2, 1, 3, 3, 2),
        normal(rng, 2, 3, 3, 1, 2),
        shape=(1, 5, 6, 1),
        stride=2,
        padding="same",
    )
    yield call(
        ops.conv2d_input,
        normal(rng, 2, 3, 3, 4),
        normal(rng, 2, 2, 4, 4),
        shape=(2, 3, 3, 4),
        order=3,
        **same,
    )


@row("kernel", analytic=True, directions=1)
def conv2d_weight(rng):
    yield call(
        ops.conv2d_weight,
        normal(rng, 2, 4, 3, 2),
        normal(rng, 2, 3, 2, 1),
        shape=(2, 2, 2, 1),
        stride=1,
        padding="valid",
    )
    yield call(
        ops.conv2d_weight,
        normal(rng, 1, 5, 6, 1),
        normal(rng, 2, 1, 3, 3, 2),
        shape=(2, 3, 3, 1, 2),
        stride=2,
        padding="same",
    )
    yield call(
        ops.conv2d_weight,
        normal(rng, 2, 3, 3, 4),
        normal(rng, 2, 3, 3, 4),
        shape=(2, 2, 4, 4),
        order=3,
        stride=1,
        padding="same",
    )


@row("kernel", directions=1)
def pairwise_distance(rng):
    for metric in ("sqeuclidean", "cosine"):
        x, y = normal(rng, 3, 2), normal(rng, 4, 2)
        yield call(ops.pairwise_distance, x, y, metric, order=3)
        x, y = normal(rng, 2, 1, 2, 3), normal(rng, 2, 2, 3)
        yield call(ops.pairwise_distance, x, y, metric)
    numbers = distinct(rng, 12, 2)
    x, y = numbers[:3], numbers[3:7]
    yield call(ops.pairwise_distance, x, y, "cityblock", order=3)
    yield call(ops.pairwise_distance, x, y, "cityblock", normal(rng, 2), order=3)
    x, y = numbers[:6].reshape(2, 3, 2), numbers[6:8]
    yield call(ops.pairwise_distance, x, y, "cityblock", normal(rng, 2))


@row("kernel", directions=1)
def attention(rng):
    query, keys, values = normal(rng, 2, 3), normal(rng, 4, 3), normal(rng, 4, 2)
    yield call(ops.attention, query, keys, values, order=3)
    query, keys, values = normal(rng, 2, 2, 3), normal(rng, 2, 4, 3), normal(rng, 2, 4, 1)
    yield call(ops.attention, query, keys, values, positive(rng, 2))


@row("kernel", directions=1)
def cosine_attention(rng):
    query, keys, values = normal(rng, 2, 3), normal(rng, 4, 3), normal(rng, 4, 2)
    yield call(ops.cosine_attention, query, keys, values, scale=2.0, order=3)
    query, keys, values = normal(rng, 2, 2, 3), normal(rng, 2, 4, 3), normal(rng, 2, 4, 1)
    yield call(ops.cosine_attention, query, keys, values, positive(rng, 2))


@row("kernel", analytic=True, directions=1)
def lstm_gates(rng):
    yield call(ops.lstm_gates, normal(rng, 2, 8), normal(rng, 2, 2), order=3)
    yield call(ops.lstm_gates, normal(rng, 2, 1, 4), normal(rng, 2, 1, 1))


@row("kernel", analytic=True, directions=1)
def lstm_cell(rng):
    def weights(*lead):
        return normal(rng, *lead, 3, 8), normal(rng, *lead, 2, 8), normal(rng, *lead, 8)

    x, h, c = normal(rng, 2, 3), normal(rng, 2, 2), normal(rng, 2, 2)
    yield call(ops.lstm_cell, x, h, c, *weights(), order=3)
    yield call(ops.lstm_cell, x, h, c, *weights(2))


@row("kernel", directions=1)
def norm_relu_pool(rng):
    scale, offset = away_from_zero(rng, 2), away_from_zero(rng, 2)
    yield call(ops.norm_relu_pool, normal(rng, 3, 2, 4, 2), scale, offset, order=3)
    yield call(ops.norm_relu_pool, normal(rng, 3, 3, 2, 2), scale, offset, size=1, order=3)
    scale, offset = away_from_zero(rng, 2, 1), away_from_zero(rng, 2, 1)
    yield call(ops.norm_relu_pool, normal(rng, 2, 2, 3, 5, 1), scale, offset)


# --- losses ---------------------------------------------------------------------------------------


@row("loss", analytic=True)
def cross_entropy(rng):
    yield call(losses.cross_entropy, normal(rng, 4, 3), integers([2, 0, 1, 1]))
    yield call(losses.cross_entropy, normal(rng, 2, 2, 3), integers([[2, 0], [1, 1]]))


@row("loss", analytic=True)
def mse(rng):
    yield call(losses.mse, normal(rng, 2, 3, 1), normal(rng, 2, 3, 1))


@row("loss")
def binary_cross_entropy(rng):
    yield call(losses.binary_cross_entropy, normal(rng, 2, 3), normal(rng, 2, 3))


# --- optimisers, differentiated through -----------------------------------------------------------


def two_steps(params, optimiser):
    """The parameters after two steps with gradients sin(p) p, which depend on them."""
    state = optimiser.init(params)
    for _ in range(2):
        grads = tree.map(lambda p: ops.sin(p) * p, params)
        params, state = optimiser.step(params, grads, state)
    return params


def _optimiser(*optimisers):
    def examples(rng):
        for optimiser in optimisers:
            params = {"w": positive(rng, 2, 2), "b": positive(rng, 2)}
            yield call(two_steps, params, optimiser=optimiser)

    return examples


row("optimiser", "SGD", analytic=True, directions=2)(
    _optimiser(optim.SGD(0.1), optim.SGD(0.1, momentum=0.9))
)
row("optimiser", "RMSProp", analytic=True, directions=2)(
    _optimiser(optim.RMSProp(0.1, eps=0.1), optim.RMSProp(0.1, eps=0.1, centered=False))
)
row("optimiser", "Adam", analytic=True, directions=2)(
    _optimiser(optim.Adam(0.1), optim.Adam(0.1, beta1=0.0, weight_decay=0.1))
)


@row("optimiser", directions=2)
def global_norm(rng):
    yield call(optim.global_norm, {"w": normal(rng, 2, 2), "b": normal(rng, 2)})


@row("optimiser", directions=2)
def clip_by_norm(rng):
    for max_norm in (0.5, 20.0):
        grads = {"w": normal(rng, 2, 2), "b": normal(rng, 2)}
        yield call(optim.clip_by_norm, grads, max_norm=max_norm)


@row("optimiser", directions=2)
def clip_by_value(rng):
    yield call(optim.clip_by_value, {"w": distinct(rng, 6) + 0.15}, bound=0.6)


# --- layers ---------------------------------------------------------------------------------------


def per_task(params, rng, tasks=2):
    """Parameters with a leading task axis, different for every task."""
    return tree.map(
        lambda p: ops.broadcast_to(p, (tasks, *p.shape)) + 0.1 * normal(rng, tasks, *p.shape),
        params,
    )


def _layer(layer, *shape, **settings):
    """The layer with shared parameters, and with one set for each of two tasks."""

    def examples(rng):
        params = float64(layer.init(rng), rng)
        yield call(layer, params, normal(rng, *shape), **settings)
        yield call(layer, per_task(params, rng), normal(rng, 2, *shape), **settings)

    return examples


row("layer", "Linear", analytic=True)(_layer(nn.Linear(3, 2), 4, 3))
row("layer", "Conv2d", analytic=True)(_layer(nn.Conv2d(1, 2, stride=2), 2, 4, 3, 1))
row("layer", "MLP", directions=1)(_layer(nn.MLP([3, 4, 2], batch_norm=True), 5, 3))
row("layer", "LSTM", directions=1)(_layer(nn.LSTM(2, 2), 3, 2))
row("layer", "BiLSTM", directions=1)(_layer(nn.BiLSTM(2, 1), 3, 2))


_NORMS = ((nn.BatchNorm(2), (3, 2, 2, 2)), (nn.BatchNorm(2, images=False), (5, 2)))


@row("layer", "BatchNorm", analytic=True)
def batch_norm(rng):
    for layer, shape in _NORMS:
        yield from _layer(layer, *shape)(rng)
        stored = {"mean": normal(rng, 2), "var": positive(rng, 2)}
        yield call(layer, float64(layer.init(rng), rng) | stored, normal(rng, *shape))


@row("layer", "BatchNorm.with_statistics", analytic=True)
def batch_norm_statistics(rng):
    for layer, shape in _NORMS:
        params = float64(layer.init(rng), rng)
        yield call(layer.with_statistics, params, normal(rng, *shape))


@row("layer", "ConvBlock", directions=1)
def conv_block(rng):
    for layer in (
        nn.ConvBlock(1, 2),
        nn.ConvBlock(1, 2, pooling="stride"),
        nn.ConvBlock(1, 2, pooling="none", padding="valid"),
    ):
        yield from _layer(layer, 3, 4, 4, 1)(rng)
        params = float64(layer.init(rng), rng)
        stored = {"mean": normal(rng, 2), "var": positive(rng, 2)}
        params["norm"] |= stored
        yield call(layer, params, normal(rng, 3, 4, 4, 1))


@row("layer", "Conv4", directions=1)
def conv4(rng):
    for pooling, side in (("max", 16), ("stride", 8)):
        network = nn.Conv4(channels=2, image_size=side, pooling=pooling, n_out=2)
        params = float64(network.init(rng), rng)
        yield call(network, params, normal(rng, 4, side, side, 1), order=1)


@row("layer", "Function", analytic=True)
def function(rng):
    yield call(nn.Function(ops.tanh), {}, normal(rng, 2, 3))


@row("layer", "Sequential", analytic=True, directions=2)
def sequential(rng):
    layers = [("in", nn.Linear(2, 3)), ("tanh", nn.Function(ops.tanh)), ("out", nn.Linear(3, 1))]
    yield from _layer(nn.Sequential(layers), 4, 2)(rng)


@row("layer", directions=1)
def embed(rng):
    network = nn.MLP([2, 3, 2], activation=ops.tanh, batch_norm=True)
    params = float64(network.init(rng), rng)
    support, query = normal(rng, 1, 4, 2), normal(rng, 1, 3, 2)
    yield call(nn.embed, network, params, support, query, "transductive")
    yield call(nn.embed, network, params, support, query, "support")
    params = network.with_statistics(params, normal(rng, 5, 2))
    yield call(nn.embed, network, params, support, query, "running")


# --- algorithms: the whole meta-gradient, through the inner loop ----------------------------------


def images(rng, side=8, tasks=2, ways=2, shots=2, queries=1):
    """A small batch of episodes of float64 images."""
    labels = [np.tile(np.repeat(np.arange(ways), n), (tasks, 1)) for n in (shots, queries)]
    xs = [normal(rng, tasks, ways * n, side, side, 1) for n in (shots, queries)]
    return Episode(xs[0], integers(labels[0]), xs[1], integers(labels[1]))


def described(episodes, rng, attributes=3):
    """The episodes with as many attributes of each class in place of its one support image."""
    return episodes._replace(support_x=normal(rng, *episodes.support_y.shape, attributes))


def curves(rng, tasks=2, shots=3, queries=2):
    """A small batch of regression tasks."""
    return Episode(*(normal(rng, tasks, n, 1) for n in (shots, shots, queries, queries)))


def task_losses(algorithm, params, episodes, **settings):
    """The losses of every task, as the algorithm computes them, to any order."""
    return call(lambda params: algorithm.task_losses(params, episodes), params, **settings)


def meta_gradient(algorithm, params, episodes, loss=None):
    """The gradient that the algorithm's `meta_gradient` returns, against its loss.

    `loss` is the function of the parameters that this is to be the gradient of; without one, the
    mean of the tasks' losses.
    """
    _, treedef = tree.flatten(params)

    def rule(g, y, *leaves):
        params = tree.unflatten(treedef, [core.raw(leaf) for leaf in leaves])
        return [g * x for x in tree.flatten(algorithm.meta_gradient(params, episodes)[1])[0]]

    @primitive(joint=rule)
    def value(*leaves):
        params = tree.unflatten(treedef, list(leaves))
        if loss is not None:
            return loss(params)
        live = tree.map(core.Tensor, params)  # the inner loop differentiates
        return core.raw(algorithm.task_losses(live, episodes)).mean()

    return call(lambda params: value(*tree.flatten(params)[0]), params, order=1)


@row("algorithm", directions=1)
def prototypical(rng):
    network = nn.Conv4(channels=2, image_size=8, pooling="stride")
    algorithm = algorithms.Prototypical(network)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng))
    network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
    algorithm = algorithms.Prototypical(network)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
    yield task_losses(algorithm, params, episodes)
    for policy in ("support", "running"):
        algorithm = algorithms.Prototypical(network, distance="cosine", batch_norm=policy)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", "prototypical-zero-shot", directions=1)
def zero_shot(rng):
    describe = nn.MLP([3, 4, 2], activation=ops.tanh)
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    algorithm = algorithms.ZeroShot(network, describe)
    params = float64(algorithm.init(rng), rng)
    yield meta_gradient(algorithm, params, described(images(rng, shots=1), rng))
    algorithm = algorithms.ZeroShot(_tanh_features(), describe)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=1)
    yield task_losses(algorithm, params, described(episodes, rng))
    yield meta_gradient(algorithm, params, described(episodes, rng))


def _tanh_features(n_out=2):
    """A smooth embedding of images of 2 x 2."""
    return nn.MLP([4, 3, n_out], activation=ops.tanh, batch_norm=True)


def _classifier(algorithm):
    """The gradient of training; what is done on the support afterwards has none."""

    def examples(rng):
        batch = images(rng, side=2, ways=3)
        made = algorithm(_tanh_features(), classes=4, n_features=2)
        params = float64(made.init(rng), rng)
        yield task_losses(made, params, batch)
        yield meta_gradient(made, params, batch)

    return examples


row("algorithm", "baseline-nn", directions=1)(_classifier(algorithms.BaselineNN))
row("algorithm", "baseline-finetune", directions=1)(_classifier(algorithms.BaselineFinetune))


@row("algorithm", directions=1)
def siamese(rng):
    for policy in ("transductive", "support"):
        algorithm = algorithms.Siamese(_tanh_features(), n_features=2, batch_norm=policy)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def matching(rng):
    for policy in ("transductive", "support"):
        algorithm = algorithms.Matching(_tanh_features(), temperature=0.2, batch_norm=policy)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", "matching-fce", directions=1)
def matching_fce(rng):
    algorithm = algorithms.FullContext(_tanh_features(), n_features=2, processing_steps=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def relation(rng):
    network = nn.ConvBlock(1, 2, pooling="none")
    algorithm = algorithms.Relation(network, n_channels=2, map_size=4, hidden=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=4)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def reptile(rng):
    """One step of gradient descent: φ − φ̃ is α times the gradient of the minibatch's loss."""
    for network, side in (
        (nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2), 8),
        (nn.MLP([4, 4, 2], activation=ops.tanh, batch_norm=True), 2),
    ):
        algorithm = algorithms.Reptile(
            network, inner_lr=0.1, inner_steps=1, inner_batch=4, inner_optimizer="sgd"
        )
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=side)
        x, y = algorithm.training_data(episodes)

        def loss(params, network=network, x=x[:, :4], y=y[:, :4]):
            return 0.1 * ops.mean(losses.cross_entropy(network(params["network"], x), y))

        yield meta_gradient(algorithm, params, episodes, loss)
        if side == 2:
            yield call(loss, params)


def _sequences(rng, ways=2, tasks=2, length=3):
    """Support and query of one sequence, images of 2 x 2."""
    xs = [normal(rng, tasks, length, 2, 2, 1) for _ in range(2)]
    ys = [integers(rng.integers(0, ways, (tasks, length))) for _ in range(2)]
    return Episode(xs[0], ys[0], xs[1], ys[1])


def bits(rng, tasks=2, shown=3, asked=2, inputs=3, outputs=2):
    """Sequences to be shown and the bits that answer them."""
    xs = [normal(rng, tasks, n, inputs) for n in (shown, asked)]
    ys = [integers(rng.random((tasks, n, outputs)) < 0.5) for n in (shown, asked)]
    return Episode(xs[0], ys[0], xs[1], ys[1])


@row("algorithm", directions=1)
def ntm(rng):
    for controller, heads, memory in (("lstm", 1, "constant"), ("feed-forward", 2, "learned")):
        algorithm = algorithms.NTM(3, 2, controller, 3, heads, 4, 2, memory)
        params, episodes = float64(algorithm.init(rng), rng), bits(rng)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def mann(rng):
    for labels, temperature in (("one-hot", 1.0), ("strings", 0.5)):
        algorithm = algorithms.MANN(
            2, 2, 3, labels, rows=5, width=3, heads=2, temperature=temperature
        )
        params, episodes = float64(algorithm.init(rng), rng), _sequences(rng)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def lstm(rng):
    algorithm = algorithms.LSTMBaseline(2, 2, 3)
    params, episodes = float64(algorithm.init(rng), rng), _sequences(rng)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


def slow_and_fast(n_fast):
    """A smooth network of 3 layers of images of 2 x 2, for Meta Networks."""
    return algorithms.slow_fast.SlowFast(
        [
            ("conv1", nn.Conv2d(1, 2, bias=False), nn.flatten_images),
            ("features", nn.Linear(8, 2, bias=False), lambda h: h),
            ("logits", nn.Linear(2, 2, bias=False), lambda h: h),
        ],
        n_fast,
        ops.tanh,
    )


@row("algorithm", directions=1)
def metanet(rng):
    """Filters of their own for every query, one example of a class; features, and pairs."""
    for n_fast, shots in ((3, 1), (2, 2)):
        algorithm = algorithms.MetaNet(slow_and_fast(n_fast), hidden=2)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=shots)
        params["u"]["features"]["weight"] *= 0.3  # pairs nearer than the margin
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
    small = algorithms.slow_fast.network(2, channels=2, features=3, image_size=3, depth=2, n_fast=4)
    algorithm = algorithms.MetaNet(small, hidden=2)
    episodes = images(rng, side=3, shots=1)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), episodes)


@row("algorithm", directions=1)
def maml(rng):
    # second-order MAML through the four blocks and their transductive batch-norm
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    algorithm = algorithms.MAML(network, inner_lr=0.1, inner_steps=2)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng))
    network = nn.MLP([4, 4, 2], activation=ops.tanh, batch_norm=True)
    algorithm = algorithms.MAML(network, inner_lr=0.1, inner_steps=2, batch_norm="support")
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng, side=2))
    network = nn.MLP([1, 3, 1], activation=ops.tanh)
    for batches in ("same", "fresh"):
        algorithm = algorithms.MAML(
            network, inner_lr=0.1, inner_steps=2, loss=losses.mse, inner_batches=batches
        )
        yield task_losses(algorithm, float64(algorithm.init(rng), rng), curves(rng))


@row("algorithm", "meta-lstm", directions=1)
def meta_lstm(rng):
    """The exact meta-gradient; and that of the paper, with the learner's gradients and losses as
    they are at these parameters put in as constants."""
    tasks = images(rng, side=2)
    for policy in ("transductive", "support"):
        network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
        options = {"inner_steps": 2, "hidden": 2, "input_bias": (-1.0, 0.0), "batch_norm": policy}
        exact = algorithms.MetaLSTM(network, first_order=False, **options)
        params = float64(exact.init(rng), rng)
        yield task_losses(exact, params, tasks)
        yield meta_gradient(exact, params, tasks)
        paper = algorithms.MetaLSTM(network, **options)
        given, state = [], paper.start(params, 2)
        for _ in range(2):
            given.append(paper.gradient(state.theta, params["theta"], tasks, exact=False))
            state = paper.step(params, state, *given[-1])

        def with_constants(params, paper=paper, given=given, policy=policy):
            state = paper.start(params, 2)
            for gradient, loss in given:
                state = paper.step(params, state, gradient, loss)
            weights = paper.weights(state.theta, params["theta"])
            outputs = query_outputs(paper.network, weights, tasks, policy)
            return ops.mean(paper.loss(outputs, tasks.query_y))

        yield call(with_constants, params)
        yield meta_gradient(paper, params, tasks, with_constants)


@row("algorithm", directions=1)
def fomaml(rng):
    """The gradient of the query loss in a shift of the adapted weights."""
    network = nn.MLP([1, 4, 1])
    algorithm = algorithms.MAML(
        network, inner_lr=0.1, inner_steps=2, loss=losses.mse, first_order=True
    )
    params, episodes = float64(algorithm.init(rng), rng), curves(rng)
    adapted = algorithm.adapt(params, episodes, 2)

    def shifted(moved):
        fast = tree.map(lambda a, p, m: a + (m - p), adapted, params, moved)
        return ops.mean(algorithm.loss(algorithm.query_outputs(fast, episodes), episodes.query_y))

    yield meta_gradient(algorithm, params, episodes, shifted)
