"""A run as it was saved: what `sm.load` gives, and the commands read."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scratchmeta import backend
from scratchmeta.data import Splits
from scratchmeta.episodes import Episode
from scratchmeta.run.checkpoint import Run, State
from scratchmeta.run.config import Config
from scratchmeta.tree import to_backend, to_numpy


@dataclass(eq=False)
class Saved:
    """A trained algorithm with its parameters, ready to predict; it wants no training data.

    `params` hold what `calibrate` made of training data. `config.method` and `config.network` are
    None where the algorithm was given.
    """

    config: Config
    algorithm: Any
    params: Any
    state: State
    record: dict
    read_splits: Callable[[], Splits]

    def __repr__(self) -> str:
        data, name = self.config.data, type(self.algorithm).__name__
        return f"Saved({name} on {data}, {self.state!r})"

    @cached_property
    def splits(self) -> Splits:
        """The data to train, validate and test on, read when first asked for; DataError if it is
        not there."""
        return self.read_splits()

    @property
    def step(self) -> int:
        """The steps of training that it has behind it."""
        return self.state.step

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one example: of images (H, W, channels)."""
        return tuple(self.config.dataset.example_shape)

    def predict(self, support_x: Any, support_y: Any, query_x: Any) -> np.ndarray:
        """log p(y = k | x, S) for every query: (Q, N), or with a task axis (T, Q, N).

        support_x (S, ...), support_y (S,) with labels 0 ... N − 1, each at least once, and query_x
        (Q, ...); all three may have a task axis before. Images are uint8, or floats in [0, 1], with
        ink 1 on 0 where the data of training has it so. In regression y (S, 1) are numbers, and
        values (Q, 1) come out. Raises ValueError naming what does not fit.
        """
        support, query = self._inputs("support_x", support_x), self._inputs("query_x", query_x)
        y = np.asarray(support_y)
        tasks = np.ndim(query_x) == query.ndim  # there is a task axis
        if not tasks:
            y = y[None]
        if y.shape[:2] != support.shape[:2] or len(support) != len(query):
            raise ValueError(
                f"support_y: wanted a label for each of {support.shape[:2]} examples of "
                f"{len(query)} tasks, got {y.shape}"
            )
        if self.config.dataset.labels == "classes":
            support, y = self._by_class(support, y)
        unknown = np.zeros((*query.shape[:2], *y.shape[2:]), y.dtype)
        batch = Episode(support, y, query, unknown)
        found = to_numpy(self.algorithm.predict(self.params, to_backend(batch)))
        return found if tasks else found[0]

    def _inputs(self, name: str, x: Any) -> np.ndarray:
        """Examples (T, ·, ...) as the network is shown them."""
        x, shape = backend.to_numpy(x), self.example_shape
        described = name == "support_x" and hasattr(self.algorithm, "attribute_network")
        if described:
            shape = x.shape[-1:]
        if x.shape[x.ndim - len(shape) :] != shape or x.ndim - len(shape) not in (1, 2):
            raise ValueError(
                f"{name}: wanted examples (·, {', '.join(map(str, shape))}), with or without a "
                f"task axis, got {x.shape}"
            )
        if not x.size:
            raise ValueError(f"{name}: wanted examples, got none: {x.shape}")
        x = x * np.float32(1 / 255) if x.dtype == np.uint8 else x.astype(np.float32)
        return x if x.ndim - len(shape) == 2 else x[None]

    def _by_class(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The support with one class after the other, as all algorithms are trained."""
        ways = int(y.max()) + 1 if y.dtype.kind in "iu" else 0
        counts = np.array([[(row == k).sum() for k in range(ways)] for row in y])
        if not ways or y.min() < 0 or not counts.all():
            raise ValueError(
                f"support_y: wanted labels 0 to N − 1, each in every task, got {np.unique(y)}"
            )
        refuse_ways(self.config, self.algorithm, ways)
        if getattr(self.algorithm, "equal_shots", False) and counts.min() < counts.max():
            raise ValueError(
                f"support_y: {self.config.algorithm} wants as many examples of each class, got "
                f"{counts.min()} to {counts.max()}"
            )
        order = np.argsort(y, axis=1, kind="stable")
        x = np.stack([task[row] for task, row in zip(x, order, strict=True)])
        return x, np.take_along_axis(y, order, axis=1).astype(np.int64)

    def embed(self, x: Any) -> np.ndarray:
        """The features of examples (N, ...), or with a task axis (T, N, ...).

        Batch-norm has the statistics stored in training under the policy "running", else those of
        the examples given together. Raises ValueError for an algorithm without an embedding.
        """
        if not hasattr(self.algorithm, "features"):
            raise ValueError(
                f"embed: {self.config.algorithm} has no embedding: what it tells of an example "
                "depends on the support"
            )
        given = self._inputs("x", x)
        found = to_numpy(self.algorithm.features(self.params, to_backend(given)))
        return found if np.ndim(x) == given.ndim else found[0]

    def save(self, path: str | os.PathLike) -> None:
        """Writes a run folder that all reads but training: configuration and parameters.

        Raises FileExistsError where the folder holds anything.
        """
        run = Run.create(path, self.record, self.state, calibrated=self.params, name="best")
        run.release()


def refuse_ways(config: Config, algorithm: Any, n_way: int) -> None:
    """Raises ValueError if the algorithm tells one number of classes apart, and not `n_way`."""
    fixed = getattr(algorithm, "fixes_ways", getattr(algorithm, "head", False))
    if fixed and config.dataset.labels == "classes" and n_way != config.training.n_way:
        raise ValueError(
            f"n_way: the network of this {config.algorithm} run has one output for each of "
            f"{config.training.n_way} classes, got {n_way}; train one with --n-way {n_way}"
        )
