"""Arithmetic and functions of one number at a time, with NumPy's broadcasting.

Every rule reads: the cotangent g of the result y, times ∂y/∂x, summed over what broadcasting had
copied. `like` does the summing.
"""

import math
from typing import Any

from scratchmeta.backend import power as raw_power
from scratchmeta.backend import xp
from scratchmeta.core import Value, X, primitive, raw
from scratchmeta.ops.shape import like


@primitive(
    lambda g, y, a, b: like(g, a),
    lambda g, y, a, b: like(g, b),
)
def add(a: Value, b: Value) -> Value:
    """a + b."""
    return a + b


@primitive(
    lambda g, y, a, b: like(g, a),
    lambda g, y, a, b: like(-g, b),
)
def subtract(a: Value, b: Value) -> Value:
    """a − b."""
    return a - b


@primitive(
    lambda g, y, a, b: like(g * b, a),
    lambda g, y, a, b: like(g * a, b),
)
def multiply(a: Value, b: Value) -> Value:
    """a ⊙ b."""
    return a * b


@primitive(
    lambda g, y, a, b: like(g / b, a),
    lambda g, y, a, b: like(-g * y / b, b),
)
def divide(a: Value, b: Value) -> Value:
    """a / b."""
    return a / b


@primitive(lambda g, y, a: -g)
def negative(a: X) -> X:
    """−a."""
    return -a


def _one_less(a, p):
    """p − 1, and 1 where a = p = 0: there p aᵖ⁻¹ is to be 0, not 0 / 0."""
    if hasattr(p, "ndim"):
        return where((raw(a) == 0) & (raw(p) == 0), 1.0, p - 1)
    return p - 1 if p != 0 else 0.0


def _log_if_positive(a):
    """log a, and 0 where a ≤ 0; for a number a a number, which leaves float32 what it is."""
    return log(where(a > 0, a, 1.0)) if hasattr(a, "ndim") else math.log(a) if a > 0 else 0.0


@primitive(
    lambda g, y, a, p: like(g * (p * power(a, _one_less(a, p))), a),
    lambda g, y, a, p: like(g * y * _log_if_positive(a), p),
)
def power(a: Value, p: Value) -> Value:
    """aᵖ.

    ∂y/∂p = y log a holds for a > 0 and is taken as 0 elsewhere; a⁰ has slope 0 everywhere.
    """
    return raw_power(a, p)


@primitive(lambda g, y, a: g * y)
def exp(a: X) -> X:
    """eᵃ."""
    return xp(a).exp(a)


@primitive(lambda g, y, a: g / a)
def log(a: X) -> X:
    """The natural logarithm."""
    return xp(a).log(a)


@primitive(lambda g, y, a: g / (1.0 + a))
def log1p(a: X) -> X:
    """log(1 + a), accurate for small a."""
    return xp(a).log1p(a)


@primitive(lambda g, y, a: g * (0.5 / y))
def sqrt(a: X) -> X:
    """√a. The slope at 0 is infinite: where 0 can occur, `norm` has a defined gradient."""
    return xp(a).sqrt(a)


@primitive(lambda g, y, a: g * (2.0 * a))
def square(a: X) -> X:
    """a²."""
    return a * a


@primitive(lambda g, y, a: g * cos(a))
def sin(a: X) -> X:
    """sin a, a in radians."""
    return xp(a).sin(a)


@primitive(lambda g, y, a: -g * sin(a))
def cos(a: X) -> X:
    """cos a, a in radians."""
    return xp(a).cos(a)


@primitive(lambda g, y, a: g * (1.0 - y * y))
def tanh(a: X) -> X:
    """tanh a."""
    return xp(a).tanh(a)


@primitive(lambda g, y, a: g * (y * (1.0 - y)))
def sigmoid(a: X) -> X:
    """σ(a) = 1 / (1 + e⁻ᵃ), for a < 0 computed as eᵃ / (1 + eᵃ): accurate and without overflow for
    every a.
    """
    module, positive = xp(a), a.real >= 0
    e = module.exp(module.where(positive, -a, a))  # e^−|a|
    return module.where(positive, 1.0, e) / (1.0 + e)


@primitive(lambda g, y, a: g * sigmoid(a))
def softplus(a: X) -> X:
    """log(1 + eᵃ), without overflow."""
    return xp(a).logaddexp(a, 0.0)


@primitive(lambda g, y, a: g * (a > 0))
def relu(a: X) -> X:
    """max(a, 0). The slope at the kink a = 0 is taken as 0."""
    return xp(a).maximum(a, 0.0)


@primitive(lambda g, y, a: g * sign(a))
def abs(a: X) -> X:
    """|a|. The slope at the kink a = 0 is taken as 0."""
    return xp(a).abs(a)


@primitive(None)
def sign(a: X) -> X:
    """−1, 0 or 1. Its derivative is 0 wherever it exists, and so is its cotangent."""
    return xp(a).sign(a)


def _share(g, y, x, other):
    """g where x is the one chosen, half of it where both are."""
    return where(raw(x) == raw(other), 0.5 * g, where(raw(x) == raw(y), g, 0.0))


@primitive(
    lambda g, y, a, b: like(_share(g, y, a, b), a),
    lambda g, y, a, b: like(_share(g, y, b, a), b),
)
def maximum(a: Value, b: Value) -> Value:
    """The larger of a and b. Where they are equal, each gets half of the cotangent."""
    return xp(a, b).maximum(a, b)


@primitive(
    lambda g, y, a, b: like(_share(g, y, a, b), a),
    lambda g, y, a, b: like(_share(g, y, b, a), b),
)
def minimum(a: Value, b: Value) -> Value:
    """The smaller of a and b. Where they are equal, each gets half of the cotangent."""
    return xp(a, b).minimum(a, b)


def _within(a, low, high):
    return (low is None or raw(a) >= raw(low)) & (high is None or raw(a) <= raw(high))


def _at_low(a, low, high):
    return (raw(a) < raw(low)) & (high is None or raw(low) <= raw(high))


def _at_high(a, low, high):
    return (raw(a) > raw(high)) | (low is not None and raw(low) > raw(high))


@primitive(
    lambda g, y, a, low, high: like(g * _within(a, low, high), a),
    lambda g, y, a, low, high: like(g * _at_low(a, low, high), low),
    lambda g, y, a, low, high: like(g * _at_high(a, low, high), high),
)
def clip(a: Value, low: Value, high: Value) -> Value:
    """a, but no less than low and no more than high; None is no bound. At a bound itself the slope
    in a is taken as 1. Where low is above high, the result is high."""
    return xp(a).clip(a, low, high)


@primitive(
    None,
    lambda g, y, condition, a, b: like(where(condition, g, 0.0), a),
    lambda g, y, condition, a, b: like(where(condition, 0.0, g), b),
)
def where(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, b elsewhere; nothing flows to the side not taken."""
    return xp(condition, a, b).where(condition, a, b)


@primitive(lambda g, y, a, dtype: astype(g, a.dtype))
def astype(a: X, dtype: Any) -> X:
    """The same numbers in another floating-point type."""
    return a.astype(dtype)
