"""The presets of ANIL."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import ANIL
from scratchmeta.fields import options
from scratchmeta.presets import maml
from scratchmeta.verify.episodes import images, instance

ALGORITHM = ANIL
PAPER = "Raghu, Raghu, Bengio & Vinyals 2020"
FAMILY = "optimization"

method = options(ANIL)

# MAML's episodes and networks; a head alone takes more steps. On sinusoids rates of 0.02 and more
# diverge in five of them.
PRESETS = {
    ("glyphs", "quick"): maml.PRESETS["glyphs", "quick"]._replace(
        method=method(inner_lr=1.0, inner_steps=3, eval_inner_steps=5)
    ),
    ("omniglot", "quick"): maml.PRESETS["omniglot", "quick"]._replace(
        method=method(inner_lr=1.0, inner_steps=3, eval_inner_steps=5)
    ),
    ("sinusoids", "quick"): maml.PRESETS["sinusoids", "quick"]._replace(
        method=method(inner_lr=0.005, inner_steps=5, eval_inner_steps=10)
    ),
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 2], activation=ops.tanh)
    return instance(ANIL(network, inner_lr=0.1, inner_steps=2), rng, images(rng, queries=2))
