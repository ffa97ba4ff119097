"""A small instance of every algorithm: `INSTANCES[name](rng)` gives it, float64 parameters and
episodes.

What must hold of all algorithms is tested on these: float32 and CuPy give what float64 on NumPy
does, every algorithm has a row in the table of cases.
"""

import numpy as np

from scratchmeta import nn, ops, optim, tree
from scratchmeta.algorithms import (
    MAML,
    MANN,
    NTM,
    MetaLSTM,
    MetaNet,
    Prototypical,
    Reptile,
    Siamese,
    ZeroShot,
)
from scratchmeta.episodes import Episode
from scratchmeta.presets import OWN, REGISTRY
from scratchmeta.presets.metanet import slow_and_fast
from scratchmeta.verify.episodes import bits, described, images
from scratchmeta.verify.numbers import float64


def _with_images(algorithm, rng, **sizes):
    return algorithm, float64(algorithm.init(rng), rng), images(rng, queries=2, **sizes)


def _prototypical(**options):
    network = nn.Conv4(channels=2, image_size=16)
    return lambda rng: _with_images(Prototypical(network, **options), rng, side=16)


def _maml(**options):
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    return lambda rng: _with_images(MAML(network, inner_lr=0.1, inner_steps=2, **options), rng)


def _meta_lstm(**options):
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    return lambda rng: _with_images(MetaLSTM(network, inner_steps=2, hidden=3, **options), rng)


def _sequential(made, **options):
    return lambda rng: _with_images(made(8, 2, 4, **options), rng)


def _smooth(algorithm, n_out, **options):
    """Without kinks, where rounding to float32 may choose another side."""
    network = nn.MLP([64, 6, n_out], activation=ops.tanh)
    return lambda rng: _with_images(algorithm(network, **options), rng)


def reptile_params(algorithm, rng):
    """Squares and their weight are not negative."""
    params = float64(algorithm.init(rng), rng)
    return {"network": params.pop("network"), **tree.map(ops.abs, params)}


def _reptile(**options):
    def instance(rng):
        algorithm = Reptile(nn.MLP([64, 6, 2], activation=ops.tanh), eval_inner_steps=2, **options)
        return algorithm, reptile_params(algorithm, rng), images(rng, queries=2)

    return instance


def _zero_shot(network, side):
    def made(rng):
        algorithm = ZeroShot(network, nn.MLP([5, 4, 3], activation=ops.tanh))
        episodes = images(rng, side=side, ways=3, shots=1, queries=2)
        return algorithm, float64(algorithm.init(rng), rng), described(episodes, rng, 5)

    return made


def _metanet(n_fast, **options):
    def instance(rng):
        algorithm = MetaNet(slow_and_fast(n_fast), hidden=3)
        return _with_images(algorithm, rng, side=2, **options)

    return instance


def _ntm(**options):
    def instance(rng):
        algorithm = NTM(3, 2, units=4, rows=5, width=3, **options)
        return algorithm, float64(algorithm.init(rng), rng), bits(rng)

    return instance


def bars(rng, shots=1, queries=3, tasks=2, ways=4):
    """Episodes of noisy bars, one class at each of `ways` of 8 angles, images of 12 x 12."""
    y, x = np.mgrid[-1:1:12j, -1:1:12j]
    angles = (rng.permuted(np.tile(np.arange(8), (tasks, 1)), axis=1) * np.pi / 8)[:, :ways]

    def draw(n):
        labels = np.tile(np.repeat(np.arange(ways), n), (tasks, 1))
        a = np.take_along_axis(angles, labels, 1)[..., None, None]
        bar = np.exp(-20 * (np.cos(a) * x + np.sin(a) * y) ** 2)
        return (bar + 0.3 * rng.normal(size=bar.shape))[..., None].astype(np.float32), labels

    return Episode(*draw(shots), *draw(queries))


def accuracies(algorithm, rng, steps, lr=3e-3, **sizes):
    """Those on bars before and after so many steps of Adam."""
    params = algorithm.init(rng)
    adam = optim.Adam(lr)
    state = adam.init(params)
    tests = bars(rng, tasks=40, **sizes)

    def accuracy():
        return float((algorithm.predict(params, tests).argmax(-1) == tests.query_y).mean())

    before = accuracy()
    for _ in range(steps):
        _, g = algorithm.meta_gradient(params, bars(rng, **sizes))
        params, state = adam.step(params, g, state)
    return before, accuracy()


# The part of a name before the comma is the algorithm's in REGISTRY, whose presets have a small
# instance of each.
INSTANCES = {name: REGISTRY[name].small for name in OWN} | {
    "prototypical, Conv4": _prototypical(),
    "prototypical, cosine, from the support": _prototypical(
        distance="cosine", batch_norm="support"
    ),
    "prototypical, cityblock, running": _prototypical(distance="cityblock", batch_norm="running"),
    "prototypical, a task at a time": _prototypical(task_chunk=1),
    "siamese, sqeuclidean": _smooth(Siamese, 3, n_features=3, distance="sqeuclidean"),
    "siamese, cosine, most similar": _smooth(
        Siamese, 3, n_features=3, distance="cosine", shots="most-similar"
    ),
    "prototypical-zero-shot, Conv4": _zero_shot(nn.Conv4(2, image_size=16, n_out=3), 16),
    "maml, Conv4": _maml(),
    "maml, from the support": _maml(batch_norm="support"),
    "maml, fresh batches": _smooth(MAML, 2, inner_steps=2, inner_batches="fresh"),
    "reptile, Adam": _reptile(inner_batch=4),
    "reptile, one by one": _reptile(one_by_one=True),
    "ntm, feed-forward": _ntm(controller="feed-forward", heads=2, memory="learned"),
    "meta-lstm, exact": _smooth(MetaLSTM, 2, inner_steps=2, hidden=3, first_order=False),
    "meta-lstm, Conv4": _meta_lstm(input_bias=(-1.0, 0.0)),
    "meta-lstm, a task at a time": _meta_lstm(task_chunk=1),
    "mann, strings": _sequential(MANN, labels="strings", rows=6, width=3, heads=2),
    "metanet, one shot, all layers": _metanet(3, shots=1),
}
