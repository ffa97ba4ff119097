"""Rows of elementwise operations."""

import numpy as np

from scratchmeta import backend, ops
from scratchmeta.algorithms.preprocessing import preprocess
from scratchmeta.ops.fused import identity
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import away_from_zero, distinct, integers, normal, positive


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
