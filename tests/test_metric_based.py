"""Siamese, Matching and Relation Networks against nested loops over tasks, queries and examples."""

import tracemalloc

import numpy as np
import pytest
from small import INSTANCES, accuracies

from scratchmeta import nn, ops, presets, tree
from scratchmeta.algorithms import (
    FullContext,
    Matching,
    Prototypical,
    Relation,
    Siamese,
    siamese,
)
from scratchmeta.algorithms.relation import class_maps, embedding
from scratchmeta.episodes import Episode
from scratchmeta.run import experiment
from scratchmeta.verify.episodes import images
from scratchmeta.verify.numbers import float64

METRIC_BASED = ("siamese", "matching", "matching-fce", "relation", "prototypical")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cosine(a, b):
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def features(algorithm, params, episodes, t):
    """Those of task t alone, support and query together."""
    n = episodes.support_x.shape[1]
    both = np.concatenate([episodes.support_x[t], episodes.query_x[t]])[None]
    maps = algorithm.network(params["network"], both)[0]
    return maps[:n], maps[n:]


def instance(name, seed=1):
    return INSTANCES[name](np.random.default_rng(seed))


# --- nested loops ---


DISTANCES = {
    "cityblock": lambda f, g, alpha: sum(alpha * np.abs(f - g)),
    "sqeuclidean": lambda f, g, alpha: alpha * sum((f - g) ** 2),
    "cosine": lambda f, g, alpha: alpha * (1 - cosine(f, g)),
}


@pytest.mark.parametrize(
    "name", ["siamese", "siamese, sqeuclidean", "siamese, cosine, most similar"]
)
def test_siamese(name):
    algorithm, params, episodes = instance(name)
    of_class = max if "most similar" in name else np.mean
    predicted = algorithm.predict(params, episodes)
    task_losses = algorithm.task_losses(params, episodes)
    for t in range(2):
        support, query = features(algorithm, params, episodes, t)
        same, different = [], []
        for q, f in enumerate(query):
            by_class = [[], []]
            for s, g in enumerate(support):
                z = DISTANCES[algorithm.distance](f, g, params["alpha"]) + params["bias"]
                k = episodes.support_y[t, s]
                by_class[k].append(z)
                if k == episodes.query_y[t, q]:
                    same.append(-np.log(sigmoid(z)))
                else:
                    different.append(-np.log(1 - sigmoid(z)))
            likelihoods = np.exp([of_class(z) for z in by_class])
            np.testing.assert_allclose(predicted[t, q], np.log(likelihoods / sum(likelihoods)))
        np.testing.assert_allclose(task_losses[t], (np.mean(same) + np.mean(different)) / 2)


@pytest.mark.parametrize("name", ["siamese", "siamese, sqeuclidean"])
def test_siamese_pairs_one_by_one(name):
    """Tasks of one pair each have Koch's loss, of one kind or the other."""
    algorithm, params, episodes = instance(name)
    first, second = (x.reshape(-1, 1, *x.shape[2:]) for x in (episodes.support_x, episodes.query_x))
    y = np.array([1, 0, 0, 1, 1, 0, 1, 0])[:, None]
    pairs = Episode(first, np.ones_like(y), second, y)
    task_losses = algorithm.task_losses(params, pairs)
    z = algorithm.pair_logits(params, first[:, 0], second[:, 0], "transductive")
    right = 0
    for i in range(8):
        f, g = (algorithm.network(params["network"], x[i][None])[0, 0] for x in (first, second))
        p = sigmoid(DISTANCES[algorithm.distance](f, g, params["alpha"]) + params["bias"])
        np.testing.assert_allclose(sigmoid(z[i]), p)
        np.testing.assert_allclose(task_losses[i], -np.log(p if y[i, 0] else 1 - p))
        right += (p > 0.5) == (y[i, 0] == 1)
    assert algorithm.verification_accuracy(params, pairs) == right / 8


