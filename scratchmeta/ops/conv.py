"""Convolution and pooling of channels-last images.

A convolution is linear in the image and linear in the filters. That makes three operations, each
other's rules for every order of differentiation:

    y  = conv2d(x, w)           y[p] = Σ_k x[s p + k − pad] w[k]        p, k: positions
    x̄  = conv2d_input(ȳ, w)     the adjoint in x: x̄[q] = Σ_k ȳ[(q − k + pad) / s] w[k]ᵀ
    w̄  = conv2d_weight(x, ȳ)    the adjoint in w: w̄[k] = Σ_p x[s p + k − pad]ᵀ ȳ[p]

All three are matrix products with the *columns* of x: row p holds the kh × kw × C numbers under the
window at p. Images may have leading axes, and filters too: one filter bank for all, or one per
task. The plain functions here make columns for a block of images at a time; where there are kernels
for the arrays (kernels/conv), these take their place.

Letters: T tasks, N images, H W height and width, C channels in, F filters (channels out).
"""

import functools
import math
from types import SimpleNamespace

from scratchmeta.backend import kernels_enabled, xp
from scratchmeta.core import Shape, Value, X, primitive, raw
from scratchmeta.ops.reduction import mean
from scratchmeta.ops.shape import getitem, pad, reshape, sum_to

# Columns are made for as many images at a time as fit into this many bytes: about a core's share of
# the cache on a CPU; on a GPU enough to fill the card.
_BLOCK_BYTES = {"numpy": 2**21, "cupy": 2**29}


