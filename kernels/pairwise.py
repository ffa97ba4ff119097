"""Distances between all rows of x (B.., N, D) and y (B.., M, D), without an N x M x D array.

    sqeuclidean   D_ij = Σ_d (x_id − y_jd)²        ∂D_ij/∂x_id = 2 (x_id − y_jd)
    cityblock     D_ij = Σ_d w_d |x_id − y_jd|     ∂D_ij/∂x_id = w_d sign(x_id − y_jd), sign(0) = 0
    cosine        D_ij = 1 − x̂_i · ŷ_j             ∂D_ij/∂x̂_i = −ŷ_j, and from x̂ to x as in `unit`

For the cotangent g (B.., N, M) of squared distances,

    gx_i =  2 Σ_j g_ij (x_i − y_j) = 2 (x_i Σ_j g_ij − Σ_j g_ij y_j)
    gy_j = −2 Σ_i g_ij (x_i − y_j) = 2 (y_j Σ_i g_ij − Σ_i g_ij x_i)

which are two products with g, and for that of the others, ' meaning "unweighted",

    gx'_id =  Σ_j g_ij sign(x_id − y_jd)        gx = w gx'
    gy'_jd = −Σ_i g_ij sign(x_id − y_jd)        gy = w gy'
    gw_d   =  Σ_ij g_ij |x_id − y_jd|  =  Σ_i x_id gx'_id + Σ_j y_jd gy'_jd,   since |t| = t sign(t)

Squared distances are not expanded into |x|² + |y|² − 2 x · y: nothing cancels, equal rows are at
distance 0, and it takes the time of a product. In their gradients the same row is subtracted from
all of x and y first, so that what cancels there is as small as the data are wide.

Leading axes are a batch, the same in x and y: broadcasting is the caller's job. The weight is (D,),
or (B.., D) for one per element of the batch. All arrays are float32 or all are float64, of any
memory layout. The derivation is in docs/derivations/pairwise.md.
"""

import math
from pathlib import Path

import numpy as np
from numba.extending import register_jitable

from .compiling import FASTMATH, kernel
from .product import ROWS, differences, lanes, squares
from .runtime import CudaSource, dense, module_of, padded
from .threads import count, run
from .unit import unit, unit_backward

_BLOCK = 64  # rows of x in a task
_TILE = 64  # results along each side of a CUDA block of 16 x 16 threads
_CUDA_BLOCKS = 512  # about, into which a gradient is cut: some for every multiprocessor


@register_jitable(fastmath=FASTMATH)
def _signed(a, b, g):
    # g sign(a − b), but 0 where a − b is NaN
    zero = type(g)(0)
    return (g if a > b else zero) - (g if a < b else zero)


@register_jitable
def _block(t, n):
    """Task t: an element of the batch, and ROWS or more of the n rows of x."""
    blocks = (n + _BLOCK - 1) // _BLOCK
    first = t % blocks * _BLOCK
    end = min(n, first + _BLOCK)
    return t // blocks, min(first, end - ROWS), end


@kernel
def _sqeuclidean(start, stop, x, yt, w, out):
    # x (B, N, D), yt (B, D, M), w (B, D) -> out (B, N, M)
    for t in range(start, stop):
        b, i, end = _block(t, x.shape[1])
        squares(x[b, i:end], yt[b], w[b], out[b, i:end])


@kernel
def _cityblock(start, stop, x, yt, w, out):
    for t in range(start, stop):
        b, i, end = _block(t, x.shape[1])
        differences(x[b, i:end], yt[b], w[b], out[b, i:end])


