"""Batch-norm, ReLU and max-pooling of channels-last images, in two passes over them.

    x̂ = r (x − μ)        μ, σ² over a group's images, r = 1 / √(σ² + ε)
    z = s x̂ + o          scale s and offset o, per channel
    y = max(0, max of z over each window)

    gz = g where z is its window's first maximum and positive, else 0
    gx = s r (gz − E[gz] − x̂ E[gz x̂]),    gs = Σ gz x̂,    go = Σ gz

and, for cotangents u, us, uo of gx, gs, go, with v = s r (u − E[u] − x̂ E[u x̂]) + us x̂ + uo,

    ug = v where gz takes g
    K  = Σ u gz − n E[u] E[gz] − n E[u x̂] E[gz x̂],    us' = r K
    h  = us gz − s r (u E[gz x̂] + gz E[u x̂])
    ux = r (h − E[h] − x̂ E[h x̂]) − s r² K x̂ / n

E is the mean over the n numbers that a channel has in a group; derivation in
docs/derivations/norm_pool.md. Sums beyond a row of pixels are made in float64, first over an image,
then over the group's images in order, so results do not depend on the number of threads.

Images are (S, N, H, W, C), S groups of N images normalised together; scale and offset (S, C). All
arrays are float32 or all are float64, of any memory layout. Windows are size x size, size 2 or 1
(no pooling), and do not overlap; rows and columns left over at the end are normalised with the
others, then dropped.
"""

import math
from pathlib import Path

import numpy as np

from .compiling import kernel
from .runtime import CudaSource, dense, module_of
from .threads import run


