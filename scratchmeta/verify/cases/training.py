"""Rows of losses and of optimisers, which are differentiated through."""

from scratchmeta import losses, ops, optim, tree
from scratchmeta.verify.cases.rows import row
from scratchmeta.verify.examples import call
from scratchmeta.verify.numbers import distinct, integers, normal, positive


@row("loss", analytic=True)
def cross_entropy(rng):
    yield call(losses.cross_entropy, normal(rng, 4, 3), integers([2, 0, 1, 1]))
    yield call(losses.cross_entropy, normal(rng, 2, 2, 3), integers([[2, 0], [1, 1]]))


@row("loss", analytic=True)
def mse(rng):
    yield call(losses.mse, normal(rng, 2, 3, 1), normal(rng, 2, 3, 1))


@row("loss")
def binary_cross_entropy(rng):
    yield call(losses.binary_cross_entropy, normal(rng, 2, 3), normal(rng, 2, 3))


# --- optimisers, differentiated through -----------------------------------------------------------


def two_steps(params, optimiser):
    """The parameters after two steps with gradients sin(p) p, which depend on them."""
    state = optimiser.init(params)
    for _ in range(2):
        grads = tree.map(lambda p: ops.sin(p) * p, params)
        params, state = optimiser.step(params, grads, state)
    return params


def _optimiser(*optimisers):
    def examples(rng):
        for optimiser in optimisers:
            params = {"w": positive(rng, 2, 2), "b": positive(rng, 2)}
            yield call(two_steps, params, optimiser=optimiser)

    return examples


row("optimiser", "SGD", analytic=True, directions=2)(
    _optimiser(optim.SGD(0.1), optim.SGD(0.1, momentum=0.9))
)
row("optimiser", "RMSProp", analytic=True, directions=2)(
    _optimiser(optim.RMSProp(0.1, eps=0.1), optim.RMSProp(0.1, eps=0.1, centered=False))
)
row("optimiser", "Adam", analytic=True, directions=2)(
    _optimiser(optim.Adam(0.1), optim.Adam(0.1, beta1=0.0, weight_decay=0.1))
)


@row("optimiser", directions=2)
def global_norm(rng):
    yield call(optim.global_norm, {"w": normal(rng, 2, 2), "b": normal(rng, 2)})


@row("optimiser", directions=2)
def clip_by_norm(rng):
    for max_norm in (0.5, 20.0):
        grads = {"w": normal(rng, 2, 2), "b": normal(rng, 2)}
        yield call(optim.clip_by_norm, grads, max_norm=max_norm)


@row("optimiser", directions=2)
def clip_by_value(rng):
    yield call(optim.clip_by_value, {"w": distinct(rng, 6) + 0.15}, bound=0.6)
