"""Prototypical Networks: a nested-loop oracle, and what must hold of any metric-based learner."""

import numpy as np
import pytest

from scratchmeta import nn, tree
from scratchmeta.algorithms import Prototypical
from scratchmeta.algorithms.prototypical import prototypes
from scratchmeta.episodes import Episode

NETWORK = nn.Conv4(channels=4, image_size=12, pooling="stride")
POLICIES = ("transductive", "support", "running")


def images(rng, tasks=3, ways=4, shots=2, queries=3, side=12):
    def some(n):
        labels = np.tile(np.repeat(np.arange(ways), n), (tasks, 1))
        return rng.random((tasks, ways * n, side, side, 1)), labels

    return Episode(*some(shots), *some(queries))


def learner(batch_norm="transductive", **options):
    """An untrained learner and its parameters, calibrated where the policy asks for it."""
    algorithm = Prototypical(NETWORK, batch_norm=batch_norm, **options)
    params = tree.astype(algorithm.init(np.random.default_rng(0)), np.float64)
    return algorithm, algorithm.calibrate(params, images(np.random.default_rng(99)))


def test_predictions_are_those_of_nested_loops():
    episodes = images(np.random.default_rng(1))
    algorithm, params = learner()
    got = algorithm.predict(params, episodes)
    for t, (sx, sy, qx, _) in enumerate(zip(*episodes, strict=True)):
        features = NETWORK(params["network"], np.concatenate([sx, qx])[None])[0]
        support, query = features[: len(sx)], features[len(sx) :]
        for q, f in enumerate(query):
            distances = []
            for k in range(4):
                members = [s for s, y in zip(support, sy, strict=True) if y == k]
                c = sum(members) / len(members)
                distances.append(sum((a - b) ** 2 for a, b in zip(f, c, strict=True)))
            likelihoods = [np.exp(-d) for d in distances]
            for k in range(4):
                wanted = np.log(likelihoods[k] / sum(likelihoods))
                np.testing.assert_allclose(got[t, q, k], wanted, atol=1e-10)


def test_prototypes_are_means_whatever_the_order_and_the_numbers():
    features = np.arange(10.0).reshape(1, 5, 2)
    labels = np.array([[1, 0, 1, 1, 0]])
    wanted = [[(features[0, 1] + features[0, 4]) / 2, features[0, [0, 2, 3]].mean(0)]]
    np.testing.assert_allclose(prototypes(features, labels, 2), wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_permuting_the_labels_permutes_the_prediction(policy):
    episodes, swap = images(np.random.default_rng(2)), np.array([3, 0, 2, 1])
    algorithm, params = learner(policy)
    relabelled = episodes._replace(support_y=swap[episodes.support_y])
    np.testing.assert_allclose(
        algorithm.predict(params, relabelled)[..., swap],
        algorithm.predict(params, episodes),
        atol=1e-12,
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_the_support_does_not_matter(policy):
    rng = np.random.default_rng(3)
    episodes, (algorithm, params) = images(rng), learner(policy)
    order = rng.permutation(8)
    shuffled = episodes._replace(
        support_x=episodes.support_x[:, order], support_y=episodes.support_y[:, order]
    )
    np.testing.assert_allclose(
        algorithm.predict(params, shuffled), algorithm.predict(params, episodes), atol=1e-10
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_queries_influence_one_another_only_under_the_transductive_policy(policy):
    episodes, (algorithm, params) = images(np.random.default_rng(4)), learner(policy)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    alone = np.allclose(algorithm.predict(params, single), together, atol=1e-10)
    assert alone == (policy != "transductive")


def test_on_noise_accuracy_is_chance():
    """Were a label to leak into a query, this would be above 1/4."""
    episodes = images(np.random.default_rng(5), tasks=300)
    algorithm, params = learner()
    right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 4) < 4 * np.sqrt(3 / 16 / right.size)


@pytest.mark.parametrize("task_chunk", [1, 2, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_chunk_of_tasks_changes_nothing(policy, task_chunk):
    episodes = images(np.random.default_rng(6))
    whole, params = learner(policy, task_chunk=3)
    parts, _ = learner(policy, task_chunk=task_chunk)
    np.testing.assert_allclose(
        parts.predict(params, episodes), whole.predict(params, episodes), atol=1e-10
    )
    wanted, got = (a.meta_gradient(params, episodes) for a in (whole, parts))
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-12)
    for a, b in zip(tree.flatten(got[1])[0], tree.flatten(wanted[1])[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_running_statistics_are_asked_for_by_name():
    algorithm = Prototypical(NETWORK, batch_norm="running")
    params = algorithm.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match="the parameters hold no statistics yet; params = algo"):
        algorithm.predict(params, images(np.random.default_rng(7)))


def test_calibration_averages_over_tasks_and_leaves_the_rest():
    episodes = images(np.random.default_rng(8))
    algorithm = Prototypical(NETWORK, batch_norm="running", task_chunk=2)
    params = tree.astype(algorithm.init(np.random.default_rng(0)), np.float64)
    calibrated = algorithm.calibrate(params, episodes)
    conv = nn.Conv2d(1, 4, stride=2, bias=False)
    both = np.concatenate([episodes.support_x, episodes.query_x], axis=1)
    maps = conv(params["network"]["block1"]["conv"], both)
    norm = calibrated["network"]["block1"]["norm"]
    np.testing.assert_allclose(norm["mean"], maps.mean(axis=(1, 2, 3)).mean(0), rtol=1e-10)
    np.testing.assert_allclose(norm["var"], maps.var(axis=(1, 2, 3)).mean(0), rtol=1e-10)
    stripped = nn.without_statistics(calibrated)
    assert tree.paths(stripped) == tree.paths(params)
    tree.map(np.testing.assert_array_equal, stripped, params)
