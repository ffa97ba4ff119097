"""Tasks whose classes are described, not shown."""

from typing import Any

import numpy as np


class Described:
    """A dataset's tasks with the attributes of a class in place of its support.

    `dataset` has `attributes` (n_classes, A) beside what `ImageDataset` has. In an episode
    support_x (T, N, A) holds those of each class, k_shot is 1, and queries are the dataset's. With
    `reference`, the attributes are standardised by mean and standard deviation over its classes
    (those of training).
    """

    def __init__(self, dataset: Any, reference: Any = None) -> None:
        self.dataset = dataset
        self.n_classes = dataset.n_classes
        self.n_drawings = dataset.n_drawings + 1  # the description counts as an example
        self.attributes = np.asarray(dataset.attributes, np.float32)  # (n_classes, A)
        if reference is not None:
            spread = reference.attributes.std(axis=0)
            centred = self.attributes - reference.attributes.mean(axis=0)
            self.attributes = (centred / np.where(spread > 0, spread, 1)).astype(np.float32)

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Draw attributes (T, N, 1, A) and n − 1 examples (T, N, n − 1, ...), and y (T, N, n)."""
        classes, drawings = self.dataset.choose(rng, tasks, n_way, n - 1)
        examples = self.dataset.gather(classes, drawings, rng)
        labels = np.arange(n_way, dtype=np.int64)[:, None]
        described = self.attributes[classes][:, :, None]
        return (described, examples), np.broadcast_to(labels, (tasks, n_way, n))

    def __repr__(self) -> str:
        return f"Described({self.dataset!r})"
