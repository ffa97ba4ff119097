"""The presets of Siamese networks."""

from dataclasses import dataclass
from typing import Any

from scratchmeta import nn, ops
from scratchmeta.algorithms import Siamese
from scratchmeta.algorithms.siamese import koch_network
from scratchmeta.fields import options
from scratchmeta.presets import prototypical
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Options
from scratchmeta.verify.episodes import images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = Siamese
PAPER = "Koch, Zemel & Salakhutdinov 2015"
FAMILY = "metric"

method = options(Siamese)


@dataclass(frozen=True)
class Koch(Options):
    """The Siamese paper's network: four convolutions and a layer of 4096 sigmoids, 105 x 105."""

    def build(self, given: Any) -> nn.Sequential:
        """The network."""
        return koch_network()


# An epoch of Koch et al. is 150,000 pairs, distorted anew; 0.99^69 = 1/2.
EPOCH = 150_000 // 128
PRESETS = {
    ("glyphs", "quick"): prototypical.PRESETS["glyphs", "quick"]._replace(method=method()),
    ("omniglot", "quick"): prototypical.PRESETS["omniglot", "quick"]._replace(
        method=method(batch_norm="running")
    ),
    ("omniglot", "paper"): Preset(
        method(pairs="drawn", shots="most-similar"),
        Omniglot(image_size=105, affine=True),
        Koch(),
        Training(
            n_way=1, n_query=1, tasks=128, lr=1e-4, steps=200 * EPOCH, halve_every=69 * EPOCH,
            test_way=20, test_query=1, validate_every=EPOCH, validation_episodes=16, patience=20,
        ),
    ),
}  # fmt: skip


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = Siamese(network, n_features=3)
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """With the statistics of all images and of the support, and every distance."""
    for policy, distance in (
        ("transductive", "cityblock"),
        ("support", "cityblock"),
        ("transductive", "sqeuclidean"),
        ("transductive", "cosine"),
    ):
        changes = {"batch_norm": policy, "distance": distance}
        algorithm = Siamese(tanh_features(), n_features=2, **changes)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
