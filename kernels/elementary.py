"""exp, sigmoid and tanh for use inside Numba kernels, written so that the compiler vectorises them.

Numba calls the C library for `math.exp`, one number at a time. These are plain arithmetic:

    x = n ln 2 + r        n an integer, |r| ≤ ½ ln 2
    p = eʳ − 1            = r + r²/2! + ... + rᵏ/k!,  k = 7 in float32, 13 in float64
    s = 2ⁿ                written straight into the exponent bits
    exp x = s + s p       expm1 x = (s − 1) + s p
    σ(x) = 1 / (1 + exp(−x))
    tanh x = expm1(2x) / (expm1(2x) + 2)

Each is within 4 ulp. The argument is first clamped to where 2ⁿ is a normal number, |x| ≤ 87 in
float32 and 708 in float64: exp saturates near 1e±38 or 1e±308 and never reaches 0 or ∞. NaN stays
NaN.
"""

import math
from fractions import Fraction

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

_LN2 = Fraction("0.693147180559945309417232121458176568")


def _split_exp(x):
    """(eʳ − 1, 2ⁿ) where x = n ln 2 + r."""
    raise NotImplementedError("compiled code only")


def _split_exp_of(real, integer, degree, limit):
    """The compiled _split_exp of one dtype."""
    mantissa_bits, bias = np.finfo(real).nmant, np.finfo(real).maxexp - 1
    # n · ln2_high is exact (Cody and Waite): ln2_high leaves as many low bits free as n can need
    free = mantissa_bits - int(limit).bit_length()
    ln2_high = real(round(_LN2 * 2**free) / 2**free)
    ln2_low = real(_LN2 - Fraction(float(ln2_high)))
    log2_e, lowest, highest = real(1 / math.log(2)), real(-limit), real(limit)
    # adding it rounds to an integer and leaves n + bias in the lowest bits
    magic = real(1.5 * 2**mantissa_bits + bias)
    taylor = tuple(real(1 / math.factorial(k)) for k in range(degree, 0, -1))

    def split_exp(x):
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        shifted = x * log2_e + magic
        n = shifted - magic
        r = (x - n * ln2_high) - n * ln2_low
        p = taylor[0]
        for c in taylor[1:]:
            p = p * r + c
        bits = real(shifted).view(integer) << integer(mantissa_bits)
        return p * r, integer(bits).view(real)

    return split_exp


@overload(_split_exp, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _(x):
    if x == types.float32:
        return _split_exp_of(np.float32, np.int32, 7, 87)
    if x == types.float64:
        return _split_exp_of(np.float64, np.int64, 13, 708)


@register_jitable(fastmath={"contract"}, error_model="numpy")
def exp(x):
    """eˣ."""
    p, s = _split_exp(x)
    return s + s * p


@register_jitable(fastmath={"contract"}, error_model="numpy")
def sigmoid(x):
    """σ(x) = 1 / (1 + e⁻ˣ)."""
    p, s = _split_exp(-x)
    one = type(x)(1)
    return one / (one + (s + s * p))


@register_jitable(fastmath={"contract"}, error_model="numpy")
def tanh(x):
    """tanh x."""
    p, s = _split_exp(x + x)
    expm1 = (s - type(x)(1)) + s * p
    return expm1 / (expm1 + type(x)(2))
