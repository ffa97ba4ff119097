"""Meta Networks against loops over examples, coordinates and queries; what must hold of them."""

import math

import numpy as np
import oracles
import pytest
from small import INSTANCES

from scratchmeta import core, nn, ops, optim, tree
from scratchmeta.algorithms import MetaNet, metanet
from scratchmeta.algorithms.metanet import as_weights, example_gradients
from scratchmeta.algorithms.slow_fast import SlowFast, network
from scratchmeta.episodes import Episode
from scratchmeta.verify.episodes import images
from scratchmeta.verify.numbers import float64

ALL = ["metanet", "metanet, one shot, all layers"]


def instance(name, seed=1):
    return INSTANCES[name](np.random.default_rng(seed))


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


# --- nested loops ---------------------------------------------------------------------------------


def d_of(params, gradients):
    """One coordinate's fast weight from its gradients, one after another."""
    lstm, out = params["lstm"], params["out"]
    h, c = np.zeros(3), np.zeros(3)
    for g in gradients:
        x = oracles.preprocess(np.array(g), 7.0)
        i, f, a, o = np.split(x @ lstm["w_x"] + h @ lstm["w_h"] + lstm["b"], 4)
        gate = [1 / (1 + np.exp(-z)) for z in (i, f, o)]
        c = gate[1] * c + gate[0] * np.tanh(a)
        h = gate[2] * np.tanh(c)
    return (h @ out["weight"] + out["bias"])[0]


def m_of(params, gradient):
    """One coordinate's fast weight from its gradient."""
    h = oracles.preprocess(np.array(gradient), 7.0)
    for i in (1, 2, 3):
        layer = params[f"linear{i}"]
        h = h @ layer["weight"] + layer["bias"]
        h = np.maximum(h, 0) if i < 3 else h
    return h[0]


def every_coordinate(f, *gradients):
    """f of the gradients of each coordinate: arrays (D, F) each -> (D, F)."""
    out = np.zeros(gradients[0].shape)
    for i in oracles.every(out.shape):
        out[i] = f([float(g[i]) for g in gradients])
    return out


def classified(F, C, x, label):
    """Gradients in F and C of −log softmax(tanh(x F) C)[label]."""
    h = np.tanh(x @ F)
    error = softmax(h @ C) - np.eye(2)[label]
    return np.outer(x, (C @ error) * (1 - h**2)), np.outer(h, error)


def paired(F, x, z, same):
    """The gradient in F of the contrastive loss of x F and z F."""
    apart = (x - z) @ F
    d = math.sqrt(apart @ apart)
    slope = d if same else -max(0.0, 1.0 - d)
    return np.outer(x - z, slope * apart / d)


@pytest.mark.parametrize("shots", [1, 2])
def test_an_episode_by_loops(shots):
    """Fast weights in the last two layers; of one example a class, and of two."""
    rng = np.random.default_rng(shots)
    algorithm, params, _ = instance("metanet")
    params["u"]["features"]["weight"] *= 0.3  # pairs nearer than the margin
    episodes = images(rng, side=2, shots=shots, queries=2)
    got = algorithm.predict(params, episodes)

    u, b = params["u"], params["b"]
    F, C = (b[k]["weight"] for k in ("features", "logits"))
    far = 0
    for t in range(2):
        support, labels = episodes.support_x[t], episodes.support_y[t]
        below, above = (
            [np.tanh(oracles.conv2d(x[None], w["conv1"]["weight"])).ravel() for x in support]
            for w in (u, b)
        )
        n = len(support)
        U = u["features"]["weight"]
        if shots == 1:
            seen = [classified(U, u["logits"]["weight"], below[i], labels[i])[0] for i in range(n)]
        else:
            seen = []
            for i in range(n):
                j = (i + 1) % n if i % 2 == 0 else (i + shots) % n
                seen.append(paired(U, below[i], below[j], labels[i] == labels[j]))
                far += not seen[-1].any()
        U_fast = every_coordinate(lambda g: d_of(params["d"], g), *seen)
        keys = [x @ U + x @ U_fast for x in below]
        values = []
        for i in range(n):
            parts = classified(F, C, above[i], labels[i])
            values.append([every_coordinate(lambda g: m_of(params["m"], g[0]), p) for p in parts])
        for q, x in enumerate(episodes.query_x[t]):
            z = np.tanh(oracles.conv2d(x[None], u["conv1"]["weight"])).ravel()
            r = z @ U + z @ U_fast
            a = softmax(np.array([k @ r / np.sqrt((k @ k) * (r @ r)) for k in keys]))
            F_fast, C_fast = (sum(a[i] * values[i][k] for i in range(n)) for k in (0, 1))
            z = np.tanh(oracles.conv2d(x[None], b["conv1"]["weight"])).ravel()
            h = np.tanh(z @ F) + np.tanh(z @ F_fast)
            wanted = np.log(softmax(h @ C + h @ C_fast))
            np.testing.assert_allclose(got[t, q], wanted, rtol=1e-9, atol=1e-12)
    assert far < 2  # a pair of two classes beyond the margin has no gradient to look at


