"""Rows of operations with kernels: one order more."""

from scratchmeta import ops
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import away_from_zero, distinct, normal, positive


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
