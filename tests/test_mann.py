"""MANN: its memory against loops over rows and heads, the invariants of LRUA, its sequences."""

import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import data, episodes, nn, optim, tree
from scratchmeta.algorithms import MANN, LSTMBaseline
from scratchmeta.algorithms.lstm import letters, sequence
from scratchmeta.algorithms.mann import START
from scratchmeta.data.sequences import STRINGS
from scratchmeta.verify.episodes import images
from scratchmeta.verify.numbers import float64

SIZES = {"rows": 6, "width": 3, "heads": 2}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def cosine(a, b):
    lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
    return a @ b / lengths if lengths else 0.0


def learner(**options):
    rng = np.random.default_rng(0)
    algorithm = MANN(2, 2, 4, **{**SIZES, **options})
    return algorithm, float64(algorithm.init(rng), rng)


# --- nested loops ---


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_a_sequence_of_one_task_by_loops_over_steps_heads_and_rows(temperature):
    algorithm, params = learner(temperature=temperature)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 7, 2, 2, 1)), rng.integers(0, 2, (2, 7))
    got = algorithm.sequence_logits(params, x, y)
    for t in range(2):
        h, c = np.zeros(4), np.zeros(4)
        memory, usage = np.full((6, 3), START), np.zeros(6)
        reads, r = np.zeros((2, 6)), np.zeros(6)
        for step in range(7):
            label = np.eye(2)[y[t, step - 1]] if step else np.zeros(2)
            lstm = params["lstm"]
            z = np.concatenate([x[t, step].ravel(), label]) @ lstm["w_x"] + lstm["b"]
            i, f, g, o = np.split(z + h @ lstm["w_h"] + r @ lstm["w_r"], 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            made = h @ params["interface"]["weight"] + params["interface"]["bias"]
            least = np.argsort(usage, kind="stable")  # w^u_{t−1} decides, before the step
            memory[least[0]] = 0
            writes = np.zeros((2, 6))
            for head in range(2):
                alpha = sigmoid(made[6 + head])
                for row in range(6):
                    lu = 1.0 if row in least[:2] else 0.0
                    writes[head, row] = alpha * reads[head, row] + (1 - alpha) * lu
            keys = [np.tanh(made[3 * head : 3 * head + 3]) for head in range(2)]
            for head in range(2):
                for row in range(6):
                    memory[row] += writes[head, row] * keys[head]
            for head in range(2):
                reads[head] = softmax(
                    np.array([cosine(keys[head], row) / temperature for row in memory])
                )
            r = (reads @ memory).ravel()
            usage = 0.99 * usage + reads.sum(0) + writes.sum(0)
            out = np.concatenate([h, r]) @ params["out"]["weight"] + params["out"]["bias"]
            np.testing.assert_allclose(got[t, step], out, rtol=1e-9, atol=1e-12)


def test_a_query_is_read_alone_after_the_support():
    """As a sequence of the support and this one query would have it, whatever the other queries."""
    algorithm, params, batch = INSTANCES["mann"](np.random.default_rng(2))
    predicted = algorithm.predict(params, batch)
    order = [0, 2, 1, 3]  # shot by shot
    for q in range(batch.query_x.shape[1]):
        x = np.concatenate([batch.support_x[:, order], batch.query_x[:, q : q + 1]], axis=1)
        y = np.concatenate([batch.support_y[:, order], batch.query_y[:, q : q + 1]], axis=1)
        logits = algorithm.sequence_logits(params, x, y)[:, -1]
        wanted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(predicted[:, q], wanted, atol=1e-12)


@pytest.mark.parametrize("name", ["mann", "mann, strings", "lstm"])
def test_a_label_is_seen_only_afterwards(name):
    algorithm, params, _ = INSTANCES[name](np.random.default_rng(4))
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 6, 8, 8, 1)), rng.integers(0, 2, (2, 6))
    plain = algorithm.sequence_logits(params, x, y)
    for t in range(6):
        other = y.copy()
        other[:, t] = 1 - y[:, t]
        changed = (algorithm.sequence_logits(params, x, other) != plain).any(axis=(0, 2))
        np.testing.assert_array_equal(changed, np.arange(6) > t)


