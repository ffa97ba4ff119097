"""What algorithms share: the mean over tasks, and the frame of the metric-based family."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from scratchmeta import backend, core, fields, nn, ops, tree
from scratchmeta.data import Splits
from scratchmeta.episodes import Episode
from scratchmeta.fields import Given

Tree = Any
Array = backend.Array

# Inputs of the tasks in one chunk: enough to keep all cores, or a card, busy. Activations are some
# 64 times as large, so that larger chunks cost memory and gain little (benchmarks/conv4.py).
_CHUNK_BYTES = {"numpy": 2**21, "cupy": 2**26}


def n_way(episodes: Episode) -> int:
    """The number of classes in each task."""
    return int(core.raw(episodes.support_y).max()) + 1


def one_of(what: str, got: str, *wanted: str) -> None:
    """Raises ValueError if `got` is none of these."""
    if got not in wanted:
        raise ValueError(f"{what}: wanted {' or '.join(map(repr, wanted))}, got {got!r}")


def chunks(episodes: Episode, task_chunk: int | None) -> Iterator[Episode]:
    """The episode batch in parts of `task_chunk` tasks; None chooses by the size of the inputs."""
    tasks = len(episodes.support_x)
    if task_chunk is None:
        task_bytes = (episodes.support_x.nbytes + episodes.query_x.nbytes) // tasks
        on_cpu = backend.xp(episodes.support_x) is np
        at_most = _CHUNK_BYTES["numpy" if on_cpu else "cupy"]
        task_chunk = max(1, at_most // max(1, task_bytes))
    if task_chunk >= tasks:
        yield episodes
        return
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
    tasks = len(episodes.support_x)
    gradient_of_chunk = core.value_and_grad(task_losses, cotangent=1 / tasks)
    total = gradient = None
    for part in chunks(episodes, task_chunk):
        losses, g = gradient_of_chunk(params, part)
        value = losses.sum() / tasks
        total = value if total is None else total + value
        gradient = g if gradient is None else tree.map(lambda a, b: a + b, gradient, g)
    return total, gradient


def query_outputs(network: Any, weights: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
    """The outputs (T, N·Q, D) of adapted networks, weights (T, ...), for the queries.

    "transductive"  queries normalised by their own statistics, as one batch
    "support"       by the statistics of the support under the same weights
    """
    one_of("batch_norm", batch_norm, "transductive", "support")
    if batch_norm == "support":
        weights = network.with_statistics(weights, episodes.support_x)
    return network(weights, episodes.query_x)


class Predictor(Protocol):
    """What evaluation asks of an algorithm."""

    def predict(self, params: Tree, episodes: Episode) -> Array:
        """log p(y = k | x, S) for every query, (T, N·Q, N), or values in regression."""


class Learner(Predictor, Protocol):
    """What training asks of an algorithm."""

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters."""

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Array, Tree]:
        """The loss, a mean over tasks, and its gradient, raw."""


class Algorithm:
    """What an algorithm says of itself beside its options, which are its fields.

    Not a must: a class that has `init`, `meta_gradient` and `predict`, and of what is here only
    where it differs, will do.
    """

    head: ClassVar[bool] = False
    """Whether its network ends in an output for each class (in regression, for each number)."""
    carried: ClassVar[tuple[str, ...]] = ()
    """Names in its parameters of what it moves itself: no optimizer sees them, and a step subtracts
    what `meta_gradient` says of them as it stands, unclipped and whatever the rate."""

    def __post_init__(self) -> None:
        fields.check_choices(self)

    @property
    def fixes_ways(self) -> bool:
        """Whether it tells no other number of classes apart than that of training."""
        return self.head

    @property
    def equal_shots(self) -> bool:
        """Whether it wants as many support examples of each class."""
        return False

    def datasets(self, splits: Splits) -> Splits:
        """What it is trained, validated and tested on, made of plain datasets."""
        return splits

    def calibrate(self, params: Tree, episodes: Episode) -> Tree:
        """The parameters with what predict wants to know of training episodes: here as they are."""
        return params


@dataclass(frozen=True)
class MetricLearner(Algorithm):
    """The frame of the metric-based algorithms: embed support and query, then compare.

    A subclass says what it compares: `log_probabilities(params, episodes, batch_norm)` gives
    log p(y = k | x, S) for every query, (T, N·Q, N); and if its loss is not their negative mean,
    `task_losses`. `params["network"]` are those of the embedding. `batch_norm` is a policy of
    `nn.embed`: with "running" the statistics in training are transductive, in predict the stored
    ones. `task_chunk` is the number of tasks at a time (None: chosen by size).
    """

    network: Given[Any]
    _: KW_ONLY
    batch_norm: nn.Policy = "transductive"
    """Batch-norm by the statistics of the episode, of its support, or of training episodes."""
    task_chunk: Given[int | None] = None

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network: those of the embedding}."""
        return {"network": self.network.init(rng)}

    def embed(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> tuple[Any, Any]:
        """The features of support (T, N·K, ...) and query (T, N·Q, ...)."""
        return nn.embed(
            self.network, params["network"], episodes.support_x, episodes.query_x, batch_norm
        )

    def inputs(self, episodes: Episode) -> Any:
        """What the network sees of an episode: support and query (T, N·K + N·Q, ...)."""
        return ops.concat([episodes.support_x, episodes.query_x], axis=1)

    def features(self, params: Tree, x: Any) -> Any:
        """Those of examples x (..., N, ...) without a task around them: (..., N, ...).

        Batch-norm has the stored statistics under the policy "running", else those of the N.
        """
        φ = params["network"]
        if self.batch_norm == "running":
            nn.require_statistics(φ)
        else:
            φ = nn.without_statistics(φ)
        return self.network(φ, x)

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log p(y = k | x, S) for every query: (T, N·Q, N)."""
        raise TypeError(f"{type(self).__name__} does not say how it compares")

    @property
    def training_policy(self) -> nn.Policy:
        """The batch-norm policy while training."""
        return "transductive" if self.batch_norm == "running" else self.batch_norm

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of the true class, a mean over the queries of every task (T,)."""
        log_p = self.log_probabilities(params, episodes, self.training_policy)
        true = ops.one_hot(episodes.query_y, log_p.shape[-1], bool)
        return -ops.mean(ops.sum(ops.where(true, log_p, 0.0), axis=-1), axis=-1)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Array, Tree]:
        """The loss, a mean over tasks, and its gradient; statistics in params are ignored."""
        params = nn.without_statistics(params)
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def predict(self, params: Tree, episodes: Episode) -> Array:
        """log p(y = k | x, S) for every query: (T, N·Q, N)."""
        return backend.xp(episodes.query_x).concatenate(
            [
                self.log_probabilities(params, part, self.batch_norm)
                for part in chunks(episodes, self.task_chunk)
            ]
        )

    def calibrate(self, params: Tree, episodes: Episode) -> Tree:
        """The parameters with the statistics that "running" wants, averaged over these tasks."""
        if self.batch_norm != "running":
            return params
        network = nn.without_statistics(params["network"])
        parts = [
            self.network.with_statistics(network, self.inputs(e))
            for e in chunks(episodes, self.task_chunk)
        ]
        return {**params, "network": nn.average_statistics(*parts)}
