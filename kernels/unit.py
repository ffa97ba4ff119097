"""Rows of length one, which cosines are made of.

    r = 1 / |x|,  or 0 where |x|² is below the smallest normal number        x̂ = r x
    gx = r (gx̂ − x̂ (x̂ · gx̂))

There is no ε. A zero vector has x̂ = 0, hence cosine 0 with everything and gradient 0, and so has
every vector shorter than 1.1e-19 (float32) or 1.5e-154 (float64), whose square is not a normal
number.
"""

import math
from pathlib import Path

import numpy as np
from numba.extending import register_jitable

from .compiling import kernel
from .runtime import CudaSource, dense, module_of
from .threads import run

_WARPS = 8  # rows of one CUDA block, a warp of 32 threads for each


@register_jitable
def inverse_length(square):
    """r, given |x|²."""
    real = type(square)
    return real(0) if square < np.finfo(real).tiny else real(1) / np.sqrt(square)


@kernel
def _unit(start, stop, x, y, r):
    for i in range(start, stop):
        square = x.dtype.type(0)
        for d in range(x.shape[1]):
            square += x[i, d] * x[i, d]
        r[i] = inverse_length(square)
        for d in range(x.shape[1]):
            y[i, d] = r[i] * x[i, d]


@kernel
def _unit_backward(start, stop, gy, y, r, gx):
    for i in range(start, stop):
        along = y.dtype.type(0)
        for d in range(y.shape[1]):
            along += y[i, d] * gy[i, d]
        for d in range(y.shape[1]):
            gx[i, d] = r[i] * (gy[i, d] - along * y[i, d])


_cuda = CudaSource(Path(__file__).with_suffix(".cu"))


def unit(x):
    """(x̂, r): the rows of x (B.., N, D) at length one, and their inverse lengths (B.., N)."""
    (x,) = dense("unit", x)
    xp, (*lead, d), rows = module_of(x), x.shape, math.prod(x.shape[:-1])
    y, r = xp.empty_like(x), xp.empty(lead, x.dtype)
    if xp is np:
        arrays = x.reshape(rows, d), y.reshape(rows, d), r.reshape(rows)
        run(_unit, x.size, rows, *arrays)
    elif rows:
        tiny = np.finfo(x.dtype).tiny
        _cuda("unit", x.dtype)((-(-rows // _WARPS),), (32, _WARPS), (x, tiny, y, r, rows, d))
    return y, r


def unit_backward(gy, y, r):
    """gx, given y = x̂ (B.., N, D) and r (B.., N) of `unit` and the cotangent gy of x̂."""
    if gy.shape != y.shape or r.shape != y.shape[:-1]:
        raise ValueError(
            "unit_backward: wanted gy and y (B.., N, D), r (B.., N), "
            f"got {gy.shape}, {y.shape}, {r.shape}"
        )
    gy, y, r = dense("unit_backward", gy, y, r)
    xp, d, rows = module_of(y), y.shape[-1], math.prod(y.shape[:-1])
    gx = xp.empty_like(y)
    if xp is np:
        arrays = gy.reshape(rows, d), y.reshape(rows, d), r.reshape(rows), gx.reshape(rows, d)
        run(_unit_backward, y.size, rows, *arrays)
    elif rows:
        launch = _cuda("unit_backward", y.dtype)
        launch((-(-rows // _WARPS),), (32, _WARPS), (gy, y, r, gx, rows, d))
    return gx
