"""Distances between all rows of x (B.., N, D) and y (B.., M, D), without an N x M x D array.

    sqeuclidean   D_ij = Σ_d (x_id − y_jd)²        ∂D_ij/∂x_id = 2 (x_id − y_jd)
    cityblock     D_ij = Σ_d w_d |x_id − y_jd|     ∂D_ij/∂x_id = w_d sign(x_id − y_jd), sign(0) = 0
    cosine        D_ij = 1 − x̂_i · ŷ_j             ∂D_ij/∂x̂_i = −ŷ_j, and from x̂ to x as in `unit`

Let f(t) be the slope, 2t or sign(t), g (B.., N, M) the cotangent of D, and ' mean "unweighted":

    gx'_id =  Σ_j g_ij f(x_id − y_jd)        gx = w gx'
    gy'_jd = −Σ_i g_ij f(x_id − y_jd)        gy = w gy'
    gw_d   =  Σ_ij g_ij |x_id − y_jd|  =  Σ_i x_id gx'_id + Σ_j y_jd gy'_jd,   since |t| = t sign(t)

The differences are formed and not expanded into |x|² + |y|² − 2 x · y: nothing cancels, equal rows
are at distance 0, and at D = 64 it takes the time of a BLAS product and the passes around it.

Leading axes are a batch, the same in x and y: broadcasting is the caller's job. The weight is (D,),
or (B.., D) for one per element of the batch. All arrays are float32 or all are float64, of any
memory layout. The derivation is in docs/derivations/pairwise.md.
"""

import math
from pathlib import Path

import numpy as np
from numba.extending import register_jitable

from .runtime import CudaSource, dense, module_of
from .threads import FASTMATH, count, kernel, run
from .unit import unit, unit_backward

_ROWS = 16  # rows of x that meet a block of rows of y while it is in the first-level cache
_CACHE = 16 * 1024  # bytes of that block
_TILE = 64  # results along each side of a CUDA block of 16 x 16 threads


@register_jitable(fastmath=FASTMATH)
def _square(a, b, w):
    return (a - b) * (a - b)


@register_jitable(fastmath=FASTMATH)
def _square_slope(a, b, g):
    return g * ((a - b) + (a - b))


@register_jitable(fastmath=FASTMATH)
def _absolute(a, b, w):
    return w * abs(a - b)


@register_jitable(fastmath=FASTMATH)
def _absolute_slope(a, b, g):
    zero = type(g)(0)
    return (g if a > b else zero) - (g if a < b else zero)


