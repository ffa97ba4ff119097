"""What all algorithms share: the mean over tasks, taken a chunk of tasks at a time."""

from collections.abc import Callable, Iterator
from typing import Any

from scratchmeta import backend, core, ops, tree
from scratchmeta.episodes import Episode

Tree = Any
Array = backend.Array

# Inputs of the tasks in one chunk. Activations are some 64 times as large; on a CPU they should
# stay in the cache (more tasks at a time are slower), on a GPU they should fill the card.
_CHUNK_BYTES = {"numpy": 2**18, "cupy": 2**26}


def n_way(episodes: Episode) -> int:
    """The number of classes in each task."""
    return int(episodes.support_y.max()) + 1


def chunks(episodes: Episode, task_chunk: int | None) -> Iterator[Episode]:
    """The episode batch in parts of `task_chunk` tasks; None chooses by the size of the inputs."""
    tasks = len(episodes.support_x)
    if task_chunk is None:
        task_bytes = (episodes.support_x.nbytes + episodes.query_x.nbytes) // tasks
        at_most = _CHUNK_BYTES[
            "numpy" if backend.xp(episodes.support_x).__name__ == "numpy" else "cupy"
        ]
        task_chunk = max(1, at_most // max(1, task_bytes))
    for start in range(0, tasks, task_chunk):
        yield Episode(*(a[start : start + task_chunk] for a in episodes))


def mean_over_tasks(
    task_losses: Callable, params: Tree, episodes: Episode, task_chunk: int | None
) -> tuple[Array, Tree]:
    """1/T Σ_t loss_t and its gradient with respect to params, both raw.

    `task_losses(params, episodes)` gives one loss per task (T,). Chunks are differentiated one
    after another and added up, so only one chunk's graph is in memory; the result does not depend
    on them.
    """
    total = gradient = None
    for part in chunks(episodes, task_chunk):
        value, g = core.value_and_grad(lambda p, part=part: ops.sum(task_losses(p, part)))(params)
        total = value if total is None else total + value
        gradient = g if gradient is None else tree.map(lambda a, b: a + b, gradient, g)
    tasks = len(episodes.support_x)
    return total / tasks, tree.map(lambda g: g / tasks, gradient)
