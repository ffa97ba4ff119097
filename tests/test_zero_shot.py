"""Zero-shot Prototypical Networks: a loop oracle, properties, episodes of described classes."""

import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import episodes, nn, optim, tree
from scratchmeta.algorithms import ZeroShot
from scratchmeta.data import Described, Glyphs
from scratchmeta.episodes import Episode
from scratchmeta.verify.episodes import described, images
from scratchmeta.verify.numbers import float64


@pytest.fixture
def instance():
    return INSTANCES["prototypical-zero-shot, Conv4"](np.random.default_rng(1))


def test_predictions_are_those_of_nested_loops(instance):
    algorithm, params, batch = instance
    predicted, losses = algorithm.predict(params, batch), algorithm.task_losses(params, batch)
    for t, (v, y, x, answers) in enumerate(zip(*batch, strict=True)):
        by_class = {}
        for label, attributes in zip(y, v, strict=True):
            g = algorithm.attribute_network(params["attributes"], attributes[None])[0]
            by_class[label] = [entry / np.sqrt(sum(e * e for e in g)) for entry in g]
        f = algorithm.network(params["network"], x[None])[0]
        surprise = []
        for q, features in enumerate(f):
            likelihoods = [
                np.exp(-sum((a - b) ** 2 for a, b in zip(features, by_class[k], strict=True)))
                for k in range(3)
            ]
            wanted = np.log(likelihoods) - np.log(sum(likelihoods))
            np.testing.assert_allclose(predicted[t, q], wanted, atol=1e-10)
            surprise.append(-wanted[answers[q]])
        np.testing.assert_allclose(losses[t], np.mean(surprise))


def test_prototypes_have_unit_length_and_queries_have_not(instance):
    algorithm, params, batch = instance
    c = algorithm.prototypes(params, batch)
    assert c.shape == (2, 3, 3)
    np.testing.assert_allclose(np.linalg.norm(c, axis=-1), 1)
    longer = params | {"attributes": dict(params["attributes"])}
    longer["attributes"]["linear2"] = tree.map(lambda p: 7 * p, params["attributes"]["linear2"])
    np.testing.assert_allclose(algorithm.prototypes(longer, batch), c)
    head = tree.map(lambda p: 7 * p, params["network"]["head"])
    surer = params | {"network": params["network"] | {"head": head}}
    before, after = (algorithm.predict(p, batch) for p in (params, surer))
    np.testing.assert_array_equal(before.argmax(-1), after.argmax(-1))
    assert after.max(-1).mean() > before.max(-1).mean() + 0.1


def test_permuting_the_classes_permutes_the_prediction(instance):
    algorithm, params, batch = instance
    predicted, swap = algorithm.predict(params, batch), np.array([2, 0, 1])
    relabelled = batch._replace(support_y=swap[batch.support_y])
    np.testing.assert_allclose(algorithm.predict(params, relabelled)[..., swap], predicted)
    moved = batch._replace(support_x=batch.support_x[:, swap], support_y=batch.support_y[:, swap])
    np.testing.assert_allclose(algorithm.predict(params, moved), predicted)
    np.testing.assert_allclose(np.exp(predicted).sum(-1), 1)


@pytest.mark.parametrize("policy", ["transductive", "running"])
def test_queries_influence_one_another_only_under_the_transductive_policy(policy, instance):
    made, params, batch = instance
    algorithm = ZeroShot(made.network, made.attribute_network, batch_norm=policy)
    params = algorithm.calibrate(params, batch)
    together = algorithm.predict(params, batch)[:, :1]
    single = batch._replace(query_x=batch.query_x[:, :1], query_y=batch.query_y[:, :1])
    alone = np.allclose(algorithm.predict(params, single), together, atol=1e-10)
    assert alone == (policy == "running")


def test_statistics_are_those_of_the_queries(instance):
    made, params, batch = instance
    algorithm = ZeroShot(made.network, made.attribute_network, batch_norm="running")
    with pytest.raises(ValueError, match="the parameters hold no statistics yet"):
        algorithm.predict(params, batch)
    norm = algorithm.calibrate(params, batch)["network"]["block1"]["norm"]
    maps = nn.Conv2d(1, 2, bias=False)(params["network"]["block1"]["conv"], batch.query_x)
    np.testing.assert_allclose(norm["mean"], maps.mean(axis=(1, 2, 3)).mean(0), rtol=1e-10)
    with pytest.raises(ValueError, match="batch_norm: wanted 'transductive' or 'running'"):
        ZeroShot(made.network, made.attribute_network, batch_norm="support")


