"""Rows of operations that move numbers and leave them as they are."""

import numpy as np

from scratchmeta import ops
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import integers, normal


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
