"""Convolution of channels-last images and its two adjoints, in strips of windows that stay in cache.

    y[p]  = Σ_k x[stride p + k − pad] w[k]          p a position, k an offset in the filter
    gx[q] = Σ_k gy[(q − k + pad) / stride] w[k]ᵀ
    gw[k] = Σ_p x[stride p + k − pad]ᵀ gy[p]

A row of *columns* is what lies under the window at p: depth = kh kw C numbers, zero beyond the
border. With the filters as a matrix w (depth, F), all three are products,

    y = columns w,    gcolumns = gy wᵀ, added up where windows overlap,    gw = columnsᵀ gy,

made for STRIP windows at a time, so that columns are never in main memory.

Images are x (T, N, H, W, C), T stacks of N; filters w (T, kh, kw, C, F) or (1, kh, kw, C, F), one
bank for all stacks; y (T, N, H', W', F). All arrays are float32 or all are float64, of any memory
layout. F must be a multiple of a vector's length, and so must depth in `conv2d_input`.
"""

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from .product import ROWS, add_product, lanes, product
from .runtime import PARALLEL_WORK, dense, serial_and_parallel

STRIP = 12 * ROWS  # windows, or tiles, that are worked on together
_PARTS = 32  # at most so many shares of the work; they do not depend on the number of threads
_MULTIPLICATIONS = 8 * PARALLEL_WORK  # from which on threads pay: a product makes many per cycle


@register_jitable
def _columns(x, first, count, geometry, columns):
    """The windows first, first + 1, ... of images x (N, H, W C) as rows of columns (STRIP, depth)."""
    height, width, c, kh, kw, stride, top, left, out_h, out_w = geometry
    run = kw * c
    for j in range(count):
        n, p = divmod(first + j, out_h * out_w)
        h0, w0 = p // out_w * stride - top, p % out_w * stride - left
        # of the kw pixels in a row of the window, those from `low` to `high` are in the image
        low, high = max(0, -w0) * c, min(kw, width - w0) * c
        for a in range(kh):
            to = columns[j, a * run : (a + 1) * run]
            if 0 <= h0 + a < height:
                row = x[n, h0 + a]
                to[:low] = 0
                for i in range(low, high):
                    to[i] = row[w0 * c + i]
                to[high:] = 0
            else:
                to[:] = 0