@pytest.mark.parametrize("name", ["mann", "lstm"])
def test_on_noise_accuracy_is_chance(name):
    algorithm, params, _ = INSTANCES[name](np.random.default_rng(6))
    batch = images(np.random.default_rng(7), tasks=200, queries=2)
    right = algorithm.predict(params, batch).argmax(-1) == batch.query_y
    assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


def test_permuting_the_labels_permutes_the_prediction_of_a_symmetric_network():
    """With the weights of the labels permuted too; their order means nothing to the rest."""
    algorithm, params, batch = INSTANCES["mann"](np.random.default_rng(8))
    swapped = batch._replace(support_y=1 - batch.support_y)
    mirrored = tree.map(np.copy, params)
    mirrored["lstm"]["w_x"][-2:] = params["lstm"]["w_x"][-2:][::-1]
    mirrored["out"]["weight"][:] = params["out"]["weight"][:, ::-1]
    mirrored["out"]["bias"][:] = params["out"]["bias"][::-1]
    # shot by shot an episode's classes come in the order of their examples, not of their labels
    np.testing.assert_allclose(
        algorithm.predict(mirrored, swapped)[..., ::-1],
        algorithm.predict(params, batch),
        atol=1e-12,
    )


# --- the memory's invariants ---


def test_the_memory_step_by_step():
    algorithm, params = learner()
    rng = np.random.default_rng(3)
    state = algorithm.start(2, rng.standard_normal(1))
    np.testing.assert_array_equal(state.rows, START)
    np.testing.assert_array_equal(state.usage, 0)
    for step in range(12):
        before = state
        _, state = algorithm.step(params, rng.standard_normal((2, 16)), before)
        made = state.h @ params["interface"]["weight"] + params["interface"]["bias"]
        keys, gates = np.tanh(made[:, :6]).reshape(2, 2, 3), sigmoid(made[:, 6:])
        np.testing.assert_allclose(state.read.sum(-1), 1)
        for t in range(2):
            # what eq. 7 writes: a head's weights sum to σ(α), once something was read, and
            # 1 − σ(α) for each of the two least used rows
            least = np.argsort(before.usage[t], kind="stable")[:2]
            write = gates[t][:, None] * before.read[t]
            write[:, least] += 1 - gates[t][:, None]
            np.testing.assert_allclose(write.sum(-1), gates[t] * (step > 0) + 2 * (1 - gates[t]))
            # eq. 5, usage decays and grows by what was read and written
            grown = state.read[t].sum(0) + write.sum(0)
            np.testing.assert_allclose(state.usage[t], 0.99 * before.usage[t] + grown)
            # eq. 8, the least used row was forgotten first, the others are kept
            written = write.T @ keys[t]
            np.testing.assert_allclose(state.rows[t][least[0]], written[least[0]])
            others = np.arange(6) != least[0]
            kept = before.rows[t][others] + written[others]
            np.testing.assert_allclose(state.rows[t][others], kept, atol=1e-15)


# --- sequences and labels ---


def test_shuffled_sequences_hold_every_example_once():
    plain = data.Glyphs("val", image_size=16)
    for labels in ("one-hot", "strings"):
        batch = episodes.sample(data.Shuffled(plain, labels), 3, 1, 3, 4, seed=1, index=2)
        x, y = sequence(batch)
        assert x.shape == (4, 12, 16, 16, 1)
        for t in range(4):
            names, counts = np.unique(y[t], return_counts=True)
            assert counts.tolist() == [4, 4, 4]
            assert len({x[t, i].tobytes() for i in range(12)}) == 12
            if labels == "one-hot":
                assert names.tolist() == [0, 1, 2]
                assert not (np.diff(y[t]) >= 0).all()
        again = episodes.sample(data.Shuffled(plain, labels), 3, 1, 3, 4, seed=1, index=2)
        np.testing.assert_array_equal(again.query_x, batch.query_x)
    with pytest.raises(ValueError, match="labels: wanted 'one-hot' or 'strings', got 'words'"):
        data.Shuffled(plain, "words")


