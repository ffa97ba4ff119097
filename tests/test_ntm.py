"""Neural Turing Machines: every equation against loops over scalars, the weights' invariants, the
tasks, and copying learned."""

import json
import math

import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import data, episodes, optim, presets, tree
from scratchmeta.algorithms import NTM, ntm
from scratchmeta.run import experiment, training
from scratchmeta.run.cli import main
from scratchmeta.run.evaluation import evaluate
from scratchmeta.verify.numbers import float64

T, HEADS, ROWS, WIDTH = 2, 3, 5, 4


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softplus(z):
    return np.log1p(np.exp(z))


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def some_weights(rng, *shape):
    w = rng.random(shape) + 0.01
    return w / w.sum(-1, keepdims=True)


def everywhere(*sizes):
    return np.ndindex(*sizes)


# --- the equations, one number at a time ---


def test_content_weights(rng):
    k, rows = rng.standard_normal((T, HEADS, WIDTH)), rng.standard_normal((T, ROWS, WIDTH))
    beta = rng.uniform(0.5, 3, (T, HEADS, 1))
    got = ntm.content_weights(k, rows, beta)
    for t, h in everywhere(T, HEADS):
        e = [math.exp(beta[t, h, 0] * cosine(k[t, h], rows[t, i])) for i in range(ROWS)]
        np.testing.assert_allclose(got[t, h], [x / sum(e) for x in e], rtol=1e-12)


def test_interpolate(rng):
    w_c, w = some_weights(rng, T, HEADS, ROWS), some_weights(rng, T, HEADS, ROWS)
    g = rng.random((T, HEADS, 1))
    got = ntm.interpolate(w_c, g, w)
    for t, h, i in everywhere(T, HEADS, ROWS):
        wanted = g[t, h, 0] * w_c[t, h, i] + (1 - g[t, h, 0]) * w[t, h, i]
        assert got[t, h, i] == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_array_equal(ntm.interpolate(w_c, np.ones_like(g), w), w_c)
    np.testing.assert_array_equal(ntm.interpolate(w_c, np.zeros_like(g), w), w)


def test_shift(rng):
    w, s = some_weights(rng, T, HEADS, ROWS), some_weights(rng, T, HEADS, 3)
    got = ntm.shift(w, s)
    for t, h, i in everywhere(T, HEADS, ROWS):
        wanted = 0.0
        for j in range(ROWS):
            for n, step in enumerate((-1, 0, 1)):
                if (i - j) % ROWS == step % ROWS:
                    wanted += w[t, h, j] * s[t, h, n]
        assert got[t, h, i] == pytest.approx(wanted, rel=1e-12)


def test_a_whole_shift_moves_round_the_circle():
    w = np.eye(ROWS)[None, :1] * 1.0
    forth, back = np.array([[[0.0, 0, 1]]]), np.array([[[1.0, 0, 0]]])
    np.testing.assert_array_equal(ntm.shift(w, forth)[0, 0], np.eye(ROWS)[1])
    np.testing.assert_array_equal(ntm.shift(w, back)[0, 0], np.eye(ROWS)[ROWS - 1])


def test_sharpen(rng):
    w, gamma = some_weights(rng, T, HEADS, ROWS), rng.uniform(1, 5, (T, HEADS, 1))
    got = ntm.sharpen(w, gamma)
    for t, h in everywhere(T, HEADS):
        powers = [w[t, h, i] ** gamma[t, h, 0] for i in range(ROWS)]
        np.testing.assert_allclose(got[t, h], [p / sum(powers) for p in powers], rtol=1e-12)
    np.testing.assert_allclose(ntm.sharpen(w, np.ones_like(gamma)), w, rtol=1e-12)


def test_sharpening_does_not_underflow():
    w = np.full((1, 1, 128), 1 / 128, np.float32)
    got = ntm.sharpen(w, np.full((1, 1, 1), 40, np.float32))  # 128⁻⁴⁰ is 0 in float32
    np.testing.assert_allclose(got, w, rtol=1e-6)


