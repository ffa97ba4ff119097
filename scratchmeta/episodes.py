"""Episodes: batches of few-shot tasks, each a pure function of (dataset, seed, index).

T tasks, N ways, K shots, Q queries.
"""

import itertools
import operator
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np


class Episode(NamedTuple):
    """T tasks at a time, with the classes of a task one after the other.

    support_x (T, N·K, ...) and query_x (T, N·Q, ...) float32, images as (..., H, W, channels) in
    [0, 1] with ink 1; support_y (T, N·K) and query_y (T, N·Q) int64 labels, 0 K times, then 1 K
    times, to N−1. In zero-shot learning support_x (T, N, A) holds the attributes of each class, and
    query_x may be features (T, N·Q, F). In regression y is float32 and has the shape (T, K, 1),
    (T, Q, 1) of x. Where a sequence is shown and then an answer asked for (`data.Copy`), support_x
    (T, S, inputs) and query_x (T, Q, inputs) are the steps of the two parts and y (T, S, bits),
    (T, Q, bits) bool.
    """

    support_x: np.ndarray
    support_y: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray


class Counted(Protocol):
    """What every dataset says of itself."""

    @property
    def n_classes(self) -> int:
        """Classes that a task may be made of."""

    @property
    def n_drawings(self) -> float:
        """Examples of a class, the fewest there are; math.inf without end."""


class Dataset(Counted, Protocol):
    """What `sample` asks of a dataset."""

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[Any, np.ndarray]:
        """Draw n examples of n_way classes for each task: x (T, N, n, ...) and y (T, N, n, ...).

        x is uint8, which `sample` scales to [0, 1], or float32. Where the support is of another
        kind than the queries, x is a pair: what describes each class (T, N, 1, ...), and n − 1
        examples (T, N, n − 1, ...).
        """


class EpisodeMaker(Counted, Protocol):
    """A dataset that makes whole episodes itself."""

    def episode(self, rng: np.random.Generator, tasks: int) -> Episode:
        """T tasks."""


def sample(
    dataset: Dataset | EpisodeMaker,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 15,
    tasks: int = 1,
    seed: int = 0,
    index: int = 0,
) -> Episode:
    """Draw the episode number `index` of the sequence that `seed` names.

    Within a task, classes are distinct and no drawing is both in support and query. The same
    arguments give the same episode on every machine (a sinusoid's y to the last digit of its sine).

    Raises `ValueError` for counts below 1, more ways than classes, more shots and queries than
    drawings, and for more than one shot of classes that are described.

    >>> from scratchmeta.data import Sinusoids
    >>> episode = sample(Sinusoids(), n_way=1, k_shot=10, n_query=5, tasks=25, seed=0, index=7)
    >>> episode.support_x.shape, episode.query_y.shape
    ((25, 10, 1), (25, 5, 1))
    """
    wanted = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query, "tasks": tasks}
    for name, count in wanted.items():
        if operator.index(count) < 1:
            raise ValueError(f"{name}: at least 1 wanted, got {count}")
    if n_way > dataset.n_classes:
        raise ValueError(
            f"n_way: at most the {dataset.n_classes} classes of {dataset} wanted, got {n_way}"
        )
    if k_shot + n_query > dataset.n_drawings:
        raise ValueError(
            f"k_shot + n_query: at most the {dataset.n_drawings} drawings a class has in {dataset} "
            f"wanted, got {k_shot} + {n_query}"
        )
    if hasattr(dataset, "episode"):
        return dataset.episode(generator(seed, index), tasks)
    x, y = dataset.draw(generator(seed, index), tasks, n_way, k_shot + n_query)
    if isinstance(x, tuple) and k_shot != 1:
        raise ValueError(f"k_shot: 1 wanted, the description of a class in {dataset}, got {k_shot}")
    support_x, query_x = x if isinstance(x, tuple) else (x[:, :, :k_shot], x[:, :, k_shot:])
    return Episode(
        _joined(support_x),
        _joined(y[:, :, :k_shot]),
        _joined(query_x),
        _joined(y[:, :, k_shot:]),
    )


def generator(seed: int, index: int) -> np.random.Generator:
    """Return an episode's generator: Philox with the pair (seed, index), 64 bits each, as key."""
    for name, number in (("seed", seed), ("index", index)):
        if not 0 <= operator.index(number) < 2**64:
            raise ValueError(f"{name}: 0 to 2**64 - 1 wanted, got {number}")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def _joined(x: np.ndarray) -> np.ndarray:
    """Put classes one after the other, (T, N, n, ...) -> (T, N·n, ...); pixels become float32."""
    x = x.reshape(len(x), -1, *x.shape[3:])
    return x * np.float32(1 / 255) if x.dtype == np.uint8 else x


def stream(
    dataset: Dataset | EpisodeMaker,
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 15,
    tasks: int = 1,
    seed: int = 0,
    start: int = 0,
    stop: int | None = None,
    prefetch: int = 2,
) -> Generator[Episode, None, None]:
    """Yield the episodes from index `start` up to `stop`, sampled ahead in another thread.

    There is no end if `stop` is None. Up to `prefetch` episodes wait ready; with 0 there is no
    thread, which is better for tasks as small as sinusoids. An error in the thread is raised where
    the episode would have come. The thread ends with the generator: when it is exhausted, closed or
    collected (`contextlib.closing` does it at the end of a block).
    """
    if prefetch < 0:
        raise ValueError(f"prefetch: at least 0 wanted, got {prefetch}")
    indices = itertools.count(start) if stop is None else iter(range(start, stop))

    def episode(index: int) -> Episode:
        return sample(dataset, n_way, k_shot, n_query, tasks, seed, index)

    if prefetch == 0:
        yield from map(episode, indices)
        return
    with ThreadPoolExecutor(1, "episodes") as pool:
        ahead = deque(pool.submit(episode, index) for index in itertools.islice(indices, prefetch))
        try:
            while ahead:
                ready = ahead.popleft().result()
                ahead.extend(pool.submit(episode, index) for index in itertools.islice(indices, 1))
                yield ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def nearest_neighbour(episode: Episode) -> np.ndarray:
    """Label each query like the support example nearest in squared pixel distance: (T, N·Q).

    The baseline that a learned embedding has to beat. Of equally near examples the first counts.
    """
    s, q = (x.reshape(*x.shape[:2], -1) for x in (episode.support_x, episode.query_x))
    # ‖q − s‖² = ‖q‖² − 2 q·s + ‖s‖², of which ‖q‖² is the same for every s
    distance = np.sum(s * s, -1)[:, None] - 2 * q @ s.swapaxes(-1, -2)  # (T, N·Q, N·K)
    return np.take_along_axis(episode.support_y, distance.argmin(-1), axis=1)
