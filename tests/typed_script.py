"""A user's script, which mypy reads in `make lint`, and the tests run: what has which type.

Where `type: ignore` stands mypy has to complain, or it complains of that.
"""

from typing import assert_type

import numpy as np

import scratchmeta as sm
from scratchmeta.episodes import Dataset, Episode
from scratchmeta.nn import Network
from scratchmeta.run.config import Training

# --- Tensors and operations: what goes in comes out ---

x = sm.Tensor(np.ones((2, 3)))
assert_type(x.shape, tuple[int, ...])
assert_type(1 - (x * 2) @ np.ones((3, 3)), sm.Tensor)
assert_type(sm.ops.exp(x), sm.Tensor)
assert_type(sm.ops.sum(x, axis=-1), sm.Tensor)
assert_type(sm.ops.log_softmax(np.ones((2, 3), np.float32)).ndim, int)
assert_type(sm.ops.split(x, 3), list[sm.Tensor])
assert_type([row for row in x], list[sm.Tensor])


def wrong() -> None:
    """What mypy is to find."""
    sm.ops.sum(x, axes=-1)  # type: ignore[call-arg]
    sm.ops.exp()  # type: ignore[call-arg]
    sm.ops.reshape(x, "flat")  # type: ignore[arg-type]
    sm.ops.conv2d(x, x, stride="2")  # type: ignore[arg-type]
    x.sum()  # type: ignore[attr-defined]
    x.shape + 1  # type: ignore[operator]
    sm.episodes.sample(Halves(), n_way="2")  # type: ignore[arg-type]
    sm.episodes.sample(Scaled(2.0))  # type: ignore[arg-type]
    embed(Halves())  # type: ignore[arg-type]


# --- an operation of one's own keeps its signature ---


@sm.core.primitive(lambda g, y, a, times: g * times)
def scaled(a: sm.core.X, times: float = 2.0) -> sm.core.X:
    """a, so many times."""
    return a * times


assert_type(scaled(x, times=3.0), sm.Tensor)


# --- a network and a dataset of one's own ---


class Scaled:
    """A network of one number."""

    def __init__(self, start: float) -> None:
        self.start = start

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"scale": np.array(self.start)}

    def __call__(self, params: dict[str, sm.core.Value], x: sm.core.Value) -> sm.core.Value:
        return params["scale"] * x


class Halves:
    """Numbers of two classes, below one half and above; its members cannot be set."""

    @property
    def n_classes(self) -> int:
        return 2

    @property
    def n_drawings(self) -> float:
        return float("inf")

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        y = np.broadcast_to(np.arange(n_way)[:, None], (tasks, n_way, n))
        return (rng.random((tasks, n_way, n, 1)) + y[..., None]).astype(np.float32) / 2, y


def embed(network: Network) -> sm.core.Value:
    """The embedding of an episode by a network."""
    data: Dataset = Halves()
    episode = sm.episodes.sample(data, n_way=2, k_shot=3, n_query=1, tasks=2)
    assert_type(episode, Episode)
    return network(network.init(np.random.default_rng(0)), episode.support_x)


assert embed(Scaled(2.0)).shape == (2, 6, 1)
assert embed(sm.nn.MLP([1, 4])).shape == (2, 6, 4)


# --- an algorithm of one's own ---


class Nearest:
    """The class whose first example is nearest, by features that are learned."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def init(self, rng: np.random.Generator) -> sm.core.Tree:
        return self.network.init(rng)

    def log_p(self, params: sm.core.Tree, episode: Episode) -> sm.core.Value:
        support = self.network(params, episode.support_x)
        query = self.network(params, episode.query_x)
        return sm.ops.log_softmax(-sm.ops.pairwise_distance(query, support))

    def meta_gradient(
        self, params: sm.core.Tree, episodes: Episode
    ) -> tuple[sm.core.Array, sm.core.Tree]:
        def loss(params: sm.core.Tree) -> sm.Tensor:
            log_p: sm.Tensor = self.log_p(params, episodes)
            return sm.ops.mean(sm.losses.cross_entropy(log_p, episodes.query_y))

        return sm.value_and_grad(loss)(params)

    def predict(self, params: sm.core.Tree, episodes: Episode) -> sm.core.Array:
        return self.log_p(params, episodes)


def untrainable() -> None:
    """What mypy is to find."""
    sm.train(Scaled(2.0), Halves(), settings)  # type: ignore[arg-type]
    sm.train(Nearest(sm.nn.MLP([1, 4])), Scaled(2.0), settings)  # type: ignore[arg-type]
    sm.evaluate(Halves(), None, Halves())  # type: ignore[arg-type]


settings = Training(n_way=2, n_query=3, steps=2, validation_episodes=2)
nearest = Nearest(sm.nn.MLP([1, 4]))
state = sm.train(nearest, Halves(), settings, validation=Halves())
assert sm.evaluate(nearest, state.params, Halves(), n_way=2, n_query=3, episodes=2).episodes == 2
library = sm.algorithms.Prototypical(sm.nn.MLP([1, 4]))
assert sm.train(library, Halves(), settings).step == 2
