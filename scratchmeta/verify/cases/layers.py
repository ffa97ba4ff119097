"""Rows of layers and networks."""

from scratchmeta import nn, ops, tree
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import float64, normal, positive


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


@row("layer", "Flat", analytic=True)
def flat(rng):
    """Images, and vectors, which stay as they are."""
    for shape in ((3, 2, 2, 1), (3, 4)):
        yield call(nn.Flat(4), {}, normal(rng, *shape))


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
