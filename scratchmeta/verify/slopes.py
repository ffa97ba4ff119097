"""Derivatives from function values: Richardson extrapolation that knows its own error.

The central difference has an error in even powers of the step,

    D(h) = (φ(h) − φ(−h)) / 2h = φ'(0) + c₂ h² + c₄ h⁴ + …,

so differences at several steps combine into ones whose error starts at h⁴, h⁶, …  (Neville's
tableau: T[i][j] uses the steps hᵢ₋ⱼ … hᵢ). How far neighbours in the tableau lie apart estimates
the error, and the entry with the smallest estimate is taken (Ridders 1982). Where φ has a kink
between the steps the neighbours disagree, whatever the tolerance; smaller steps are then tried.

A kink *at* 0 escapes differences that are symmetric about it. There the second difference tells:
(φ(h) − 2 φ(0) + φ(−h)) / h tends to φ'(0+) − φ'(0−), which is 0 for smooth φ.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Three steps serve a smooth function; the smaller ones are for points near a kink. Their rounding
# errors, about 10⁻¹⁶ / h, stay below the relative accuracy that gradcheck asks for.
STEPS = tuple(2.0**-k for k in (7, 8, 9, 12, 15, 18, 20, 22, 24))
_EPS = np.finfo(np.float64).eps


class NonSmoothPoint(ValueError):
    """The function cannot be differenced here: the inputs are at or near a kink."""


class Slope(NamedTuple):
    """The derivative of a vector φ(t) at t = 0, entry by entry."""

    value: np.ndarray
    error: np.ndarray  # estimated, of `value`; infinite where no two steps gave finite numbers
    jump: np.ndarray  # φ'(0+) − φ'(0−) where φ has a kink at 0, else 0
    coarse: tuple[np.ndarray, np.ndarray]  # plain differences at the largest and smallest step


def slope(along: Callable[[float], np.ndarray], accuracy: float, floor: float) -> Slope:
    """dφ/dt at 0 of along(t) = φ(t), a float64 vector.

    Steps get smaller until the estimated error's norm is at most `accuracy` times that of the
    derivative, or `floor`, or no steps are left.
    """
    centre = along(0.0)
    value = np.zeros_like(centre)
    error = np.full_like(centre, np.inf)
    rows: list[list[np.ndarray]] = []
    bends: list[np.ndarray] = []
    for i, h in enumerate(STEPS):
        plus, minus = along(h), along(-h)
        noise = _EPS * (np.abs(plus) + np.abs(minus)) / (2 * h)
        row = [(plus - minus) / (2 * h)]
        for j in range(1, i + 1):
            ratio = (STEPS[i - j] / h) ** 2
            row.append(row[-1] + (row[-1] - rows[-1][j - 1]) / (ratio - 1))
            apart = np.maximum(np.abs(row[j] - row[j - 1]), np.abs(row[j] - rows[-1][j - 1]))
            better = apart + noise < error  # False for what is not a number
            value, error = np.where(better, row[j], value), np.where(better, apart + noise, error)
        rows.append(row)
        bends.append((plus - 2 * centre + minus) / h)
        enough = max(accuracy * float(np.linalg.norm(value)), floor)
        if i >= 2 and np.linalg.norm(error) <= enough:
            break
    return Slope(value, error, _jump(bends, centre), (rows[0][0], rows[-1][0]))


def _jump(bends, centre):
    """φ'(0+) − φ'(0−) from (φ(h) − 2 φ(0) + φ(−h)) / h = jump + h φ''(0) + O(h³) at two steps."""

    def at(i):
        ratio = STEPS[i - 1] / STEPS[i]
        return (ratio * bends[i] - bends[i - 1]) / (ratio - 1)

    last = len(bends) - 1
    before, jump = at(last - 1), at(last)
    # At a kink the jump is most of the bend and the same for smaller steps; at a smooth point it is
    # the h³ term, which falls to a quarter or less, or noise.
    noise = 50 * _EPS * np.abs(centre) / STEPS[last]
    real = np.abs(jump) > np.maximum(0.01 * np.abs(bends[-1]), noise)
    return np.where(real & (np.abs(jump) > 0.5 * np.abs(before)), jump, 0.0)
