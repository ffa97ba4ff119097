"""Networks and their gradients in plain NumPy: what a published forward is written in again.

None of the library's operations is used, so that agreement with it means something. A function
ends in `back`, its vector-Jacobian product, where an inner loop needs it.
"""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray


def same(side: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that ⌈side / stride⌉ remain; the odd one comes after."""
    total = max(0, (-(-side // stride) - 1) * stride + size - side)
    return total // 2, total - total // 2


def conv(x: Array, w: Array, stride: int = 1, padded: bool = True) -> tuple[Array, Callable]:
    """x ∗ w: (N, H, W, C) and (size, size, C, F) -> (N, H', W', F); back(g) = x̄, w̄."""
    size = len(w)
    pads = [same(side, size, stride) if padded else (0, 0) for side in x.shape[1:3]]
    big = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = sliding_window_view(big, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    y = np.tensordot(windows, w, ([3, 4, 5], [2, 0, 1]))

    def back(g: Array) -> tuple[Array, Array]:
        gw = np.tensordot(windows, g, ([0, 1, 2], [0, 1, 2])).transpose(1, 2, 0, 3)
        gx, (height, width) = np.zeros_like(big), g.shape[1:3]
        for i, j in np.ndindex(size, size):
            rows, columns = (
                slice(i, i + stride * height, stride),
                slice(j, j + stride * width, stride),
            )
            gx[:, rows, columns] += g @ w[i, j].T
        (top, _), (left, _) = pads
        return gx[:, top : top + x.shape[1], left : left + x.shape[2]], gw

    return y, back


def norm(x: Array, scale: Array, offset: Array, eps: float) -> tuple[Array, Callable]:
    """Batch-norm of (N, H, W, C) by the batch's statistics; back(g) = x̄, s̄cale, ōffset."""
    axes = (0, 1, 2)
    deviation = np.sqrt(x.var(axes) + eps)
    z = (x - x.mean(axes)) / deviation

    def back(g: Array) -> tuple[Array, Array, Array]:
        gz = g * scale
        gx = (gz - gz.mean(axes) - z * (gz * z).mean(axes)) / deviation
        return gx, (g * z).sum(axes), g.sum(axes)

    return scale * z + offset, back


def relu(x: Array) -> tuple[Array, Callable]:
    """max(x, 0); back(g) = x̄."""
    return np.maximum(x, 0), lambda g: g * (x > 0)


def pool(x: Array) -> tuple[Array, Callable]:
    """The largest of every 2 x 2; back(g) = x̄, to the first where entries tie."""
    n, height, width, c = x.shape
    h, w = height // 2, width // 2
    windows = x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, c).transpose(0, 1, 3, 5, 2, 4)
    windows = windows.reshape(n, h, w, c, 4)
    best = windows.argmax(-1)[..., None]

    def back(g: Array) -> Array:
        spread = np.zeros_like(windows)
        np.put_along_axis(spread, best, g[..., None], -1)
        spread = spread.reshape(n, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        gx = np.zeros_like(x)
        gx[:, : 2 * h, : 2 * w] = spread.reshape(n, 2 * h, 2 * w, c)
        return gx

    return np.take_along_axis(windows, best, -1)[..., 0], back


def softmax(x: Array) -> Array:
    """eˣ / Σ eˣ over the last axis."""
    return np.exp(log_softmax(x))


def log_softmax(x: Array) -> Array:
    """x − log Σ eˣ over the last axis."""
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ)."""
    return 1 / (1 + np.exp(-x))


def lstm(gates: Array, c: Array) -> tuple[Array, Array]:
    """h and c from the sums (..., 4 H) of the gates i, f, g, o."""
    i, f, g, o = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c
