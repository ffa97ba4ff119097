"""The presets of Prototypical Networks."""

from dataclasses import replace

from scratchmeta import nn, ops
from scratchmeta.algorithms import Prototypical
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.mini_imagenet import MiniImageNet
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Conv4
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = Prototypical
PAPER = "Snell, Swersky & Zemel 2017"
FAMILY = "metric"

method = options(Prototypical)

PRESETS = {
    ("glyphs", "quick"): Preset(
        method(),
        Glyphs(),
        Conv4(),
        Training(
            n_way=20, n_query=5, test_way=5, steps=300, validate_every=50, validation_episodes=50
        ),
    ),
    ("omniglot", "quick"): Preset(
        method(batch_norm="running"),
        Omniglot(rotations="classes"),
        Conv4(),
        Training(n_way=20, n_query=5, test_way=5, steps=5000, halve_every=2000, validate_every=500),
    ),
    ("omniglot", "paper"): Preset(
        method(batch_norm="running"),
        Omniglot(split="vinyals", rotations="classes", resampling="nearest"),
        Conv4(),
        Training(
            n_way=60,
            n_query=5,
            test_way=5,
            steps=100_000,
            halve_every=2000,
            patience=200,
            validate_every=100,
        ),
    ),
}

PRESETS["mini-imagenet", "paper"] = PRESETS["omniglot", "paper"]._replace(
    dataset=MiniImageNet(),
    training=replace(PRESETS["omniglot", "paper"].training, n_way=30, n_query=15),
)
PRESETS["mini-imagenet", "paper-5-shot"] = PRESETS["mini-imagenet", "paper"].trained(
    n_way=20, k_shot=5
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = Prototypical(network)
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """Through the four blocks, and with every policy of batch-norm."""
    network = nn.Conv4(channels=2, image_size=8, pooling="stride")
    algorithm = Prototypical(network)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng))
    network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
    algorithm = Prototypical(network)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
    yield task_losses(algorithm, params, episodes)
    for policy in ("support", "running"):
        algorithm = Prototypical(network, distance="cosine", batch_norm=policy)
        yield meta_gradient(algorithm, params, episodes)
