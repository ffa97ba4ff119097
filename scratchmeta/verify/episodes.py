"""Small batches of episodes of float64 numbers, and a smooth network for them."""

import numpy as np

from scratchmeta import nn, ops
from scratchmeta.episodes import Episode
from scratchmeta.verify.numbers import float64, integers, normal


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


def sequences(rng, ways=2, tasks=2, length=3):
    """Support and query of one sequence, images of 2 x 2."""
    xs = [normal(rng, tasks, length, 2, 2, 1) for _ in range(2)]
    ys = [integers(rng.integers(0, ways, (tasks, length))) for _ in range(2)]
    return Episode(xs[0], ys[0], xs[1], ys[1])


def bits(rng, tasks=2, shown=3, asked=2, inputs=3, outputs=2):
    """Sequences to be shown and the bits that answer them."""
    xs = [normal(rng, tasks, n, inputs) for n in (shown, asked)]
    ys = [integers(rng.random((tasks, n, outputs)) < 0.5) for n in (shown, asked)]
    return Episode(xs[0], ys[0], xs[1], ys[1])


def instance(algorithm, rng, episodes):
    """An algorithm, new parameters of it in float64, and episodes."""
    return algorithm, float64(algorithm.init(rng), rng), episodes


def tanh_features(n_out=2):
    """A smooth embedding of images of 2 x 2."""
    return nn.MLP([4, 3, n_out], activation=ops.tanh, batch_norm=True)
