"""95 % intervals of a mean over runs and episodes: x[s, e], one run (seed) a row.

    over seeds       t(S − 1) · s / √S     s of the S runs' means over the episodes
    over episodes    1.96 · s / √E         s of the E episodes' means over the runs

They answer two questions. The first: where would the mean of ever more trainings lie, on these
episodes? The second: where would the mean of ever more episodes lie, for these trained runs?
Neither says both. √(first² + second²) does, a little too wide: what one run has with one episode
alone is counted in each.

Both hold for a difference too, x of one algorithm minus x of another: the runs of one seed and the
measures of one episode are subtracted first. What they share, an episode that is hard for both,
cancels, so this interval is narrower than those of the two means let expect.
"""

import math

import numpy as np


def over_seeds(x: np.ndarray) -> float | None:
    """Half the interval over the rows of x; None for one row, which says nothing of others."""
    runs = len(x)
    if runs < 2:
        return None
    return student(runs - 1) * float(np.std(x.mean(axis=1), ddof=1)) / math.sqrt(runs)


def over_episodes(x: np.ndarray) -> float:
    """Half the interval over the columns of x; of one row the `ci95` of `evaluate`."""
    return 1.96 * float(np.std(x.mean(axis=0), ddof=1)) / math.sqrt(x.shape[1])


def student(freedom: int) -> float:
    """t with 95 % of Student's distribution between −t and t, for whole degrees of freedom ν.

    A(t) = P(|T| < t) is a finite sum (Abramowitz & Stegun 26.7.3 and 26.7.4), θ = atan(t / √ν):

        ν odd     2/π (θ + sin θ (cos θ + 2/3 cos³θ + ... + 2·4···(ν−3)/(1·3···(ν−2)) cos^(ν−2) θ))
        ν even    sin θ (1 + 1/2 cos²θ + ... + 1·3···(ν−3)/(2·4···(ν−2)) cos^(ν−2) θ)
    """
    low, high = 0.0, 13.0  # t(1) = 12.7 is the largest
    while high - low > 1e-12:
        t = (low + high) / 2
        low, high = (t, high) if _within(t, freedom) < 0.95 else (low, t)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    θ = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(θ) if odd else 1.0
    total = 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(θ) ** 2
    total *= math.sin(θ)
    return 2 / math.pi * (θ + total) if odd else total
