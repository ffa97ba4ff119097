"""Which episodes an evaluation sees: of which classes, with which seed and indices, each once."""

import json
from dataclasses import replace

import numpy as np
import pytest

from scratchmeta import data, episodes, nn, tree
from scratchmeta.algorithms import Prototypical
from scratchmeta.data import glyphs
from scratchmeta.run import evaluation, experiment, plots
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.cli import main
from scratchmeta.run.config import Training
from scratchmeta.run.evaluation import (
    CALIBRATION,
    CALIBRATION_TASKS,
    TEST,
    VALIDATION,
    AllWrong,
    by_episode,
    by_instance,
    calibrated,
    evaluate,
    verification,
)
from scratchmeta.run.training import start


class Listener:
    """An algorithm that notes the episodes it is shown."""

    def __init__(self):
        self.seen = []

    def predict(self, params, batch):
        self.seen.append(batch)
        return np.zeros((*batch.query_y.shape, 9))

    def instance_accuracy(self, params, batch):
        self.seen.append(batch)
        return np.arange(10) + len(self.seen)

    def verification_accuracy(self, params, batch):
        self.seen.append(batch)
        return 1 / len(self.seen)

    def calibrate(self, params, batch):
        self.seen.append(batch)
        return "calibrated"


def characters(seed=0, size=2):
    """Nine characters of three alphabets, twenty drawings each."""
    shape = 9, 20, size, size, 1
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return data.ImageDataset(pixels, [f"{i // 3}/{i}" for i in range(9)])


def joined(batches):
    """Batches as one, field by field."""
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def same(found, wanted):
    """Whether the episodes are these, in this order."""
    return all(map(np.array_equal, joined(found), joined(wanted)))


@pytest.mark.parametrize(("chunk", "batches"), [(1, 7), (190, 4), (2**18, 1)])
@pytest.mark.parametrize("first", [{}, {"first": VALIDATION}])
def test_every_episode_is_seen_once_in_order(chunk, batches, first, monkeypatch):
    """In batches of so many numbers: an episode here has 72 in images and 18 labels."""
    monkeypatch.setattr(evaluation, "CHUNK_VALUES", chunk)
    listener, dataset = Listener(), characters()
    evaluate(listener, None, dataset, 3, 2, 4, episodes=7, seed=5, **first)
    assert len(listener.seen) == batches
    begin = first.get("first", TEST)
    wanted = [episodes.sample(dataset, 3, 2, 4, seed=5, index=begin + i) for i in range(7)]
    assert same(listener.seen, wanted)
    assert len({episode.query_x.tobytes() for episode in wanted}) == 7


def test_what_episodes_measure_is_in_their_order():
    """Also where those of one shape are predicted together."""
    dataset = data.Copy(3, (1, 4))
    measure, found = by_episode(AllWrong(), None, dataset, 1, 1, 1, episodes=40, seed=5)
    drawn = [episodes.sample(dataset, 1, 1, 1, seed=5, index=TEST + i) for i in range(40)]
    assert (measure, found.tolist()) == ("bit_errors", [e.query_y.size for e in drawn])
    assert len(set(found)) == 4


def test_sequences_by_instance_are_each_seen_once():
    listener, dataset = Listener(), data.Shuffled(characters())
    found = by_instance(listener, None, dataset, 3, 50, seed=5)
    starts = range(0, 50, 20)
    wanted = [episodes.sample(dataset, 3, 1, 9, 20, seed=5, index=TEST + i) for i in starts]
    assert same(listener.seen, wanted)
    np.testing.assert_allclose(found, np.arange(10) + 2)  # the mean over 1, 2, 3


def test_pairs_are_each_seen_once():
    listener, dataset = Listener(), characters()
    found = verification(listener, None, dataset, 250, seed=5)
    wanted = [
        episodes.sample(data.Pairs(dataset), n, 1, 1, seed=5, index=TEST + start)
        for start, n in ((0, 100), (100, 100), (200, 50))
    ]
    assert all(same([a], [b]) for a, b in zip(listener.seen, wanted, strict=True))
    assert found == pytest.approx((100 + 100 / 2 + 50 / 3) / 250)


def test_one_shot_errors_are_of_the_runs_answers():
    listener = Listener()
    x = np.random.default_rng(0).integers(0, 256, (2, 2, 20, 4, 4, 1)).astype(np.uint8)
    answers = np.stack([np.arange(20) % 5, np.zeros(20, int)])
    runs = data.one_shot_runs.OneShotRuns(x[0], x[1], answers)
    found = evaluation.one_shot_errors(listener, None, runs)
    np.testing.assert_allclose(found, [0.8, 0.0])  # the answer is always the first class
    (batch,) = listener.seen
    np.testing.assert_allclose(batch.support_x, x[0] / 255, rtol=1e-6)
    np.testing.assert_allclose(batch.query_x, x[1] / 255, rtol=1e-6)
    assert batch.support_y.tolist() == [list(range(20))] * 2
    assert batch.query_y.tolist() == answers.tolist()