@pytest.mark.parametrize("heads", [1, 3])
def test_write_and_read(rng, heads):
    rows, w = rng.standard_normal((T, ROWS, WIDTH)), some_weights(rng, T, heads, ROWS)
    e, a = rng.random((T, heads, WIDTH)), rng.standard_normal((T, heads, WIDTH))
    got = ntm.write(rows, w, e, a)
    for t, i, d in everywhere(T, ROWS, WIDTH):
        wanted = rows[t, i, d]
        for h in range(heads):
            wanted *= 1 - w[t, h, i] * e[t, h, d]
        for h in range(heads):
            wanted += w[t, h, i] * a[t, h, d]
        assert got[t, i, d] == pytest.approx(wanted, rel=1e-12)
    got = ntm.read(rows, w)
    for t, h, d in everywhere(T, heads, WIDTH):
        wanted = sum(w[t, h, i] * rows[t, i, d] for i in range(ROWS))
        assert got[t, h, d] == pytest.approx(wanted, rel=1e-12)


# --- the whole machine ---


@pytest.mark.parametrize("name", ["ntm", "ntm, feed-forward"])
def test_a_sequence_of_one_task_by_loops_over_steps_and_heads(name, rng):
    machine, params, batch = INSTANCES[name](rng)
    n, m, rows = machine.heads, machine.width, machine.rows
    got, where = machine.predict(params, batch), machine.weights(params, batch)
    p = params["controller"]
    for t in range(2):
        h, c, r = np.zeros(4), np.zeros(4), params["start"]["r"]
        memory = params["start"].get("rows", np.full((rows, m), ntm.START)).copy()
        w = [softmax(v) for v in params["start"]["w"]]
        steps = np.concatenate([batch.support_x[t], batch.query_x[t]])
        for step, x in enumerate(steps):
            z = x @ p["w_x"] + r @ p["w_r"] + p["b"]
            if machine.controller == "lstm":
                i, f, g, o = np.split(z + h @ p["w_h"], 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                h = np.tanh(z)
            made = list(h @ params["heads"]["weight"] + params["heads"]["bias"])

            def take(count, made=made):
                taken, made[:] = np.array(made[:count]), made[count:]
                return taken

            k = [np.tanh(take(m)) for _ in range(2 * n)]
            beta = [softplus(take(1)) for _ in range(2 * n)]
            g = [sigmoid(take(1)) for _ in range(2 * n)]
            s = [softmax(take(3)) for _ in range(2 * n)]
            gamma = [1 + softplus(take(1)) for _ in range(2 * n)]
            e = [sigmoid(take(m)) for _ in range(n)]
            a = [np.tanh(take(m)) for _ in range(n)]
            assert made == []
            for head in range(2 * n):
                content = softmax(beta[head] * [cosine(k[head], row) for row in memory])
                gated = g[head] * content + (1 - g[head]) * w[head]
                shifted = [
                    s[head][0] * gated[(row + 1) % rows]
                    + s[head][1] * gated[row]
                    + s[head][2] * gated[row - 1]
                    for row in range(rows)
                ]
                w[head] = np.array(shifted) ** gamma[head]
                w[head] /= w[head].sum()
            kept = [
                np.prod([1 - w[n + j][i] * e[j] for j in range(n)], axis=0) for i in range(rows)
            ]
            memory = memory * kept
            for j in range(n):
                memory += np.outer(w[n + j], a[j])
            r = np.concatenate([w[head] @ memory for head in range(n)])
            np.testing.assert_allclose(where[t, step], w, rtol=1e-9)
            asked = step - batch.support_x.shape[1]
            if asked >= 0:
                out = np.concatenate([h, r]) @ params["out"]["weight"] + params["out"]["bias"]
                np.testing.assert_allclose(got[t, asked], sigmoid(out), rtol=1e-9)


@pytest.mark.parametrize("name", ["ntm", "ntm, feed-forward"])
def test_weights_are_shares_at_every_step_for_every_head(name, rng):
    machine, params, batch = INSTANCES[name](rng)
    params = tree.map(lambda p: 20 * p, params)  # sharp, and far from where it starts
    w = machine.weights(params, batch)
    assert w.shape == (2, 5, 2 * machine.heads, machine.rows)
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-12)


