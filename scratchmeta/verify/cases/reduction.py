"""Rows of reductions."""

from scratchmeta import ops
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import distinct, integers, normal


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