def test_every_task_has_names_and_an_order_of_its_own():
    dataset = data.Shuffled(data.Glyphs("val", image_size=16), "strings")
    seen, orders = [], set()
    for index in range(4):
        batch = episodes.sample(dataset, 3, 1, 3, tasks=6, index=index)
        for y in sequence(batch)[1]:
            names = sorted(set(y.tolist()))
            assert len(names) == 3
            seen += names
            orders.add(tuple(names.index(name) for name in y))
    assert len(set(seen)) > 65  # of 72 names, out of 3125
    assert max(seen) > 3000
    assert min(seen) < 125
    assert len(orders) == 24


def test_letters_of_string_labels():
    np.testing.assert_array_equal(
        letters(np.array([0, 7, STRINGS - 1])), [[0] * 5, [0, 0, 0, 1, 2], [4] * 5]
    )


def test_strings_are_right_when_all_letters_are():
    algorithm = LSTMBaseline(2, 2, 4, labels="strings")
    assert algorithm.n_label == 25
    codes = algorithm.encode(np.array([7]), np.float64)
    np.testing.assert_array_equal(np.flatnonzero(codes[0]), [0, 5, 10, 16, 22])

    class Oracle(LSTMBaseline):
        def sequence_logits(self, params, x, y):
            made = self.encode(y, np.float64) * 9
            made[:, 0, :5] = [0, 0, 0, 0, 99]  # one letter wrong at the first step
            return made

    rng = np.random.default_rng(0)
    batch = images(rng, side=2, shots=1, queries=2)
    first = Oracle(2, 2, 4, labels="strings").instance_accuracy({}, batch, 3)
    np.testing.assert_allclose(
        first, [0.5, 1, 1]
    )  # of each task's two first instances one is wrong


def test_instances_are_counted_by_class():
    class Fixed(LSTMBaseline):
        def sequence_logits(self, params, x, y):
            return np.eye(2)[np.zeros_like(y)]  # always class 0

    batch = images(np.random.default_rng(0), side=2, shots=1, queries=2)
    batch = batch._replace(support_y=np.array([[0, 0]] * 2), query_y=np.array([[1, 0, 1, 1]] * 2))
    found = Fixed(2, 2, 4).instance_accuracy({}, batch, 4)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, np.nan])


def test_other_ways_are_refused():
    algorithm, params = learner()
    batch = images(np.random.default_rng(0), side=2, ways=3)
    with pytest.raises(ValueError, match="n_way: wanted the 2 classes of training, got 3"):
        algorithm.predict(params, batch)


def test_the_papers_sizes():
    algorithm = MANN()
    params = algorithm.init(np.random.default_rng(0))
    state = algorithm.start(16, np.zeros(1, np.float32))
    assert state.rows.shape == (16, 128, 40)
    assert state.read.shape == (16, 4, 128)
    assert params["lstm"]["w_x"].shape == (405, 800)
    assert nn.Linear(200, 164).init(np.random.default_rng(0))["weight"].shape == (
        params["interface"]["weight"].shape
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns(seed):
    """Two noisy points to tell apart: later instances well above chance, 96 % on any seed tried."""
    rng = np.random.default_rng(seed)

    def batch(tasks=8):
        centres = rng.standard_normal((tasks, 2, 4))
        y = rng.permuted(np.tile([0, 0, 0, 1, 1, 1], (tasks, 1)), axis=1)
        x = np.take_along_axis(centres, y[..., None], axis=1)
        x = (x + 0.1 * rng.standard_normal(x.shape)).reshape(tasks, 6, 2, 2, 1).astype(np.float32)
        return episodes.Episode(x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])

    algorithm = MANN(2, 2, 32, rows=8, width=8, heads=1)
    params = algorithm.init(rng)
    adam = optim.Adam(1e-2)
    state = adam.init(params)
    for _ in range(600):
        params, state = adam.step(params, algorithm.meta_gradient(params, batch())[1], state)
    found = algorithm.instance_accuracy(params, batch(200), 3)
    assert found[0] < 0.85  # a class that has not been seen yet can be guessed when the other has
    assert found[1:].min() > 0.85
