"""The operations that have kernels, under their public names.

Each is `fused` from its definition in `reference` and the kernels in the folder kernels/.
"""

import numpy as np

from scratchmeta.backend import xp
from scratchmeta.core import OperationError, Value, X
from scratchmeta.ops import reference
from scratchmeta.ops.fused import fused
from scratchmeta.ops.linalg import project
from scratchmeta.ops.shape import broadcast_to

__all__ = [
    "attention",
    "cosine_attention",
    "lstm_cell",
    "lstm_gates",
    "norm_relu_pool",
    "pairwise_distance",
]

METRICS = ("sqeuclidean", "cityblock", "cosine")


def pairwise_distance(
    x: Value, y: Value, metric: str = "sqeuclidean", weight: Value = None
) -> Value:
    """The distances of every x to every y: (..., N, D) and (..., M, D) -> (..., N, M).

    metric "sqeuclidean"   Σ_d (x_d − y_d)²
           "cityblock"     Σ_d w_d |x_d − y_d|, with learned weights w (D,) or w = 1
           "cosine"        1 − ⟨x, y⟩ / (|x| |y|), and 1 where one of them is 0

    Leading axes broadcast. |·| has slope 0 at 0. Raises ValueError for another metric, for a weight
    with a metric other than cityblock, and when the feature axes differ.
    """
    if metric not in METRICS:
        raise ValueError(f"pairwise_distance: wanted a metric of {METRICS}, got {metric!r}")
    x, y = _alike("pairwise_distance", x, y)
    if x.shape[-1] != y.shape[-1]:
        raise OperationError(
            f"pairwise_distance: wanted y with the {x.shape[-1]} features of x, got shape {y.shape}"
        )
    if metric == "cityblock":
        if weight is not None and weight.shape not in (x.shape[-1:], (*x.shape[:-2], x.shape[-1])):
            raise OperationError(
                f"pairwise_distance: wanted weight {x.shape[-1:]}, one of each feature, or one of "
                f"each for each leading index, got {weight.shape}, x {x.shape}"
            )
        return _cityblock(x, y, weight)
    if weight is not None:
        raise ValueError(f"pairwise_distance: weight goes with 'cityblock', not with {metric!r}")
    return _sqeuclidean(x, y) if metric == "sqeuclidean" else _cosine(x, y)


def _zeros_like(x):
    """Zeros for a cotangent that nothing asked for."""
    return xp(x).zeros_like(x)


def _alike(name, *arrays):
    """Floating-point arrays (..., N, D) with their leading axes broadcast against one another, as
    kernels want."""
    for a in arrays:
        if a.dtype.kind in "iub":
            raise OperationError(
                f"{name}: wanted floating-point arrays, got {a.dtype}{tuple(a.shape)}"
            )
        if a.ndim < 2:
            raise OperationError(
                f"{name}: wanted arrays (..., N, D), got {a.dtype}{tuple(a.shape)}"
            )
    lead = np.broadcast_shapes(*(a.shape[:-2] for a in arrays))
    return [a if a.shape[:-2] == lead else broadcast_to(a, (*lead, *a.shape[-2:])) for a in arrays]


def _pairwise():
    from scratchmeta.kernels import pairwise

    return pairwise


_sqeuclidean = fused(
    reference.sqeuclidean,
    lambda x, y: ((_pairwise().sqeuclidean(x, y),), None),
    lambda gs, ys, kept, x, y: _pairwise().sqeuclidean_backward(*gs, x, y),
)
_cityblock = fused(
    reference.cityblock,
    lambda x, y, weight: ((_pairwise().cityblock(x, y, weight),), None),
    lambda gs, ys, kept, x, y, weight: _pairwise().cityblock_backward(*gs, x, y, weight),
)
_cosine = fused(
    reference.cosine,
    lambda x, y: ((_pairwise().cosine(x, y),), None),
    lambda gs, ys, kept, x, y: _pairwise().cosine_backward(*gs, x, y),
)


# --- attention ----------------------------------------------------------------------------------


def attention(query: Value, keys: Value, values: Value, scale: Value = 1.0) -> Value:
    """softmax(scale ⟨query, keys⟩) values: a read of the values, weighted by likeness to the keys.

    query (..., Q, D), keys (..., N, D), values (..., N, V) -> (..., Q, V); leading axes broadcast.
    `scale` is a number, or an array (...) or (..., Q). For large Q and N the kernels never form the
    Q × N matrix. Raises OperationError when shapes do not fit.
    """
    return _attention(*_with_keys("attention", query, keys, values, scale))


def cosine_attention(query: Value, keys: Value, values: Value, scale: Value = 1.0) -> Value:
    """softmax(scale cos(query, keys)) values: attention by the angle between query and key.

    Shapes as in `attention`. A zero vector has cosine 0 with everything, and gradient 0.
    """
    return _cosine_attention(*_with_keys("cosine_attention", query, keys, values, scale))