@serial_and_parallel
def _forward(x, w, geometry, parts, y):
    # x (T, N, H, W C), w (T or 1, depth, F), y (T, N H' W', F)
    windows, depth, f = y.shape[1], w.shape[1], w.shape[2]
    strips = (windows + STRIP - 1) // STRIP
    total = x.shape[0] * strips
    for part in prange(parts):
        columns = np.zeros((STRIP, depth), x.dtype)
        last = np.empty((STRIP, f), x.dtype)
        for s in range(total * part // parts, total * (part + 1) // parts):
            t, first = s // strips, s % strips * STRIP
            count = min(STRIP, windows - first)
            _columns(x[t], first, count, geometry, columns)
            filters = w[min(t, w.shape[0] - 1)]
            if count == STRIP:
                product(columns, filters, y[t, first : first + STRIP])
            else:
                product(columns, filters, last)
                y[t, first:] = last[:count]


@serial_and_parallel
def _weight(x, gy, geometry, gw):
    # x (T, N, H, W C), gy (T, N H' W', F) -> gw (T, parts, depth rounded up, F): parts to add
    windows, parts, depth = gy.shape[1], gw.shape[1], gw.shape[2]
    strips = (windows + STRIP - 1) // STRIP
    for i in prange(x.shape[0] * parts):
        t, part = i // parts, i % parts
        columns = np.zeros((STRIP, depth), x.dtype)
        for s in range(strips * part // parts, strips * (part + 1) // parts):
            first = s * STRIP
            count = min(STRIP, windows - first)
            _columns(x[t], first, count, geometry, columns)
            add_product(columns[:count].T, gy[t, first : first + count], gw[t, part])


@serial_and_parallel
def _input(gy, w, geometry, gx):
    # gy (T, N, H' W', F), w (T or 1, F, depth) -> gx (T, N, H, W C), zeros before
    height, width, c, kh, kw, stride, top, left, _, out_w = geometry
    windows, f, depth, run = gy.shape[2], w.shape[1], w.shape[2], kw * c
    for i in prange(gy.shape[0] * gy.shape[1]):
        t, n = i // gy.shape[1], i % gy.shape[1]
        columns = np.empty((STRIP, depth), gy.dtype)
        last = np.zeros((STRIP, f), gy.dtype)
        for first in range(0, windows, STRIP):
            count = min(STRIP, windows - first)
            rows = gy[t, n, first : first + STRIP]
            if count < STRIP:
                last[:count] = rows
                rows = last
            product(rows, w[min(t, w.shape[0] - 1)], columns)
            for j in range(count):
                h0 = (first + j) // out_w * stride - top
                w0 = (first + j) % out_w * stride - left
                low, high = max(0, -w0) * c, min(kw, width - w0) * c
                for a in range(max(0, -h0), min(kh, height - h0)):
                    source, row = columns[j, a * run : (a + 1) * run], gx[t, n, h0 + a]
                    for k in range(low, high):
                        row[w0 * c + k] += source[k]


# --- arrays in, arrays out ------------------------------------------------------------------------


def _geometry(x_shape, w_shape, stride, pads, out):
    _, _, height, width, c = x_shape
    (top, _), (left, _) = pads
    return height, width, c, w_shape[1], w_shape[2], stride, top, left, *out


def _rows(x):
    """Images (T, N, H, W, C) as (T, N, H, W C)."""
    return x.reshape(*x.shape[:3], -1)


def conv2d(x, w, stride, pads, out):
    """y (T, N, H', W', F) for (H', W') = out; `pads` is ((top, bottom), (left, right))."""
    x, w = dense("conv2d", x, w)
    (tasks, n, *_), f = x.shape, w.shape[-1]
    y = np.empty((tasks, n, *out, f), x.dtype)
    matrices = w.reshape(len(w), -1, f)
    run = _forward[y.size * matrices.shape[1] >= _MULTIPLICATIONS]
    geometry = _geometry(x.shape, w.shape, stride, pads, out)
    run(_rows(x), matrices, geometry, _PARTS, y.reshape(tasks, n * math.prod(out), f))
    return y


def conv2d_input(gy, w, shape, stride, pads):
    """gx of this shape (T, N, H, W, C) for gy (T, N, H', W', F)."""
    gy, w = dense("conv2d_input", gy, w)
    tasks, n, *out, f = gy.shape
    gx = np.zeros(shape, gy.dtype)
    matrices = np.ascontiguousarray(w.reshape(len(w), -1, f).swapaxes(1, 2))
    run = _input[gy.size * matrices.shape[2] >= _MULTIPLICATIONS]
    geometry = _geometry(shape, w.shape, stride, pads, out)
    run(gy.reshape(tasks, n, math.prod(out), f), matrices, geometry, _rows(gx))
    return gx


def conv2d_weight(x, gy, shape, stride, pads):
    """gw of this shape (T, kh, kw, C, F), a bank for each stack."""
    x, gy = dense("conv2d_weight", x, gy)
    tasks, n, *out, f = gy.shape
    depth = math.prod(shape[1:-1])
    strips = -(-n * math.prod(out) // STRIP)
    parts = max(1, min(_PARTS, strips // 8))
    gw = np.zeros((tasks, parts, -(-depth // ROWS) * ROWS, f), x.dtype)
    run = _weight[gy.size * depth >= _MULTIPLICATIONS]
    geometry = _geometry(x.shape, shape, stride, pads, out)
    run(_rows(x), gy.reshape(tasks, n * math.prod(out), f), geometry, gw)
    return gw.sum(axis=1)[:, :depth].reshape(tasks, *shape[1:])
