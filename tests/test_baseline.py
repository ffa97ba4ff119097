"""The classifier of all classes: its batches, and the two ways to use it on a new task."""

from dataclasses import replace

import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import data, losses, nn, ops, optim, presets, tree
from scratchmeta.algorithms import BaselineFinetune, BaselineNN
from scratchmeta.core import value_and_grad
from scratchmeta.data.images import Numbered
from scratchmeta.episodes import sample
from scratchmeta.run import experiment
from scratchmeta.verify.episodes import images
from scratchmeta.verify.numbers import float64

NAMES = ("baseline-nn", "baseline-finetune")
NETWORK = nn.MLP([4, 5, 3], activation=ops.tanh, batch_norm=True)


def instance(name, seed=1):
    return INSTANCES[name](np.random.default_rng(seed))


def finetune(shots=2, **options):
    rng = np.random.default_rng(0)
    made = BaselineFinetune(NETWORK, 4, 3, finetune_steps=3, finetune_lr=0.5, **options)
    params = float64(made.init(rng), rng)
    return made, params, images(rng, side=2, ways=3, shots=shots, queries=2)


# --- batches of numbered classes ---


def test_a_class_has_its_number_whenever_it_is_drawn():
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None, None]
    pixels = np.broadcast_to(pixels, (6, 4, 3, 3, 1)).copy()
    numbered = Numbered(data.ImageDataset(pixels, [f"a/{i}" for i in range(6)]))
    for index in range(3):
        batch = sample(numbered, 5, 1, 2, tasks=2, seed=0, index=index)
        for x, y in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y)):
            np.testing.assert_array_equal(np.round(x[:, :, 0, 0, 0] * 255), y)
            assert all(len(set(row)) == 5 for row in y.tolist())


def test_turns_are_classes_or_there_are_none():
    pixels = np.zeros((2, 3, 4, 4, 1), np.uint8)
    pixels[:, :, 0, 1] = 255  # each turn of this looks different
    made = data.ImageDataset(pixels, ["a/0", "a/1"], rotations="classes")
    batch = sample(Numbered(made), 8, 1, 1)
    for x, y in zip(batch.support_x[0], batch.support_y[0], strict=True):
        np.testing.assert_array_equal(x, np.rot90(pixels[0, 0] / np.float32(255), y % 4))
    with pytest.raises(ValueError, match="Numbered wants 'none' or 'classes', got 'episode'"):
        Numbered(data.ImageDataset(pixels, ["a/0", "a/1"], rotations="episode"))


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_knows_the_number_of_classes(name):
    config = presets.lookup(name, "glyphs")
    assert isinstance(experiment.splits(config).train, Numbered)
    recorded = config.as_dict()
    recorded["method"] = recorded["method"] | {"classes": 600}
    with pytest.raises(ValueError, match=r"classes: wanted the 615 of Glyphs.*got 600"):
        experiment.splits(presets.from_dict(recorded))


def test_a_label_beyond_the_classes_is_refused():
    algorithm, params, batch = instance("baseline-nn")
    batch.query_y[0, 0] = 4
    with pytest.raises(ValueError, match="labels below classes=4, got 4"):
        algorithm.meta_gradient(params, batch)


# --- training ---


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_an_ordinary_classifier(name):
    algorithm, params, batch = instance(name)
    found = []
    for t in range(2):
        x = np.concatenate([batch.support_x[t], batch.query_x[t]])
        y = np.concatenate([batch.support_y[t], batch.query_y[t]])
        z = algorithm.network(params["network"], x) @ params["head"]["weight"]
        p = np.exp(z + params["head"]["bias"])
        found.append(np.mean([-np.log(row[k] / sum(row)) for row, k in zip(p, y, strict=True)]))
    np.testing.assert_allclose(algorithm.task_losses(params, batch), found)


# --- a new task ---


def test_the_nearest_neighbour():
    """Nested loops; the probabilities are in the order of the largest cosine."""
    algorithm, params, batch = instance("baseline-nn")
    predicted = algorithm.predict(params, batch)
    for t in range(2):
        network = algorithm.network
        support, query = (
            network(params["network"], x[t]) for x in (batch.support_x, batch.query_x)
        )
        for q, f in enumerate(query):
            best = [-np.inf, -np.inf]
            for s, g in enumerate(support):
                k = batch.support_y[t, s]
                best[k] = max(best[k], f @ g / np.sqrt((f @ f) * (g @ g)))
            z = np.exp(best)
            np.testing.assert_allclose(predicted[t, q], np.log(z / z.sum()))


