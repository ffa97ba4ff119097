"""The presets of a classifier that is fine-tuned."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import BaselineFinetune
from scratchmeta.fields import options
from scratchmeta.presets import baseline_nn
from scratchmeta.verify.episodes import images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

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


def examples(rng):
    """The gradient of training; what is done on the support afterwards has none."""
    algorithm = BaselineFinetune(tanh_features(), classes=4, n_features=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, ways=3)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)