@functools.cache
def _geometry(height, width, kh, kw, stride, padding):
    """The result's height and width, and ((top, bottom), (left, right)) to pad."""

    def one(n, k):
        if padding == "same":
            out = -(-n // stride)
            total = max((out - 1) * stride + k - n, 0)
            low, high = total // 2, total - total // 2
        elif padding == "valid" or isinstance(padding, int):
            low = high = 0 if padding == "valid" else padding
            out = (n + 2 * low - k) // stride + 1
        else:
            raise ValueError(f"padding: wanted 'same', 'valid' or an integer, got {padding!r}")
        if out < 1:
            raise ValueError(f"a {kh} x {kw} filter does not fit a {height} x {width} image")
        return out, (low, high)

    (out_h, pad_h), (out_w, pad_w) = one(height, kh), one(width, kw)
    return out_h, out_w, (pad_h, pad_w)


def _check(x, w_shape):
    if x.ndim < 4 or len(w_shape) < 4:
        raise ValueError("wanted images (..., N, H, W, C) and filters (..., kh, kw, C, F)")
    if x.shape[-1] != w_shape[-2]:
        raise ValueError(f"wanted filters over {x.shape[-1]} channels, got {w_shape[-2]}")


def _stacks(x_lead, n, w_lead):
    """The common leading shape, and how it is worked through: T stacks of N images each."""
    lead = xp().broadcast_shapes(x_lead, w_lead)
    if math.prod(w_lead) == 1:  # one filter bank: all images are one stack
        return lead, 1, math.prod(lead) * n
    return lead, math.prod(lead), n


def _stacked(a, lead, stacks):
    """a (..., N, H, W, C) with its leading axes broadcast to `lead`, as (T, N, H, W, C)."""
    if a.shape[:-4] != lead:
        a = xp(a).broadcast_to(a, (*lead, *a.shape[-4:]))
    return a.reshape(*stacks, *a.shape[-3:])


def _banks(w, lead, tasks):
    """Filters as (T, kh, kw, C, F), or (1, ...) when there is one bank for all."""
    if tasks != 1 and w.shape[:-4] != lead:
        w = xp(w).broadcast_to(w, (*lead, *w.shape[-4:]))
    return w.reshape(tasks, *w.shape[-4:])


def _implementation(x, y, *columns):
    """kernels/conv if it takes these arrays and these numbers of columns, else this module."""
    if kernels_enabled() and x.dtype == y.dtype:
        from scratchmeta.kernels import conv  # imports Numba, so not before it is needed

        if conv.takes(x, *columns):
            return conv
    return _plain


@primitive(
    lambda g, y, x, w, stride=1, padding="same": conv2d_input(g, w, x.shape, stride, padding),
    lambda g, y, x, w, stride=1, padding="same": conv2d_weight(x, g, w.shape, stride, padding),
)
def conv2d(x: Value, w: Value, stride: int = 1, padding: str | int = "same") -> Value:
    """Cross-correlation of images x (..., N, H, W, C) with filters w (..., kh, kw, C, F).

    y[n, i, j, f] = Σ x[n, stride i + a − top, stride j + b − left, c] w[a, b, c, f] over a, b, c,
    with zeros beyond the border; y is (..., N, H', W', F). `padding` is "same" (H' = ⌈H / stride⌉,
    the odd row or column of zeros at the end), "valid" (none), or a number of zeros on every side.
    Leading axes of x and w broadcast: filters with a task axis convolve every task's images with
    its own.

    Raises OperationError when channels differ or a filter is larger than the padded image.
    """
    _check(x, w.shape)
    *x_lead, n, h, wd, _ = x.shape
    *w_lead, kh, kw, _, f = w.shape
    *out, pads = _geometry(h, wd, kh, kw, stride, padding)
    lead, *stacks = _stacks(tuple(x_lead), n, tuple(w_lead))
    images, filters = _stacked(x, lead, stacks), _banks(w, lead, stacks[0])
    y = _implementation(x, w, f).conv2d(images, filters, stride, pads, out)
    return y.reshape(*lead, n, *out, f)


@primitive(
    lambda u, x, g, w, shape, stride, padding: conv2d(u, w, stride, padding),
    lambda u, x, g, w, shape, stride, padding: conv2d_weight(u, g, w.shape, stride, padding),
    None,
)
def conv2d_input(g: Value, w: Value, shape: Shape, stride: int, padding: str | int) -> Value:
    """The adjoint of conv2d in x: what the cotangent g of conv2d(x, w) says of an x of this
    shape."""
    *x_lead, n, h, wd, c = shape
    *w_lead, kh, kw, _, f = w.shape
    *out, pads = _geometry(h, wd, kh, kw, stride, padding)
    lead, *stacks = _stacks(tuple(x_lead), n, tuple(w_lead))
    gy, filters = g.reshape(*stacks, *out, f), _banks(w, lead, stacks[0])
    run = _implementation(g, w, f, kh * kw * c).conv2d_input
    gx = run(gy, filters, (*stacks, h, wd, c), stride, pads).reshape(*lead, n, h, wd, c)
    return gx if lead == tuple(x_lead) else sum_to(gx, tuple(shape))


@primitive(
    lambda u, w, x, g, shape, stride, padding: conv2d_input(g, u, x.shape, stride, padding),
    lambda u, w, x, g, shape, stride, padding: conv2d(x, u, stride, padding),
    None,
)
def conv2d_weight(x: Value, g: Value, shape: Shape, stride: int, padding: str | int) -> Value:
    """The adjoint of conv2d in w: what the cotangent g of conv2d(x, w) says of a w of this
    shape."""
    _check(x, shape)
    *x_lead, n, h, wd, _ = x.shape
    *w_lead, kh, kw, c, f = shape
    *out, pads = _geometry(h, wd, kh, kw, stride, padding)
    lead, *stacks = _stacks(tuple(x_lead), n, tuple(w_lead))
    images, gy = _stacked(x, lead, stacks), g.reshape(*stacks, *out, f)
    bank = (stacks[0], kh, kw, c, f)
    gw = _implementation(x, g, f).conv2d_weight(images, gy, bank, stride, pads)
    if stacks[0] == 1:
        return gw.reshape(shape)
    gw = gw.reshape(*lead, kh, kw, c, f)
    return gw if lead == tuple(w_lead) else sum_to(gw, tuple(shape))


# --- the plain functions: x (T, N, H, W, C), w (T or 1, kh, kw, C, F), y (T, N, H', W', F) --------


def _blocks(module, stacks, image_bytes):
    """Slices of (T, N) whose columns together are about one block: whole stacks, or parts of
    one."""
    tasks, images = stacks
    at_once = max(1, _BLOCK_BYTES[module.__name__.partition(".")[0]] // max(1, image_bytes))
    t_step = max(1, at_once // max(1, images))
    n_step = images if at_once >= images else at_once
    for t in range(0, tasks, t_step):
        for n in range(0, images, max(1, n_step)):
            yield slice(t, min(t + t_step, tasks)), slice(n, min(n + n_step, images))


def _columns(x, kh, kw, stride, out_h, out_w):
    """The windows of padded images (T, N, H, W, C) as rows (T, N out_h out_w, kh kw C)."""
    t, n, *_, c = x.shape
    st, sn, sh, sw, sc = x.strides
    windows = xp(x).lib.stride_tricks.as_strided(
        x,
        (t, n, out_h, out_w, kh, kw, c),
        (st, sn, sh * stride, sw * stride, sh, sw, sc),
    )
    return windows.reshape(t, n * out_h * out_w, kh * kw * c)


def _padded(x, pads):
    if pads == ((0, 0), (0, 0)):
        return x
    (top, bottom), (left, right) = pads
    *lead, h, w, c = x.shape
    out = xp(x).zeros((*lead, h + top + bottom, w + left + right, c), dtype=x.dtype)
    out[..., top : top + h, left : left + w, :] = x
    return out


def _matrices(w):
    """Filters (T, kh, kw, C, F) as (T, kh kw C, F)."""
    t, kh, kw, c, f = w.shape
    return w.reshape(t, kh * kw * c, f)


def _plain_conv2d(x, w, stride, pads, out):
    *stacks, _, _, c = x.shape
    _, kh, kw, _, f = w.shape
    x, w, module = _padded(x, pads), _matrices(w), xp(x)
    y = module.empty((*stacks, *out, f), dtype=module.result_type(x, w))
    for t, m in _blocks(module, stacks, math.prod(out) * kh * kw * c * x.itemsize):
        columns, part = _columns(x[t, m], kh, kw, stride, *out), y[t, m]
        module.matmul(columns, w[t], out=part.reshape(len(part), -1, f))
    return y


def _plain_conv2d_input(gy, w, shape, stride, pads):
    *stacks, h, wd, c = shape
    *_, out_h, out_w, f = gy.shape
    _, kh, kw, _, _ = w.shape
    (top, bottom), (left, right) = pads
    transposed, module = _matrices(w).swapaxes(-1, -2), xp(gy)
    padded = (*stacks, h + top + bottom, wd + left + right, c)
    gx = module.zeros(padded, dtype=module.result_type(gy, w))
    for t, m in _blocks(module, stacks, out_h * out_w * kh * kw * c * gy.itemsize):
        part = gy[t, m]
        columns = part.reshape(len(part), -1, f) @ transposed[t]
        columns = columns.reshape(*part.shape[:2], out_h, out_w, kh, kw, c)
        for a in range(kh):
            for b in range(kw):
                window = gx[t, m, a : a + out_h * stride : stride, b : b + out_w * stride : stride]
                window += columns[..., a, b, :]
    return gx[:, :, top : top + h, left : left + wd]


def _plain_conv2d_weight(x, gy, shape, stride, pads):
    *stacks, out_h, out_w, f = gy.shape
    _, kh, kw, c, _ = shape
    x, module = _padded(x, pads), xp(x)
    gw = module.zeros((shape[0], kh * kw * c, f), dtype=module.result_type(x, gy))
    for t, m in _blocks(module, stacks, out_h * out_w * kh * kw * c * x.itemsize):
        columns, part = _columns(x[t, m], kh, kw, stride, out_h, out_w), gy[t, m]
        gw[t] += columns.swapaxes(-1, -2) @ part.reshape(len(part), -1, f)
    return gw.reshape(shape)


_plain = SimpleNamespace(
    conv2d=_plain_conv2d, conv2d_input=_plain_conv2d_input, conv2d_weight=_plain_conv2d_weight
)


# --- pooling ------------------------------------------------------------------------------------


def _windows(x, size):
    """x (..., H, W, C) as (..., H', size, W', size, C), without the rows and columns left over."""
    *lead, h, w, c = x.shape
    out_h, out_w = h // size, w // size
    if (out_h * size, out_w * size) != (h, w):
        x = getitem(x, (..., slice(0, out_h * size), slice(0, out_w * size), slice(None)))
    return reshape(x, (*lead, out_h, size, out_w, size, c))


def _first_largest(y, windows, size):
    """1 at the first entry of every window that equals its maximum, else 0."""
    mask = windows == y[..., :, None, :, None, :]
    taken = xp(y).zeros(y.shape, dtype=bool)
    for a in range(size):
        for b in range(size):
            here = mask[..., :, a, :, b, :]
            here &= ~taken
            taken |= here
    return mask


def _unpool(g, y, x, size=2):
    """The cotangent of every window's maximum, put where the maximum was."""
    mask = _first_largest(raw(y), raw(_windows(x, size)), size)
    *lead, out_h, out_w, c = g.shape
    gx = reshape(g, (*lead, out_h, 1, out_w, 1, c)) * mask
    gx = reshape(gx, (*lead, out_h * size, out_w * size, c))
    h, w = x.shape[-3] - out_h * size, x.shape[-2] - out_w * size
    return pad(gx, [(0, 0)] * len(lead) + [(0, h), (0, w), (0, 0)]) if h or w else gx


@primitive(_unpool)
def max_pool2d(x: X, size: int = 2) -> X:
    """The largest number of every size x size window of images x (..., N, H, W, C).

    Windows do not overlap; rows and columns left over at the end are dropped, as in the papers'
    nets. Where entries tie, the first in reading order gets the whole cotangent.
    """
    windows = _windows(x, size)
    y = windows[..., :, 0, :, 0, :]
    for a in range(size):
        for b in range(size):
            y = xp(x).maximum(y, windows[..., :, a, :, b, :])
    return y


def avg_pool2d(x: X, size: int = 2) -> X:
    """The mean of every size x size window of images x (..., N, H, W, C); leftovers are dropped."""
    return mean(_windows(x, size), axis=(-4, -2))
