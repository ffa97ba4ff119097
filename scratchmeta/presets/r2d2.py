"""The presets of R2-D2."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import R2D2
from scratchmeta.fields import options
from scratchmeta.presets import prototypical
from scratchmeta.verify.episodes import images, instance

ALGORITHM = R2D2
PAPER = "Bertinetto, Henriques, Torr & Vedaldi 2019"
FAMILY = "metric"

method = options(R2D2)

# Prototypical Networks' episodes and network, so that the two can be compared.
PRESETS = {
    ("glyphs", "quick"): prototypical.PRESETS["glyphs", "quick"]._replace(
        method=method(penalty=10.0)
    ),
    ("omniglot", "quick"): prototypical.PRESETS["omniglot", "quick"]._replace(
        method=method(penalty=10.0, batch_norm="running")
    ),
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 4, 6], activation=ops.tanh)  # more features than images: Woodbury's form
    return instance(R2D2(network), rng, images(rng, queries=2))