class Doubtful:
    """Barely right in every bit but the first of a sequence, and barely wrong there."""

    def predict(self, params, batch):
        p = np.where(batch.query_y, 0.51, 0.49)
        p[:, 0, 0] = 1 - p[:, 0, 0]
        return p


def test_bits_are_wrong_on_the_other_side_of_one_half():
    found = evaluate(Doubtful(), None, data.Copy(3, (1, 4)), 1, 1, 1, episodes=9)
    assert (found.measure, found.value, found.ci95) == ("bit_errors", 1.0, 0.0)


def test_calibration_has_training_episodes_that_no_step_has():
    listener, dataset = Listener(), characters()
    settings = Training(n_way=3, k_shot=2, n_query=4, test_way=5, test_query=1, seed=7, tasks=2)
    assert calibrated(listener, None, dataset, settings) == "calibrated"
    wanted = episodes.sample(dataset, 3, 2, 4, CALIBRATION_TASKS, seed=7, index=CALIBRATION)
    assert same(listener.seen, [wanted])


def test_indices_of_every_kind_are_far_from_one_another():
    """Further than any run has steps, or any evaluation episodes."""
    kinds = sorted([0, CALIBRATION, VALIDATION, TEST, 2**64])
    assert min(np.diff(np.array(kinds, object))) >= 2**61


# --- a saved run --------------------------------------------------------------------------------


@pytest.fixture
def few_glyphs(tmp_path, monkeypatch):
    """An alphabet in each split, of glyphs that are soon drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    alphabets = {"train": range(1), "val": range(30, 31), "test": range(35, 36)}
    monkeypatch.setattr(glyphs, "SPLITS", alphabets)
    return {part: data.Glyphs(part, image_size=16) for part in alphabets}


LOOP = ["--seed", "3", "--validate-every", "2", "--validation-episodes", "2", "--out", "run"]
SMALL = ["--image-size", "16", "--n-way", "3", "--n-query", "2"]


def leaves(params):
    """All numbers of a tree."""
    return tree.ravel(params)[0].tolist()


def test_a_saved_run_is_calibrated_on_training_episodes_of_its_seed(few_glyphs):
    argv = ["prototypical", *SMALL, "--channels", "2", "--batch-norm", "running"]
    assert main(["train", *argv, *LOOP, "--steps", "3"]) == 0
    record = Run.open("run")
    algorithm = Prototypical(nn.Conv4(2, image_size=16), batch_norm="running")
    for name, step in (("best", 2), ("last", 3)):
        found = experiment.saved("run", name)
        state = record.load(name, like=start(algorithm, Training())[1])
        assert found.step == state.step == step
        settings = found.config.training
        assert settings.seed == 3
        wanted = calibrated(algorithm, state.params, few_glyphs["train"], settings)
        assert leaves(found.params) == leaves(wanted)
        for other in (few_glyphs["test"], few_glyphs["val"]):
            elsewhere = calibrated(algorithm, state.params, other, settings)
            assert leaves(found.params) != leaves(elsewhere)
        unseeded = calibrated(
            algorithm, state.params, few_glyphs["train"], replace(settings, seed=0)
        )
        assert leaves(found.params) != leaves(unseeded)
    names = [part.names for part in found.splits]
    assert names == [few_glyphs[part].names for part in ("train", "val", "test")]


def test_a_run_without_a_best_checkpoint_has_its_last(few_glyphs):
    argv = ["prototypical", *SMALL, "--channels", "2", "--steps", "1"]
    assert main(["train", *argv, *LOOP]) == 0
    assert experiment.saved("run", "best").step == 1
    assert not (Run.open("run").checkpoint("best")).exists()


def test_sequences_of_a_saved_run_are_of_the_test_classes(few_glyphs, capsys):
    argv = ["mann", *SMALL, "--controller", "4", "--rows", "4", "--width", "2", "--heads", "1"]
    assert main(["train", *argv, *LOOP, "--steps", "1"]) == 0
    saved = experiment.saved("run")
    wanted = by_instance(
        saved.algorithm, saved.params, data.Shuffled(few_glyphs["test"]), 3, 20, seed=4
    )
    capsys.readouterr()
    asked = ["evaluate", "run", "--episodes", "20", "--n-way", "3", "--seed", "4", "--json"]
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["by_instance"] == wanted


def test_the_episode_that_is_drawn_is_a_test_episode(few_glyphs, monkeypatch):
    argv = ["prototypical", *SMALL, "--channels", "2", "--steps", "1", "--test-query", "3"]
    assert main(["train", *argv, *LOOP]) == 0
    drawn = []
    monkeypatch.setattr(plots, "_images", lambda run, batch: drawn.append(batch) or Nothing())
    plots.episode(experiment.saved("run"), "picture.png", 7)
    wanted = episodes.sample(few_glyphs["test"], 5, 1, 3, index=TEST + 7)
    assert same(drawn, [wanted])


class Nothing:
    """A figure."""

    def savefig(self, *args, **kwargs):
        """Draws nothing."""
