"""Operations that turn many numbers into one: along one axis, several, or all (axis=None)."""

from typing import Any

from scratchmeta import backend
from scratchmeta.backend import xp
from scratchmeta.core import X, primitive, raw
from scratchmeta.ops.elementwise import exp, where
from scratchmeta.ops.shape import (
    _axis,
    broadcast_to,
    concat,
    flip,
    moveaxis,
    reshape,
    split,
    squeeze,
)

Axis = int | tuple[int, ...] | None


def _axes(axis, ndim):
    if axis is None:
        return tuple(range(ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def _kept(v, x, axis):
    """v, reduced from x, with the reduced axes back as length 1."""
    shape = list(x.shape)
    for a in _axes(axis, x.ndim):
        shape[a] = 1
    return reshape(v, tuple(shape))


def _spread(g, x, axis):
    """g, reduced from x, copied back over the reduced axes: the adjoint of sum."""
    return broadcast_to(_kept(g, x, axis), x.shape)


def _count(x, axis):
    n = 1
    for a in _axes(axis, x.ndim):
        n *= x.shape[a]
    if n == 0:
        raise ValueError(f"wanted at least one entry to take the mean of, got shape {x.shape}")
    return n


@primitive(lambda g, y, x, axis=None, keepdims=False: _spread(g, x, axis))
def sum(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """Σ x over an axis, a tuple of axes or all of them."""
    if axis == -2 and not keepdims:
        return backend.add_rows(x)
    return x.sum(axis=axis, keepdims=keepdims)


@primitive(lambda g, y, x, axis=None, keepdims=False: _spread(g / _count(x, axis), x, axis))
def mean(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """Σ x / n over an axis, a tuple of axes or all of them."""
    return x.sum(axis=axis, keepdims=keepdims) / _count(x, axis)


@primitive(
    lambda g, y, x, axis=None, keepdims=False: _kept(g * (2.0 / _count(x, axis)), x, axis) * x
)
def mean_square(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """Σ x² / n over an axis, a tuple of axes or all of them."""
    return (x * x).sum(axis=axis, keepdims=keepdims) / _count(x, axis)


def var(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """The mean squared deviation from the mean (divided by n, not n − 1)."""
    return mean_square(x - mean(x, axis, keepdims=True), axis, keepdims)


def _share(g, y, x, axis=None, keepdims=False):
    """g, divided equally among the entries of x that attain the extreme y."""
    attained = (raw(x) == raw(_kept(y, x, axis))).astype(x.dtype)
    return _spread(g, x, axis) * (attained / attained.sum(axis=axis, keepdims=True))


@primitive(_share)
def max(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """The largest entry. Entries that tie for it share the cotangent equally."""
    return x.max(axis=axis, keepdims=keepdims)


@primitive(_share)
def min(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """The smallest entry. Entries that tie for it share the cotangent equally."""
    return x.min(axis=axis, keepdims=keepdims)


def prod(x: X, axis: int = -1) -> X:
    """Π x along an axis.

    Neighbours are multiplied, then neighbouring products, and so on: a tree of multiplications,
    whose derivatives of any order need no division and so are exact where entries are 0.
    """
    x = moveaxis(x, axis, -1)
    if x.shape[-1] == 0:
        raise ValueError(f"prod: wanted at least one entry along axis {axis}, got shape {x.shape}")
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        first, second, odd = split(x, [half, half, x.shape[-1] - 2 * half])
        x = concat([first * second, odd], axis=-1)
    return squeeze(x, -1)


@primitive(
    lambda g, y, x, axis=None, keepdims=False: _spread(g, x, axis) * exp(x - _kept(y, x, axis)),
)
def logsumexp(x: X, axis: Axis = None, keepdims: bool = False) -> X:
    """log Σ eˣ, computed after taking out the largest entry so that nothing overflows."""
    m = x.max(axis=axis, keepdims=True)
    m = xp(m).where(xp(m).isfinite(m), m, 0.0)
    y = xp(x).log(xp(x).exp(x - m).sum(axis=axis, keepdims=True)) + m
    return y if keepdims else y.squeeze(axis=_axes(axis, x.ndim))


@primitive(lambda g, y, x, axis=-1: y * (g - sum(g * y, axis, keepdims=True)))
def softmax(x: X, axis: int = -1) -> X:
    """eˣ / Σ eˣ along an axis."""
    e = xp(x).exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@primitive(lambda g, y, x, axis=-1: g - exp(y) * sum(g, axis, keepdims=True))
def log_softmax(x: X, axis: int = -1) -> X:
    """x − log Σ eˣ along an axis."""
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp(x).log(xp(x).exp(shifted).sum(axis=axis, keepdims=True))


@primitive(
    lambda g, y, x, axis=-1, keepdims=False: _kept(g * _reciprocal(y), x, axis) * x,
)
def norm(x: X, axis: Axis = -1, keepdims: bool = False) -> X:
    """√Σ x², the Euclidean length. At x = 0, a kink, and where Σ x² is too small for a number all
    derivatives are taken as 0."""
    return xp(x).sqrt((x * x).sum(axis=axis, keepdims=keepdims))


def _reciprocal(y):
    """1 / y, and 0 for y = 0."""
    zero = raw(y) == 0
    return where(zero, 0.0, 1.0 / where(zero, 1.0, y))


@primitive(lambda g, y, x, axis=-1: flip(cumsum(flip(g, axis), axis), axis))
def cumsum(x: X, axis: int = -1) -> X:
    """The running sum along an axis: y[i] = x[0] + ... + x[i]."""
    return x.cumsum(axis=_axis(axis, x.ndim))


@primitive(None)
def top_k_mask(x: X, k: int) -> X:
    """1 at the k largest entries of the last axis, 0 elsewhere; among equals the earliest count
    first.

    A constant: nothing flows back through it.
    """
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k: wanted 0 to {x.shape[-1]}, got {k}")
    module = xp(x)
    n = x.shape[-1]
    mine, other = x[..., :, None], x[..., None, :]
    index = module.arange(n)
    ahead = (other > mine) | ((other == mine) & (index[None, :] < index[:, None]))
    return (ahead.sum(axis=-1) < k).astype(x.dtype)


@primitive(None)
def one_hot(labels: X, n: int, dtype: Any = "float32") -> X:
    """Integer labels (...,) as unit vectors (..., n); a constant: nothing flows back to labels."""
    return (labels[..., None] == xp(labels).arange(n)).astype(dtype)
