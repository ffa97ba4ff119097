"""Convolution of channels-last images and its adjoints, in strips of windows that stay in cache.

    y[p]  = Σ_k x[stride p + k − pad] w[k]          p a position, k an offset in the filter
    gx[q] = Σ_k gy[(q − k + pad) / stride] w[k]ᵀ
    gw[k] = Σ_p x[stride p + k − pad]ᵀ gy[p]

A row of *columns* is what lies under the window at p: depth = kh kw C numbers, zero beyond the
border. With the filters as a matrix w (depth, F), all three are products,

    y = columns w,    gcolumns = gy wᵀ, added up where windows overlap,    gw = columnsᵀ gy,

made for STRIP windows at a time, so that columns are never in main memory.

Images are x (T, N, H, W, C), T stacks of N; filters w (T, kh, kw, C, F) or (1, kh, kw, C, F), one
bank for all stacks; y (T, N, H', W', F). All arrays are float32 or all are float64, of any memory
layout. On the CPU the columns of a product must be a multiple of a vector's length: see `takes`.
On the GPU columns are not even made in strips: a tile of a product looks its part up. The
derivation is in docs/derivations/conv.md.
"""

import functools
import math
from pathlib import Path

import numpy as np
from numba.extending import register_jitable

from .compiling import kernel
from .product import ROWS, add_product, lanes, product
from .runtime import CudaSource, dense, module_of
from .threads import run

STRIP = 12 * ROWS  # windows that are worked on together
_PARTS = 32  # of a weight's gradient, at most; not the number of threads, which is not to matter
_PER_OPERATION = 8  # multiplications in the time that `run` calls an operation
_CUDA_SIDE, _CUDA_WIDE = 16, 64  # threads, and columns of results, along a side of a CUDA block
_CUDA_MANY = {"f": 8, "d": 4}  # rows of results of a thread
_CUDA_BLOCKS = 1024  # into so many, about, a weight's gradient is cut: some for every processor
_CUDA_SHARE = 128  # windows, at least, in each of its parts


@register_jitable
def _columns(x, first, count, geometry, columns):
    """Columns (STRIP, depth) of the windows first ... first + count − 1 of images x (N, H, W C)."""
    height, width, c, kh, kw, stride, top, left, out_h, out_w = geometry
    run = kw * c
    for j in range(count):
        n, p = divmod(first + j, out_h * out_w)
        h0, w0 = p // out_w * stride - top, p % out_w * stride - left
        # of the kw pixels in a row of the window, those from `low` to `high` are in the image
        low = max(0, -w0) * c
        high = max(low, min(kw, width - w0) * c)  # no less, where all are outside
        if low > 0 or high < run or h0 < 0 or h0 + kh > height:
            columns[j] = 0
        for a in range(max(0, -h0), min(kh, height - h0)):
            to = columns[j, a * run + low : a * run + high]
            pixels = x[n, h0 + a, w0 * c + low : w0 * c + high]
            for i in range(to.shape[0]):
                to[i] = pixels[i]


@kernel
def _forward(start, stop, x, w, geometry, y):
    # x (T, N, H, W C), w (T or 1, depth, F) -> y (T, N H' W', F); a task is a strip
    windows, depth, f = y.shape[1], w.shape[1], w.shape[2]
    strips = (windows + STRIP - 1) // STRIP
    columns, rest = np.zeros((STRIP, depth), x.dtype), np.empty((STRIP, f), x.dtype)
    for s in range(start, stop):
        t, first = s // strips, s % strips * STRIP
        count = min(STRIP, windows - first)
        _columns(x[t], first, count, geometry, columns)
        rows = (count + ROWS - 1) // ROWS * ROWS
        out = y[t, first : first + count] if rows == count else rest[:rows]
        product(columns[:rows], w[min(t, w.shape[0] - 1)], out)
        if rows != count:
            y[t, first : first + count] = rest[:count]


