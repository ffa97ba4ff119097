"""The presets of MANN's baseline."""

from scratchmeta.algorithms import LSTMBaseline
from scratchmeta.fields import options
from scratchmeta.presets import mann
from scratchmeta.verify.episodes import images, instance

ALGORITHM = LSTMBaseline
PAPER = "Santoro et al. 2016, the baseline"
FAMILY = "model"

PRESETS = {
    key: preset._replace(method=options(LSTMBaseline)(labels=preset.method.labels))
    for key, preset in mann.PRESETS.items()
}
PRESETS["glyphs", "quick"] = PRESETS["glyphs", "quick"].trained(steps=4000, validate_every=500)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    return instance(LSTMBaseline(8, 2, 4), rng, images(rng, queries=2))
