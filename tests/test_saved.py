"""Runs are one thing: what a script trained the command line reads, and the other way round."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import refused
from test_options import small

import scratchmeta as sm
from scratchmeta import backend, presets, tree
from scratchmeta.algorithms.protocol import MetricLearner, n_way
from scratchmeta.algorithms.prototypical import prototypes
from scratchmeta.data import glyphs as generator
from scratchmeta.fields import Positive
from scratchmeta.presets import REGISTRY
from scratchmeta.run import checkpoint, evaluation, experiment, recording, structure
from scratchmeta.run.checkpoint import CheckpointError, Run
from scratchmeta.run.cli import main

SETTINGS = sm.Training(
    n_way=3, n_query=2, steps=3, validate_every=2, validation_episodes=2, test_query=2
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """With an alphabet in each split, of glyphs that are soon drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    alphabets = {"train": range(1), "val": range(30, 31), "test": range(35, 36)}
    monkeypatch.setattr(generator, "SPLITS", alphabets)
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)


def glyphs(split="train"):
    return sm.data.Glyphs(split, image_size=16)


def learner(**options):
    return sm.algorithms.Prototypical(sm.nn.Conv4(2, image_size=16), **options)


def trained(algorithm=None, settings=SETTINGS, run="run", **others):
    """The state after training with glyphs."""
    algorithm = algorithm or learner(batch_norm="running")
    return sm.train(algorithm, glyphs(), settings, validation=glyphs("val"), run=run, **others)


def task(ways=3, shots=2, queries=4):
    return sm.episodes.sample(glyphs("test"), ways, shots, queries, tasks=2)


# --- what a script trained ------------------------------------------------------------------------