def test_layer_augmentation_by_loops():
    """The paper's network, each image with fast filters of its own."""
    rng = np.random.default_rng(3)
    net = network(n_out=2, channels=2, features=3, image_size=5, depth=2, n_fast=4)
    slow = float64(net.init(rng), rng)
    fast = tree.map(lambda w: rng.standard_normal((3, *w.shape)), slow)
    x = rng.standard_normal((3, 1, 5, 5, 1))
    embedded, logits = net.embed([slow, fast], x), net.logits([slow, fast], x)
    for i in range(3):
        paths = [slow, tree.map(lambda w, i=i: w[i], fast)]
        h = x[i]
        for name in ("conv1", "conv2"):
            h = sum(np.maximum(oracles.conv2d(h, w[name]["weight"]), 0) for w in paths)
            h = pooled(h[0])[None]
        h = h.ravel()
        z = [h @ w["dense"]["weight"] for w in paths]
        np.testing.assert_allclose(embedded[i, 0], sum(z))
        h = sum(np.maximum(part, 0) for part in z)
        np.testing.assert_allclose(logits[i, 0], sum(h @ w["logits"]["weight"] for w in paths))


def pooled(x):
    """The maxima of 2 x 2 windows, of which the last may be cut off by the border."""
    rows, columns, channels = (-(-x.shape[0] // 2), -(-x.shape[1] // 2), x.shape[2])
    out = np.zeros((rows, columns, channels))
    for i, j, c in oracles.every(out.shape):
        out[i, j, c] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].max()
    return out


def test_added_filters_convolve_like_added_convolutions():
    """Why a query's filters may be added up first: a convolution is linear in its filters."""
    rng = np.random.default_rng(4)
    x, filters = rng.standard_normal((1, 5, 5, 2)), rng.standard_normal((4, 3, 3, 2, 3))
    r, R = rng.standard_normal((1, 6)), rng.standard_normal((4, 6))
    read = ops.cosine_attention(r, R, filters.reshape(4, -1)).reshape(3, 3, 2, 3)
    each = np.stack([ops.conv2d(x, w).ravel() for w in filters])
    wanted = ops.cosine_attention(r, R, each)
    np.testing.assert_allclose(ops.conv2d(x, read).ravel(), wanted[0])


@pytest.mark.parametrize("live", [True, False])
def test_every_example_has_its_own_gradient(live):
    rng = np.random.default_rng(5)
    w = {"a": rng.standard_normal((2, 3)), "b": rng.standard_normal(3)}
    x = rng.standard_normal((2, 4, 1, 2))

    def losses(w, x=x):
        y = ops.tanh(ops.project(x, w["a"]) + w["b"][..., None, :])
        return ops.sum(ops.square(y), axis=(-2, -1))

    given = tree.map(core.Tensor, w) if live else w
    found = example_gradients(losses, given, (2, 4))
    assert isinstance(found, core.Tensor) == live
    back = as_weights(core.raw(found), w)
    for t, i in oracles.every((2, 4)):
        alone = tree.map(core.Tensor, w)
        one = tree.map(lambda p: ops.reshape(p, (1, 1, *p.shape)), alone)
        wanted = core.grad(ops.sum(losses(one, x[t : t + 1, i : i + 1])), alone)
        tree.map(lambda a, b, t=t, i=i: np.testing.assert_allclose(a[t, i], b), back, wanted)


# --- what must hold -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_permuting_the_labels_permutes_the_prediction(name):
    """The columns of the logits' layers are permuted with the labels."""
    algorithm, params, episodes = instance(name)
    permuted = dict(params)
    for key in ("u", "b"):
        logits = {"weight": params[key]["logits"]["weight"][:, ::-1]}
        permuted[key] = params[key] | {"logits": logits}
    got = algorithm.predict(permuted, episodes._replace(support_y=1 - episodes.support_y))
    np.testing.assert_allclose(got[..., ::-1], algorithm.predict(params, episodes), atol=1e-12)


def test_the_order_of_the_support_matters_to_d_alone():
    algorithm, params, episodes = instance("metanet, one shot, all layers")
    shuffled = episodes._replace(
        support_x=episodes.support_x[:, ::-1], support_y=episodes.support_y[:, ::-1]
    )

    def change(params):
        return np.abs(algorithm.predict(params, shuffled) - algorithm.predict(params, episodes))

    assert change(params).max() > 1e-6
    out = {"weight": 0 * params["d"]["out"]["weight"], "bias": params["d"]["out"]["bias"]}
    constant = params | {"d": params["d"] | {"out": out}}
    assert change(constant).max() < 1e-12


@pytest.mark.parametrize("name", ALL)
def test_queries_do_not_influence_one_another(name):
    algorithm, params, episodes = instance(name)
    one = episodes._replace(query_x=episodes.query_x[:, 1:2], query_y=episodes.query_y[:, 1:2])
    np.testing.assert_allclose(
        algorithm.predict(params, one), algorithm.predict(params, episodes)[:, 1:2], atol=1e-12
    )


def test_on_noise_accuracy_is_chance():
    """Labels mean nothing there: were one to leak into a query, this would be above 1/2."""
    small, params, _ = instance("metanet")
    algorithm = MetaNet(small.network, hidden=3, task_chunk=100)
    episodes = images(np.random.default_rng(6), side=2, tasks=400)
    right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


def test_without_fast_weights_it_is_the_base_learner():
    algorithm, params, episodes = instance("metanet")
    quiet = params | {"m": tree.map(lambda p: 0 * p, params["m"])}
    plain = algorithm.network
    b = params["b"]
    wanted = ops.log_softmax(plain.logits([b], plain.lower(b, episodes.query_x)))
    np.testing.assert_allclose(algorithm.predict(quiet, episodes), wanted)


@pytest.mark.parametrize("name", ALL)
def test_first_order_takes_the_gradients_for_constants(name):
    exact, params, episodes = instance(name)
    params |= {name: tree.map(lambda p: 3 * p, params[name]) for name in ("d", "m")}
    kept = []

    class Keeping(MetaNet):
        def meta_information(self, *args):
            kept.append(core.raw(super().meta_information(*args)))
            return kept[-1]

    options = {"hidden": 3, "task_chunk": None}
    loss, wanted = Keeping(exact.network, **options).meta_gradient(params, episodes)
    assert len(kept) == 2
    first = MetaNet(exact.network, first_order=True, **options)
    got_loss, got = first.meta_gradient(params, episodes)
    exact_loss, differs = exact.meta_gradient(params, episodes)
    np.testing.assert_allclose([got_loss, exact_loss], loss)
    tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), got, wanted)
    a, b = (tree.ravel(g)[0] for g in (differs, got))
    assert np.linalg.norm(a - b) > 1e-3 * np.linalg.norm(a)


