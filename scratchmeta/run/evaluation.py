"""Evaluation over many episodes: the mean of a measure, with its 95 % interval.

    ci95 = 1.96 s / √n        n episodes, s the standard deviation of the measure in them

The measure goes by what is to be predicted: of classes the accuracy, of numbers the mean squared
error, of bits the wrong ones of a sequence.

Episodes are numbered: those of training count from 0, the others from the far ends below, so that
data without a split of its own (sinusoids) is never tested on tasks it was trained on.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchmeta import episodes
from scratchmeta.algorithms.protocol import Algorithm, Predictor
from scratchmeta.data import Pairs
from scratchmeta.data.one_shot_runs import OneShotRuns
from scratchmeta.episodes import Dataset, Episode, EpisodeMaker
from scratchmeta.episodes import sample as _sample
from scratchmeta.run.config import Training
from scratchmeta.run.progress import Progress
from scratchmeta.shown import html_table, percent
from scratchmeta.tree import to_backend, to_numpy

CALIBRATION, VALIDATION, TEST = 2**61, 2**62, 2**63  # index of the first episode of each kind
CALIBRATION_TASKS = 10
CHUNK_VALUES = 2**18  # numbers in the images of one chunk, about 330 images of 28 x 28


@dataclass(frozen=True)
class Evaluation:
    """A mean over `episodes` episodes and half its 95 % interval."""

    measure: str  # "accuracy", between 0 and 1, "mse" or "bit_errors"
    value: float
    ci95: float
    episodes: int
    n_way: int
    k_shot: int

    @property
    def score(self) -> float:
        """The accuracy, or minus an error: the better of two evaluations has the higher score."""
        return self.value if self.measure == "accuracy" else -self.value

    def as_dict(self) -> dict[str, float]:
        """{measure: its mean, "ci95": ..., "episodes": ..., "n_way": ..., "k_shot": ...}"""
        return {
            self.measure: self.value,
            "ci95": self.ci95,
            "episodes": self.episodes,
            "n_way": self.n_way,
            "k_shot": self.k_shot,
        }

    @property
    def _shown(self) -> tuple[str, str]:
        """What was measured, and its mean with half the interval."""
        if self.measure == "accuracy":
            return self.measure, percent(self.value, self.ci95)
        return self.measure.replace("_", " "), f"{self.value:.4f} ± {self.ci95:.4f}"

    def __str__(self) -> str:
        return " ".join(self._shown)

    def _repr_html_(self) -> str:  # what notebooks ask for
        what, value = self._shown
        row = value, self.episodes, self.n_way, self.k_shot
        return html_table("test episodes", (what, "episodes", "n_way", "k_shot"), [row])


def evaluate(
    algorithm: Predictor,
    params: Any,
    dataset: Dataset | EpisodeMaker,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 15,
    *,
    episodes: int = 600,
    seed: int = 0,
    first: int = TEST,
    progress: bool = False,
) -> Evaluation:
    """Evaluates `params` on the episodes `first`, `first` + 1, ... of `seed`, a chunk at a time.

    The measure of a classification episode is the share of its N·Q queries whose most probable
    class is theirs; where labels are real numbers it is the mean squared error over the query
    points, where they are bits the number of them in a sequence whose predicted probability lies on
    the wrong side of ½. Raises ValueError for fewer than 2 episodes, which have no interval, and as
    `episodes.sample` does.
    """
    measure, values = by_episode(
        algorithm, params, dataset, n_way, k_shot, n_query,
        episodes=episodes, seed=seed, first=first, progress=progress,
    )  # fmt: skip
    return Evaluation(
        measure=measure,
        value=float(np.mean(values)),
        ci95=1.96 * float(np.std(values, ddof=1)) / math.sqrt(episodes),
        episodes=episodes,
        n_way=n_way,
        k_shot=k_shot,
    )


def by_episode(
    algorithm: Any,
    params: Any,
    dataset: Any,
    n_way: int,
    k_shot: int,
    n_query: int,
    *,
    episodes: int,
    seed: int = 0,
    first: int = TEST,
    progress: bool = False,
) -> tuple[str, np.ndarray]:
    """What `evaluate` takes the mean of: the measure's name, and its value in each episode."""
    if episodes < 2:
        raise ValueError(f"episodes: wanted at least 2, got {episodes}")
    values: dict[int, float] = {}
    with Progress("evaluate", episodes, shown=progress) as bar:
        for numbers, chunk in _chunks(dataset, n_way, k_shot, n_query, episodes, seed, first):
            predicted = to_numpy(algorithm.predict(params, to_backend(chunk)))
            measure, chunk_values = _measure(predicted, chunk.query_y)
            values.update(zip(numbers, chunk_values.tolist(), strict=True))
            mean = float(np.mean(list(values.values())))
            bar.update(len(values), percent(mean) if measure == "accuracy" else f"{mean:.4f}")
    return measure, np.array([values[number] for number in range(episodes)])


