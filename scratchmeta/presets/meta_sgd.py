"""The presets of Meta-SGD."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import MetaSGD
from scratchmeta.fields import options
from scratchmeta.presets import maml
from scratchmeta.verify.episodes import images, instance

ALGORITHM = MetaSGD
PAPER = "Li, Zhou, Chen & Li 2017"
FAMILY = "optimization"

method = options(MetaSGD)

# MAML's episodes and networks.
PRESETS = {
    ("glyphs", "quick"): maml.PRESETS["glyphs", "quick"]._replace(
        method=method(rate=(0.1, 0.4), eval_inner_steps=3)
    ),
    ("omniglot", "quick"): maml.PRESETS["omniglot", "quick"]._replace(
        method=method(rate=(0.1, 0.4), eval_inner_steps=3)
    ),
    ("sinusoids", "quick"): maml.PRESETS["sinusoids", "quick"]._replace(
        method=method(rate=(0.005, 0.02))
    ),
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 2], activation=ops.tanh)
    return instance(MetaSGD(network, inner_steps=2), rng, images(rng, queries=2))
