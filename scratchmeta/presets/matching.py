"""The presets of Matching Networks."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import Matching
from scratchmeta.fields import options
from scratchmeta.presets import prototypical
from scratchmeta.verify.episodes import images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = Matching
PAPER = "Vinyals et al. 2016"
FAMILY = "metric"

method = options(Matching)

# Metric-based algorithms learn from Prototypical Networks' episodes, so that they can be compared.
# Vinyals et al. state neither optimizer nor number of episodes: theirs are taken here.
PRESETS = {
    ("glyphs", "quick"): prototypical.PRESETS["glyphs", "quick"]._replace(
        method=method(temperature=0.1)
    ),
    ("omniglot", "quick"): prototypical.PRESETS["omniglot", "quick"]._replace(
        method=method(temperature=0.1, batch_norm="running")
    ),
    ("omniglot", "paper"): prototypical.PRESETS["omniglot", "paper"]
    ._replace(method=method(batch_norm="running"))
    .trained(n_way=20),
    ("mini-imagenet", "paper"): prototypical.PRESETS["mini-imagenet", "paper"]
    ._replace(method=method(batch_norm="running"))
    .trained(n_way=5),
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = Matching(network, temperature=0.2)
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """With the statistics of all images and of the support."""
    for policy in ("transductive", "support"):
        algorithm = Matching(tanh_features(), temperature=0.2, batch_norm=policy)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
