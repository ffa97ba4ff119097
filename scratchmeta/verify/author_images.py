"""Omniglot as the authors of published weights saw it, where that is no option of `data.Omniglot`.

oscarknagg's images are scikit-image's resize with anti-aliasing, stretched to 0 ... 255.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta.data import Omniglot
from scratchmeta.data.omniglot import SIDE

SMALL = 28


class Seen(Omniglot):
    """Omniglot whose images are `look` of what they are otherwise, uint8 (..., H, W, 1)."""

    def __init__(self, look: Callable, root: Path, split: str, **options: Any) -> None:
        super().__init__(root, split, **options)
        self.look = look

    def pixels(self, characters: np.ndarray, drawings: np.ndarray) -> np.ndarray:
        """What `look` makes of these drawings."""
        return self.look(super().pixels(characters, drawings))


def _smoothing() -> np.ndarray:
    """(28, 105): a Gaussian with zeros beyond the border, then linear interpolation."""
    step = SIDE / SMALL
    σ = (step - 1) / 2
    reach = int(4 * σ + 0.5) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / σ) ** 2)
    gaussian = sum(w * np.eye(SIDE, k=j - reach) for j, w in enumerate(weights / weights.sum()))
    place = step * (np.arange(SMALL) + 0.5) - 0.5
    left, row = place.astype(int), np.arange(SMALL)
    linear = np.zeros((SMALL, SIDE))
    linear[row, left], linear[row, left + 1] = 1 - (place - left), place - left
    return linear @ gaussian


_SMOOTHING = _smoothing()


def smoothed(ink: np.ndarray) -> np.ndarray:
    """105 x 105 drawings, smoothed, resampled, stretched to 0 ... 255 each: uint8 (..., 28, 28, 1),
    ink dark."""
    x = _SMOOTHING @ (1.0 - ink[..., 0] / 255) @ _SMOOTHING.T
    low, high = x.min((-2, -1), keepdims=True), x.max((-2, -1), keepdims=True)
    return np.rint(255 * (x - low) / (high - low)).astype(np.uint8)[..., None]