def test_the_loss_is_the_mean_negative_log_probability_of_the_bits(rng):
    machine, params, batch = INSTANCES["ntm"](rng)
    p = machine.predict(params, batch)
    got = machine.task_losses(params, batch)
    for t in range(2):
        chosen = [
            p[t, q, d] if batch.query_y[t, q, d] else 1 - p[t, q, d]
            for q, d in everywhere(*batch.query_y.shape[1:])
        ]
        assert got[t] == pytest.approx(-np.mean(np.log(chosen)), rel=1e-9)


def test_tasks_do_not_touch_one_another(rng):
    machine, params, batch = INSTANCES["ntm"](rng)
    together = machine.predict(params, batch)
    for t in range(2):
        alone = episodes.Episode(*(a[t : t + 1] for a in batch))
        np.testing.assert_allclose(machine.predict(params, alone)[0], together[t], rtol=1e-12)


def size(params):
    return sum(leaf.size for leaf in tree.flatten(params)[0])


@pytest.mark.parametrize(
    ("controller", "units", "heads", "channels", "wanted"),
    [
        ("feed-forward", 100, 1, (10, 9), 16_317),  # copy, the paper 17,162
        ("lstm", 100, 1, (10, 9), 65_617),  # 67,561
        ("feed-forward", 256, 4, (8, 6), 123_046),  # recall, 146,845
        ("lstm", 100, 1, (8, 6), 64_454),  # 70,330
    ],
)
def test_the_number_of_parameters(controller, units, heads, channels, wanted):
    """As the module's docstring counts them; the paper's numbers cannot be had this way."""
    machine = NTM(*channels, controller, units, heads, memory="learned")
    i, o, h, n, rows, m = *channels, units, heads, 128, 20
    z = h * (i + n * m + 1) if controller == "feed-forward" else 4 * h * (i + n * m + h + 1)
    told = n * (2 * (m + 6) + 2 * m) * (h + 1)
    out = o * (h + n * m + 1)
    start = 2 * n * rows + n * m + rows * m
    assert size(machine.init(np.random.default_rng(0))) == z + told + out + start == wanted


def test_what_the_papers_counts_say_about_the_channels():
    """Three LSTM layers that see the input, are seen by the output, and have a learned start."""

    def baseline(h, i, o):
        layers = [4 * h * (i + h + 1), *(2 * [4 * h * (i + h + h + 1)])]
        return sum(layers) + o * (3 * h + 1) + 3 * 2 * h

    published = {
        (256, 1_352_969): (10, 9),  # copy
        (512, 5_312_007): (8, 7),  # repeat copy
        (256, 1_344_518): (8, 6),  # associative recall
        (128, 331_905): (1, 1),  # N-grams
    }
    for (h, count), channels in published.items():
        fits = [(i, o) for i, o in everywhere(40, 40) if baseline(h, i, o) == count]
        assert fits == [channels]
    assert data.Copy().channels[0] == 10
    assert data.Recall().channels == (8, 6)


def test_unknown_options_and_inputs_are_named(rng):
    with pytest.raises(ValueError, match="controller: wanted 'lstm' or 'feed-forward', got 'gru'"):
        NTM(3, 2, controller="gru")
    with pytest.raises(ValueError, match="memory: wanted 'constant' or 'learned', got 'random'"):
        NTM(3, 2, memory="random")
    machine, params, batch = INSTANCES["ntm"](rng)
    other = batch._replace(support_x=batch.support_x[..., :2], query_x=batch.query_x[..., :2])
    with pytest.raises(ValueError, match="episodes: wanted 3 inputs, got 2"):
        machine.predict(params, other)


# --- the tasks ---