def test_on_noise_accuracy_is_chance():
    rng = np.random.default_rng(5)
    algorithm = ZeroShot(nn.MLP([64, 3]), nn.MLP([3, 3]))
    params = float64(algorithm.init(rng), rng)
    batch = described(images(rng, tasks=300, ways=4, shots=1, queries=3), rng)
    right = algorithm.predict(params, batch).argmax(-1) == batch.query_y
    assert abs(right.mean() - 1 / 4) < 4 * np.sqrt(3 / 16 / right.size)


def test_it_learns():
    """Patterns that are a hidden linear function of attributes; those of the test are new."""
    rng = np.random.default_rng(9)
    hidden = rng.normal(size=(6, 64))

    def batch(tasks=4, ways=5, n=3):
        v = rng.normal(size=(tasks, ways, 6)).astype(np.float32)
        y = np.tile(np.arange(ways), (tasks, 1))
        x = np.repeat(v @ hidden, n, axis=1) + 2 * rng.normal(size=(tasks, ways * n, 64))
        return Episode(v, y, x.astype(np.float32), np.repeat(y, n, axis=1))

    algorithm = ZeroShot(nn.MLP([64, 16]), nn.MLP([6, 16]))
    params = algorithm.init(np.random.default_rng(0))
    adam = optim.Adam(1e-2)
    state, tests = adam.init(params), batch(tasks=50)

    def accuracy():
        return (algorithm.predict(params, tests).argmax(-1) == tests.query_y).mean()

    before = accuracy()
    for _ in range(200):
        _, g = algorithm.meta_gradient(params, batch())
        params, state = adam.step(params, g, state)
    assert before < 0.4
    assert accuracy() > 0.85


# --- episodes -------------------------------------------------------------------------------------


class Numbered:
    """Class k has attributes (k, 2 k) and examples k + i / 100."""

    n_classes, n_drawings = 6, 8
    attributes = np.arange(6.0)[:, None] * (1, 2)

    def choose(self, rng, tasks, n_way, n):
        classes = np.stack([rng.permutation(6)[:n_way] for _ in range(tasks)])
        return classes, np.broadcast_to(np.arange(n), (tasks, n_way, n))

    def gather(self, classes, drawings, rng):
        return np.float32(classes[..., None] + drawings / 100)[..., None]


def test_an_episode_has_the_attributes_of_its_classes_as_support():
    batch = episodes.sample(Described(Numbered()), n_way=4, k_shot=1, n_query=3, tasks=5)
    assert [a.shape for a in batch] == [(5, 4, 2), (5, 4), (5, 12, 1), (5, 12)]
    assert batch.support_x.dtype == np.float32
    assert batch.support_y.tolist() == [[0, 1, 2, 3]] * 5
    numbers = np.take_along_axis(batch.support_x[..., 0], batch.query_y, axis=1)
    np.testing.assert_array_equal(np.floor(batch.query_x[..., 0]), numbers)
    np.testing.assert_array_equal(batch.support_x[..., 1], 2 * batch.support_x[..., 0])


def test_attributes_are_standardised_by_those_of_the_reference():
    class Other(Numbered):
        attributes = 3 + 2 * Numbered.attributes * (1, 0)  # the second does not vary

    got = Described(Numbered(), reference=Other()).attributes
    first = (np.arange(6) - (3 + 2 * 2.5)) / (2 * np.arange(6).std())
    np.testing.assert_allclose(got[:, 0], first, rtol=1e-6)
    np.testing.assert_allclose(got[:, 1], 2 * np.arange(6) - 3)


def test_only_one_description_a_class():
    data = Described(Numbered())
    with pytest.raises(ValueError, match=r"k_shot: 1 wanted, the description .*, got 2"):
        episodes.sample(data, n_way=2, k_shot=2, n_query=2)
    with pytest.raises(ValueError, match=r"k_shot \+ n_query: at most the 9 .* got 1 \+ 9"):
        episodes.sample(data, n_way=2, k_shot=1, n_query=9)


def test_glyphs_are_described():
    data = Glyphs("val", image_size=16)
    batch = episodes.sample(Described(data), n_way=5, k_shot=1, n_query=2, tasks=2)
    assert batch.support_x.shape == (2, 5, len(data.attribute_names))
    assert batch.query_x.shape == (2, 10, 16, 16, 1)
    assert 0.5 < batch.query_x.max() <= 1
    for row in batch.support_x.reshape(10, -1):
        assert (data.attributes == row).all(axis=1).any()


def test_attributes_that_say_nothing_give_a_prototype_of_0():
    algorithm = ZeroShot(nn.MLP([3, 2]), nn.MLP([4, 2]))
    params = algorithm.init(np.random.default_rng(0))
    described = Episode(
        np.zeros((1, 2, 4), "f"), np.arange(2)[None], np.ones((1, 2, 3), "f"), np.arange(2)[None]
    )
    assert algorithm.prototypes(params, described).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