def test_the_command_line_evaluates_draws_resumes_and_overwrites_a_scripts_run(capsys):
    trained()
    assert main(["evaluate", "run", "--episodes", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = sm.load("run")
    wanted = sm.evaluate(run.algorithm, run.params, glyphs("test"), 3, 1, 2, episodes=4)
    assert found["accuracy"] == wanted.value
    assert main(["plot", "run"]) == 0
    assert main(["train", "--resume", "run", "--steps", "6"]) == 0
    trained(settings=replace(SETTINGS, steps=6), run="whole")
    for name in ("last", "best"):
        file = f"{name}.safetensors"
        assert Path("run", file).read_bytes() == Path("whole", file).read_bytes()
    assert main(["train", "prototypical", "--out", "run", "--steps", "1", "--overwrite",
                 "--image-size", "16", "--n-way", "3", "--n-query", "2"]) == 0  # fmt: skip


def test_a_script_resumes_and_loads_a_run_of_the_command_line():
    argv = ["train", "prototypical", "--image-size", "16", "--channels", "2", "--n-way", "3",
            "--n-query", "2", "--test-way", "0", "--test-query", "2", "--validate-every", "2",
            "--validation-episodes", "2", "--batch-norm", "running"]  # fmt: skip
    assert main([*argv, "--steps", "3", "--out", "run"]) == 0
    before = Run.open("run").config
    trained(resume=True, settings=replace(SETTINGS, steps=6))
    assert main([*argv, "--steps", "6", "--out", "whole"]) == 0
    assert Path("run/last.safetensors").read_bytes() == Path("whole/last.safetensors").read_bytes()
    after = Run.open("run").config
    assert after["training"].pop("steps") == 6
    assert before["training"].pop("steps") == 3
    assert after == before
    with pytest.raises(ValueError, match=r"resume: the run has method .*'running'.*'support'"):
        trained(learner(batch_norm="support"), replace(SETTINGS, steps=6), resume=True)
    assert sm.load("run").predict(*task()[:3]).shape == (2, 12, 3)


def test_a_script_without_validation_is_resumed_without_one():
    sm.train(learner(), glyphs(), SETTINGS, run="run")
    assert main(["train", "--resume", "run", "--steps", "6"]) == 0
    assert not any("validation" in line for line in Run.open("run").history())


@pytest.mark.parametrize("name", [n for n in REGISTRY if n != "relation"])
def test_every_algorithm_is_named_by_what_it_is_made_of(name):
    config = small(name)
    if name.startswith("baseline"):
        classes = glyphs().n_classes
        config = replace(config, method=replace(config.method, classes=classes))
    built, train = experiment.algorithm(config), experiment.splits(config).train
    record = json.loads(json.dumps(recording.record(built, train, None, config.training)))
    assert "unnamed" not in record
    assert record["data"] == config.data
    again = presets.from_dict(record)
    assert again.dataset == config.dataset
    rebuilt = experiment.algorithm(again)
    assert type(rebuilt) is type(built)
    assert vars(again.method) == vars(experiment.fields.options(type(built))(**vars(again.method)))
    params = [a.init(np.random.default_rng(0)) for a in (built, rebuilt)]
    assert tree.ravel(params[0])[0].tolist() == tree.ravel(params[1])[0].tolist()
    assert REGISTRY[record["algorithm"]].algorithm is type(built)


def test_regression_is_one_thing_too(capsys):
    maml = sm.algorithms.MAML(sm.nn.MLP([1, 4, 1]), loss=sm.losses.mse, inner_lr=0.02)
    settings = replace(SETTINGS, n_way=1, k_shot=3)
    sm.train(maml, sm.data.Sinusoids(), settings, run="run")
    assert main(["evaluate", "run", "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mse_by_step"]
    e = sm.episodes.sample(sm.data.Sinusoids(), 1, 3, 5)
    found = sm.load("run").predict(e.support_x[0], e.support_y[0], e.query_x[0])
    params = sm.load("run").params
    np.testing.assert_allclose(found, maml.predict(params, e)[0], rtol=1e-6)


def test_data_that_no_name_leads_to_is_evaluated_elsewhere_and_resumed_by_a_script(capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 16, 16, 1)).astype(np.uint8)
    mine = sm.data.ImageDataset(pixels, [f"a/{i}" for i in range(6)])
    sm.train(learner(), mine, SETTINGS, run="run")
    assert sm.load("run").predict(*task()[:3]).shape == (2, 12, 3)
    for argv in (["evaluate", "run"], ["plot", "run"], ["train", "--resume", "run"]):
        error = refused(capsys, *argv)
        assert error.startswith("ImageDataset(6 classes × 8 drawings")
        assert "trained on a dataset that a script made: evaluate it with --data" in error
    state = sm.train(learner(), mine, replace(SETTINGS, steps=4), run="run", resume=True)
    assert state.step == 4


@dataclass(frozen=True)
class Mine(MetricLearner):
    """Prototypes with a temperature."""

    temperature: Positive = 1.0

    def log_probabilities(self, params, episodes, batch_norm):
        support, query = self.embed(params, episodes, batch_norm)
        c = prototypes(support, episodes.support_y, n_way(episodes))
        return sm.ops.log_softmax(-sm.ops.pairwise_distance(query, c) / self.temperature)


def test_a_class_of_ones_own_is_loaded_with_it_and_by_the_command_line_if_named(capsys):
    mine = Mine(sm.nn.Conv4(2, image_size=16), temperature=2.0)
    trained(mine)
    wanted = mine.predict(sm.load("run", algorithm=mine).params, task())
    for how in (mine, Mine):  # an object, or the class: then its options are those of the record
        found = sm.load("run", algorithm=how)
        np.testing.assert_allclose(found.predict(*task()[:3]), wanted, rtol=1e-5)
    assert found.algorithm.temperature == 2.0
    with pytest.raises(ValueError, match="test_saved:Mine: no installed package brings it"):
        sm.load("run")
    assert main(["evaluate", "run", "--episodes", "3", "--algorithm", "test_saved:Mine"]) == 0
    capsys.readouterr()
    assert "name it: --algorithm test_saved:Mine" in refused(capsys, "evaluate", "run")


def test_what_has_no_name_says_so():
    network = sm.nn.Sequential([("flat", sm.nn.Function(lambda x: sm.nn.flatten_images(x)))])
    mine = sm.algorithms.Prototypical(network)
    linear = sm.nn.Sequential([*network.layers, ("linear", sm.nn.Linear(256, 3))])
    mine = replace(mine, network=linear)
    trained(mine)
    with pytest.raises(ValueError, match=r"no name leads to test_saved:.*lambda.*algorithm=\.\.\."):
        sm.load("run")
    run = sm.load("run", algorithm=mine)
    np.testing.assert_allclose(
        run.predict(*task()[:3]), mine.predict(run.params, task()), rtol=1e-5
    )


def test_what_the_surroundings_do_not_give_has_no_name():
    """MAML with a loss of its own would be read with another."""
    maml = sm.algorithms.MAML(sm.nn.MLP([1, 4, 1]), loss=cube)
    record = recording.record(maml, sm.data.Sinusoids(), None, replace(SETTINGS, n_way=1))
    assert record["unnamed"].startswith('maml: loss: {"function": "scratchmeta.losses:mse"}')


def cube(outputs, targets):
    return sm.ops.mean(sm.ops.abs(outputs - targets) ** 3, axis=(1, 2))


@pytest.mark.parametrize(
    "text",
    [
        '{"of": "os:system", "command": "touch ran"}',
        '{"of": "subprocess:Popen", "args": ["touch", "ran"]}',
        '{"of": "scratchmeta.nn:np"}',
        '{"function": "scratchmeta.data.cache:damaged"}',
        '{"of": "scratchmeta.nn:Linear", "n_ins": 3}',
        '{"of": "scratchmeta.algorithms.nothing:Linear"}',
        '{"of": 3}',
        "[" * 100_000,
    ],
)
def test_a_structure_holds_only_what_the_library_defines(text):
    with pytest.raises(ValueError, match=r"network: |Expecting|maximum recursion"):
        structure.read(text)
    assert not Path("ran").exists()


# --- loaded without data --------------------------------------------------------------------------


def test_nothing_but_the_run_is_needed(monkeypatch):
    state = trained()
    algorithm = learner(batch_norm="running")
    calibrated = evaluation.calibrated(algorithm, state.params, glyphs(), SETTINGS)
    monkeypatch.setattr(sm.data, "Glyphs", None)  # there is no data
    shutil.move("run", "elsewhere")
    run = experiment.saved("elsewhere", "last")
    assert run.step == 3
    assert tree.paths(run.params) == tree.paths(calibrated)
    assert tree.ravel(run.params)[0].tolist() == tree.ravel(calibrated)[0].tolist()


def test_only_what_calibrate_added_is_stored_beside_the_parameters():
    trained(learner(), run="plain")
    trained(run="running")
    names = [
        {name.partition("/")[0] for name in checkpoint._read(Path(run, "best.safetensors"))[1]}
        for run in ("plain", "running")
    ]
    assert names == [{"params", "optimizer"}, {"params", "optimizer", "calibrated"}]
    stored = checkpoint._read(Path("running", "best.safetensors"))[1]
    added = {name for name in stored if name.startswith("calibrated")}
    assert {name.rpartition("/")[2] for name in added} == {"mean", "var"}
    assert len(added) == 8


def test_calibrated_parameters_may_be_others_and_lie_in_lists(tmp_path):
    params = {"a": [np.zeros(2), np.ones(3)], "b": np.ones(1)}
    after = {"a": [np.ones(2), params["a"][1]], "b": params["b"], "c": {"d": np.arange(2.0)}}
    state = checkpoint.State(1, params, {}, None, 0)
    checkpoint.save_state(tmp_path / "x", state, "mine", after)
    loaded, found = checkpoint.load_calibrated(tmp_path / "x", params, "mine")
    assert loaded.params["a"][0].tolist() == [0, 0]
    assert found["a"][0].tolist() == [1, 1]
    assert found["c"]["d"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="calibrate: wanted all parameters and more, got none nam"):
        checkpoint.save_state(tmp_path / "x", state, "mine", {"a": params["a"]})


def test_predictions_are_those_of_the_algorithm_with_and_without_a_task_axis():
    trained()
    run, e = sm.load("run"), task()
    wanted = run.algorithm.predict(run.params, e)
    np.testing.assert_array_equal(run.predict(e.support_x, e.support_y, e.query_x), wanted)
    for t in range(2):
        found = run.predict(e.support_x[t], e.support_y[t], e.query_x[t])
        np.testing.assert_allclose(found, wanted[t], rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(6)
    found = run.predict(e.support_x[:, order], e.support_y[:, order], e.query_x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    pixels = [np.rint(x * 255).astype(np.uint8) for x in (e.support_x, e.query_x)]
    found = run.predict(pixels[0], e.support_y, pixels[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_network():
    trained()
    run, e = sm.load("run"), task()
    wanted = run.algorithm.network(run.params["network"], e.query_x)
    np.testing.assert_array_equal(run.embed(e.query_x), wanted)
    np.testing.assert_allclose(run.embed(e.query_x[0]), wanted[0], rtol=1e-5)
    maml = sm.algorithms.MAML(sm.nn.Conv4(2, image_size=16, n_out=3))
    trained(maml, run="maml")
    with pytest.raises(ValueError, match="embed: maml has no embedding"):
        sm.load("maml").embed(e.query_x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support_x": np.zeros((6, 16, 16))}, r"support_x: wanted examples \(·, 16, 16, 1\)"),
        ({"query_x": np.zeros((2, 4, 28, 28, 1))}, r"query_x: wanted examples .* got \(2, 4, 28"),
        ({"query_x": np.zeros((0, 16, 16, 1))}, "query_x: wanted examples, got none"),
        ({"query_x": np.zeros((2, 4, 16, 16, 1))}, "support_y: wanted a label for each"),
        ({"support_y": np.zeros(5, int)}, r"support_y: wanted a label for each of \(1, 6\)"),
        ({"support_y": np.array([0, 0, 2, 2, 2, 0])}, "support_y: wanted labels 0 to N − 1"),
        ({"support_y": np.array([0, 0, -1, 1, 1, 1])}, "support_y: wanted labels 0 to N − 1"),
        ({"support_y": np.zeros(6)}, "support_y: wanted labels 0 to N − 1"),
    ],
)
def test_what_cannot_be_predicted_is_named(change, message):
    trained()
    e = task()
    given = {"support_x": e.support_x[0], "support_y": e.support_y[0], "query_x": e.query_x[0]}
    with pytest.raises(ValueError, match=message):
        sm.load("run").predict(**{**given, **change})


def test_a_fixed_number_of_ways_and_of_shots_is_said():
    trained(sm.algorithms.MAML(sm.nn.Conv4(2, image_size=16, n_out=3)), run="maml")
    e = task(ways=2)
    with pytest.raises(ValueError, match="one output for each of 3 classes, got 2; train one with"):
        sm.load("maml").predict(*e[:3])
    settings = replace(SETTINGS, optimizer="sgd", lr=1.0)
    reptile = sm.algorithms.Reptile(sm.nn.Conv4(2, image_size=16, n_out=3), eval_inner_steps=2)
    trained(reptile, settings, run="reptile")
    e = task(ways=3)
    for name in ("maml", "reptile"):
        assert sm.load(name).predict(*e[:3]).shape == (2, 12, 3)
    unequal = e.support_x[0, :5], e.support_y[0, :5], e.query_x[0]
    assert sm.load("maml").predict(*unequal).shape == (12, 3)
    with pytest.raises(ValueError, match="reptile wants as many examples of each class, got 1 to"):
        sm.load("reptile").predict(*unequal)


def test_save_writes_a_run_that_all_reads_but_training(capsys):
    trained()
    run = sm.load("run")
    run.save("saved")
    assert {f.name for f in Path("saved").iterdir()} == {".lock", "config.json", "best.safetensors"}
    again = sm.load("saved")
    np.testing.assert_array_equal(again.predict(*task()[:3]), run.predict(*task()[:3]))
    assert again.step == run.step
    assert main(["evaluate", "saved", "--episodes", "3"]) == 0
    capsys.readouterr()
    error = refused(capsys, "train", "--resume", "saved")
    assert "of one that `save` wrote, the optimizer's state is not there" in error
    with pytest.raises(FileExistsError):
        run.save("saved")


def test_an_older_checkpoint_says_so(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "scratchmeta-2")
        state = trained()
    run = Run.open("run")
    with pytest.raises(CheckpointError, match="got 'scratchmeta-2'; an older scratchmeta wrote it"):
        run.load("last", like=state)


def test_the_backend_in_use_gets_the_parameters(cupy):
    run = trained() and sm.load("run")
    assert all(backend.xp(leaf) is cupy for leaf in tree.flatten(run.params)[0])
    assert isinstance(run.predict(*task()[:3]), np.ndarray)
