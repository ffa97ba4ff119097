"""The presets of Prototypical Networks for described classes."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import ZeroShot
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.cub import CUB
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.networks import Conv4WithAttributes, MLPWithAttributes
from scratchmeta.verify.episodes import described, images, instance

ALGORITHM = ZeroShot
PAPER = "Snell, Swersky & Zemel 2017, section 2.6"
FAMILY = "metric"

method = options(ZeroShot)

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
