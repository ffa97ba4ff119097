"""Small arrays for the examples, at which what is checked is smooth."""

import numpy as np

from scratchmeta import backend, tree


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


def invertible(rng, *lead, n):
    """Matrices (..., n, n) far from singular: 2 I and a little noise."""
    return backend.asarray(2.0 * np.eye(n)) + 0.3 * normal(rng, *lead, n, n)


def integers(values):
    """A constant array of integers."""
    return backend.asarray(np.asarray(values))


def float64(params, rng):
    """A layer's parameters in float64, none of them exactly 0 or 1."""
    return tree.map(lambda p: p.astype(np.float64) + 0.1 * normal(rng, *p.shape), params)
