"""The operations that have kernels, under their public names.

Each is `fused` from its definition in `reference` and the kernels in the folder kernels/.
"""

from scratchmeta.ops import reference
from scratchmeta.ops.linalg import project
from scratchmeta.ops.reference import (
    attention,
    channels,
    cosine_attention,
    lstm_gates,
    norm_relu_pool,
)

__all__ = [
    "attention",
    "cosine_attention",
    "lstm_cell",
    "lstm_gates",
    "norm_relu_pool",
    "pairwise_distance",
]

METRICS = ("sqeuclidean", "cityblock", "cosine")


def pairwise_distance(x, y, metric="sqeuclidean", weight=None):
    """The distances of every x to every y: (..., N, D) and (..., M, D) -> (..., N, M).

    metric "sqeuclidean"   Σ_d (x_d − y_d)²
           "cityblock"     Σ_d w_d |x_d − y_d|, with learned weights w (D,) or w = 1
           "cosine"        1 − ⟨x, y⟩ / (|x| |y|), and 1 where one of them is 0

    Leading axes broadcast. |·| has slope 0 at 0. Raises ValueError for another metric, for a weight
    with a metric other than cityblock, and when the feature axes differ.
    """
    if metric not in METRICS:
        raise ValueError(f"pairwise_distance: wanted a metric of {METRICS}, got {metric!r}")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"pairwise_distance: wanted y with the {x.shape[-1]} features of x, got shape {y.shape}"
        )
    if metric == "cityblock":
        return reference.cityblock(x, y, weight)
    if weight is not None:
        raise ValueError(f"pairwise_distance: weight goes with 'cityblock', not with {metric!r}")
    return reference.sqeuclidean(x, y) if metric == "sqeuclidean" else reference.cosine(x, y)


def lstm_cell(x, h, c, w_x, w_h, b):
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates).

    i, f, g, o = x w_x + h w_h + b;  c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g);  h' = σ(o) ⊙ tanh(c').

    x (..., D), h and c (..., H), w_x (..., D, 4H), w_h (..., H, 4H), b (..., 4H) -> h', c' (...,
    H). Leading axes of the weights are those that x begins with: one cell per task.
    """
    z = project(x, w_x) + project(h, w_h)
    return lstm_gates(z + channels(b, z.ndim - b.ndim), c)
