"""The presets of the nearest neighbour by a classifier's features."""

from dataclasses import replace

from scratchmeta import nn, ops
from scratchmeta.algorithms import BaselineNN
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.mini_imagenet import MiniImageNet
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Conv4
from scratchmeta.verify.episodes import images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = BaselineNN
PAPER = "Vinyals et al. 2016; Ravi & Larochelle 2017, a baseline"
FAMILY = "baseline"

method = options(BaselineNN)

# A batch is two images each of 64 classes. 615 classes of glyphs, 792 and 1028 characters turned in
# four ways, 64 of photographs.
TRAINING = Training(
    n_way=64, n_query=1, test_way=5, lr=2e-3, steps=2000, linear_decay=True, validate_every=500
)
PRESETS = {
    ("glyphs", "quick"): Preset(
        method(classes=615),
        Glyphs(),
        Conv4(),
        replace(TRAINING, steps=400, validate_every=100, validation_episodes=50),
    ),
    ("omniglot", "quick"): Preset(
        method(classes=3168), Omniglot(rotations="classes"), Conv4(), TRAINING
    ),
    ("omniglot", "paper"): Preset(
        method(classes=4112),
        Omniglot(split="vinyals", rotations="classes", resampling="nearest"),
        Conv4(),
        replace(TRAINING, steps=50_000),
    ),
    ("mini-imagenet", "paper"): Preset(
        method(classes=64),
        MiniImageNet(),
        Conv4(channels=32),
        replace(TRAINING, steps=50_000),
    ),
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = BaselineNN(network, classes=4, n_features=3, batch_norm="support")
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """The gradient of training; what is done on the support afterwards has none."""
    algorithm = BaselineNN(tanh_features(), classes=4, n_features=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, ways=3)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)
