"""The presets of first-order MAML."""

from dataclasses import replace

from scratchmeta import nn, ops
from scratchmeta.algorithms import MAML
from scratchmeta.fields import options
from scratchmeta.presets import maml
from scratchmeta.verify.episodes import images, instance

ALGORITHM = MAML
PAPER = "Finn, Abbeel & Levine 2017, section 5.2"
FAMILY = "optimization"

method = options(MAML)

# The gradient after steps as long as those of MAML's Omniglot says little of where they began, 77 %
# in the end: there is no `author-code` of it, and in `quick` and `paper` the rate is the text's.
PRESETS = {
    (data, name): preset._replace(method=replace(preset.method, first_order=True))
    for (data, name), preset in maml.PRESETS.items()
    if data != "omniglot" or not name.startswith("author-code")
}
PRESETS["omniglot", "quick"] = PRESETS["omniglot", "quick"]._replace(
    method=method(inner_lr=0.4, inner_steps=1, first_order=True, eval_inner_steps=3)
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 2], activation=ops.tanh)
    algorithm = MAML(network, first_order=True)
    return instance(algorithm, rng, images(rng, queries=2))