@kernel
def _weight(start, stop, x, gy, geometry, gw):
    # x (T, N, H, W C), gy (T, N H' W', F) -> gw (T, parts, depth rounded up, F): parts to add up;
    # a task is a part
    windows, parts, depth = gy.shape[1], gw.shape[1], gw.shape[2]
    strips = (windows + STRIP - 1) // STRIP
    columns = np.zeros((STRIP, depth), x.dtype)
    for i in range(start, stop):
        t, part = i // parts, i % parts
        for s in range(strips * part // parts, strips * (part + 1) // parts):
            first = s * STRIP
            count = min(STRIP, windows - first)
            _columns(x[t], first, count, geometry, columns)
            add_product(columns[:count].T, gy[t, first : first + count], gw[t, part])


@kernel
def _input(start, stop, gy, w, geometry, group, gx):
    # gy (T, N H' W', F), w (T or 1, F, depth) -> gx (T, N, H, W C), zeros before; a task is a
    # group of images: windows of one image overlap, those of two do not
    height, width, c, kh, kw, stride, top, left, out_h, out_w = geometry
    f, depth, run = w.shape[1], w.shape[2], kw * c
    groups = (gx.shape[1] + group - 1) // group
    columns, rest = np.empty((STRIP, depth), gy.dtype), np.zeros((STRIP, f), gy.dtype)
    for i in range(start, stop):
        t, g = i // groups, i % groups
        end = min(gy.shape[1], (g + 1) * group * out_h * out_w)
        for first in range(g * group * out_h * out_w, end, STRIP):
            count = min(STRIP, end - first)
            rows = (count + ROWS - 1) // ROWS * ROWS
            given = gy[t, first : first + count]
            if rows != count:
                rest[:count] = given
                given = rest[:rows]
            product(given, w[min(t, w.shape[0] - 1)], columns)
            for j in range(count):
                n, p = divmod(first + j, out_h * out_w)
                h0, w0 = p // out_w * stride - top, p % out_w * stride - left
                low = max(0, -w0) * c
                high = max(low, min(kw, width - w0) * c)
                for a in range(max(0, -h0), min(kh, height - h0)):
                    new = columns[j, a * run + low : a * run + high]
                    pixels = gx[t, n, h0 + a, w0 * c + low : w0 * c + high]
                    for k in range(new.shape[0]):
                        pixels[k] += new[k]


_cuda = CudaSource(Path(__file__).with_suffix(".cu"))


# --- arrays in, arrays out ------------------------------------------------------------------------


def takes(x, *columns: int) -> bool:
    """Whether there are kernels for arrays like x, and products with these numbers of columns."""
    on_cpu = isinstance(x, np.ndarray)
    real = x.dtype.char in "fd" and x.dtype.isnative
    return real and all(n % lanes(x.dtype) == 0 for n in columns if on_cpu)


def _fitting(name, x_shape, w_shape, y_shape, pads, stride):
    """The geometry of a convolution with these shapes; ValueError where they do not agree."""
    t, n, height, width, c = x_shape
    banks, kh, kw, w_c, f = w_shape
    (top, bottom), (left, right) = pads
    out_h = (height + top + bottom - kh) // stride + 1
    out_w = (width + left + right - kw) // stride + 1
    if w_c != c or banks not in (1, t) or y_shape != (t, n, out_h, out_w, f):
        raise ValueError(
            f"{name}: wanted images (T, N, H, W, C), filters (T or 1, kh, kw, C, F) and results "
            f"(T, N, H', W', F), got {x_shape}, {w_shape}, {y_shape} with pads {pads}"
        )
    return height, width, c, kh, kw, stride, top, left, out_h, out_w


def _rows(x):
    """Images (T, N, H, W, C) as (T, N, H, W C)."""
    t, n, height, width, c = x.shape
    return x.reshape(t, n, height, width * c)


def _matrices(w):
    """Filters (T, kh, kw, C, F) as (T, depth, F)."""
    t, kh, kw, c, f = w.shape
    return w.reshape(t, kh * kw * c, f)


def _bank(w):
    """How far apart the tasks' filters are in memory; 0 where they share them."""
    return math.prod(w.shape[1:]) if len(w) > 1 else 0


def _launch(name, blocks, arrays, step, n, geometry, f):
    """The CUDA kernel `name` for stacks of n images; `step` is its 64-bit argument.

    Raises ValueError for a stack, or for filters, with more places than it counts.
    """
    height, width, c, kh, kw, stride, top, left, out_h, out_w = geometry
    places, depth = n * max(height * width, out_h * out_w), kh * kw * max(c, f)
    if max(places, depth) >= 2**31 - _CUDA_SIDE * max(_CUDA_MANY.values()):
        raise ValueError(
            f"{name}: wanted fewer than 2³¹ pixels in a stack of images and numbers in a filter, "
            f"got {places} and {depth}"
        )
    sizes = n, height, width, c, kh, kw, f, stride, top, left, out_h, out_w
    grid, block = (blocks,), (_CUDA_SIDE, _CUDA_SIDE)
    _cuda(name, arrays[0].dtype)(grid, block, (*arrays, step, *_numbers(sizes)))


@functools.lru_cache(256)
def _numbers(sizes):
    """Sizes as CUDA's int; a training asks for few of them, again and again."""
    return [np.int32(size) for size in sizes]


def _tiles(rows, columns, each):
    return -(-rows // (_CUDA_SIDE * each)) * -(-columns // _CUDA_WIDE)


def conv2d(x, w, stride, pads, out):
    """y (T, N, H', W', F) for (H', W') = out; `pads` is ((top, bottom), (left, right))."""
    x, w = dense("conv2d", x, w)
    (tasks, n, *_), f = x.shape, w.shape[-1]
    y = module_of(x).empty((tasks, n, *out, f), x.dtype)
    geometry = _fitting("conv2d", x.shape, w.shape, y.shape, pads, stride)
    windows = n * math.prod(out)
    if isinstance(x, np.ndarray):
        matrices = _matrices(w)
        work = y.size * matrices.shape[1] // _PER_OPERATION
        arrays = _rows(x), matrices, geometry, y.reshape(tasks, windows, f)
        run(_forward, work, tasks * -(-windows // STRIP), *arrays)
    elif y.size:
        blocks = tasks * _tiles(windows, f, _CUDA_MANY[x.dtype.char])
        _launch("conv2d", blocks, (x, w, y), _bank(w), n, geometry, f)
    return y


def conv2d_input(gy, w, shape, stride, pads):
    """gx of this shape (T, N, H, W, C) for gy (T, N, H', W', F)."""
    gy, w = dense("conv2d_input", gy, w)
    tasks, n, *out, f = gy.shape
    geometry = _fitting("conv2d_input", shape, w.shape, gy.shape, pads, stride)
    if isinstance(gy, np.ndarray):
        gx = np.zeros(shape, gy.dtype)
        matrices = np.ascontiguousarray(_matrices(w).swapaxes(1, 2))
        work = gy.size * matrices.shape[2] // _PER_OPERATION
        group = max(1, STRIP // max(1, math.prod(out)))
        arrays = gy.reshape(tasks, n * math.prod(out), f), matrices, geometry, group, _rows(gx)
        run(_input, work, tasks * -(-n // group), *arrays)
        return gx
    gx = module_of(gy).empty(shape, gy.dtype)
    if gx.size:
        _, _, height, width, c = shape
        blocks = tasks * _tiles(n * height * width, c, _CUDA_MANY[gy.dtype.char])
        _launch("conv2d_input", blocks, (gy, w, gx), _bank(w), n, geometry, f)
    return gx


def conv2d_weight(x, gy, shape, stride, pads):
    """gw of this shape (T, kh, kw, C, F), a bank for each stack."""
    x, gy = dense("conv2d_weight", x, gy)
    tasks, n, *out, f = gy.shape
    depth, windows = math.prod(shape[1:-1]), n * math.prod(out)
    geometry = _fitting("conv2d_weight", x.shape, shape, gy.shape, pads, stride)
    if isinstance(x, np.ndarray):
        parts = max(1, min(_PARTS, -(-windows // STRIP) // 8))
        gw = np.zeros((tasks, parts, -(-depth // ROWS) * ROWS, f), x.dtype)
        arrays = _rows(x), gy.reshape(tasks, windows, f), geometry, gw
        run(_weight, gy.size * depth // _PER_OPERATION, tasks * parts, *arrays)
    else:
        tiles = tasks * _tiles(depth, f, 1 if depth <= _CUDA_SIDE else _CUDA_MANY[x.dtype.char])
        parts = max(1, min(_CUDA_BLOCKS // max(1, tiles), windows // _CUDA_SHARE))
        gw = module_of(x).empty((tasks, parts, depth, f), x.dtype)
        if gw.size:
            _launch("conv2d_weight", tiles * parts, (x, gy, gw), parts, n, geometry, f)
    gw = gw[:, 0] if parts == 1 else gw.sum(axis=1)
    return gw[:, :depth].reshape(tasks, *shape[1:])