def test_matching():
    algorithm, params, episodes = instance("matching")
    predicted = algorithm.predict(params, episodes)
    for t in range(2):
        support, query = features(algorithm, params, episodes, t)
        for q, f in enumerate(query):
            a = np.exp([cosine(f, g) / 0.2 for g in support])
            p = np.zeros(2)
            for s, k in enumerate(episodes.support_y[t]):
                p[k] += a[s] / sum(a)
            np.testing.assert_allclose(predicted[t, q], np.log(p))


def lstm_step(params, x, h, c):
    i, f, g, o = np.split(x @ params["w_x"] + h @ params["w_h"] + params["b"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def test_full_context_embeddings():
    algorithm, params, episodes = instance("matching-fce")
    predicted = algorithm.predict(params, episodes)
    for t in range(2):
        support, query = features(algorithm, params, episodes, t)
        g = support.copy()
        for name, order in (("forward", range(4)), ("backward", reversed(range(4)))):
            h = c = np.zeros(3)
            for i in order:
                h, c = lstm_step(params["g"][name], support[i], h, c)
                g[i] += h
        for q, x in enumerate(query):
            h = c = np.zeros(3)
            for _ in range(3):
                a = np.exp(g @ h)
                r = sum(w / sum(a) * row for w, row in zip(a, g, strict=True))
                h, c = lstm_step(params["f"], np.concatenate([x, r]), h, c)
                h = h + x
            a = np.exp([cosine(h, row) for row in g])
            p = [sum(a[episodes.support_y[t] == k]) / sum(a) for k in range(2)]
            np.testing.assert_allclose(predicted[t, q], np.log(p))


@pytest.mark.parametrize(("padding", "side", "map_size"), [("same", 28, 5), ("valid", 48, 10)])
def test_relation_scores_every_pair_of_concatenated_maps(padding, side, map_size):
    rng = np.random.default_rng(2)
    algorithm = Relation(embedding(3), 3, map_size, hidden=4, padding=padding)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, side=side, shots=2, queries=2)
    scores = algorithm.scores(params, episodes)
    predicted = algorithm.predict(params, episodes)
    for t in range(2):
        support, query = (  # each by its own statistics
            algorithm.network(params["network"], x[t][None])[0]
            for x in (episodes.support_x, episodes.query_x)
        )
        assert query.shape == (4, map_size, map_size, 3)
        pairs = []
        for q in query:
            for k in range(2):
                chosen = sum(
                    s for s, y in zip(support, episodes.support_y[t], strict=True) if y == k
                )
                pairs.append(np.concatenate([chosen, q], axis=-1))
        x = algorithm.first(params["first"], np.array(pairs)[None])
        x = algorithm.second(params["second"], x)
        r = sigmoid(algorithm.last(params["head"], nn.flatten_images(x))[0]).reshape(4, 2)
        np.testing.assert_allclose(scores[t], r)
        np.testing.assert_allclose(predicted[t], np.log(r / r.sum(1, keepdims=True)))
        truth = np.eye(2)[episodes.query_y[t]]
        wanted = np.mean((r - truth) ** 2)
        np.testing.assert_allclose(algorithm.task_losses(params, episodes)[t], wanted)


def test_class_maps_are_sums_whatever_the_order():
    maps = np.random.default_rng(0).normal(size=(1, 5, 2, 2, 3))
    got = class_maps(maps, np.array([[1, 0, 1, 1, 0]]), 2)
    np.testing.assert_allclose(got[0, 0], maps[0, 1] + maps[0, 4])
    np.testing.assert_allclose(got[0, 1], maps[0, 0] + maps[0, 2] + maps[0, 3])


# --- what must hold of all ---


@pytest.mark.parametrize("name", METRIC_BASED)
def test_permuting_the_labels_permutes_the_prediction(name):
    algorithm, params, episodes = instance(name)
    relabelled = episodes._replace(support_y=1 - episodes.support_y)
    np.testing.assert_allclose(
        algorithm.predict(params, relabelled)[..., ::-1], algorithm.predict(params, episodes)
    )


@pytest.mark.parametrize("name", [n for n in METRIC_BASED if n != "matching-fce"])
def test_the_order_of_the_support_does_not_matter(name):
    algorithm, params, episodes = instance(name)
    order = [2, 0, 3, 1]
    shuffled = episodes._replace(
        support_x=episodes.support_x[:, order], support_y=episodes.support_y[:, order]
    )
    np.testing.assert_allclose(
        algorithm.predict(params, shuffled), algorithm.predict(params, episodes), atol=1e-10
    )


def test_full_context_embeddings_depend_on_the_order_of_the_support():
    algorithm, params, episodes = instance("matching-fce")
    order = [2, 0, 3, 1]
    shuffled = episodes._replace(
        support_x=episodes.support_x[:, order], support_y=episodes.support_y[:, order]
    )
    change = algorithm.predict(params, shuffled) - algorithm.predict(params, episodes)
    assert np.abs(change).max() > 1e-3


@pytest.mark.parametrize("name", METRIC_BASED)
def test_probabilities_sum_to_one(name):
    algorithm, params, episodes = instance(name)
    np.testing.assert_allclose(np.exp(algorithm.predict(params, episodes)).sum(-1), 1)


def with_policy(name, policy):
    """A learner whose network has batch-norm, its parameters calibrated, and episodes."""
    network = nn.MLP([16, 5, 3], activation=ops.tanh, batch_norm=True)
    made = {
        "siamese": lambda: Siamese(network, n_features=3, batch_norm=policy),
        "matching": lambda: Matching(network, temperature=0.2, batch_norm=policy),
        "matching-fce": lambda: FullContext(network, n_features=3, batch_norm=policy),
    }
    rng = np.random.default_rng(7)
    algorithm, episodes = made[name](), images(rng, side=4, queries=3)
    params = algorithm.calibrate(float64(algorithm.init(rng), rng), episodes)
    return algorithm, params, episodes


@pytest.mark.parametrize("policy", ["transductive", "support", "running"])
@pytest.mark.parametrize("name", ["siamese", "matching", "matching-fce"])
def test_queries_influence_one_another_only_under_the_transductive_policy(name, policy):
    algorithm, params, episodes = with_policy(name, policy)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    alone = np.allclose(algorithm.predict(params, single), together, atol=1e-10)
    assert alone == (policy != "transductive")


@pytest.mark.parametrize("name", METRIC_BASED)
def test_on_noise_accuracy_is_chance(name):
    """Were a label to leak into a query, this would be above 1/2."""
    algorithm, params, _ = instance(name)
    episodes = images(np.random.default_rng(5), tasks=200, queries=2)
    right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


LEARNERS = {
    "siamese": lambda network: Siamese(network, n_features=8),
    "matching": lambda network: Matching(network, temperature=0.1),
    "matching-fce": lambda network: FullContext(network, n_features=8, temperature=0.1),
    "relation": lambda _: Relation(nn.ConvBlock(1, 8), n_channels=8, map_size=6),
    "prototypical": Prototypical,
}


@pytest.mark.parametrize("name", METRIC_BASED)
def test_it_learns(name):
    """Bars at the class's angle in noise: from near chance to nearly always right in seconds."""
    algorithm = LEARNERS[name](nn.Conv4(channels=8, image_size=12, pooling="stride"))
    before, after = accuracies(algorithm, np.random.default_rng(0), steps=250)
    assert before < 0.5
    assert after > 0.85


# --- facts and limits ---


@pytest.mark.parametrize(("ways", "p"), [(5, 0.4046), (20, 0.1252)])
def test_cosines_of_positive_features_saturate_without_a_temperature(ways, p):
    """The largest probability that the paper's attention can give the true class."""
    support = np.eye(ways)[None]
    attention = ops.cosine_attention(support[:, :1], support, support, 1.0)
    assert attention[0, 0, 0] == pytest.approx(p, abs=1e-4)
    sharp = ops.cosine_attention(support[:, :1], support, support, 10.0)
    assert sharp[0, 0, 0] > 0.99


def test_in_float32_no_probability_underflows():
    """Opposite features at the lowest temperature."""
    q, s = np.float32([[[1, 0]]]), np.float32([[[-1, 0], [1, 0]]])
    labels = np.eye(2, dtype=np.float32)[None]
    p = ops.cosine_attention(q, s, labels, 1 / 0.025)
    assert p.dtype == np.float32
    assert np.isfinite(np.log(p)).all()
    with pytest.raises(ValueError, match=r"temperature: wanted at least 0.025, got 0.02"):
        Matching(nn.MLP([4, 2]), temperature=0.02)


def test_relation_never_holds_the_concatenated_maps():
    """A training step of 20 ways and 10 queries each: 4000 pairs, whose maps would be 51 MB."""
    rng = np.random.default_rng(0)
    algorithm = Relation(embedding())
    params = algorithm.init(rng)
    batch = images(rng, side=28, tasks=1, ways=20, shots=1, queries=10)
    batch = tree.map(lambda a: a.astype(np.float32) if a.dtype == np.float64 else a, batch)
    tracemalloc.start()
    algorithm.meta_gradient(params, batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 2**20  # 145 MiB measured, with the gradient and the embedding's maps


@pytest.mark.parametrize(("padding", "least"), [("same", 4), ("valid", 10)])
def test_relation_wants_maps_that_can_be_halved_twice(padding, least):
    with pytest.raises(ValueError, match=f"map_size of at least {least}, got {least - 1}"):
        Relation(embedding(), map_size=least - 1, padding=padding)
    smallest = Relation(embedding(2), n_channels=2, map_size=least, padding=padding)
    params = smallest.init(np.random.default_rng(0))
    maps = np.random.default_rng(1).random((1, 2, least, least, 2))
    x = smallest.second(params["second"], smallest.first_block(params, maps, maps))
    assert x.shape == (1, 4, 1, 1, 2)


def test_relation_has_the_authors_size_on_mini_imagenet():
    """Maps of 19 x 19, and 64 · 3 · 3 numbers before the linear layers."""
    algorithm = experiment.algorithm(presets.lookup("relation", "mini-imagenet", "paper"))
    params = algorithm.init(np.random.default_rng(0))
    assert params["head"]["linear1"]["weight"].shape == (576, 8)
    x = np.zeros((1, 1, 84, 84, 3), np.float32)
    assert algorithm.network(params["network"], x).shape == (1, 1, 19, 19, 64)


def test_kochs_network_has_the_papers_sizes():
    network = siamese.koch_network()
    whole = siamese.Siamese(network, siamese.KOCH_FEATURES).init(np.random.default_rng(0))
    params = whole["network"]
    shapes = {name: p["weight"].shape for name, p in params.items()}
    assert shapes == {
        "conv1": (10, 10, 1, 64),
        "conv2": (7, 7, 64, 128),
        "conv3": (4, 4, 128, 128),
        "conv4": (4, 4, 128, 256),
        "linear": (9216, 4096),
    }
    # the published number of parameters, with the α and the bias of the last layer
    assert sum(p.size for p in tree.flatten(whole)[0]) == 38_951_745
    x = np.zeros((1, 1, 105, 105, 1), np.float32)
    assert network(params, x).shape == (1, 1, siamese.KOCH_FEATURES)


def test_the_full_context_parameters_are_two_lstms_more():
    plain = Matching(nn.MLP([4, 3]))
    full = FullContext(nn.MLP([4, 3]), n_features=3)
    rng = np.random.default_rng(0)
    assert set(full.init(rng)) - set(plain.init(rng)) == {"f", "g"}
