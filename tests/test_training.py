"""The loop does what its docstring says, and resuming continues it bit for bit."""

import json
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from scratchmeta import episodes, losses, nn, tree
from scratchmeta.algorithms import MAML, Prototypical
from scratchmeta.data import ImageDataset, Sinusoids
from scratchmeta.run.checkpoint import CheckpointError, Run
from scratchmeta.run.config import Training
from scratchmeta.run.evaluation import TEST, VALIDATION, Evaluation, NearestNeighbour, evaluate
from scratchmeta.run.training import Interrupted, NonFiniteError, train

WAVES = Training(n_way=1, k_shot=5, n_query=5, tasks=4, steps=6, validate_every=2,
                 validation_episodes=4, lr=0.01)  # fmt: skip


def waves_algorithm():
    return MAML(nn.MLP([1, 8, 1]), inner_lr=0.01, loss=losses.mse)


def faces(classes=8, seed=0):
    """Images that can be told apart: every class a random 16 × 16 pattern, every drawing noisy."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 200, (classes, 1, 16, 16, 1))
    drawings = pattern + rng.integers(0, 56, (classes, 8, 16, 16, 1))
    return ImageDataset(drawings.astype(np.uint8), [f"face{i}" for i in range(classes)])


IMAGES = Training(n_way=3, k_shot=1, n_query=2, tasks=2, steps=6, validate_every=2, test_query=2,
                  validation_episodes=4, halve_every=2, clip_norm=0.5, lr=0.01)  # fmt: skip


def images_algorithm():
    return Prototypical(nn.Conv4(channels=3, image_size=16), batch_norm="running")


CASES = {
    "waves": (waves_algorithm, Sinusoids(), Sinusoids(), WAVES),
    "images": (images_algorithm, faces(), faces(seed=1), IMAGES),
}


def bits(state):
    """Everything in a State, as bytes and numbers that can be compared."""
    arrays = tree.flatten((state.params, state.optimizer))[0]
    return [
        state.step,
        state.best_score,
        state.best_step,
        *(np.asarray(a).tobytes() for a in arrays),
    ]


# --- resuming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_2n_steps_are_n_steps_and_n_more_bit_for_bit(case, tmp_path):
    make, dataset, validation, settings = CASES[case]
    whole = train(make(), dataset, settings, validation=validation, run=tmp_path / "whole")
    # not a multiple of validate_every: stopped between two validations
    half = replace(settings, steps=3)
    train(make(), dataset, half, validation=validation, run=tmp_path / "parts")
    parts = train(
        make(), dataset, settings, validation=validation, run=tmp_path / "parts", resume=True
    )
    assert bits(whole) == bits(parts)
    for name in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_what_came_after_the_checkpoint_is_done_again_not_doubled(tmp_path):
    """A crash between checkpoints: the metrics are ahead of last.safetensors."""
    make, dataset, validation, settings = CASES["waves"]
    train(make(), dataset, settings, validation=validation, run=tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    early = train(make(), dataset, replace(settings, steps=3), validation=validation)
    Run.open(tmp_path).save("last", early)
    train(make(), dataset, settings, validation=validation, run=tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    steps = [line["step"] for line in Run.open(tmp_path).history() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_resuming_what_is_finished_changes_nothing(tmp_path):
    make, dataset, validation, settings = CASES["waves"]
    done = train(make(), dataset, settings, validation=validation, run=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    again = train(make(), dataset, settings, validation=validation, run=tmp_path, resume=True)
    assert bits(again) == bits(done)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_resuming_another_network_is_refused_and_loses_nothing(tmp_path):
    make, dataset, _, settings = CASES["waves"]
    train(make(), dataset, settings, run=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    wider = MAML(nn.MLP([1, 9, 1]), loss=losses.mse)
    with pytest.raises(CheckpointError, match=r"params/linear1/.* wanted .*9.* got .*8"):
        train(wider, dataset, settings, run=tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


# --- one step, by the book ------------------------------------------------------------------------


def test_the_loop_is_sample_gradient_clip_adam():
    """Against the same loop with scalars: Kingma & Ba's algorithm 1, entry by entry."""
    make, dataset, _, settings = CASES["images"]
    settings = replace(settings, clip_value=0.02, weight_decay=0.1)
    algorithm = make()
    flat, unravel = tree.ravel(algorithm.init(np.random.default_rng(settings.seed)))
    θ, m, v = flat.astype(float).tolist(), [0.0] * flat.size, [0.0] * flat.size
    clipped = 0
    for t in range(1, settings.steps + 1):
        batch = episodes.sample(dataset, 3, 1, 2, 2, seed=settings.seed, index=t - 1)
        _, grads = algorithm.meta_gradient(unravel(np.array(θ, np.float32)), batch)
        g = tree.ravel(grads)[0].astype(float).tolist()
        norm = math.sqrt(sum(entry**2 for entry in g))
        lr = settings.lr / 2 ** ((t - 1) // 2)
        for i, entry in enumerate(g):
            entry *= min(1.0, 0.5 / norm)
            clipped += abs(entry) > 0.02
            entry = max(-0.02, min(0.02, entry)) + 0.1 * θ[i]
            m[i] = 0.9 * m[i] + 0.1 * entry
            v[i] = 0.999 * v[i] + 0.001 * entry**2
            θ[i] -= lr * (m[i] / (1 - 0.9**t)) / (math.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
    assert 0 < clipped < settings.steps * flat.size
    trained = tree.ravel(train(make(), dataset, settings).params)[0]
    # The last offsets move support and query alike, so most of their gradient is rounding noise,
    # which Adam, dividing by √v, makes steps of.
    last = unravel(np.arange(flat.size))["network"]["block4"]["norm"]["offset"]
    told = ~np.isin(np.arange(flat.size), last)
    np.testing.assert_allclose(trained[told], np.array(θ)[told], atol=1e-4)
    assert np.median(np.abs(trained - θ)) < 1e-6


def test_training_learns():
    dataset, test = faces(20), faces(20, seed=1)
    settings = replace(IMAGES, steps=40, halve_every=0, tasks=1)
    algorithm = Prototypical(nn.Conv4(channels=8, image_size=16))
    start = evaluate(
        algorithm, algorithm.init(np.random.default_rng(0)), test, 3, 1, 5, episodes=50
    )
    end = evaluate(
        algorithm, train(algorithm, dataset, settings).params, test, 3, 1, 5, episodes=50
    )
    assert end.value - end.ci95 > start.value + start.ci95


# --- validation -----------------------------------------------------------------------------------


class Scripted:
    """An algorithm that is right in a given share of the queries, validation by validation."""

    def __init__(self, accuracies):
        self.accuracies = iter(accuracies)

    def init(self, rng):
        return {"w": np.zeros(2)}

    def meta_gradient(self, params, batch):
        return 1.0, {"w": np.ones(2)}

    def calibrate(self, params, batch):
        if params["w"].any():  # those of the first checkpoint are never validated
            self.now = next(self.accuracies)  # called once before each validation
        return params

    def predict(self, params, batch):
        right = np.arange(batch.query_y.shape[1]) < round(self.now * batch.query_y.shape[1])
        answer = np.where(right, batch.query_y, (batch.query_y + 1) % 3)
        return np.eye(3)[answer]


SCRIPT = replace(IMAGES, steps=100, n_query=4, test_query=4, lr=0.1, clip_norm=0.0, halve_every=0)


def test_the_best_checkpoint_is_the_best_validation(tmp_path):
    algorithm = Scripted([3 / 12, 9 / 12, 6 / 12])
    settings = replace(SCRIPT, steps=6)
    state = train(algorithm, faces(), settings, validation=faces(), run=tmp_path)
    assert (state.step, state.best_step, state.best_score) == (6, 4, 9 / 12)
    run = Run.open(tmp_path)
    assert run.load("best", like=state).step == 4
    assert run.load("last", like=state).step == 6
    measured = [line["validation"] for line in run.history() if "validation" in line]
    assert measured == [3 / 12, 9 / 12, 6 / 12]


def test_of_equal_validations_the_last_is_kept(tmp_path):
    """A score that cannot be bettered is reached long before training is over."""
    settings = replace(SCRIPT, steps=8, patience=3)
    state = train(Scripted([1, 1, 6 / 12, 1]), faces(), settings, validation=faces(), run=tmp_path)
    assert (state.step, state.best_step) == (8, 2)  # an equal one is not a new best
    assert Run.open(tmp_path).load("best", like=state).step == 8


def test_training_stops_after_patience_validations_without_a_new_best():
    accuracies = [5 / 12, 6 / 12, 6 / 12, 4 / 12, 3 / 12, 12 / 12]
    settings = replace(SCRIPT, patience=3)
    state = train(Scripted(accuracies), faces(), settings, validation=faces())
    assert (state.step, state.best_step) == (10, 4)  # best at the 2nd validation, 3 more without


def test_a_resumed_run_remembers_how_long_it_waited(tmp_path):
    settings = replace(SCRIPT, patience=2)
    first = Scripted([6 / 12, 5 / 12])
    train(first, faces(), replace(settings, steps=4), validation=faces(), run=tmp_path)
    rest = Scripted([5 / 12, 12 / 12])
    state = train(rest, faces(), settings, validation=faces(), run=tmp_path, resume=True)
    assert (state.step, state.best_step) == (6, 2)


def test_a_lower_error_is_a_better_score():
    assert Evaluation("mse", 0.1, 0, 2, 1, 1).score > Evaluation("mse", 0.2, 0, 2, 1, 1).score
    assert (
        Evaluation("accuracy", 0.2, 0, 2, 5, 1).score
        > Evaluation("accuracy", 0.1, 0, 2, 5, 1).score
    )


class Undecided:
    """Predicts what is no number for the first query of every task."""

    def predict(self, params, batch):
        scores = np.zeros((*batch.query_y.shape, 3))
        scores[:, 0] = np.nan
        return scores

    def calibrate(self, params, batch):
        return params


def test_predictions_that_are_no_numbers_are_not_counted_as_wrong():
    result = evaluate(Undecided(), None, faces(), 3, 1, 2, episodes=4)
    assert math.isnan(result.value)


# --- stopping -------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def interruptible():
    """A script's `pytest &` ignores SIGINT, and so would the training that is to be stopped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signalling:
    """Sends this process a signal in the middle of step `at`, once or twice."""

    def __init__(self, at, signum, times=1):
        self.inner, self.step = waves_algorithm(), 0
        self.at, self.signum, self.times = at, signum, times

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def meta_gradient(self, params, batch):
        self.step += 1
        if self.step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)
        return self.inner.meta_gradient(params, batch)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_resuming_loses_nothing(signum, tmp_path):
    make, dataset, validation, settings = CASES["waves"]
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted, match="after step 3") as stopped:
        train(Signalling(3, signum), dataset, settings, validation=validation, run=tmp_path)
    assert (stopped.value.step, stopped.value.signum, stopped.value.run) == (3, signum, tmp_path)
    assert signal.getsignal(signum) is before
    resumed = train(make(), dataset, settings, validation=validation, run=tmp_path, resume=True)
    assert bits(resumed) == bits(train(make(), dataset, settings, validation=validation))


def test_a_second_ctrl_c_stops_at_once_and_the_checkpoint_stays(tmp_path):
    make, dataset, _, settings = CASES["waves"]
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(Signalling(5, signal.SIGINT, times=2), dataset, settings, run=tmp_path)
    assert not isinstance(stopped.value, Interrupted)
    state = train(make(), dataset, replace(settings, steps=1))
    assert Run.open(tmp_path).load("last", like=state).step == 4  # the last one saved


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_does_not_wait_for_a_validation(early, tmp_path):
    """Whether it comes during the validation or just before: the step is taken again."""
    make, dataset, validation, settings = CASES["waves"]

    algorithm = Signalling(4, signal.SIGHUP) if early else Signalling(9, signal.SIGHUP)
    if not early:
        predict = algorithm.inner.predict

        def signalling(params, batch):
            if algorithm.step == 4:
                os.kill(os.getpid(), signal.SIGHUP)
            return predict(params, batch)

        algorithm.predict = signalling
    with pytest.raises(Interrupted, match="stopped by SIGHUP after step 3"):
        train(algorithm, dataset, settings, validation=validation, run=tmp_path)
    assert Run.open(tmp_path).history()[-1]["step"] == 3
    resumed = train(make(), dataset, settings, validation=validation, run=tmp_path, resume=True)
    assert bits(resumed) == bits(train(make(), dataset, settings, validation=validation))


def test_validations_that_are_no_numbers_are_passed_over(tmp_path, monkeypatch):
    make, dataset, validation, settings = CASES["waves"]
    values = iter([math.nan, math.nan, 2.0, math.nan, 1.0, math.nan, math.nan, math.nan])
    monkeypatch.setattr(
        "scratchmeta.run.training._validate",
        lambda *_: Evaluation("mse", next(values), 0.1, 4, 1, 5),
    )
    settings = replace(settings, steps=20, validate_every=1, patience=2)
    state = train(make(), dataset, settings, validation=validation, run=tmp_path)
    assert (state.best_score, state.best_step, state.step) == (-1.0, 5, 7)
    assert Run.open(tmp_path).load("best", like=state).step == 5


def test_parameters_that_are_no_numbers_are_not_saved(tmp_path):
    make, dataset, _, settings = CASES["waves"]
    settings = replace(settings, lr=1e39, validate_every=1)
    with pytest.raises(NonFiniteError, match="the parameter linear1/bias is not finite at step 1"):
        train(make(), dataset, settings, run=tmp_path)
    assert Run.open(tmp_path).load("last", like=train(make(), dataset, WAVES)).step == 0


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    make, dataset, _, settings = CASES["waves"]
    train(make(), dataset, settings, run=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="steps: wanted at least the 6 done, got 3"):
        train(make(), dataset, replace(settings, steps=3), run=tmp_path, resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_a_run_folder_ctrl_c_is_an_ordinary_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(Signalling(2, signal.SIGINT), Sinusoids(), WAVES)
    assert not isinstance(stopped.value, Interrupted)


def test_another_thread_may_train(tmp_path):
    states = []
    worker = threading.Thread(
        target=lambda: states.append(train(waves_algorithm(), Sinusoids(), WAVES, run=tmp_path))
    )
    worker.start()
    worker.join(60)
    assert bits(states[0]) == bits(train(waves_algorithm(), Sinusoids(), WAVES))


class Poisoned:
    """Puts `value` into the loss or the gradient of step `at`."""

    def __init__(self, at, where, value):
        self.inner, self.at, self.where, self.value, self.step = (
            waves_algorithm(),
            at,
            where,
            value,
            0,
        )

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def meta_gradient(self, params, batch):
        loss, grads = self.inner.meta_gradient(params, batch)
        self.step += 1
        if self.step == self.at:
            if self.where == "loss":
                loss = self.value
            else:
                grads["linear2"]["weight"] = grads["linear2"]["weight"].copy()
                grads["linear2"]["weight"][3, 0] = self.value
        return loss, grads


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("where", "named"), [("loss", "the loss"), ("gradient", "the gradient of linear2/weight")]
)
def test_a_loss_or_gradient_that_is_not_finite_stops_and_keeps_the_checkpoint(
    where, named, value, tmp_path
):
    settings = replace(WAVES, seed=7)
    with pytest.raises(NonFiniteError, match=rf"{named} is not finite at step 6 \(seed 7\)"):
        train(Poisoned(6, where, value), Sinusoids(), settings, run=tmp_path)
    state = train(waves_algorithm(), Sinusoids(), replace(settings, steps=4))
    assert bits(Run.open(tmp_path).load("last", like=state)) == bits(state)


# --- asking for the impossible --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_way": 9}, "n_way.*8.*9"),
        ({"k_shot": 7}, "k_shot"),
        ({"n_query": 8}, "n_query"),
    ],
)
def test_impossible_episodes_are_refused_before_anything_is_overwritten(wrong, message, tmp_path):
    make, dataset, _, settings = CASES["images"]
    train(make(), dataset, replace(settings, steps=1), run=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        train(make(), dataset, replace(settings, **wrong), run=tmp_path, overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_impossible_validation_is_refused_before_the_first_step(tmp_path):
    make, dataset, validation, settings = CASES["images"]
    with pytest.raises(ValueError, match=r"n_way.*8.*9"):
        train(
            make(),
            dataset,
            replace(settings, test_way=9),
            validation=validation,
            run=tmp_path / "a",
        )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["n_way", "k_shot", "n_query", "tasks", "steps", "validate_every"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_below_one_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}: wanted at least 1, got {value}"):
        Training(**{name: value})


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_that_is_no_positive_number_is_refused(lr):
    with pytest.raises(ValueError, match="lr: wanted a positive number"):
        Training(lr=lr)


# --- evaluation -----------------------------------------------------------------------------------


def test_accuracy_is_counted_query_by_query():
    algorithm, dataset = images_algorithm(), faces()
    algorithm = replace(algorithm, batch_norm="transductive")
    params = algorithm.init(np.random.default_rng(0))
    result = evaluate(algorithm, params, dataset, 3, 1, 4, episodes=7, seed=5)
    accuracies = []
    for index in range(7):
        batch = episodes.sample(dataset, 3, 1, 4, tasks=1, seed=5, index=TEST + index)
        scores = algorithm.predict(params, batch)
        right = 0
        for q in range(12):
            best = max(range(3), key=lambda k: scores[0, q, k])
            right += best == batch.query_y[0, q]
        accuracies.append(right / 12)
    mean = sum(accuracies) / 7
    deviation = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / 6)
    assert result.value == pytest.approx(mean, abs=1e-12)
    assert result.ci95 == pytest.approx(1.96 * deviation / math.sqrt(7), abs=1e-12)
    assert (result.measure, result.episodes, result.n_way, result.k_shot) == ("accuracy", 7, 3, 1)


def test_error_is_summed_point_by_point():
    algorithm = waves_algorithm()
    params = algorithm.init(np.random.default_rng(0))
    result = evaluate(algorithm, params, Sinusoids(), 1, 5, 3, episodes=4, seed=2)
    errors = []
    for index in range(4):
        batch = episodes.sample(Sinusoids(), 1, 5, 3, tasks=1, seed=2, index=TEST + index)
        values = algorithm.predict(params, batch)
        errors.append(sum((values[0, q, 0] - batch.query_y[0, q, 0]) ** 2 for q in range(3)) / 3)
    assert result.measure == "mse"
    assert result.value == pytest.approx(sum(errors) / 4, rel=1e-5)


def test_chunks_do_not_change_the_result(monkeypatch):
    algorithm = waves_algorithm()
    params = algorithm.init(np.random.default_rng(0))
    at_once = evaluate(algorithm, params, Sinusoids(), 1, 5, 5, episodes=9)
    monkeypatch.setattr("scratchmeta.run.evaluation.CHUNK_VALUES", 50)  # 2 tasks, the last chunk 1
    in_parts = evaluate(algorithm, params, Sinusoids(), 1, 5, 5, episodes=9)
    assert in_parts.value == pytest.approx(at_once.value, rel=1e-6)


def test_training_validation_and_test_never_share_a_task():
    """Sinusoids have no split of their own: the index keeps them apart."""
    shape = {"n_way": 1, "k_shot": 3, "n_query": 3, "tasks": 1, "seed": 0}
    drawn = {
        episodes.sample(Sinusoids(), **shape, index=first + i).support_y.tobytes()
        for first in (0, VALIDATION, TEST)
        for i in range(20)
    }
    assert len(drawn) == 60


def test_validation_looks_at_its_own_episodes(monkeypatch):
    seen = []
    sample = episodes.sample
    monkeypatch.setattr(
        episodes,
        "sample",
        lambda *a, **k: seen.append(a[6] if len(a) > 6 else k.get("index", 0)) or sample(*a, **k),
    )
    train(waves_algorithm(), Sinusoids(), replace(WAVES, steps=2), validation=Sinusoids())
    assert {VALIDATION + i for i in range(4)} <= set(seen)
    assert not any(index >= TEST for index in seen)


def test_an_interval_needs_two_episodes():
    with pytest.raises(ValueError, match="episodes: wanted at least 2, got 1"):
        evaluate(waves_algorithm(), None, Sinusoids(), episodes=1)


def test_the_pixel_baseline_takes_the_class_of_the_nearest_support_image():
    dataset = faces()
    batch = episodes.sample(dataset, 3, 2, 2, tasks=2)
    scores = NearestNeighbour().predict(None, batch)
    assert scores.shape == (2, 6, 3)
    for t in range(2):
        for q in range(6):
            distances = [
                float(((batch.query_x[t, q] - batch.support_x[t, s]) ** 2).sum()) for s in range(6)
            ]
            nearest = distances.index(min(distances))
            assert scores[t, q].tolist() == [
                float(k == batch.support_y[t, nearest]) for k in range(3)
            ]


def test_what_json_gets():
    result = Evaluation("accuracy", 0.5, 0.1, 600, 5, 1)
    assert json.loads(json.dumps(result.as_dict())) == {
        "accuracy": 0.5, "ci95": 0.1, "episodes": 600, "n_way": 5, "k_shot": 1,
    }  # fmt: skip
    assert str(result) == "accuracy 50.00 ± 10.00 %"
    assert str(replace(result, measure="mse")) == "mse 0.5000 ± 0.1000"


def test_progress_is_shown_from_the_step_that_a_run_resumes_at(tmp_path, monkeypatch):
    make, dataset, _, settings = CASES["waves"]
    train(make(), dataset, replace(settings, steps=2), run=tmp_path)
    told = []

    class Bar:
        def __init__(self, *args, shown):
            told.append((*args, shown))

        def __enter__(self):
            told.append("begun")
            return self

        def __exit__(self, *exception):
            told.append("ended")

        def update(self, step, note):
            assert note.startswith("loss ")
            told.append(step)

    monkeypatch.setattr("scratchmeta.run.training.Progress", Bar)
    train(make(), dataset, replace(settings, steps=4), run=tmp_path, resume=True, progress=True)
    assert told == [("train", 4, 2, True), "begun", 3, 4, "ended"]
