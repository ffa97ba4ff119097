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
docs/derivations/norm_pool.md. Every sum is one of float64 numbers, first over one image, then over
the group's images in order, so results do not depend on the number of threads.

Images are (S, N, H, W, C), S groups of N images normalised together; scale and offset (S, C). All
arrays are float32 or all are float64, of any memory layout. Windows are size x size and do not
overlap; rows and columns left over at the end are normalised with the others, then dropped.
"""

import math

import numpy as np

from .runtime import dense
from .threads import kernel, run

SIZES = (1, 2)  # the windows these kernels are made for; 1 is no pooling


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
                    d = pixel[c] - k[c]
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
                    which[c] = k


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
    # ug = p u + q (x − μ) + e where gz takes g;  ux = a u + q gz − b − d (x − μ)
    per_group, zero = x.shape[0] // mean.shape[0], x.dtype.type(0)
    for i in range(start, stop):
        t = i // per_group
        m, by_u, by_x, plus = mean[t], p[t], q[t], e[t]
        at_u, at_g, at_1, at_x = a[t], q[t], b[t], d[t]
        ug[i] = zero
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


# --- arrays in, arrays out ------------------------------------------------------------------------


def _images(a, lead):
    """a (S.., N, H, W, C) as (S N, H, W, C)."""
    return a.reshape(math.prod(lead) * a.shape[-4], *a.shape[-3:])


def _per_channel(a, lead, dtype=np.float64):
    """A parameter (S.., C) as (S, C)."""
    return a.reshape(math.prod(lead), a.shape[-1]).astype(dtype)


def _mean_over_groups(sum_up, x, *args, sums):
    """The sums (S N, ..., C) that a kernel makes of every image, as means over groups (..., S,
    C)."""
    *lead, n, h, w, c = x.shape
    images = _images(x, lead)
    parts = np.zeros((len(images), sums, c))
    run(sum_up, x.size, len(images), images, *args, parts)
    means = parts.reshape(math.prod(lead), n, sums, c).sum(axis=1) / max(1, n * h * w)
    return means.swapaxes(0, 1)


def norm_relu_pool(x, scale, offset, size, eps):
    """y (S.., N, H', W', C) of images x (S.., N, H, W, C), and what the backward pass wants: μ, r
    (S, C) and which entry of every window is y.

    scale and offset are (S.., C); `size` is 1 or 2.
    """
    x, scale, offset = dense("norm_relu_pool", x, scale, offset)
    *lead, n, h, w, c = x.shape
    y = np.empty((*lead, n, h // size, w // size, c), x.dtype)
    at = np.empty(y.shape, np.int8)
    if x.size == 0:
        nothing = np.zeros((math.prod(lead), c))
        return y, (nothing, nothing, at)
    # Shifted by one of the numbers, Σ d² and (Σ d)² / n lose at most a factor n when subtracted.
    shift = x.reshape(-1, n * h * w, c)[:, 0].astype(np.float64)
    first, second = _mean_over_groups(_moments, x, shift, sums=2)
    mean, variance = shift + first, np.maximum(second - first * first, 0)
    r = 1 / np.sqrt(variance + eps)
    parameters = (mean, _per_channel(scale, lead) * r, _per_channel(offset, lead))
    parameters = (p.astype(x.dtype) for p in parameters)
    images, outputs = _images(x, lead), (_images(y, lead), _images(at, lead))
    run(_forward, x.size, len(images), images, *parameters, size, *outputs)
    return y, (mean, r, at)


def norm_relu_pool_backward(g, kept, x, scale, size):
    """(gx, gscale, goffset) for the cotangent g (S.., N, H', W', C) of y."""
    g, x, scale = dense("norm_relu_pool_backward", g, x, scale)
    (mean, r, at), lead, gx = kept, x.shape[:-4], np.empty_like(x)
    if x.size == 0:
        return gx, np.zeros_like(scale), np.zeros_like(scale)
    m, s = mean.astype(x.dtype), _per_channel(scale, lead)
    g, at = _images(g, lead), _images(at, lead)
    eg, egx = _mean_over_groups(_backward_sums, x, g, at, m, size, sums=2)
    egx *= r
    # gx = s r gz − s r E[gz] − s r² E[gz x̂] (x − μ)
    coefficients = (s * r, s * r * eg, s * r * r * egx)
    coefficients = (k.astype(x.dtype) for k in coefficients)
    images = _images(x, lead)
    run(_backward, x.size, len(images), images, g, at, m, size, *coefficients, _images(gx, lead))
    n = math.prod(x.shape[-4:-1])
    return gx, *((n * e).astype(x.dtype).reshape(scale.shape) for e in (egx, eg))


def norm_relu_pool_double_backward(u, uscale, uoffset, g, kept, x, scale, size):
    """(ug, ux, uscale') for the cotangents u, uscale, uoffset of what the backward pass returned.

    The offset's own is 0: it moves no gradient, except where the kinks are.
    """
    u, uscale, uoffset, g, x, scale = dense(
        "norm_relu_pool_double_backward", u, uscale, uoffset, g, x, scale
    )
    (mean, r, at), lead, ux, ug = kept, x.shape[:-4], np.empty_like(x), np.empty_like(g)
    if x.size == 0:
        return ug, ux, np.zeros_like(scale)
    m, n = mean.astype(x.dtype), math.prod(x.shape[-4:-1])
    s, us, uo = (_per_channel(p, lead) for p in (scale, uscale, uoffset))
    images, up, given, at = (_images(a, lead) for a in (x, u, g, at))
    eg, egx = _mean_over_groups(_backward_sums, x, given, at, m, size, sums=2)
    eu, eux, eug = _mean_over_groups(_double_backward_sums, x, up, given, at, m, size, sums=3)
    egx, eux = egx * r, eux * r
    k = eug - eu * eg - eux * egx  # K / n
    # h = us gz − s r (u E[gz x̂] + gz E[u x̂])
    eh = us * eg - s * r * (eu * egx + eg * eux)
    ehx = us * egx - 2 * s * r * eux * egx
    q = us * r - s * r * r * eux
    coefficients = (s * r, q, uo - s * r * eu, -s * r * r * egx, r * eh, r * r * (ehx + s * r * k))
    coefficients = (c.astype(x.dtype) for c in coefficients)
    outputs = _images(ug, lead), _images(ux, lead)
    arrays = (images, up, given, at, m, size, *coefficients, *outputs)
    run(_double_backward, x.size, len(images), *arrays)
    return ug, ux, (n * r * k).astype(x.dtype).reshape(scale.shape)
