"""Tasks in which examples come one after another."""

from typing import Any

import numpy as np

from scratchmeta.data.images import below

LETTERS = 5  # of a string label, each one of 5: 3125 strings
STRINGS = 5**LETTERS


class Shuffled:
    """The examples of a dataset's tasks in random order, the classes mixed (Santoro et al. 2016).

    Support and query of an episode are two parts of one random sequence. `labels` "one-hot" keeps
    0 ... N − 1; "strings" gives every class of a task a number of its own out of 0 ... 3124, five
    letters in base 5, distinct within the task and new in each.
    """

    def __init__(self, dataset: Any, labels: str = "one-hot") -> None:
        if labels not in ("one-hot", "strings"):
            raise ValueError(f"labels: wanted 'one-hot' or 'strings', got {labels!r}")
        self.dataset, self.labels = dataset, labels
        self.n_classes, self.n_drawings = dataset.n_classes, dataset.n_drawings

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw x (T, N, n, ...) and y (T, N, n), the classes and their examples mixed."""
        x, y = self.dataset.draw(rng, tasks, n_way, n)
        if self.labels == "strings":
            names = np.stack([_distinct(rng, n_way) for _ in range(tasks)])  # (T, N)
            y = np.take_along_axis(names, y.reshape(tasks, -1), axis=1)
        rows = np.arange(tasks)[:, None], np.argsort(rng.random((tasks, n_way * n)), axis=1)

        def mixed(a):
            a = a.reshape(tasks, n_way * n, *a.shape[3:])[rows]
            return a.reshape(tasks, n_way, n, *a.shape[2:])

        return mixed(x), mixed(y.reshape(tasks, n_way, n))

    def __repr__(self) -> str:
        return f"Shuffled({self.dataset!r}, labels={self.labels!r})"


def _distinct(rng: np.random.Generator, n: int) -> np.ndarray:
    """n distinct numbers of 0 ... STRINGS − 1."""
    chosen: list[int] = []
    while len(chosen) < n:
        number = int(below(rng, STRINGS, (1,))[0])
        if number not in chosen:
            chosen.append(number)
    return np.array(chosen)