def by_instance(
    algorithm: Any, params: Any, dataset: Any, n_way: int, episodes: int, seed: int = 0
) -> list[float]:
    """The accuracy for the 1st, 2nd, ... 10th image of a class in sequences of 10 of each.

    Of as many as a class has, where it has fewer.
    `dataset` gives sequences (`data.Shuffled`), `algorithm` has `instance_accuracy`.
    """
    found, tasks, images = [], 20, int(min(10, dataset.n_drawings))
    for start in range(0, episodes, tasks):
        batch = _sample(dataset, n_way, 1, images - 1, tasks, seed, TEST + start)
        found.append(algorithm.instance_accuracy(params, to_backend(batch)))
    return np.mean(found, axis=0).tolist()


def verification(algorithm: Any, params: Any, dataset: Any, pairs: int, seed: int = 0) -> float:
    """The share of `pairs` judged rightly to show one character or two of one alphabet.

    `algorithm` has `verification_accuracy`; half the pairs show the same character.
    """
    found, size, tasks = [], 100, Pairs(dataset)
    for start in range(0, pairs, size):
        batch = _sample(tasks, min(size, pairs - start), 1, 1, seed=seed, index=TEST + start)
        right = algorithm.verification_accuracy(params, to_backend(batch))
        found.append(right * batch.support_y.size)
    return float(sum(found)) / pairs


def one_shot_errors(algorithm: Any, params: Any, runs: OneShotRuns) -> np.ndarray:
    """The share of errors in each of Lake's one-shot runs: (R,)."""
    tasks, ways = runs.answers.shape
    training, test = (x * np.float32(1 / 255) for x in (runs.training, runs.test))
    batch = Episode(training, np.tile(np.arange(ways), (tasks, 1)), test, runs.answers)
    predicted = to_numpy(algorithm.predict(params, to_backend(batch)))
    return 1 - _measure(predicted, runs.answers)[1]


def calibrated(algorithm: Any, params: Any, dataset: Any, settings: Training) -> Any:
    """The parameters after the algorithm's `calibrate` on CALIBRATION_TASKS training episodes."""
    if getattr(type(algorithm), "calibrate", Algorithm.calibrate) is Algorithm.calibrate:
        return params
    batch = episodes.sample(
        dataset, *settings.shape, CALIBRATION_TASKS, seed=settings.seed, index=CALIBRATION
    )
    return algorithm.calibrate(params, to_backend(batch))


class NearestNeighbour:
    """The baseline on raw pixels: `predict` gives 1 to the class of the nearest image, 0 else.

    There is none where classes are described and not shown (`data.Described`).
    """

    def predict(self, params: None, batch: Episode) -> np.ndarray:
        """Scores (T, N·Q, N); there are no parameters."""
        batch = to_numpy(batch)
        labels = episodes.nearest_neighbour(batch)  # (T, N·Q)
        return (labels[..., None] == np.arange(batch.support_y.max() + 1)).astype(np.float32)


class AllWrong:
    """The worst on bits: `predict` gives 0 to every 1 and 1 to every 0, so that all are counted."""

    def predict(self, params: None, batch: Episode) -> np.ndarray:
        """Probabilities (T, Q, bits); there are no parameters."""
        return (~to_numpy(batch.query_y)).astype(np.float32)


def _chunks(dataset, n_way, k_shot, n_query, n, seed, first):
    """n episodes of one task each, as many of them stacked as make CHUNK_VALUES numbers, and their
    numbers from 0.

    Those that are stacked have one shape: sequences may be of several lengths.
    """

    def one(index):
        return episodes.sample(dataset, n_way, k_shot, n_query, 1, seed, index)

    size = max(1, CHUNK_VALUES // sum(x.size for x in one(first)))
    for start in range(0, n, size):
        alike = {}
        for number in range(start, min(start + size, n)):
            episode = one(first + number)
            shapes = episode.support_x.shape, episode.query_x.shape
            alike.setdefault(shapes, {})[number] = episode
        for parts in alike.values():
            stacked = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
            yield list(parts), Episode(*stacked)


def _measure(predicted: np.ndarray, query_y: np.ndarray) -> tuple[str, np.ndarray]:
    """One number for each task, from scores (T, Q, N), values (T, Q, 1) or probabilities of bits
    (T, Q, bits)."""
    if query_y.dtype.kind == "i":
        measure, values = "accuracy", (predicted.argmax(-1) == query_y).mean(-1)
    elif query_y.dtype.kind == "b":
        measure, values = "bit_errors", ((predicted > 0.5) != query_y).sum(axis=(1, 2))
    else:
        measure, values = "mse", np.square(predicted - query_y).mean(axis=(1, 2))
    # what is no prediction is not a wrong one: argmax would take it for the first class
    return measure, np.where(np.isnan(predicted).any(axis=(1, 2)), np.nan, values)
