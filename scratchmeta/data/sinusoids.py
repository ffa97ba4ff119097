"""Sinusoid regression (Finn et al. 2017, section 5.1): each task is one sine wave."""

import math

import numpy as np


class Sinusoids:
    """Sine waves y = A sin(x − φ), one to a task, with A and φ uniform and x uniform in the domain.

    The defaults are MAML's: A in [0.1, 5], φ in [0, π], x in [−5, 5]. Reptile's waves have
    `phase=(0, 2π)` (their sin(x + b) is the same family). A task has one "class", its wave, and as
    many points of it as one likes.
    """

    n_classes = 1
    n_drawings = math.inf

    def __init__(
        self,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
        domain: tuple[float, float] = (-5.0, 5.0),
    ) -> None:
        self.amplitude = amplitude
        self.phase = phase
        self.domain = domain

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw n points of each task's wave: x and y, float32 (T, 1, n, 1) each."""
        u = rng.random((tasks, n + 2))  # (T, amplitude, phase, points)
        A = _between(self.amplitude, u[:, :1])
        φ = _between(self.phase, u[:, 1:2])
        x = _between(self.domain, u[:, 2:])
        y = A * np.sin(x - φ)
        x, y = (v.astype(np.float32)[:, None, :, None] for v in (x, y))
        return x, y

    def __repr__(self) -> str:
        return f"Sinusoids(amplitude={self.amplitude}, phase={self.phase}, domain={self.domain})"


def _between(bounds: tuple[float, float], u: np.ndarray) -> np.ndarray:
    low, high = bounds
    return low + (high - low) * u
