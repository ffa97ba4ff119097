"""What the tests of adaptation by gradients share."""

import numpy as np

from scratchmeta import tree
from scratchmeta.episodes import Episode


def images(rng, tasks=5, ways=3, shots=2, queries=2, side=12):
    """Episodes of random images."""

    def some(n):
        labels = np.tile(np.repeat(np.arange(ways), n), (tasks, 1))
        return rng.random((tasks, ways * n, side, side, 1)), labels

    return Episode(*some(shots), *some(queries))


def curves(rng, tasks=4):
    """Episodes of sines."""
    x = [rng.uniform(-5, 5, (tasks, 6, 1)) for _ in range(2)]
    return Episode(x[0], np.sin(x[0]), x[1], np.sin(x[1]))


def new(network, seed=0):
    """New parameters, in float64."""
    return tree.astype(network.init(np.random.default_rng(seed)), np.float64)


def assert_equal(a, b, tolerance=1e-12):
    """Trees of nearly equal arrays."""
    for x, y in zip(tree.flatten(a)[0], tree.flatten(b)[0], strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max() + 1e-15)
