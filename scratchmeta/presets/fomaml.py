"""The presets of first-order MAML."""

from dataclasses import replace

from scratchmeta import losses, nn, ops, tree
from scratchmeta.algorithms import MAML
from scratchmeta.fields import options
from scratchmeta.presets import maml
from scratchmeta.verify.episodes import curves, images, instance
from scratchmeta.verify.examples import meta_gradient
from scratchmeta.verify.numbers import float64

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


def examples(rng):
    """The gradient of the query loss in a shift of the adapted weights."""
    network = nn.MLP([1, 4, 1])
    algorithm = MAML(network, inner_lr=0.1, inner_steps=2, loss=losses.mse, first_order=True)
    params, episodes = float64(algorithm.init(rng), rng), curves(rng)
    adapted = algorithm.adapt(params, episodes, 2)

    def shifted(moved):
        fast = tree.map(lambda a, p, m: a + (m - p), adapted, params, moved)
        return ops.mean(algorithm.loss(algorithm.query_outputs(fast, episodes), episodes.query_y))

    yield meta_gradient(algorithm, params, episodes, shifted)
