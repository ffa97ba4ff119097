"""Rows of algorithms: the whole meta-gradient, through the inner loop, as their presets say."""

from scratchmeta import losses, nn, ops
from scratchmeta.fields import build, options
from scratchmeta.presets import OWN, REGISTRY
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import meta_gradient, task_losses


class _Given:
    """What a small instance of a class from outside is built with: images of 2 x 2, two classes."""

    image_size, image_channels, n_inputs, ways, n_features = 2, 1, 4, 2, 2
    loss = staticmethod(losses.cross_entropy)
    network = nn.MLP([4, 3, 2], activation=ops.tanh)


def small(entry, rng):
    """The small instance of an algorithm, by default built around a small smooth network."""
    if entry.small is not None:
        return entry.small(rng)
    return instance(build(options(entry.algorithm)(), _Given), rng, images(rng, side=2))


def enter(entry):
    """A row for an algorithm: what its presets' `examples(rng)` say, else its small instance."""

    def examples(rng):
        if entry.examples is not None:
            yield from entry.examples(rng)
            return
        algorithm, params, episodes = small(entry, rng)
        if hasattr(algorithm, "task_losses"):
            yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)

    row("algorithm", entry.name, directions=1)(examples)


for _name in OWN:
    enter(REGISTRY[_name])
