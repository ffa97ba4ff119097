"""The presets of Meta Networks."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from scratchmeta import nn, ops
from scratchmeta.algorithms import MetaNet, slow_fast
from scratchmeta.fields import Count, at_least, options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Options, Pooling
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = MetaNet
PAPER = "Munkhdalai & Yu 2017"
FAMILY = "model"

method = options(MetaNet)


@dataclass(frozen=True)
class SlowFast(Options):
    """Convolutions with ReLU and halving, a layer of features, logits: no batch-norm, no biases."""

    channels: Count = 64
    """Filters of each convolution."""
    depth: Count = 5
    """Convolutions."""
    pooling: Pooling = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2."""
    features: Count = 64
    """Units of the layer before the logits."""
    n_fast: Annotated[int, at_least(2)] = 7
    """Layers, of the depth + 2 the last ones, that have fast weights beside the slow ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_fast > self.depth + 2:
            raise ValueError(f"n_fast: wanted at most {self.depth + 2}, got {self.n_fast}")

    def build(self, given: Any) -> slow_fast.SlowFast:
        """The network."""
        images = {"image_size": given.image_size, "image_channels": given.image_channels}
        return slow_fast.network(given.n_out, **images, **asdict(self))


PRESETS = {
    ("glyphs", "quick"): Preset(
        method(),
        Glyphs(),
        SlowFast(channels=32, pooling="stride", n_fast=2),
        Training(
            n_query=5, tasks=2, lr=2e-3, steps=1000, halve_every=500, clip_norm=10.0,
            validate_every=200, validation_episodes=50,
        ),
    ),
    ("omniglot", "quick"): Preset(
        method(),
        Omniglot(rotations="class-episode"),
        SlowFast(channels=32, pooling="stride", n_fast=2),
        Training(
            n_query=5, tasks=2, lr=2e-3, steps=6000, halve_every=3000, clip_norm=10.0,
            validate_every=1000,
        ),
    ),
    ("omniglot", "paper"): Preset(
        method(),
        Omniglot(
            split="vinyals", rotations="class-episode", resampling="nearest", upright_tests=True
        ),
        SlowFast(),
        Training(
            n_query=10, steps=100_000, clip_norm=0.2, validate_every=1000, test_query=10
        ),
    ),
}  # fmt: skip
# Trained on turned characters and tested on those as they are.
# The paper states neither queries nor clipping: they are those of the authors' code, which clips at
# 10 the gradient of the sum over 50 queries. Their code trains until it is stopped: the number of
# steps is ours. It takes the gradients that become fast weights for constants.
PRESETS["omniglot", "author-code"] = PRESETS["omniglot", "paper"]._replace(
    method=method(first_order=True)
)


def slow_and_fast(n_fast):
    """A smooth network of 3 layers of images of 2 x 2, for Meta Networks."""
    return slow_fast.SlowFast(
        [
            ("conv1", nn.Conv2d(1, 2, bias=False), nn.flatten_images),
            ("features", nn.Linear(8, 2, bias=False), lambda h: h),
            ("logits", nn.Linear(2, 2, bias=False), lambda h: h),
        ],
        n_fast,
        ops.tanh,
    )


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    return instance(MetaNet(slow_and_fast(2), hidden=3), rng, images(rng, side=2, queries=2))


def examples(rng):
    """Filters of their own for every query, one example of a class; features, and pairs."""
    for n_fast, shots in ((3, 1), (2, 2)):
        algorithm = MetaNet(slow_and_fast(n_fast), hidden=2)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=shots)
        params["u"]["features"]["weight"] *= 0.3  # pairs nearer than the margin
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
    network = slow_fast.network(2, channels=2, features=3, image_size=3, depth=2, n_fast=4)
    algorithm = MetaNet(network, hidden=2)
    episodes = images(rng, side=3, shots=1)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), episodes)