def test_pairs_are_of_both_kinds_and_hold_every_example_twice():
    for ways, shots in ((5, 2), (5, 5), (2, 3)):
        left, right = metanet.pairs(ways * shots, ways)
        assert left == list(range(ways * shots))
        same = [i // shots == j // shots for i, j in zip(left, right, strict=True)]
        assert 0.3 < np.mean(same) < 0.7
        assert all(i != j for i, j in zip(left, right, strict=True))


# --- sizes ----------------------------------------------------------------------------------------


def test_the_papers_sizes():
    params = MetaNet(network(5)).init(np.random.default_rng(0))
    shapes = [p["weight"].shape for p in params["u"].values()]
    assert shapes == [(3, 3, 1, 64), *[(3, 3, 64, 64)] * 4, (64, 64), (64, 5)]
    sizes = {name: sum(leaf.size for leaf in tree.flatten(params[name])[0]) for name in params}
    assert sizes == {"u": 152_448, "b": 152_448, "d": 1861, "m": 501}
    assert all(np.abs(leaf).max() <= 0.1 for leaf in tree.flatten([params["d"], params["m"]])[0])


def test_fast_layers_are_counted():
    with pytest.raises(ValueError, match="n_fast from 2 to 7, got 8"):
        network(5, n_fast=8)
    with pytest.raises(ValueError, match="n_fast from 2 to 7, got 1"):
        network(5, n_fast=1)


def test_it_learns():
    """Two noisy points to tell apart, from one example of each."""
    rng = np.random.default_rng(0)
    y = np.array([0, 1])

    def batch(tasks):
        centres = rng.standard_normal((tasks, 2, 1, 4))
        x = (centres + 0.1 * rng.standard_normal((tasks, 2, 4, 4))).astype(np.float32)
        x = x.reshape(tasks, 2, 4, 2, 2, 1)
        return Episode(
            x[:, :, 0],
            np.tile(y, (tasks, 1)),
            x[:, :, 1:].reshape(tasks, 6, 2, 2, 1),
            np.tile(np.repeat(y, 3), (tasks, 1)),
        )

    layers = [
        ("conv1", nn.Conv2d(1, 16, 2, padding="valid", bias=False), nn.flatten_images),
        ("features", nn.Linear(16, 16, bias=False), lambda h: h),
        ("logits", nn.Linear(16, 2, bias=False), lambda h: h),
    ]
    algorithm = MetaNet(SlowFast(layers, n_fast=2), task_chunk=None)
    params = algorithm.init(rng)
    adam = optim.Adam(1e-2)
    state = adam.init(params)
    for _ in range(100):
        params, state = adam.step(params, algorithm.meta_gradient(params, batch(8))[1], state)
    test = batch(200)
    assert (algorithm.predict(params, test).argmax(-1) == test.query_y).mean() > 0.9
