"""The presets of Matching Networks with full context embeddings."""

from dataclasses import asdict

from scratchmeta import nn, ops
from scratchmeta.algorithms import FullContext
from scratchmeta.fields import options
from scratchmeta.presets import matching
from scratchmeta.verify.episodes import images, instance, tanh_features
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = FullContext
PAPER = "Vinyals et al. 2016, appendix A"
FAMILY = "metric"

PRESETS = {
    key: preset._replace(method=options(FullContext)(**asdict(preset.method)))
    for key, preset in matching.PRESETS.items()
}


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 3], activation=ops.tanh)
    algorithm = FullContext(network, n_features=3)
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """With batch-norm, and two steps of attention; from either h_0."""
    for start in "zero", "features":
        algorithm = FullContext(
            tanh_features(), n_features=2, processing_steps=2, first_state=start
        )
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)