def test_copy_shows_a_sequence_between_delimiters_and_asks_for_it():
    seen = set()
    for index in range(60):
        e = episodes.sample(data.Copy(8, (2, 5)), 1, 1, 1, tasks=3, seed=4, index=index)
        length = e.query_y.shape[1]
        seen.add(length)
        assert e.support_x.shape == (3, length + 2, 10)
        assert e.query_x.shape == (3, length, 10)
        assert e.support_x.dtype == e.query_x.dtype == np.float32
        assert e.query_y.dtype == bool
        for t in range(3):
            first, *vectors, last = e.support_x[t].tolist()
            assert first == [0] * 8 + [1, 0]
            assert last == [0] * 8 + [0, 1]
            assert vectors == [[*bits, 0, 0] for bits in e.query_y[t].astype(float).tolist()]
        assert not e.query_x.any()
        assert not e.support_y.any()
    assert seen == {2, 3, 4, 5}


def test_recall_asks_for_the_item_after_the_one_shown_again():
    cues = set()
    for index in range(60):
        e = episodes.sample(data.Recall(6, 3, (2, 4)), 1, 1, 1, tasks=2, seed=4, index=index)
        n = (e.support_x.shape[1] - 5) // 4
        assert e.support_x.shape == (2, 4 * n + 5, 8)
        assert e.query_y.shape == (2, 3, 6)
        for t in range(2):
            steps = e.support_x[t]
            delimiters = [int(step[6] + 2 * step[7]) for step in steps]
            assert delimiters == [1, 0, 0, 0] * n + [2, 0, 0, 0, 2]
            items = [steps[4 * i + 1 : 4 * i + 4, :6].tolist() for i in range(n)]
            again = steps[-4:-1, :6].tolist()
            cue = items.index(again)
            cues.add((n, cue))
            assert items[cue + 1] == e.query_y[t].astype(float).tolist()
    assert cues == {(n, cue) for n in (2, 3, 4) for cue in range(n - 1)}


@pytest.mark.parametrize("dataset", [data.Copy(), data.Recall()])
def test_a_batch_is_a_function_of_seed_and_index(dataset):
    def at(**changes):
        batch = episodes.sample(dataset, 1, 1, 1, **{"tasks": 4, "seed": 3, "index": 7} | changes)
        return [a.tobytes() for a in batch]

    assert at() == at()
    assert at() != at(seed=4)
    assert at() != at(index=8)
    with pytest.raises(ValueError, match=r"n_way: at most the 1 classes of .* wanted, got 5"):
        episodes.sample(dataset)
    with pytest.raises(ValueError, match=r"k_shot \+ n_query: at most the 2 .* got 1 \+ 15"):
        episodes.sample(dataset, 1)


def test_lengths_can_be_fixed_and_impossible_ones_are_named():
    assert repr(data.Copy().of_length(40)) == "Copy(bits=8, lengths=(40, 40))"
    fixed = episodes.sample(data.Recall().of_length(9), 1, 1, 1)
    assert fixed.support_x.shape == (1, 41, 8)
    with pytest.raises(ValueError, match="lengths: wanted 1 <= shortest <= longest, got 0, 3"):
        data.Copy(lengths=(0, 3))
    with pytest.raises(ValueError, match=r"length: wanted .* got Sinusoids\("):
        experiment.of_length(data.Sinusoids(), 3)
    with pytest.raises(ValueError, match="lengths: wanted 2 <= shortest <= longest, got 1, 1"):
        data.Recall().of_length(1)


def test_bit_errors_are_counted_by_sequence():
    class Zeros:
        def predict(self, params, batch):
            return np.zeros(batch.query_y.shape)

    dataset = data.Copy(4, (1, 6))
    got = evaluate(Zeros(), None, dataset, 1, 1, 1, episodes=30, seed=2, first=5)
    sequences = [episodes.sample(dataset, 1, 1, 1, 1, 2, 5 + i).query_y for i in range(30)]
    errors = [int(y.sum()) for y in sequences]
    assert got.measure == "bit_errors"
    assert got.value == pytest.approx(np.mean(errors))
    assert got.ci95 == pytest.approx(1.96 * np.std(errors, ddof=1) / math.sqrt(30))
    assert got.score == -got.value
    assert str(got).startswith("bit errors ")


# --- learning, and the command line ---


