"""Initial parameters by their moments: every array of every layer and of every algorithm."""

import fnmatch
import math
import sys

import numpy as np
import pytest
from brought import brought
from small import INSTANCES

from scratchmeta import nn, ops, tree
from scratchmeta.algorithms import relation, siamese, slow_fast

DRAWS = 400


def sample(init, draws=DRAWS):
    """{path: numbers (draws, ...)} of the parameters that so many generators give."""
    made = [init(np.random.default_rng(seed)) for seed in range(draws)]
    leaves = zip(*(tree.flatten(params)[0] for params in made), strict=True)
    return dict(zip(tree.paths(made[0]), map(np.stack, leaves), strict=True))


# --- what numbers are to be like: functions that fail where they are not ---


def constant(value):
    """All the same."""
    return lambda x: np.testing.assert_array_equal(x, np.float32(value))


def _moments(x, mean, std, kurtosis):
    """Mean, standard deviation and E[(x − μ)⁴] / σ⁴, as far as so many numbers can tell; a place
    of the array differs from draw to draw as one place differs from another."""
    n = x.size
    assert n >= DRAWS
    z = (x.astype(float) - mean) / std
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.std() - 1) < 5 * math.sqrt((kurtosis - 1) / 4 / n)
    if n >= 4 * DRAWS:
        assert abs((z**4).mean() - kurtosis) < 0.25 * kurtosis
    of_a_place = np.sqrt((z**2).mean(axis=0))
    assert np.all(np.abs(of_a_place - 1) < 6 * math.sqrt((kurtosis - 1) / 4 / len(z)))
    assert len(np.unique(x)) > 0.95 * n


def normal(std):
    """From N(0, std²)."""
    return lambda x: _moments(x, 0.0, std, 3.0)


def uniform(low, high):
    """From U(low, high)."""

    def check(x):
        assert low <= x.min()
        assert x.max() <= high
        _moments(x, (low + high) / 2, (high - low) / math.sqrt(12), 1.8)

    return check


def fan_in(gain, more=0):
    """From N(0, gain² / n), where n numbers (and `more`, of another array) make one sum."""
    return lambda x: normal(gain / math.sqrt(more + math.prod(x.shape[1:-1])))(x)


def gates(forget):
    """Biases of the gates i, f, g, o: 0 but for the forget gate's."""

    def check(x):
        i, f, g, o = np.split(x, 4, axis=-1)
        constant(forget)(f)
        constant(0)(np.stack([i, g, o]))

    return check


HE, PLAIN = fan_in(math.sqrt(2)), fan_in(1)  # before a ReLU, and elsewhere
ZERO, ONE = constant(0), constant(1)
LSTM = {"w_x": PLAIN, "w_h": PLAIN, "b": gates(1)}


def under(name, table):
    """The table for parameters that lie under a name."""
    return {f"{name}/{pattern}": check for pattern, check in table.items()}


def holds(found, table):
    """Every array is what the first pattern says that fits its path; no pattern is left over."""
    used, first = set(), {}
    for path, values in found.items():
        fitting = [pattern for pattern in table if fnmatch.fnmatchcase(path, pattern)]
        assert fitting, f"nothing is said of {path}"
        used.add(fitting[0])
        assert values.dtype == np.float32, path
        try:
            table[fitting[0]](values)
        except AssertionError as error:
            raise AssertionError(f"{path}: {error}") from error
        if np.ptp(values, axis=0).any() and values[0].size > 1:
            first[path] = (values[0].flat[0] - values[0].flat[1]) / values.std()
    assert used == set(table), f"there is no {set(table) - used}"
    drawn = list(first.values())
    assert len(set(np.round(drawn, 5))) == len(drawn), "two arrays begin alike"


# --- layers -------------------------------------------------------------------------------------

BLOCK = {"conv/weight": HE, "norm/scale": ONE, "norm/offset": ZERO}
BLOCKS = {f"block?/{pattern}": check for pattern, check in BLOCK.items()}

