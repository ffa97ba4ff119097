"""Tasks within an alphabet: pairs to tell apart, and Lake's one-shot classification.

Characters of one alphabet resemble each other more than those of two, so both are harder than
tasks over all characters.
"""

from typing import Any

import numpy as np

from scratchmeta.data.images import below, distinct


class WithinAlphabet:
    """Tasks whose classes are characters of one alphabet, every drawing of a class by another hand.

    In each task the first drawings of all classes are by one drawer, the second ones by another,
    and so on: with one shot and one query this is the design of the one-shot runs of Lake et al.
    (2015). Alphabets that have n_way characters are equally likely. Where characters have different
    numbers of drawings, their drawers are not the same people, and drawings are any.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.n_drawings = dataset, dataset.n_drawings
        self.n_classes = max(len(alphabet) for alphabet in dataset.alphabets)

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw n images of n_way classes: x (T, N, n, H, W, channels) uint8, y (T, N, n) int64."""
        large = [alphabet for alphabet in self.dataset.alphabets if len(alphabet) >= n_way]
        chosen = [large[i] for i in below(rng, len(large), (tasks,))]
        classes = np.stack([a[distinct(rng, 1, n_way, len(a))[0]] for a in chosen])
        y = np.broadcast_to(np.arange(n_way)[:, None], (tasks, n_way, n))
        if _by_everyone(self.dataset):
            drawings = np.broadcast_to(distinct(rng, tasks, n, self.n_drawings)[:, None], y.shape)
        else:
            counts = self.dataset.count(classes).ravel()
            drawings = distinct(rng, tasks * n_way, n, counts).reshape(y.shape)
        return self.dataset.gather(classes, drawings, rng), y

    def __repr__(self) -> str:
        return f"WithinAlphabet({self.dataset!r})"


class Pairs:
    """Pairs of images that show one character or two of one alphabet (Koch et al. 2015).

    A task has n_way images, each with n − 1 to compare it with: in turn one of the same character
    and one of another of its alphabet, all of different drawers. Alphabets are equally likely, and
    so are the characters of one. Labels are the numbers of the characters in `dataset`, the same
    where a pair is. With rotations "episode" the two of a pair are turned alike; "class-episode"
    is refused.
    """

    n_classes = 2**62  # of as many images as one likes

    def __init__(self, dataset: Any) -> None:
        if dataset.rotations == "class-episode":
            raise ValueError(
                "rotations: wanted for pairs none, classes or episode, got 'class-episode'"
            )
        self.dataset, self.n_drawings = dataset, dataset.n_drawings
        several = [alphabet for alphabet in dataset.alphabets if len(alphabet) > 1]
        if not several:
            raise ValueError(f"Pairs: an alphabet of two characters wanted, got {dataset}")
        self._classes = np.concatenate(several)
        self._sizes = np.array([len(alphabet) for alphabet in several])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw x (T, N, n, H, W, channels) uint8 and y (T, N, n) int64."""
        alphabet = below(rng, len(self._sizes), (tasks, n_way, 1))
        size = self._sizes[alphabet]
        first = below(rng, size, (tasks, n_way, 1))
        others = 1 + below(rng, size - 1, (tasks, n_way, n))  # places further on, round the circle
        number = np.arange(tasks * n_way).reshape(tasks, n_way, 1) + np.arange(n)
        same = (number % 2 == 1) | (np.arange(n) == 0)
        place = np.where(same, first, (first + others) % size)
        classes = self._classes[self._starts[alphabet] + place]  # (T, N, n)
        classes = classes.reshape(tasks * n_way, n)
        if _by_everyone(self.dataset):
            drawings = distinct(rng, tasks * n_way, n, self.n_drawings)
        else:
            counts = self.dataset.count(classes)
            own = distinct(rng, tasks * n_way, n, counts[:, 0])
            drawings = np.where(same.reshape(own.shape), own, below(rng, counts, own.shape))
        x = self.dataset.gather(classes, drawings[..., None], rng)
        return x.reshape(tasks, n_way, n, *x.shape[3:]), classes.reshape(tasks, n_way, n)

    def __repr__(self) -> str:
        return f"Pairs({self.dataset!r})"


def _by_everyone(dataset: Any) -> bool:
    """Whether all characters are drawn by the same people, each once."""
    return bool((dataset.counts == dataset.n_drawings).all())
