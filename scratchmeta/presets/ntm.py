"""The presets of Neural Turing Machines."""

from dataclasses import replace

from scratchmeta.algorithms import NTM
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.copy import Copy
from scratchmeta.run.datasets.recall import Recall
from scratchmeta.run.networks import NoNetwork
from scratchmeta.verify.episodes import bits, instance
from scratchmeta.verify.examples import meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = NTM
PAPER = "Graves, Wayne & Danihelka 2014"
FAMILY = "model"

method = options(NTM)

# One sequence a task. Graves et al. do not say how many they trained on.
QUICK = Training(
    n_way=1, n_query=1, test_query=1, tasks=16, steps=4000, clip_norm=10.0, validate_every=500
)
LONG = replace(
    QUICK, tasks=1, optimizer="rmsprop", lr=1e-4, clip_norm=0.0, clip_value=10.0,
    steps=1_000_000, validate_every=10_000,
)  # fmt: skip
PRESETS = {
    ("copy", "quick"): Preset(method("feed-forward"), Copy(lengths=(1, 10)), NoNetwork(), QUICK),
    ("copy", "paper"): Preset(method(memory="learned", summed=True), Copy(), NoNetwork(), LONG),
    ("recall", "quick"): Preset(method(), Recall(), NoNetwork(), replace(QUICK, steps=10_000)),
    ("recall", "paper"): Preset(method(memory="learned", summed=True), Recall(), NoNetwork(), LONG),
}
PRESETS["copy", "paper-feed-forward"] = PRESETS["copy", "paper"]._replace(
    method=method("feed-forward", memory="learned", summed=True)
)
PRESETS["recall", "paper-feed-forward"] = PRESETS["recall", "paper"]._replace(
    method=method("feed-forward", units=256, heads=4, memory="learned", summed=True)
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    return instance(NTM(3, 2, units=4, rows=5, width=3), rng, bits(rng))


def examples(rng):
    """Both controllers, one and two heads, both memories to begin with."""
    for controller, heads, memory in (("lstm", 1, "constant"), ("feed-forward", 2, "learned")):
        algorithm = NTM(3, 2, controller, 3, heads, 4, 2, memory)
        params, episodes = float64(algorithm.init(rng), rng), bits(rng)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