def _forward(term):
    """The compiled distances with the given term(x_id, y_jd, w_d)."""

    @kernel
    def forward(start, stop, x, y, w, out):
        # x (B, N, D), y (B, M, D), w (B, D) -> out (B, N, M)
        n, m, depth = x.shape[1], y.shape[1], x.shape[2]
        blocks = (n + _ROWS - 1) // _ROWS
        columns = 4 * max(1, _CACHE // max(1, 4 * depth * x.itemsize))
        for t in range(start, stop):
            b, first = t // blocks, t % blocks * _ROWS
            for column in range(0, m, columns):
                for i in range(first, min(n, first + _ROWS)):
                    # four columns at a time, past the end the last one again
                    for j in range(column, min(m, column + columns), 4):
                        j1, j2, j3 = min(j + 1, m - 1), min(j + 2, m - 1), min(j + 3, m - 1)
                        s0 = s1 = s2 = s3 = x.dtype.type(0)
                        for d in range(depth):
                            s0 += term(x[b, i, d], y[b, j, d], w[b, d])
                            s1 += term(x[b, i, d], y[b, j1, d], w[b, d])
                            s2 += term(x[b, i, d], y[b, j2, d], w[b, d])
                            s3 += term(x[b, i, d], y[b, j3, d], w[b, d])
                        out[b, i, j], out[b, i, j1] = s0, s1
                        out[b, i, j2], out[b, i, j3] = s2, s3

    return forward


def _backward(slope):
    """The compiled gradients with the given slope(x_id, y_jd, g_ij) = g_ij f(x_id − y_jd)."""

    @kernel
    def backward(start, stop, g, x, yt, gx, gyt):
        # g (B, N, M), x (B, N, D), yt (B, D, M) -> gx (B, N, D), gyt (B, C, D, M): C parts to add
        n, m, chunks = x.shape[1], yt.shape[2], gyt.shape[1]
        for t in range(start, stop):
            b, c = t // chunks, t % chunks
            nothing = np.zeros(m, x.dtype)
            end = n * (c + 1) // chunks
            # four rows at a time, past the end the last one again with g = 0
            for i in range(n * c // chunks, end, 4):
                i1, i2, i3 = min(i + 1, end - 1), min(i + 2, end - 1), min(i + 3, end - 1)
                g0 = g[b, i]
                g1 = g[b, i1] if i1 > i else nothing
                g2 = g[b, i2] if i2 > i1 else nothing
                g3 = g[b, i3] if i3 > i2 else nothing
                for d in range(x.shape[2]):
                    x0, x1, x2, x3 = x[b, i, d], x[b, i1, d], x[b, i2, d], x[b, i3, d]
                    s0 = s1 = s2 = s3 = x.dtype.type(0)
                    column, gcolumn = yt[b, d], gyt[b, c, d]
                    for j in range(m):
                        t0 = slope(x0, column[j], g0[j])
                        t1 = slope(x1, column[j], g1[j])
                        t2 = slope(x2, column[j], g2[j])
                        t3 = slope(x3, column[j], g3[j])
                        gcolumn[j] -= (t0 + t1) + (t2 + t3)
                        s0 += t0
                        s1 += t1
                        s2 += t2
                        s3 += t3
                    gx[b, i3, d], gx[b, i2, d] = s3, s2
                    gx[b, i1, d], gx[b, i, d] = s1, s0

    return backward


_sqeuclidean, _sqeuclidean_backward = _forward(_square), _backward(_square_slope)
_cityblock, _cityblock_backward = _forward(_absolute), _backward(_absolute_slope)


_cuda = CudaSource(Path(__file__).with_suffix(".cu"))


def _sizes(name, x, y):
    """B, N, M and D; ValueError where x and y do not agree."""
    if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{name}: wanted x (B.., N, D), y (B.., M, D), got {x.shape}, {y.shape}")
    return math.prod(x.shape[:-2]), x.shape[-2], y.shape[-2], x.shape[-1]


def _weights(name, weight, x):
    """w (B.., D): the weight for each element of the batch; ones where there is none."""
    if weight is not None and weight.shape not in ((x.shape[-1],), (*x.shape[:-2], x.shape[-1])):
        raise ValueError(f"{name}: wanted weight (D,) or (B.., D), got {weight.shape}, x {x.shape}")
    w = module_of(x).empty(
        (*x.shape[:-2], x.shape[-1]), x.dtype if weight is None else weight.dtype
    )
    w[...] = 1 if weight is None else weight
    return w


def _distances(name, compiled, x, y, weight=None):
    b, n, m, d = _sizes(name, x, y)
    x, y, w = dense(name, x, y, _weights(name, weight, x))
    out = module_of(x).empty((*x.shape[:-1], m), x.dtype)
    if isinstance(x, np.ndarray):
        arrays = x.reshape(b, n, d), y.reshape(b, m, d), w.reshape(b, d), out.reshape(b, n, m)
        run(compiled, b * n * m * d, b * -(-n // _ROWS), *arrays)
    elif out.size:
        tiles = b * -(-n // _TILE) * -(-m // _TILE)
        _cuda(name, x.dtype)((tiles,), (16, 16), (x, y, w, out, n, m, d))
    return out


def _gradients(name, compiled, g, x, y):
    """gx' and gy'."""
    b, n, m, d = _sizes(name, x, y)
    if g.shape != (*x.shape[:-1], m):
        raise ValueError(f"{name}: wanted g {(*x.shape[:-1], m)}, got {g.shape}")
    g, x, y = dense(name, g, x, y)
    if isinstance(x, np.ndarray):
        work = b * n * m * d
        # with few elements in the batch, threads share one; their parts of gy take no more than g
        chunks = max(1, min(count() // max(1, b), n // max(1, d)))
        yt = np.ascontiguousarray(y.reshape(b, m, d).swapaxes(1, 2))
        gx, gyt = np.empty_like(x), np.zeros((b, chunks, d, m), x.dtype)
        arrays = g.reshape(b, n, m), x.reshape(b, n, d), yt, gx.reshape(b, n, d), gyt
        run(compiled, work, b * chunks, *arrays)
        gy = np.ascontiguousarray(gyt.sum(axis=1).swapaxes(1, 2)).reshape(y.shape)
    else:
        gx, gy = module_of(x).empty_like(x), module_of(x).empty_like(y)
        launch = _cuda(name, x.dtype)
        # f is odd, so gy' is the gx' of the transposed problem
        for gv, u, v, rows, others, steps in ((gx, x, y, n, m, (m, 1)), (gy, y, x, m, n, (1, m))):
            if gv.size:
                tiles = b * -(-rows // _TILE) * -(-d // _TILE)
                launch((tiles,), (16, 16), (g, u, v, gv, rows, others, d, *steps))
    return gx, gy


def sqeuclidean(x, y):
    """D (B.., N, M) of x (B.., N, D) and y (B.., M, D): D_ij = Σ_d (x_id − y_jd)²."""
    return _distances("sqeuclidean", _sqeuclidean, x, y)


def sqeuclidean_backward(g, x, y):
    """(gx, gy) for the cotangent g (B.., N, M) of `sqeuclidean`."""
    return _gradients("sqeuclidean_backward", _sqeuclidean_backward, g, x, y)


def cityblock(x, y, weight=None):
    """D (B.., N, M) of x (B.., N, D) and y (B.., M, D): D_ij = Σ_d w_d |x_id − y_jd|."""
    return _distances("cityblock", _cityblock, x, y, weight)


def cityblock_backward(g, x, y, weight=None):
    """(gx, gy, gweight) for the cotangent g (B.., N, M) of `cityblock`; no weight, gweight None."""
    gx, gy = _gradients("cityblock_backward", _cityblock_backward, g, x, y)
    if weight is None:
        return gx, gy, None
    w = _weights("cityblock_backward", weight, x)[..., None, :]
    # Σ_i gx'_id + Σ_j gy'_jd = 0: any centre may be subtracted, and one near the data loses least
    centre = y[..., :1, :] if y.shape[-2] else 0
    gw = sum(((a - centre) * ga).sum(-2, dtype=np.float64) for a, ga in ((x, gx), (y, gy)))
    if weight.ndim == 1:
        gw = gw.sum(tuple(range(gw.ndim - 1)))
    return w * gx, w * gy, gw.astype(weight.dtype)


def cosine(x, y):
    """D (B.., N, M) of x (B.., N, D) and y (B.., M, D): D_ij = 1 − x̂_i · ŷ_j, in [0, 2]."""
    _sizes("cosine", x, y)
    out = unit(x)[0] @ unit(y)[0].swapaxes(-1, -2)
    return module_of(out).subtract(1, out, out=out)


def cosine_backward(g, x, y):
    """(gx, gy) for the cotangent g (B.., N, M) of `cosine`."""
    _sizes("cosine_backward", x, y)
    (x, rx), (y, ry) = unit(x), unit(y)
    return unit_backward(-(g @ y), x, rx), unit_backward(-(g.swapaxes(-1, -2) @ x), y, ry)