def _with_keys(name, query, keys, values, scale):
    """The arguments as the kernels want them, once they fit; NumPy's scalars as numbers, which
    leave float32 what it is."""
    query, keys, values = _alike(name, query, keys, values)
    (*rows, d), (n, e) = query.shape, keys.shape[-2:]
    if n == 0:
        raise OperationError(f"{name}: wanted at least one key, got keys {keys.shape}")
    if e != d or values.shape[-2] != n:
        raise OperationError(
            f"{name}: wanted query (..., Q, D), keys (..., N, D), values (..., N, V), "
            f"got {query.shape}, {keys.shape}, {values.shape}"
        )
    shape = tuple(getattr(scale, "shape", ()))
    if shape not in ((), tuple(rows[:-1]), tuple(rows)):
        raise OperationError(
            f"{name}: wanted scale a number, {tuple(rows[:-1])} or {tuple(rows)}, got {shape}"
        )
    return query, keys, values, scale.item() if isinstance(scale, np.generic) else scale


def _attention_fused(definition, score):
    """A reference tied to the attention kernels with this score."""

    def forward(query, keys, values, scale):
        from scratchmeta.kernels import attention as kernel

        out, logsumexp = kernel.attention(query, keys, values, scale, score)
        return (out,), logsumexp

    def backward(gs, ys, logsumexp, query, keys, values, scale):
        from scratchmeta.kernels import attention as kernel

        return kernel.attention_backward(*gs, query, keys, values, *ys, logsumexp, scale, score)

    return fused(definition, forward, backward)


_attention = _attention_fused(reference.attention, "dot")
_cosine_attention = _attention_fused(reference.cosine_attention, "cosine")


# --- the LSTM cell ------------------------------------------------------------------------------


def lstm_cell(
    x: Value, h: Value, c: Value, w_x: Value, w_h: Value, b: Value
) -> tuple[Value, Value]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates).

    i, f, g, o = x w_x + h w_h + b;  c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g);  h' = σ(o) ⊙ tanh(c').

    x (..., D), h and c (..., H), w_x (..., D, 4H), w_h (..., H, 4H), b (..., 4H) -> h', c' (...,
    H). Leading axes of the weights are those that x begins with: one cell per task.
    """
    return lstm_gates(project(x, w_x, b) + project(h, w_h), c)


def _gates(z, c):
    from scratchmeta.kernels import lstm

    h_new, c_new, gates = lstm.gates(z, c)
    return (h_new, c_new), gates


def _gates_backward(gs, ys, gates, z, c):
    from scratchmeta.kernels import lstm

    return lstm.gates_backward(*gs, c, ys[1], gates)


def _gates_double_backward(us, gs, ys, gates, z, c):
    from scratchmeta.kernels import lstm

    us = [_zeros_like(x) if u is None else u for u, x in zip(us, (z, c), strict=True)]
    return lstm.gates_double_backward(*us, *gs, c, ys[1], gates)


lstm_gates = fused(reference.lstm_gates, _gates, _gates_backward, _gates_double_backward)


# --- batch-norm, ReLU and max-pooling -----------------------------------------------------------


def _norm_pool():
    from scratchmeta.kernels import norm_pool

    return norm_pool


def _norm_relu_pool_forward(x, scale, offset, size, eps):
    y, kept = _norm_pool().norm_relu_pool(x, scale, offset, size, eps)
    return (y,), kept


def _norm_relu_pool_backward(gs, ys, kept, x, scale, offset, size, eps):
    gxs = _norm_pool().norm_relu_pool_backward(*gs, kept, x, scale, size)
    return (*gxs, None, None)


def _norm_relu_pool_double_backward(us, gs, ys, kept, x, scale, offset, size, eps):
    args = (x, scale, offset)
    us = [_zeros_like(a) if u is None else u for u, a in zip(us, args, strict=False)]
    ug, ux, uscale = _norm_pool().norm_relu_pool_double_backward(*us, *gs, kept, x, scale, size)
    return ug, ux, uscale, None, None, None


_norm_relu_pool = fused(
    reference.norm_relu_pool,
    _norm_relu_pool_forward,
    _norm_relu_pool_backward,
    _norm_relu_pool_double_backward,
)


def norm_relu_pool(x: X, scale: Value, offset: Value, size: int = 2, eps: float = 1e-5) -> X:
    """Batch-norm by the batch's own statistics, ReLU and max-pooling of images (..., N, H, W, C).

    x̂ = (x − μ) / √(σ² + ε), with μ, σ² over the N, H, W of each leading index;
    y = max-pool(relu(scale x̂ + offset)), (..., N, ⌊H / size⌋, ⌊W / size⌋, C).

    scale and offset are (C,) or have leading axes as x has. `size` 1 leaves the pooling out; rows
    and columns left over are dropped. relu has slope 0 at 0, and where entries of a window tie, the
    first in reading order gets the whole cotangent. Kernels run sizes 1 and 2 on arrays that are
    all float32 or all float64, the plain definition the rest. Raises ValueError when the channels
    differ.
    """
    c = x.shape[-1:]
    if x.ndim < 4 or scale.shape[-1:] != c or offset.shape[-1:] != c:
        raise ValueError(
            "norm_relu_pool: wanted images (..., N, H, W, C), scale and offset (..., C), "
            f"got {x.shape}, {scale.shape}, {offset.shape}"
        )
    if size not in (1, 2):
        return reference.norm_relu_pool(x, scale, offset, size, eps)
    lead = np.broadcast_shapes(x.shape[:-4], scale.shape[:-1], offset.shape[:-1])
    x = x if x.shape[:-4] == lead else broadcast_to(x, (*lead, *x.shape[-4:]))
    scale, offset = (
        p if p.shape == (*lead, *c) else broadcast_to(p, (*lead, *c)) for p in (scale, offset)
    )
    return _norm_relu_pool(x, scale, offset, size, eps)
