"""The presets of a classifier that is fine-tuned."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import BaselineFinetune
from scratchmeta.fields import options
from scratchmeta.presets import baseline_nn
from scratchmeta.verify.episodes import images, instance

ALGORITHM = BaselineFinetune
PAPER = "Vinyals et al. 2016; Ravi & Larochelle 2017, a baseline"
FAMILY = "baseline"

PRESETS = {
    key: preset._replace(method=options(BaselineFinetune)(classes=preset.method.classes))
    for key, preset in baseline_nn.PRESETS.items()
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = BaselineFinetune(network, classes=4, n_features=3, finetune_steps=2)
    return instance(algorithm, rng, images(rng, queries=2))