@pytest.mark.parametrize("only_head", [False, True])
@pytest.mark.parametrize("policy", ["transductive", "support"])
def test_fine_tuning_is_gradient_descent_from_a_new_layer(policy, only_head):
    """Each task by itself, the steps written out."""
    algorithm, params, batch = finetune(only_head=only_head, batch_norm=policy)
    predicted = algorithm.predict(params, batch)
    for t in range(2):
        x, y = batch.support_x[t], batch.support_y[t]

        def loss(weights, x=x, y=y):
            f = NETWORK(weights["network"], x)
            return losses.cross_entropy(ops.matmul(f, weights["w"]) + weights["b"], y)

        weights = {"network": params["network"], "w": np.zeros((3, 3)), "b": np.zeros(3)}
        for _ in range(3):
            _, g = value_and_grad(loss)(weights)
            if only_head:
                g = g | {"network": tree.map(np.zeros_like, g["network"])}
            weights = tree.map(lambda p, g: p - 0.5 * g, weights, g)
        features = weights["network"]
        if policy == "support":
            features = NETWORK.with_statistics(features, x)
        z = NETWORK(features, batch.query_x[t]) @ weights["w"] + weights["b"]
        np.testing.assert_allclose(predicted[t], ops.log_softmax(z), atol=1e-12)


def test_before_fine_tuning_all_classes_are_equally_likely():
    algorithm, params, batch = finetune()
    algorithm = replace(algorithm, finetune_steps=0)
    np.testing.assert_allclose(np.exp(algorithm.predict(params, batch)), 1 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_permuting_the_labels_permutes_the_prediction(name):
    algorithm, params, batch = instance(name)
    relabelled = batch._replace(support_y=1 - batch.support_y)
    np.testing.assert_allclose(
        algorithm.predict(params, relabelled)[..., ::-1], algorithm.predict(params, batch)
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_support_does_not_matter(name):
    algorithm, params, batch = instance(name)
    order = [2, 0, 3, 1]
    shuffled = batch._replace(
        support_x=batch.support_x[:, order], support_y=batch.support_y[:, order]
    )
    np.testing.assert_allclose(
        algorithm.predict(params, shuffled), algorithm.predict(params, batch), atol=1e-10
    )


@pytest.mark.parametrize("made", [BaselineNN, BaselineFinetune])
@pytest.mark.parametrize(("policy", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(made, policy, alone):
    _, _, batch = finetune()
    algorithm = made(NETWORK, 4, 3, batch_norm=policy)
    rng = np.random.default_rng(0)
    params = float64(algorithm.init(rng), rng)
    together = algorithm.predict(params, batch)[:, :2]
    single = batch._replace(query_x=batch.query_x[:, :2], query_y=batch.query_y[:, :2])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_running_statistics_are_refused_for_fine_tuning():
    with pytest.raises(ValueError, match="'transductive' or 'support', got 'running'"):
        BaselineFinetune(NETWORK, 4, batch_norm="running")


def test_they_learn():
    """Glyphs: features that tell the training classes apart do so for classes they have not seen.

    An untrained network's reach 0.3.
    """
    train = Numbered(data.Glyphs("train", image_size=16))
    network = nn.Conv4(channels=12, image_size=16, pooling="stride")
    algorithm = BaselineNN(network, train.n_classes, 12, batch_norm="transductive")
    params = algorithm.init(np.random.default_rng(0))
    adam = optim.Adam(1e-2)
    state = adam.init(params)
    for index in range(200):
        batch = sample(train, 32, 1, 1, seed=0, index=index)
        params, state = adam.step(params, algorithm.meta_gradient(params, batch)[1], state)
    test = sample(data.Glyphs("test", image_size=16), 5, 1, 5, 40, seed=1)
    tuned = BaselineFinetune(network, train.n_classes, 12, finetune_steps=5, finetune_lr=0.1)
    for made in (algorithm, tuned):
        assert (made.predict(params, test).argmax(-1) == test.query_y).mean() > 0.42
