"""Losses: the mean over a task's examples, one number per task.

Leading axes are kept, so that the loss of T tasks is a vector of T numbers; its sum has, with
respect to per-task parameters, every task's own gradient.
"""

from scratchmeta import ops
from scratchmeta.core import Array, Value, X


def cross_entropy(logits: X, labels: Array) -> X:
    """−1/N Σₙ log softmax(logits[n])[labels[n]], the mean negative log-likelihood.

    logits (..., N, classes), any unnormalised log-probabilities; labels (..., N) integers from 0;
    the result has the leading shape (...).

    Raises ValueError when the shapes do not match or a label is none of the classes.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"cross_entropy: wanted labels of shape {logits.shape[:-1]}, got {labels.shape}"
        )
    classes = logits.shape[-1]
    if not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(f"cross_entropy: wanted labels from 0 to {classes - 1}, got {labels}")
    chosen = ops.one_hot(labels, classes, bool)
    log_p = ops.where(chosen, ops.log_softmax(logits), 0.0)  # a product would make 0 · −∞ of p = 0
    return -ops.sum(log_p, axis=(-2, -1)) / labels.shape[-1]


def mse(prediction: X, target: Value) -> X:
    """1/(N D) Σ (prediction − target)² over examples and outputs; shapes (..., N, D) -> (...).

    Raises ValueError when the shapes do not match.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"mse: wanted targets of shape {prediction.shape}, got {target.shape}")
    return ops.mean_square(prediction - target, axis=(-2, -1))


def binary_cross_entropy(logits: X, targets: Value) -> X:
    """−1/N Σ t log p + (1 − t) log(1 − p) with p = σ(logit); shapes (..., N) -> (...).

    Written as softplus(logit) − t logit, which overflows for no logit.
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"binary_cross_entropy: wanted targets of shape {logits.shape}, got {targets.shape}"
        )
    return ops.mean(ops.softplus(logits) - targets * logits, axis=-1)
