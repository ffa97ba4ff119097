"""The presets of Prototypical Networks for described classes."""

from dataclasses import dataclass
from typing import Any

from scratchmeta import nn, ops
from scratchmeta.algorithms import ZeroShot
from scratchmeta.fields import Count, Sizes, options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.cub import CUB
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.networks import Options, Pooling
from scratchmeta.verify.episodes import described, images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = ZeroShot
PAPER = "Snell, Swersky & Zemel 2017, section 2.6"
FAMILY = "metric"

method = options(ZeroShot)


@dataclass(frozen=True)
class _WithAttributes(Options):
    features: Count = 64
    """Numbers in a prototype, and in the features of a query."""
    attribute_hidden: Sizes = ()
    """Units of each hidden layer between attributes and prototype."""

    def attribute_network(self, given: Any) -> nn.Sequential:
        """From the attributes of a class to its prototype."""
        return nn.MLP([given.n_attributes, *self.attribute_hidden, self.features])


@dataclass(frozen=True)
class Conv4WithAttributes(_WithAttributes):
    """Zero-shot learning's two networks: Conv4 and a linear layer, and an MLP for attributes."""

    channels: Count = 64
    """Filters of each convolution."""
    pooling: Pooling = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2."""

    def build(self, given: Any) -> dict[str, Any]:
        """Both networks, by the names that the algorithm has for them."""
        size, channels = given.image_size, given.image_channels
        network = nn.Conv4(self.channels, channels, size, self.pooling, self.features)
        return {"network": network, "attribute_network": self.attribute_network(given)}


@dataclass(frozen=True)
class MLPWithAttributes(_WithAttributes):
    """Zero-shot learning's two networks for features that another network made."""

    hidden: Sizes = ()
    """Units of each hidden layer."""

    def build(self, given: Any) -> dict[str, Any]:
        """Both networks, by the names that the algorithm has for them."""
        network = nn.MLP([given.n_inputs, *self.hidden, self.features])
        return {"network": network, "attribute_network": self.attribute_network(given)}


PRESETS = {
    ("glyphs", "quick"): Preset(
        method(),
        Glyphs(),
        Conv4WithAttributes(attribute_hidden=(128,)),
        Training(
            n_way=20, n_query=5, test_way=5, steps=1500, validate_every=150, validation_episodes=100
        ),
    ),
    ("cub", "paper"): Preset(
        method(),
        CUB(),
        MLPWithAttributes(features=1024),
        Training(
            n_way=50, n_query=10, test_query=10, steps=50_000, lr=1e-4, weight_decay=1e-5,
            validate_every=100, validation_episodes=100, patience=100,
        ),
    ),
}  # fmt: skip


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network, describe = (nn.MLP([n, h, 3], activation=ops.tanh) for n, h in ((64, 6), (5, 4)))
    episodes = described(images(rng, ways=3, shots=1, queries=2), rng, 5)
    return instance(ZeroShot(network, describe), rng, episodes)


def examples(rng):
    """Through the four blocks, and with a smooth embedding."""
    describe = nn.MLP([3, 4, 2], activation=ops.tanh)
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    algorithm = ZeroShot(network, describe)
    params = float64(algorithm.init(rng), rng)
    yield meta_gradient(algorithm, params, described(images(rng, shots=1), rng))
    algorithm = ZeroShot(tanh_features(), describe)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=1)
    yield task_losses(algorithm, params, described(episodes, rng))
    yield meta_gradient(algorithm, params, described(episodes, rng))