LAYERS = {
    "linear": (nn.Linear(5, 3), {"weight": PLAIN, "bias": ZERO}),
    "linear, gain": (nn.Linear(5, 3, gain=3.0), {"weight": fan_in(3), "bias": ZERO}),
    "linear, no bias": (nn.Linear(5, 3, bias=False), {"weight": PLAIN}),
    "conv": (nn.Conv2d(2, 5), {"weight": HE, "bias": ZERO}),
    "conv of 5 x 5": (nn.Conv2d(2, 3, size=5, bias=False), {"weight": HE}),
    "batch-norm": (nn.BatchNorm(3), {"scale": ONE, "offset": ZERO}),
    "block": (nn.ConvBlock(2, 5), BLOCK),
    "function": (nn.Function(ops.relu), {}),
    "flat": (nn.Flat(64), {}),
    "conv4": (nn.Conv4(3, image_size=16), BLOCKS),
    "conv4, head": (
        nn.Conv4(3, image_size=32, n_out=2),
        {**BLOCKS, "head/weight": fan_in(1), "head/bias": ZERO},
    ),
    "mlp": (
        nn.MLP([7, 5, 3, 2]),
        {"linear[12]/weight": HE, "linear3/weight": PLAIN, "linear?/bias": ZERO},
    ),
    "mlp of one layer": (nn.MLP([7, 3]), {"linear1/weight": PLAIN, "linear1/bias": ZERO}),
    "mlp, batch-norm": (
        nn.MLP([7, 5, 2], batch_norm=True),
        {
            "linear1/weight": HE, "linear2/weight": PLAIN, "linear?/bias": ZERO,
            "norm1/scale": ONE, "norm1/offset": ZERO,
        },
    ),
    "lstm": (nn.LSTM(5, 3), LSTM),
    "lstm, forget bias": (nn.LSTM(5, 3, forget_bias=2.5), {**LSTM, "b": gates(2.5)}),
    "bilstm": (nn.BiLSTM(5, 3), {f"*ward/{name}": check for name, check in LSTM.items()}),
    "relation's embedding": (relation.embedding(3), BLOCKS),
    "slow and fast": (
        slow_fast.network(3, channels=2, features=4, image_size=8, depth=2, n_fast=2),
        {"conv?/weight": HE, "dense/weight": HE, "logits/weight": PLAIN},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, table = LAYERS[name]
    if table:
        holds(sample(layer.init), table)
    else:
        assert layer.init(np.random.default_rng(0)) == {}


def test_every_layer_has_a_row():
    """All of nn that has `init` is in the table, by itself or as a part of Sequential; but for the
    protocol."""
    kinds = {value for value in vars(nn).values() if isinstance(value, type)} - {nn.Network}
    layers = {kind for kind in kinds if hasattr(kind, "init")}
    assert {type(layer) for layer, _ in LAYERS.values()} >= layers


def test_kochs_network_begins_as_its_layers_do():
    """Each by its kind; that of 38 million numbers is not drawn so often."""
    layers = dict(siamese.koch_network().layers)
    linear = layers.pop("linear")
    assert linear == nn.Linear(6 * 6 * 256, siamese.KOCH_FEATURES)
    kinds = {type(layer) for layer in layers.values()}
    assert kinds == {nn.Conv2d, nn.Function}
    assert [layer.n_in for layer in layers.values() if isinstance(layer, nn.Conv2d)] == [
        1, 64, 128, 128,
    ]  # fmt: skip


# --- algorithms ---------------------------------------------------------------------------------

# The networks of small.py: a hidden layer, or four blocks, with or without a layer after them.
DENSE = {"linear1/weight": HE, "linear2/weight": PLAIN, "linear?/bias": ZERO}
HEAD = {"head/weight": PLAIN, "head/bias": ZERO}
CONV4 = {**BLOCKS, **HEAD}
METRIC = under("network", DENSE)
CLASSIFIER = {**METRIC, **HEAD}
OUT = {"out/weight": PLAIN, "out/bias": ZERO}
SMALL, TENTH = uniform(-0.01, 0.01), uniform(-0.1, 0.1)
READING = {**under("lstm", LSTM), **OUT}  # lstm/w_x, w_h and b


def mann(width_and_heads):
    """The rows of what is read come after the controller's own in one sum."""
    return {
        **READING,
        "lstm/w_r": fan_in(1, more=4),  # beside the controller's 4 units
        "interface/weight": PLAIN,
        "interface/bias": ZERO,
    }


def ntm(seen):
    """w_x and w_r are parts of one matrix, of so many rows; w_0, r_0 and M_0 are learned."""
    return {
        "controller/w_[xr]": normal(1 / math.sqrt(seen)),
        "heads/weight": PLAIN, "heads/bias": ZERO, **OUT,
        "start/w": normal(1), "start/r": normal(0.1),
    }  # fmt: skip


def meta_lstm(network, input_bias):
    """Gates that begin near gradient descent."""
    return {
        **under("theta", network),
        "lstm/*": SMALL, "forget/weight": SMALL, "input/weight": SMALL,
        "forget/bias": uniform(4, 5), "input/bias": uniform(*input_bias),
    }  # fmt: skip


FULL_CONTEXT = {
    **METRIC, **under("f", LSTM), **under("g/backward", LSTM), **under("g/forward", LSTM),
}  # fmt: skip
METANET = {
    "d/*": TENTH, "m/*": TENTH,
    "[ub]/conv1/weight": HE, "[ub]/features/weight": PLAIN, "[ub]/logits/weight": PLAIN,
}  # fmt: skip
ADAM = {**METRIC, "square/*": ZERO, "weight": ZERO}

# A row for every instance in small.py, here or in the algorithm's own test file.
ALGORITHMS = {
    "baseline-nn": CLASSIFIER,
    "baseline-finetune": CLASSIFIER,
    "siamese": {**METRIC, "alpha": constant(-8 / 3), "bias": constant(4)},
    "siamese, sqeuclidean": {**METRIC, "alpha": constant(-8 / 3), "bias": constant(4)},
    "siamese, cosine, most similar": {**METRIC, "alpha": constant(-8), "bias": constant(4)},
    "matching": METRIC,
    "matching-fce": FULL_CONTEXT,
    "relation": {
        "network/map/weight": HE, "network/map/bias": ZERO,
        **under("first", BLOCK), **under("second", BLOCK),
        "head/linear1/weight": HE, "head/linear2/weight": PLAIN, "head/linear?/bias": ZERO,
    },
    "prototypical": METRIC,
    "prototypical, Conv4": under("network", BLOCKS),
    "prototypical, cosine, from the support": under("network", BLOCKS),
    "prototypical, cityblock, running": under("network", BLOCKS),
    "prototypical, a task at a time": under("network", BLOCKS),
    "prototypical-zero-shot": {**METRIC, **under("attributes", DENSE)},
    "prototypical-zero-shot, Conv4": {**under("network", CONV4), **under("attributes", DENSE)},
    "maml": DENSE,
    "maml, Conv4": CONV4,
    "maml, from the support": CONV4,
    "maml, fresh batches": DENSE,
    "reptile": METRIC,
    "reptile, Adam": ADAM,
    "reptile, one by one": ADAM,
    "ntm": {**ntm(3 + 3), "controller/w_h": PLAIN, "controller/b": gates(1)},
    "ntm, feed-forward": {**ntm(3 + 6), "controller/b": ZERO, "start/rows": normal(0.1)},
    "meta-lstm": meta_lstm(DENSE, (-1, 0)),
    "meta-lstm, exact": meta_lstm(DENSE, (-5, -4)),
    "meta-lstm, Conv4": meta_lstm(CONV4, (-1, 0)),
    "meta-lstm, a task at a time": meta_lstm(CONV4, (-5, -4)),
    "mann": mann(6),
    "mann, strings": mann(6),
    "lstm": READING,
    "metanet": METANET,
    "metanet, one shot, all layers": METANET,
    "fomaml": DENSE,
    **{name: row(sys.modules[__name__]) for name, row in brought("INITIAL").items()},
}  # fmt: skip


def test_every_instance_has_a_row():
    assert set(ALGORITHMS) == set(INSTANCES)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms(name):
    algorithm, _, episodes = INSTANCES[name](np.random.default_rng(0))
    holds(sample(algorithm.init), ALGORITHMS[name])
    params = algorithm.init(np.random.default_rng(0))  # which fit one another
    loss, gradient = algorithm.meta_gradient(params, episodes)
    assert np.isfinite(loss)
    shapes = [[x.shape for x in tree.flatten(each)[0]] for each in (params, gradient)]
    assert shapes[0] == shapes[1]
