"""Rows of pooling."""

from scratchmeta import ops
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import distinct, normal


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