@kernel
def _moments(start, stop, x, shift, sums):
    # x (S N, H, W, C), shift (S, C) -> sums (S N, 2, C): Σ (x − shift), Σ (x − shift)² by image
    per_group = x.shape[0] // shift.shape[0]
    for i in range(start, stop):
        k, first, second = shift[i // per_group], sums[i, 0], sums[i, 1]
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                pixel = x[i, h, w]
                for c in range(x.shape[3]):
                    d = np.float64(pixel[c]) - k[c]
                    first[c] += d
                    second[c] += d * d


@kernel
def _forward(start, stop, x, mean, slope, offset, size, y, at):
    # x (S N, H, W, C), then (S, C) each -> y and at (S N, H', W', C): the maximum, and which it is
    per_group, zero, step = x.shape[0] // mean.shape[0], x.dtype.type(0), size - 1
    for i in range(start, stop):
        m, a, o = mean[i // per_group], slope[i // per_group], offset[i // per_group]
        for h in range(y.shape[1]):
            # the two rows of pixels that the windows lie in; for size 1, twice the same
            above, below = x[i, h * size], x[i, h * size + step]
            for w in range(y.shape[2]):
                x0, x1 = above[w * size], above[w * size + step]
                x2, x3 = below[w * size], below[w * size + step]
                out, which = y[i, h, w], at[i, h, w]
                for c in range(x.shape[3]):
                    z0 = (x0[c] - m[c]) * a[c] + o[c]
                    z1 = (x1[c] - m[c]) * a[c] + o[c]
                    z2 = (x2[c] - m[c]) * a[c] + o[c]
                    z3 = (x3[c] - m[c]) * a[c] + o[c]
                    # "not lower or equal" is true of NaN, which is to show in y
                    top, k = zero, -1
                    if not z0 <= top:
                        top, k = z0, 0
                    if not z1 <= top:
                        top, k = z1, 1
                    if not z2 <= top:
                        top, k = z2, 2
                    if not z3 <= top:
                        top, k = z3, 3
                    out[c] = top
                    which[c] = k if top > zero else -1  # of NaN, as of 0, no entry is the one


@kernel
def _backward_sums(start, stop, x, g, at, mean, size, sums):
    # x (S N, H, W, C), g and at (S N, H', W', C) -> sums (S N, 2, C): Σ gz, Σ gz (x − μ) by image
    per_group, zero = x.shape[0] // mean.shape[0], x.dtype.type(0)
    for i in range(start, stop):
        m = mean[i // per_group]
        row = np.empty((2, x.shape[3]), x.dtype)
        plain, weighted = row[0], row[1]
        for h in range(g.shape[1] * size):
            row[:] = zero
            for w in range(g.shape[2] * size):
                pixel = x[i, h, w]
                given, which = g[i, h // size, w // size], at[i, h // size, w // size]
                k = np.int8(h % size * size + w % size)
                for c in range(x.shape[3]):
                    plain[c] += given[c] if which[c] == k else zero
                for c in range(x.shape[3]):
                    weighted[c] += given[c] * (pixel[c] - m[c]) if which[c] == k else zero
            sums[i] += row


@kernel
def _backward(start, stop, x, g, at, mean, size, a, b, d, gx):
    # gx = a gz − b − d (x − μ), with a, b, d (S, C)
    per_group, zero = x.shape[0] // mean.shape[0], x.dtype.type(0)
    for i in range(start, stop):
        t = i // per_group
        m, at_g, at_1, at_x = mean[t], a[t], b[t], d[t]
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                pixel, out = x[i, h, w], gx[i, h, w]
                for c in range(x.shape[3]):
                    out[c] = -at_1[c] - at_x[c] * (pixel[c] - m[c])
                if h // size < g.shape[1] and w // size < g.shape[2]:
                    given, which = g[i, h // size, w // size], at[i, h // size, w // size]
                    k = np.int8(h % size * size + w % size)
                    for c in range(x.shape[3]):
                        out[c] += at_g[c] * given[c] if which[c] == k else zero


@kernel
def _double_backward_sums(start, stop, x, u, g, at, mean, size, sums):
    # -> sums (S N, 3, C): Σ u, Σ u (x − μ), Σ u gz by image
    per_group, zero = x.shape[0] // mean.shape[0], x.dtype.type(0)
    for i in range(start, stop):
        m = mean[i // per_group]
        row = np.empty((3, x.shape[3]), x.dtype)
        plain, weighted, product = row[0], row[1], row[2]
        for h in range(x.shape[1]):
            row[:] = zero
            for w in range(x.shape[2]):
                pixel, up = x[i, h, w], u[i, h, w]
                for c in range(x.shape[3]):
                    plain[c] += up[c]
                for c in range(x.shape[3]):
                    weighted[c] += up[c] * (pixel[c] - m[c])
                if h // size < g.shape[1] and w // size < g.shape[2]:
                    given, which = g[i, h // size, w // size], at[i, h // size, w // size]
                    k = np.int8(h % size * size + w % size)
                    for c in range(x.shape[3]):
                        product[c] += up[c] * given[c] if which[c] == k else zero
            sums[i] += row


@kernel
def _double_backward(start, stop, x, u, g, at, mean, size, p, q, e, a, b, d, ug, ux):
    # ug, zeros before, = p u + q (x − μ) + e where gz takes g;  ux = a u + q gz − b − d (x − μ)
    per_group, zero = x.shape[0] // mean.shape[0], x.dtype.type(0)
    for i in range(start, stop):
        t = i // per_group
        m, by_u, by_x, plus = mean[t], p[t], q[t], e[t]
        at_u, at_g, at_1, at_x = a[t], q[t], b[t], d[t]
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                pixel, up, out = x[i, h, w], u[i, h, w], ux[i, h, w]
                for c in range(x.shape[3]):
                    out[c] = at_u[c] * up[c] - at_1[c] - at_x[c] * (pixel[c] - m[c])
                if h // size < g.shape[1] and w // size < g.shape[2]:
                    given, which = g[i, h // size, w // size], at[i, h // size, w // size]
                    taken = ug[i, h // size, w // size]
                    k = np.int8(h % size * size + w % size)
                    for c in range(x.shape[3]):
                        out[c] += at_g[c] * given[c] if which[c] == k else zero
                    for c in range(x.shape[3]):
                        v = by_u[c] * up[c] + by_x[c] * (pixel[c] - m[c]) + plus[c]
                        taken[c] = v if which[c] == k else taken[c]


_KERNELS = {
    "moments": _moments,
    "forward": _forward,
    "backward_sums": _backward_sums,
    "backward": _backward,
    "double_backward_sums": _double_backward_sums,
    "double_backward": _double_backward,
}


# --- arrays in, arrays out ------------------------------------------------------------------------

_cuda = CudaSource(Path(__file__).with_suffix(".cu"))
_CUDA_CHANNELS, _CUDA_ROWS, _CUDA_PIXELS = 32, 8, 512  # of a block that adds up
_CUDA_FINISH_ROWS = 16  # of a block that adds up what those have
_CUDA_THREADS = 256  # of a block that has a row of pixels


def _images(a):
    """a (S.., N, H, W, C) as (S N, H, W, C)."""
    return a.reshape(math.prod(a.shape[:-3]), *a.shape[-3:])


def _groups(a, dtype=np.float64):
    """A parameter (S.., C) as (S, C)."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1]).astype(dtype)


def _means(name, shape, sums, *arrays):
    """What Numba's kernel `name` adds up, over the numbers of a group: (sums, S, C)."""
    *lead, n, h, w, c = shape
    groups = math.prod(lead)
    parts = np.zeros((groups * n, sums, c))
    run(_KERNELS[name], math.prod(shape), groups * n, *arrays, parts)
    return parts.reshape(groups, n, sums, c).sum(axis=1).swapaxes(0, 1) / (n * h * w)


def _parts(name, shape, pixels, sums, *arrays):
    """(parts, chunks): what CUDA's kernel `name` adds up of `pixels` places in every group, in
    chunks of them: (S chunks, sums, C)."""
    *lead, n, h, w, c = shape
    chunks = -(-pixels // _CUDA_PIXELS)
    parts = module_of(arrays[0]).empty((math.prod(lead) * chunks, sums, c), np.float64)
    if parts.size:
        grid = (math.prod(lead) * chunks * -(-c // _CUDA_CHANNELS),)
        launch = _cuda(name, arrays[0].dtype)
        launch(grid, (_CUDA_CHANNELS, _CUDA_ROWS), (*arrays, parts, n, h, w, c))
    return parts, chunks


def _finish(name, dtype, groups, channels, *arguments):
    """CUDA's kernel `name`, which makes coefficients (S, C) of the parts of sums."""
    grid = (groups * -(-channels // _CUDA_CHANNELS),)
    _cuda(name, dtype)(grid, (_CUDA_CHANNELS, _CUDA_FINISH_ROWS), (*arguments, channels))


def _statistics(x, scale, eps):
    """μ, r and s r of images x (S.., N, H, W, C), each (S, C), r in float64."""
    *lead, n, h, w, c = x.shape
    xp, groups, pixels = module_of(x), math.prod(lead), n * h * w
    if xp is np:
        # Shifted by one of the numbers, Σ d² and (Σ d)² / n lose at most a factor n if subtracted.
        shift = x.reshape(groups, pixels, c)[:, 0].copy()
        first, second = _means("moments", x.shape, 2, _images(x), shift)
        r = 1 / np.sqrt(np.maximum(second - first * first, 0) + eps)
        return (shift + first).astype(x.dtype), r, (_groups(scale) * r).astype(x.dtype)
    mean, slope = (xp.empty((groups, c), x.dtype) for _ in range(2))
    r = xp.empty((groups, c))
    parts, chunks = _parts("moments", x.shape, pixels, 2, x)
    given = parts, x, scale, float(eps), mean, r, slope, chunks, pixels
    _finish("finish_moments", x.dtype, groups, c, *given)
    return mean, r, slope


def _backward_coefficients(x, g, which, mean, r, scale, size):
    """a, b, d (S, C) in gx = a gz − b − d (x − μ), then the gradients of scale and offset."""
    *lead, n, h, w, c = x.shape
    groups, pixels = math.prod(lead), n * h * w
    given = _images(x), _images(g), which, mean, np.int32(size)
    if isinstance(x, np.ndarray):
        eg, egx = _means("backward_sums", x.shape, 2, *given)
        egx, slope = r * egx, _groups(scale) * r
        # gx = s r gz − s r E[gz] − s r² E[gz x̂] (x − μ)
        made = slope, slope * eg, slope * r * egx, pixels * egx, pixels * eg
        return [a.astype(x.dtype) for a in made]
    made = [module_of(x).empty((groups, c), x.dtype) for _ in range(5)]
    parts, chunks = _parts("backward_sums", x.shape, math.prod(g.shape[-4:-1]), 2, *given)
    _finish("finish_backward", x.dtype, groups, c, parts, r, scale, *made, chunks, pixels)
    return made


def _double_backward_coefficients(x, u, g, which, mean, r, scale, uscale, uoffset, size):
    """p, q, e, a, b, d (S, C) in ug = p u + q (x − μ) + e and ux = a u + q gz − b − d (x − μ), then
    what reaches the scale."""
    *lead, n, h, w, c = x.shape
    groups, pixels = math.prod(lead), n * h * w
    images, given = _images(x), (_images(g), which, mean, np.int32(size))
    if isinstance(x, np.ndarray):
        s, us, uo = (_groups(p) for p in (scale, uscale, uoffset))
        eg, egx = _means("backward_sums", x.shape, 2, images, *given)
        eu, eux, eug = _means("double_backward_sums", x.shape, 3, images, _images(u), *given)
        egx, eux = r * egx, r * eux
        k = eug - eu * eg - eux * egx  # K / n
        # h = us gz − s r (u E[gz x̂] + gz E[u x̂])
        eh = us * eg - s * r * (eu * egx + eg * eux)
        ehx = us * egx - 2 * s * r * eux * egx
        q = us * r - s * r * r * eux
        b, d = r * eh, r * r * (ehx + s * r * k)
        made = s * r, q, uo - s * r * eu, -s * r * r * egx, b, d, pixels * r * k
        return [a.astype(x.dtype) for a in made]
    made = [module_of(x).empty((groups, c), x.dtype) for _ in range(7)]
    parts, chunks = _parts("backward_sums", x.shape, math.prod(g.shape[-4:-1]), 2, images, *given)
    uparts, uchunks = _parts("double_backward_sums", x.shape, pixels, 3, images, _images(u), *given)
    given = parts, uparts, r, scale, uscale, uoffset, *made, chunks, uchunks, pixels
    _finish("finish_double_backward", x.dtype, groups, c, *given)
    return made


def _elementwise(name, shape, rows, *arrays):
    """The kernel `name` for every image, or on a GPU for every of the `rows` in an image.

    On a GPU raises ValueError for a row of pixels with more numbers than a thread counts.
    """
    *lead, n, h, w, c = shape
    images = math.prod(lead) * n
    if isinstance(arrays[0], np.ndarray):
        run(_KERNELS[name], math.prod(shape), images, *arrays)
    elif rows:
        if w * c >= 2**31 - _CUDA_THREADS:
            raise ValueError(
                f"norm_relu_pool: wanted fewer than 2³¹ numbers in a row of pixels, got {w} x {c}"
            )
        launch = _cuda(name, arrays[0].dtype)
        sizes = n, np.int32(h), np.int32(w), np.int32(c)
        launch((images * rows,), (_CUDA_THREADS,), (*arrays, *sizes))


def norm_relu_pool(x, scale, offset, size, eps):
    """y (S.., N, H', W', C) of images x (S.., N, H, W, C), and what the backward passes want: μ and
    r (S, C), and which entry of every window is y.

    scale and offset are (S.., C); `size` is 1 or 2.
    """
    x, scale, offset = dense("norm_relu_pool", x, scale, offset)
    xp, (*lead, n, h, w, c) = module_of(x), x.shape
    if size not in (1, 2):
        raise ValueError(f"norm_relu_pool: wanted size 1 or 2, got {size}")
    if not scale.shape == offset.shape == (*lead, c):
        raise ValueError(
            "norm_relu_pool: wanted x (S.., N, H, W, C), scale and offset (S.., C), "
            f"got {x.shape}, {scale.shape}, {offset.shape}"
        )
    y = xp.empty((*lead, n, h // size, w // size, c), x.dtype)
    at = xp.empty(y.shape, np.int8)
    if x.size == 0:
        return y, (xp.zeros((math.prod(lead), c)), xp.zeros((math.prod(lead), c)), at)
    mean, r, slope = _statistics(x, scale, eps)
    parameters = mean, slope, offset.reshape(mean.shape)
    outputs = _images(y), _images(at)
    _elementwise("forward", x.shape, h // size, _images(x), *parameters, np.int32(size), *outputs)
    return y, (mean, r, at)


def norm_relu_pool_backward(g, kept, x, scale, size):
    """(gx, gscale, goffset) for the cotangent g (S.., N, H', W', C) of y."""
    g, x, scale = dense("norm_relu_pool_backward", g, x, scale)
    xp, (mean, r, at) = module_of(x), kept
    if g.shape != at.shape:
        raise ValueError(f"norm_relu_pool_backward: wanted g {at.shape}, got {g.shape}")
    gx = xp.empty_like(x)
    if x.size == 0:
        return gx, xp.zeros_like(scale), xp.zeros_like(scale)
    *coefficients, gscale, goffset = _backward_coefficients(x, g, _images(at), mean, r, scale, size)
    given = _images(x), _images(g), _images(at), mean, np.int32(size)
    _elementwise("backward", x.shape, x.shape[-3], *given, *coefficients, _images(gx))
    return gx, gscale.reshape(scale.shape), goffset.reshape(scale.shape)


def norm_relu_pool_double_backward(u, uscale, uoffset, g, kept, x, scale, size):
    """(ug, ux, uscale') for the cotangents u, uscale, uoffset of what the backward pass returned.

    The offset's own is 0: it moves no gradient, except where the kinks are.
    """
    u, uscale, uoffset, g, x, scale = dense(
        "norm_relu_pool_double_backward", u, uscale, uoffset, g, x, scale
    )
    xp, (mean, r, at) = module_of(x), kept
    ux, ug = xp.empty_like(x), xp.zeros_like(g)
    if x.size == 0:
        return ug, ux, xp.zeros_like(scale)
    given = x, u, g, _images(at), mean, r, scale, uscale, uoffset, size
    *coefficients, gscale = _double_backward_coefficients(*given)
    given = _images(x), _images(u), _images(g), _images(at), mean, np.int32(size)
    outputs = _images(ug), _images(ux)
    _elementwise("double_backward", x.shape, x.shape[-3], *given, *coefficients, *outputs)
    return ug, ux, gscale.reshape(scale.shape)
