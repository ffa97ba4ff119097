"""R2-D2: NumPy's least squares as an oracle, and what must hold of any metric-based learner."""

import numpy as np
import pytest

from scratchmeta import nn, ops, tree
from scratchmeta.algorithms.r2d2 import R2D2, ridge
from scratchmeta.episodes import Episode
from scratchmeta.verify.gradcheck import gradcheck

NETWORK = nn.Conv4(channels=4, image_size=12, pooling="stride")
POLICIES = ("transductive", "support", "running")

# For the tables that look at all algorithms: see brought.py.
FIT = {"loss", "gradient", "predict"}
SMALL = {"network": {"channels": 2}}
OPTIONS = {
    "penalty": (3.0, {"init", *FIT}),
    "scale": (3.0, {"init", *FIT}),
    "batch_norm": ("support", FIT),
}


def INITIAL(words):
    numbers = {"log_penalty": words.ZERO, "scale": words.constant(10), "bias": words.ZERO}
    return {**words.METRIC, **numbers}


def images(rng, tasks=3, ways=4, shots=2, queries=3, side=12):
    def some(n):
        labels = np.tile(np.repeat(np.arange(ways), n), (tasks, 1))
        return rng.random((tasks, ways * n, side, side, 1)), labels

    return Episode(*some(shots), *some(queries))


def learner(batch_norm="transductive", **options):
    """An untrained learner and its parameters, calibrated where the policy asks for it."""
    algorithm = R2D2(NETWORK, batch_norm=batch_norm, **options)
    params = tree.astype(algorithm.init(np.random.default_rng(0)), np.float64)
    return algorithm, algorithm.calibrate(params, images(np.random.default_rng(99)))


@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (7, 3), (4, 4)])
def test_ridge_is_least_squares_with_rows_for_the_penalty(rows, columns):
    """‖X W − Y‖² + λ ‖W‖² is ‖X⁺ W − Y⁺‖² with √λ I below X and zeros below Y."""
    rng = np.random.default_rng(1)
    x, y, λ = rng.normal(size=(5, rows, columns)), rng.normal(size=(5, rows, 2)), 0.3
    for w, one_x, one_y in zip(ridge(x, y, λ), x, y, strict=True):
        longer = np.concatenate([one_x, np.sqrt(λ) * np.eye(columns)])
        padded = np.concatenate([one_y, np.zeros((columns, 2))])
        wanted, *_ = np.linalg.lstsq(longer, padded, rcond=None)
        np.testing.assert_allclose(w, wanted, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (4, 2)])
def test_ridge_is_differentiated_to_the_third_order(rows, columns):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, rows, columns)), rng.normal(size=(2, rows, 2))
    assert gradcheck(ridge, x, y, np.array(0.5), order=3, directions=1).worst < 1e-7


def test_the_smaller_of_the_two_systems_is_solved(monkeypatch):
    sizes = []
    solve = ops.solve

    def noted(a, b):
        sizes.append(a.shape)
        return solve(a, b)

    monkeypatch.setattr(ops, "solve", noted)
    ridge(np.ones((2, 3, 8)), np.ones((2, 3, 2)), 1.0)
    ridge(np.ones((2, 8, 3)), np.ones((2, 8, 2)), 1.0)
    assert sizes == [(2, 3, 3), (2, 3, 3)]


def test_predictions_are_those_of_a_regression_for_each_task():
    episodes = images(np.random.default_rng(3))
    algorithm, params = learner(penalty=0.5, scale=3.0)
    params = {**params, "bias": np.array(0.7)}
    got = algorithm.predict(params, episodes)
    for t, (sx, sy, qx, _) in enumerate(zip(*episodes, strict=True)):
        features = NETWORK(params["network"], np.concatenate([sx, qx])[None])[0]
        x, y = features[: len(sx)], np.eye(4)[sy]
        w = np.linalg.inv(x.T @ x + 0.5 * np.eye(x.shape[1])) @ x.T @ y
        for q, f in enumerate(features[len(sx) :]):
            logits = [3.0 * sum(f * w[:, k]) + 0.7 for k in range(4)]
            wanted = [logits[k] - np.log(sum(np.exp(v) for v in logits)) for k in range(4)]
            np.testing.assert_allclose(got[t, q], wanted, atol=1e-10)


def test_what_is_learned_beside_the_network_starts_as_asked():
    algorithm = R2D2(NETWORK, penalty=0.5, scale=3.0)
    params = algorithm.init(np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(params["log_penalty"]), 0.5, rtol=1e-6)
    assert (float(params["scale"]), float(params["bias"])) == (3.0, 0.0)
    assert {params[k].dtype for k in ("log_penalty", "scale", "bias")} == {np.dtype(np.float32)}
    _, g = algorithm.meta_gradient(params, images(np.random.default_rng(4)))
    assert g["log_penalty"] != 0
    assert g["scale"] != 0
    assert abs(g["bias"]) < 1e-6  # the same for all classes: the softmax takes it out


@pytest.mark.parametrize("policy", POLICIES)
def test_permuting_the_labels_permutes_the_prediction(policy):
    episodes, swap = images(np.random.default_rng(5)), np.array([3, 0, 2, 1])
    algorithm, params = learner(policy)
    relabelled = episodes._replace(support_y=swap[episodes.support_y])
    np.testing.assert_allclose(
        algorithm.predict(params, relabelled)[..., swap],
        algorithm.predict(params, episodes),
        atol=1e-10,
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_queries_influence_one_another_only_under_the_transductive_policy(policy):
    episodes, (algorithm, params) = images(np.random.default_rng(6)), learner(policy)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    alone = np.allclose(algorithm.predict(params, single), together, atol=1e-10)
    assert alone == (policy != "transductive")


def test_on_noise_accuracy_is_chance():
    """Were a label to leak into a query, this would be above 1/4."""
    episodes = images(np.random.default_rng(7), tasks=300)
    algorithm, params = learner()
    right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 4) < 4 * np.sqrt(3 / 16 / right.size)


@pytest.mark.parametrize(("shots", "pooling"), [(1, "max"), (3, "stride")])
def test_torch_gives_the_same(shots, pooling):
    """With fewer images than features, and with more."""
    from test_against_torch import F, close, float64, leaves, torch, torch_conv4

    rng = np.random.default_rng(8)
    network = nn.Conv4(channels=6, image_size=17, pooling=pooling)
    algorithm = R2D2(network, penalty=0.5, scale=3.0)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=2, ways=3, shots=shots, side=17)
    loss, g = algorithm.meta_gradient(params, episodes)
    θ = leaves(params)
    total = 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        features = torch_conv4(θ["network"], torch.cat([sx, qx]), pooling)
        x, y = features[: len(sx)], F.one_hot(sy, 3).double()
        a = x.T @ x + θ["log_penalty"].exp() * torch.eye(6).double()
        w = torch.linalg.inv(a) @ x.T @ y
        logits = θ["scale"] * features[len(sx) :] @ w + θ["bias"]
        total = total + F.cross_entropy(logits, qy) / 2
    flat, treedef = tree.flatten(θ)
    close(np.asarray(loss), total)
    wanted = tree.unflatten(treedef, list(torch.autograd.grad(total, flat)))
    g.pop("bias"), wanted.pop("bias")  # rounding errors of 0
    tree.map(close, g, wanted)
