"""Sine waves: one to a task, from the ranges of MAML's paper."""

import math

import numpy as np
import pytest

from scratchmeta import episodes
from scratchmeta.data import Sinusoids


def test_shapes_and_dtypes():
    episode = episodes.sample(Sinusoids(), n_way=1, k_shot=10, n_query=7, tasks=25, seed=1, index=2)
    shapes = [(25, 10, 1), (25, 10, 1), (25, 7, 1), (25, 7, 1)]
    assert [part.shape for part in episode] == shapes
    assert all(part.dtype == np.float32 for part in episode)


def test_each_task_is_one_wave_with_its_own_amplitude_and_phase():
    """Solve for A cos φ and A sin φ from two points; all others lie on the same wave."""
    dataset = Sinusoids()
    episode = episodes.sample(dataset, n_way=1, k_shot=10, n_query=30, tasks=200)
    amplitudes, phases = [], []
    for xs, ys, xq, yq in zip(*(part[..., 0].astype(float) for part in episode), strict=True):
        # A sin(x − φ) = (A cos φ) sin x − (A sin φ) cos x, by least squares over the support
        waves = np.stack([np.sin(xs), -np.cos(xs)], 1)
        (c, s), *_ = np.linalg.lstsq(waves, ys, rcond=None)
        np.testing.assert_allclose(c * np.sin(xq) - s * np.cos(xq), yq, atol=2e-5)
        amplitudes.append(math.hypot(c, s))
        phases.append(math.atan2(s, c))
    for values, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, math.pi)):
        assert low - 1e-3 < min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) < high + 1e-3
        assert abs(np.mean(values) - (low + high) / 2) < 0.1 * (high - low)
    x = np.concatenate([episode.support_x, episode.query_x], 1)
    assert -5 <= x.min() < -4.99
    assert 4.99 < x.max() <= 5
    assert abs(x.mean()) < 0.1


def test_other_ranges():
    dataset = Sinusoids(amplitude=(2.0, 2.0), phase=(1.0, 1.0), domain=(0.0, 1.0))
    episode = episodes.sample(dataset, n_way=1, k_shot=5, n_query=5, tasks=3)
    np.testing.assert_allclose(episode.query_y, 2 * np.sin(episode.query_x - 1), atol=1e-6)
    assert episode.query_x.min() >= 0
    assert repr(dataset) == "Sinusoids(amplitude=(2.0, 2.0), phase=(1.0, 1.0), domain=(0.0, 1.0))"


def test_a_task_has_one_wave():
    with pytest.raises(ValueError, match=r"n_way: at most the 1 classes of Sinusoids.*got 5"):
        episodes.sample(Sinusoids(), n_way=5)