@kernel
def _cityblock_backward(start, stop, g, x, yt, gx, gyt):
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
                    t0 = _signed(x0, column[j], g0[j])
                    t1 = _signed(x1, column[j], g1[j])
                    t2 = _signed(x2, column[j], g2[j])
                    t3 = _signed(x3, column[j], g3[j])
                    gcolumn[j] -= (t0 + t1) + (t2 + t3)
                    s0 += t0
                    s1 += t1
                    s2 += t2
                    s3 += t3
                gx[b, i3, d], gx[b, i2, d] = s3, s2
                gx[b, i1, d], gx[b, i, d] = s1, s0


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
    lead = x.shape[:-2]
    if isinstance(x, np.ndarray):
        x, y, w = dense(name, x, y, _weights(name, weight, x))
        # at least what a tile holds; past that, tiles may overlap
        x = padded(x.reshape(b, n, d), max(n, ROWS), d)
        yt = padded(y.reshape(b, m, d).swapaxes(1, 2), d, max(m, lanes(x.dtype)))
        out = np.empty((b, x.shape[1], yt.shape[2]), x.dtype)
        run(compiled, out.size * d, b * -(-x.shape[1] // _BLOCK), x, yt, w.reshape(b, d), out)
        return np.ascontiguousarray(out[:, :n, :m]).reshape(*lead, n, m)
    arrays = dense(name, x, y, *(() if weight is None else (_weights(name, weight, x),)))
    out = module_of(x).empty((*lead, n, m), arrays[0].dtype)
    if out.size:
        launch = _cuda(name if weight is None else f"weighted_{name}", out.dtype)
        tiles = b * -(-n // _TILE) * -(-m // _TILE)
        launch((tiles,), (16, 16), (*arrays, out, n, m, d))
    return out


def _cotangent(name, g, x, y):
    """B, N, M and D; ValueError where g does not have the shape of the distances."""
    sizes = _sizes(name, x, y)
    if g.shape != (*x.shape[:-1], y.shape[-2]):
        raise ValueError(f"{name}: wanted g {(*x.shape[:-1], y.shape[-2])}, got {g.shape}")
    return sizes


def _centre(y):
    """A row of y, or 0, also where it is not finite: with it subtracted from all rows, what cancels
    in a sum is small."""
    row, xp = y[..., :1, :].sum(axis=-2, keepdims=True), module_of(y)
    return xp.where(xp.isfinite(row), row, row.dtype.type(0))


def _undefined(x, y):
    """Where x_id − y_jd is NaN for some j, and so the sign of it."""

    def some(a):
        return a.any(axis=-2, keepdims=True)

    plus, minus = (np.isposinf(x) & some(np.isposinf(y))), (np.isneginf(x) & some(np.isneginf(y)))
    return np.isnan(x) | some(np.isnan(y)) | plus | minus


def _cityblock_gradients(g, x, y):
    """gx' and gy'."""
    b, n, m, d = _cotangent("cityblock_backward", g, x, y)
    g, x, y = dense("cityblock_backward", g, x, y)
    if isinstance(x, np.ndarray):
        work = b * n * m * d
        # with few elements in the batch, threads share one; their parts of gy take no more than g
        chunks = max(1, min(count() // max(1, b), n // max(1, d)))
        yt = np.ascontiguousarray(y.reshape(b, m, d).swapaxes(1, 2))
        gx, gyt = np.empty_like(x), np.zeros((b, chunks, d, m), x.dtype)
        arrays = g.reshape(b, n, m), x.reshape(b, n, d), yt, gx.reshape(b, n, d), gyt
        run(_cityblock_backward, work, b * chunks, *arrays)
        gy = np.ascontiguousarray(gyt.sum(axis=1).swapaxes(1, 2)).reshape(y.shape)
        if not np.isfinite(np.vdot(x, x) + np.vdot(y, y)):  # the cheapest sums that show it
            gx[_undefined(x, y)] = gy[_undefined(y, x)] = np.nan
        return gx, gy
    launch, gradients = _cuda("cityblock_backward", x.dtype), []
    # sign is odd, so gy' is the gx' of the transposed problem
    for u, v, rows, others, steps in ((x, y, n, m, (m, 1)), (y, x, m, n, (1, m))):
        tiles = b * -(-rows // _TILE) * -(-d // _TILE)
        parts = max(1, min(-(-others // _TILE), _CUDA_BLOCKS // max(1, tiles)))
        gv = module_of(x).empty((b, parts, rows, d), x.dtype)
        if gv.size:
            launch((tiles * parts,), (16, 16), (g, u, v, gv, rows, others, d, *steps, parts))
        gradients.append((gv[:, 0] if parts == 1 else gv.sum(axis=1)).reshape(u.shape))
    return gradients


def sqeuclidean(x, y):
    """D (B.., N, M) of x (B.., N, D) and y (B.., M, D): D_ij = Σ_d (x_id − y_jd)²."""
    return _distances("sqeuclidean", _sqeuclidean, x, y)


def sqeuclidean_backward(g, x, y):
    """(gx, gy) for the cotangent g (B.., N, M) of `sqeuclidean`."""
    _cotangent("sqeuclidean_backward", g, x, y)
    centre = _centre(y)
    x, y, gt = x - centre, y - centre, g.swapaxes(-1, -2)
    gx = g.sum(axis=-1, keepdims=True) * x - g @ y
    gy = gt.sum(axis=-1, keepdims=True) * y - gt @ x
    return gx + gx, gy + gy


def cityblock(x, y, weight=None):
    """D (B.., N, M) of x (B.., N, D) and y (B.., M, D): D_ij = Σ_d w_d |x_id − y_jd|."""
    return _distances("cityblock", _cityblock, x, y, weight)


def cityblock_backward(g, x, y, weight=None):
    """(gx, gy, gweight) for the cotangent g (B.., N, M) of `cityblock`; no weight, gweight None."""
    gx, gy = _cityblock_gradients(g, x, y)
    if weight is None:
        return gx, gy, None
    w = _weights("cityblock_backward", weight, x)[..., None, :]
    centre = _centre(y)  # Σ_i gx'_id + Σ_j gy'_jd = 0: any may be subtracted
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
