"""The definitions of the operations that have kernels, in plain operations.

What a kernel computes fast is stated here slowly: these functions are differentiable to any order
by the engine alone, they answer when kernels are off, and every kernel is checked against them.
"""

import numpy as np

from scratchmeta.core import OperationError, Value, X, raw
from scratchmeta.ops.conv import max_pool2d
from scratchmeta.ops.elementwise import (
    abs,
    multiply,
    relu,
    sigmoid,
    sqrt,
    square,
    tanh,
    where,
)
from scratchmeta.ops.linalg import matmul
from scratchmeta.ops.reduction import mean, softmax, sum
from scratchmeta.ops.shape import expand_dims, matrix_transpose, reshape, split


def unit(x):
    """x / |x| along the last axis; 0, with gradient 0, where |x|² is less than a normal number."""
    square_length = sum(square(x), axis=-1, keepdims=True)
    zero = raw(square_length) < np.finfo(x.dtype).tiny
    return x * where(zero, 0.0, 1.0 / sqrt(where(zero, 1.0, square_length)))


def sqeuclidean(x, y):
    """d[n, m] = Σ_d (x[n, d] − y[m, d])²."""
    return sum(square(expand_dims(x, -2) - expand_dims(y, -3)), axis=-1)


def cityblock(x, y, weight=None):
    """d[n, m] = Σ_d w[d] |x[n, d] − y[m, d]|, with w = 1 when no weight is given."""
    difference = abs(expand_dims(x, -2) - expand_dims(y, -3))  # (..., N, M, D)
    if weight is not None:
        difference = multiply(difference, channels(weight, 2))
    return sum(difference, axis=-1)


def cosine(x, y):
    """d[n, m] = 1 − ⟨x[n], y[m]⟩ / (|x[n]| |y[m]|)."""
    return 1.0 - matmul(unit(x), matrix_transpose(unit(y)))


def attention(query, keys, values, scale=1.0):
    """softmax(scale ⟨query, keys⟩) values: a read of the values, weighted by likeness to the
    keys."""
    scores = matmul(query, matrix_transpose(keys))
    if getattr(scale, "ndim", 0):  # one scale per leading index, or per leading index and query
        scale = reshape(scale, scale.shape + (1,) * (scores.ndim - scale.ndim))
    return matmul(softmax(scores * scale), values)


def cosine_attention(query, keys, values, scale=1.0):
    """softmax(scale cos(query, keys)) values."""
    return attention(unit(query), unit(keys), values, scale)


def lstm_gates(z: Value, c: Value) -> tuple[Value, Value]:
    """The elementwise part of an LSTM cell: pre-activations z (..., 4H) and state c (..., H) ->
    h', c'.

    i, f, g, o = z;  c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g);  h' = σ(o) ⊙ tanh(c').
    """
    if not c.ndim or z.shape != (*c.shape[:-1], 4 * c.shape[-1]):
        raise OperationError(
            f"lstm_gates: wanted z (..., 4H) and c (..., H), got {z.shape} and {c.shape}"
        )
    i, f, g, o = split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def norm_relu_pool(x, scale, offset, size=2, eps=1e-5):
    """Batch-norm by the batch's own statistics, ReLU and max-pooling of images (..., N, H, W, C).

    x̂ = (x − μ) / √(σ² + ε), with μ, σ² over the N, H, W of each leading index;
    y = max-pool(relu(scale x̂ + offset)). `size` 1 leaves the pooling out.
    """
    mu = mean(x, axis=(-4, -3, -2), keepdims=True)
    centred = x - mu
    variance = mean(square(centred), axis=(-4, -3, -2), keepdims=True)
    a = channels(scale, 3) / sqrt(variance + eps)
    y = relu(centred * a + channels(offset, 3))
    return y if size == 1 else max_pool2d(y, size)


def channels(p: X, n: int) -> X:
    """A per-channel parameter (C,), or per task (..., C), with n axes before the last to
    broadcast."""
    return p if p.ndim == 1 else reshape(p, (*p.shape[:-1], *(1,) * n, p.shape[-1]))
