"""The presets of Relation Networks."""

from dataclasses import dataclass, replace
from typing import Any

from scratchmeta import nn, ops
from scratchmeta.algorithms import Relation
from scratchmeta.algorithms.relation import embedding
from scratchmeta.fields import Count, options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.mini_imagenet import MiniImageNet
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Options
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = Relation
PAPER = "Sung et al. 2018"
FAMILY = "metric"

method = options(Relation)


@dataclass(frozen=True)
class Maps(Options):
    """Relation Networks' embedding: four blocks of which two halve, maps and not features."""

    channels: Count = 64
    """Filters of each convolution."""

    def build(self, given: Any) -> nn.Sequential:
        """The network."""
        return embedding(self.channels, given.image_channels)


TRAINING = Training(
    n_query=19,
    steps=1_000_000,
    halve_every=100_000,
    clip_norm=0.5,
    validate_every=5000,
    test_query=1,
)
PRESETS = {
    ("glyphs", "quick"): Preset(
        method(),
        Glyphs(),
        Maps(channels=32),
        Training(n_query=10, steps=500, validate_every=100, validation_episodes=50, clip_norm=0.5),
    ),
    ("omniglot", "quick"): Preset(
        method(),
        Omniglot(rotations="classes"),
        Maps(),
        Training(n_query=10, steps=8000, halve_every=3000, clip_norm=0.5, validate_every=1000),
    ),
    ("omniglot", "paper"): Preset(
        method(),
        Omniglot(split="vinyals", rotations="episode", resampling="nearest"),
        Maps(),
        TRAINING,
    ),
    ("mini-imagenet", "paper"): Preset(
        method(padding="valid"),
        MiniImageNet(),
        Maps(),
        replace(TRAINING, n_query=15, test_query=15, steps=500_000),
    ),
}
PRESETS["omniglot", "paper-20-way"] = PRESETS["omniglot", "paper"].trained(n_way=20, n_query=10)
PRESETS["mini-imagenet", "paper-5-shot"] = PRESETS["mini-imagenet", "paper"].trained(
    k_shot=5, n_query=10
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.Sequential([("map", nn.Conv2d(1, 2)), ("tanh", nn.Function(ops.tanh))])
    algorithm = Relation(network, n_channels=2, map_size=8, hidden=3)
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """With a block of convolution, batch-norm and ReLU as embedding."""
    network = nn.ConvBlock(1, 2, pooling="none")
    algorithm = Relation(network, n_channels=2, map_size=4, hidden=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=4)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)