@pytest.mark.parametrize("controller", ["lstm", "feed-forward"])
def test_it_learns_to_copy(controller):
    """One or two vectors of four bits: few wrong after some seconds, where a guess has three."""
    dataset = data.Copy(4, (1, 2))
    machine = NTM(*dataset.channels, controller, units=32, rows=8, width=8)
    params = machine.init(np.random.default_rng(0))
    adam = optim.Adam(5e-3)
    state = adam.init(params)
    for index in range(300):
        batch = episodes.sample(dataset, 1, 1, 1, 16, 0, index)
        grads = optim.clip_by_norm(machine.meta_gradient(params, batch)[1], 10.0)
        params, state = adam.step(params, grads, state)
    found = evaluate(machine, params, dataset, 1, 1, 1, episodes=200)
    assert found.value < 0.6  # four seeds had 0 to 0.31


def test_from_training_to_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loop = ["--validate-every", "2", "--validation-episodes", "3", "--tasks", "2"]
    for name, more in (("copy", ["--lengths", "1", "3"]), ("recall", ["--heads", "2"])):
        argv = ["train", "ntm", "--data", name, *more, *loop, "--rows", "6", "--width", "4"]
        argv += ["--units", "8"]
        assert main([*argv, "--steps", "4", "--out", name]) == 0
        assert main([*argv, "--steps", "2", "--out", "half"]) == 0
        assert main(["train", "--resume", "half", "--steps", "4"]) == 0
        for file in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "half" / file).read_bytes()
        (tmp_path / "half").rename(tmp_path / f"{name}-half")
        capsys.readouterr()
        assert main(["evaluate", name, "--episodes", "6", "--length", "5", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["bits"] == (40 if name == "copy" else 18)
        assert 0 < found["bit_errors"] < found["bits"]
        assert found["lengths"] == [5, 5]
        assert found["chance"] == found["bits"] / 2
        assert main(["evaluate", name, "--episodes", "6"]) == 0
        text = capsys.readouterr().out
        assert f"ntm on {name}, 6 test sequences of length {1 if name == 'copy' else 2} to" in text
        assert "bit errors" in text
        assert main(["plot", name, "--length", "4"]) == 0
        assert (tmp_path / name / "episode.png").stat().st_size > 5000
    assert main(["evaluate", "copy", "--length", "0"]) == 2
    assert "lengths: wanted 1 <= shortest <= longest, got 0, 0" in capsys.readouterr().err
    assert main(["train", "ntm", "--lengths", "3", "1"]) == 2
    assert "lengths: wanted 1 or more, then no less, got 3 1" in capsys.readouterr().err


def test_the_papers_optimizer():
    """RMSProp on gradients cut off at ±clip_value, entry by entry."""
    config = presets.lookup("ntm", "copy", "paper")
    settings = config.training
    assert (settings.optimizer, settings.lr, settings.clip_value) == ("rmsprop", 1e-4, 10)
    machine = experiment.algorithm(config)
    optimizer, state = training.start(machine, settings)
    assert optimizer == optim.RMSProp(1e-4, decay=0.95, momentum=0.9, eps=1e-4, centered=True)

    class Steep:
        def meta_gradient(self, params, batch):
            return np.float32(1), tree.map(lambda p: np.full_like(p, 50), params)

    batch = episodes.sample(data.Copy(), 1, 1, 1)
    _, after = training.step(Steep(), optimizer, state, batch, settings)
    square = after.optimizer["square"]
    np.testing.assert_allclose(square, 0.05 * 10**2, rtol=1e-6)


def test_float64_in_float64_out(rng):
    machine = NTM(3, 2, units=4, rows=5, width=3)
    params = float64(machine.init(rng), rng)
    assert machine.predict(params, INSTANCES["ntm"](rng)[2]).dtype == np.float64


def test_a_summed_loss_is_the_mean_times_the_bits(rng):
    mean, summed = NTM(10, 8, rows=5), NTM(10, 8, rows=5, summed=True)
    params = mean.init(rng)
    batch = episodes.sample(data.Copy(lengths=(3, 3)), 1, 1, 1, 2)
    bits = batch.query_y[0].size
    np.testing.assert_allclose(
        summed.task_losses(params, batch), bits * mean.task_losses(params, batch), rtol=1e-5
    )
