"""The presets of iMAML."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import IMAML
from scratchmeta.fields import options
from scratchmeta.presets import maml
from scratchmeta.verify.episodes import images, instance

ALGORITHM = IMAML
PAPER = "Rajeswaran, Finn, Kakade & Levine 2019"
FAMILY = "optimization"

method = options(IMAML)

# MAML's episodes and networks, in `quick` with few steps: see the algorithm on why two conjugate
# gradients. On sinusoids rates of 0.01 and more come to diverge: the implicit gradient does not see
# the steps, and keeps no curvature away that is too large for them. `paper` is its Omniglot, with
# the rates and the number of tasks of the authors' code, and what their damping comes to.
_few = method(penalty=0.5, inner_lr=0.4, inner_steps=3, cg_steps=2)
_small = method(penalty=0.5, inner_lr=0.005, inner_steps=10, cg_steps=2, damping=10.0)
_paper = method(penalty=2.0, inner_lr=0.1, inner_steps=16, cg_steps=5, damping=10.0)

PRESETS = {
    ("glyphs", "quick"): maml.PRESETS["glyphs", "quick"]._replace(method=_few),
    ("omniglot", "quick"): maml.PRESETS["omniglot", "quick"]._replace(method=_few),
    ("omniglot", "paper"): maml.PRESETS["omniglot", "paper"]._replace(method=_paper),
    ("sinusoids", "quick"): maml.PRESETS["sinusoids", "quick"]._replace(method=_small),
}
PRESETS["omniglot", "paper"] = PRESETS["omniglot", "paper"].trained(steps=20_000)
PRESETS["sinusoids", "quick"] = PRESETS["sinusoids", "quick"].trained(steps=4000)


def small(rng):
    """A small instance for the checks: φ* and its system are exact, as λ is large."""
    network = nn.MLP([4, 3, 2], activation=ops.tanh)
    algorithm = IMAML(network, penalty=8.0, inner_lr=0.1, inner_steps=16, cg_steps=12)
    return instance(algorithm, rng, images(rng, side=2, queries=2))
