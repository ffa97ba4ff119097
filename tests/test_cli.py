"""The command line: what it prints, what it writes, how it exits."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_one_shot_runs import official, zipped

from scratchmeta import __version__, backend, presets
from scratchmeta.data import glyphs
from scratchmeta.kernels import compiling
from scratchmeta.presets import REGISTRY
from scratchmeta.run import experiment, networks
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.cli import main
from scratchmeta.shown import percent

QUICK = [
    "--tasks",
    "2",
    "--k-shot",
    "3",
    "--n-query",
    "3",
    "--hidden",
    "4",
    "--validation-episodes",
    "3",
]
WAVES = ["train", "maml", "--data", "sinusoids", *QUICK, "--steps", "6", "--validate-every", "2"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)
    monkeypatch.setattr(compiling.announcement, "said", True)  # whatever is compiled here


@pytest.fixture(scope="session")
def glyph_cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(tmp_path, capsys):
    """A finished run."""
    assert main([*WAVES, "--out", "run"]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def refused(capsys, *argv):
    """The one line that says what is wrong with a command, without its beginning."""
    assert main(list(argv)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("scratchmeta: error: ")
    return lines[0].removeprefix("scratchmeta: error: ")


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_names_every_command(argv, capsys):
    from scratchmeta.run.commands import COMMANDS

    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {command} ", text, re.MULTILINE) for command in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scratchmeta {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "train", "evaluate", "check", "conformance", "list", "plot", "bench", "compare", "taylor",
        "sweep",
    ],
)  # fmt: skip
def test_every_command_explains_its_options(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: scratchmeta {command}" in text
    assert re.search(r"^[│ ]*--[a-z-]+", text, re.MULTILINE)


def test_help_shows_the_values_of_the_preset_and_the_options_of_the_algorithm(capsys):
    with pytest.raises(SystemExit):
        main(["train", "maml", "--data", "sinusoids", "--preset", "paper", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--steps INT .{0,40}\(default: 70000\)", text)
    assert re.search(r"--inner-lr FLOAT .{0,80}\(default: 0.01\)", text)
    assert "--hidden" in text
    assert "--channels" not in text
    with pytest.raises(SystemExit):
        main(["train", "prototypical", "--help"])
    text = capsys.readouterr().out
    assert "--channels" in text
    assert "--inner-lr" not in text


# --- presets --------------------------------------------------------------------------------------

EVERY_PRESET = [
    (name, data, preset) for name, entry in REGISTRY.items() for data, preset in entry.presets
]


def test_every_algorithm_has_presets_and_a_quick_one_first():
    for name in REGISTRY:
        assert presets.lookup(name).preset == "quick"


@pytest.mark.parametrize(("name", "data", "preset"), EVERY_PRESET)
def test_a_preset_builds_and_survives_config_json(name, data, preset):
    config = presets.lookup(name, data, preset)
    assert (config.algorithm, config.data, config.preset) == (name, data, preset)
    assert presets.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    built = experiment.algorithm(config)
    assert isinstance(built, REGISTRY[name].algorithm)
    experiment.refuse_other_ways(config, config.training.test_shape[0])


def test_without_data_a_preset_is_looked_for_where_there_is_one():
    assert presets.lookup("maml", preset="paper").data == "omniglot"
    assert presets.lookup("maml").data == "glyphs"


def test_the_papers_numbers():
    sinusoid = presets.lookup("maml", "sinusoids", "paper")
    training, method = sinusoid.training, sinusoid.method
    assert (training.k_shot, training.tasks, training.steps) == (10, 25, 70_000)
    assert (method.inner_lr, method.inner_steps, method.first_order) == (0.01, 1, False)
    assert sinusoid.network == networks.MLP((40, 40))
    assert presets.lookup("fomaml", "sinusoids", "paper").method.first_order
    omniglot = presets.lookup("maml", "omniglot", "paper")
    assert (omniglot.training.tasks, omniglot.training.steps) == (32, 60_000)
    assert (omniglot.method.inner_lr, omniglot.method.eval_inner_steps) == (0.4, 3)
    assert presets.lookup("maml", "omniglot", "author-code").method.inner_lr == 5 * 0.4
    prototypical = presets.lookup("prototypical", "omniglot", "paper")
    training = prototypical.training
    assert (training.n_way, training.n_query, training.halve_every) == (60, 5, 2000)
    assert prototypical.dataset.rotations == "classes"
    assert prototypical.method.batch_norm == "running"


@pytest.mark.parametrize(("name", "data", "preset"), EVERY_PRESET)
def test_beside_a_papers_number_stands_one_on_the_authors_images(name, data, preset):
    """At 28 x 28, which all of them have; Koch's 105 x 105 are not resampled, MANN's not known."""
    dataset = presets.lookup(name, data, preset).dataset
    if data == "omniglot":
        theirs = preset.startswith(("paper", "author-code")) and dataset.image_size == 28
        assert dataset.resampling == ("nearest" if theirs else "antialiased")


def test_what_the_authors_test_on():
    """Reptile trains on turns as classes; it and Meta Networks are tested on none."""
    for name in REGISTRY:
        for data, preset in REGISTRY[name].presets:
            dataset = presets.lookup(name, data, preset).dataset
            if getattr(dataset, "split", None) == "vinyals":
                assert dataset.upright_tests == (name in ("reptile", "metanet"))
    for preset in ("paper", "paper-20-way"):
        reptile = presets.lookup("reptile", "omniglot", preset)
        assert reptile.dataset.rotations == "classes"
        assert reptile.training.test_query == 1


def test_the_authors_rates_act_like_those_of_a_sum_over_classes():
    """MAML's code divides the loss of a task by the shots, not by the examples."""
    for ways, preset in ((5, ""), (20, "-20-way")):
        paper, code = (
            presets.lookup("maml", "omniglot", f"{kind}{preset}")
            for kind in ("paper", "author-code")
        )
        assert code.training.n_way == ways
        assert code.method == replace(paper.method, inner_lr=ways * paper.method.inner_lr)
        assert (
            replace(code, preset=paper.preset, method=paper.method, network=paper.network) == paper
        )


def test_batch_norm_where_the_authors_code_is_tensorflows():
    """Or says 1e-3 itself; PyTorch's default, and ours, is 1e-5."""
    theirs = {"maml": "author-code", "fomaml": "author-code", "reptile": "paper"}
    for name, data, preset in EVERY_PRESET:
        network = presets.lookup(name, data, preset).network
        if isinstance(network, networks.Conv4):
            tensorflow = preset.startswith(theirs.get(name, "none"))
            ravi = name == "meta-lstm" and preset.startswith("paper")
            assert network.batch_norm_eps == (1e-3 if tensorflow or ravi else 1e-5)


def test_fomaml_has_no_rate_that_its_gradient_does_not_bear():
    found = [p for d, p in REGISTRY["fomaml"].presets if d == "omniglot"]
    assert found == ["quick", "paper", "paper-20-way", "paper-no-conv"]
    rates = [presets.lookup("fomaml", "omniglot", p).method.inner_lr for p in found]
    assert max(rates) == 0.4


def test_adams_rate_for_mann_is_not_that_of_rmsprop():
    for name in ("mann", "lstm"):
        training = presets.lookup(name, "omniglot", "paper").training
        assert (training.optimizer, training.lr, training.steps) == ("adam", 1e-3, 100_000)


def test_the_papers_numbers_on_mini_imagenet():
    def paper(name, preset="paper"):
        return presets.lookup(name, "mini-imagenet", preset)

    maml, five_shot = paper("maml"), paper("maml", "paper-5-shot")
    assert (maml.method.inner_lr, maml.method.inner_steps) == (0.01, 5)
    assert maml.method.eval_inner_steps == 10
    assert maml.network == networks.Conv4(channels=32, pooling="max")
    assert (maml.training.tasks, maml.training.steps) == (4, 60_000)
    assert (maml.training.n_query, maml.training.clip_value) == (15, 10)
    assert (five_shot.training.k_shot, five_shot.training.tasks) == (5, 2)
    assert paper("fomaml").method.first_order
    prototypical = paper("prototypical")
    assert prototypical.training.shape == (30, 1, 15)
    assert prototypical.training.test_shape == (5, 1, 15)
    assert paper("prototypical", "paper-5-shot").training.shape == (20, 5, 15)
    reptile = paper("reptile")
    assert (reptile.method.inner_lr, reptile.method.inner_steps) == (0.001, 8)
    assert (reptile.method.inner_batch, reptile.method.eval_inner_steps) == (10, 50)
    assert reptile.training.k_shot + reptile.training.n_query == 15
    assert paper("reptile", "paper-5-shot").method.eval_batch == 15
    network = experiment.network(prototypical)
    params = network.init(np.random.default_rng(0))
    assert params["block1"]["conv"]["weight"].shape == (3, 3, 3, 64)
    x = np.zeros((1, 1, 84, 84, 3), np.float32)
    assert network(params, x).shape == (1, 1, 1600)


def test_the_papers_numbers_on_birds():
    birds = presets.lookup("prototypical-zero-shot", "cub", "paper")
    assert birds.training.shape[::2] == (50, 10)
    assert birds.training.test_shape[0] == 50
    assert (birds.training.lr, birds.training.halve_every) == (1e-4, 0)
    assert birds.training.weight_decay == 1e-5
    params = experiment.algorithm(birds).init(np.random.default_rng(0))
    shapes = {name: p["linear1"]["weight"].shape for name, p in params.items()}
    assert shapes == {"network": (1024, 1024), "attributes": (312, 1024)}


# --- train, evaluate, plot ------------------------------------------------------------------------


def test_train_writes_a_run_that_evaluate_and_plot_read(run, capsys):
    config = Run.open(run).config
    assert config["command"].startswith("scratchmeta train maml --data sinusoids")
    assert config["version"] == __version__
    assert config["training"]["steps"] == 6
    assert config["training"]["seed"] == 0
    assert config["hardware"]["cores"] == os.cpu_count()
    history = Run.open(run).history()
    assert [line["step"] for line in history if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in history if "validation" in line] == [2, 4, 6]

    assert main(["evaluate", "run", "--episodes", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"mse", "ci95", "episodes", "n_way", "k_shot"} <= set(found)
    assert (found["episodes"], found["n_way"], found["k_shot"]) == (20, 1, 3)
    assert len(found["mse_by_step"]) == 11
    assert found["mse_by_step"][-1] == found["mse"]

    assert main(["evaluate", "run", "--episodes", "20"]) == 0
    assert f"mean squared error {found['mse']:.4f}" in capsys.readouterr().out

    assert main(["plot", "run"]) == 0
    for name in ("episode.png", "learning.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("L").getcolors()) > 10


def test_images_from_training_to_picture(glyph_cache, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SCRATCHMETA_CACHE", glyph_cache)
    small = ["--image-size", "16", "--channels", "4", "--n-way", "4", "--n-query", "2"]
    loop = ["--steps", "4", "--validate-every", "2", "--validation-episodes", "3"]
    assert main(["train", "prototypical", *small, *loop]) == 0
    assert "saved in runs/prototypical-glyphs-1" in capsys.readouterr().out
    folder = "runs/prototypical-glyphs-1"
    assert (
        main(["evaluate", folder, "--episodes", "5", "--n-way", "3", "--k-shot", "2", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["n_way"], found["k_shot"]) == (5, 3, 2)
    assert 0 <= found["accuracy"] <= 1
    assert found["chance"] == pytest.approx(1 / 3)
    assert 1 / 3 < found["nearest_neighbour"] <= 1
    assert main(["evaluate", folder, "--episodes", "5"]) == 0
    assert re.search(r"accuracy \d+\.\d\d ± \d+\.\d\d %.*\n.*pixels.*\n.*chance 20.00 %",
                     capsys.readouterr().out)  # fmt: skip
    assert main(["plot", folder]) == 0
    assert (tmp_path / folder / "episode.png").stat().st_size > 5000
    assert main(["train", "maml", *small, *loop, "--tasks", "2", "--out", "m"]) == 0
    capsys.readouterr()
    error = refused(capsys, "evaluate", "m", "--n-way", "5")
    assert re.match(r"n_way: .* one output for each of 4 classes, got 5", error)
    error = refused(capsys, "evaluate", folder, "--n-way", "5000")
    assert re.match(r"n_way: at most .* got 5000", error)
    error = refused(capsys, "evaluate", folder, "--k-shot", "19")
    assert re.match(r"k_shot \+ n_query: at most the 20 .* got 19 \+ 15", error)


@pytest.mark.parametrize("name", ["prototypical", "matching", "relation", "maml", "reptile"])
def test_mini_imagenet_from_photographs_to_picture(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "mini-imagenet"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        names = [f"{split}{i}.jpg" for i in range(9)]
        for file in names:
            pixels = rng.integers(0, 256, (50, 60, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / file)
        lines = [f"{file},n{split}{i // 3}" for i, file in enumerate(names)]
        (folder / f"{split}.csv").write_text("\n".join(["filename,label", *lines]))
    command = ["train", name, "--data", "mini-imagenet", "--preset", "paper", "--out", "run"]
    small = ["--image-size", "48", "--channels", "2", "--n-way", "2", "--n-query", "2"]
    small += ["--test-way", "2", "--test-query", "2", "--steps", "2", "--validate-every", "2"]
    small += ["--validation-episodes", "2", "--data-dir", "data"]
    assert main([*command, *small]) == 0
    assert main(["evaluate", "run", "--episodes", "3"]) == 0
    assert "nearest neighbour on pixels" in capsys.readouterr().out
    assert main(["plot", "run"]) == 0
    with Image.open("run/episode.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert len(colours) > 2000  # the photographs' own


def test_siamese_networks_verify_and_classify_within_alphabets(
    glyph_cache, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("SCRATCHMETA_CACHE", glyph_cache)
    small = ["--image-size", "16", "--channels", "4", "--steps", "2", "--validate-every", "2"]
    small += ["--validation-episodes", "2"]
    for name in ("siamese", "prototypical"):
        assert main(["train", name, *small, "--out", name]) == 0
    assert main(["train", "siamese", *small, "--pairs", "drawn", "--out", "pairs"]) == 0
    capsys.readouterr()
    asked = ["--episodes", "20", "--n-way", "14", "--n-query", "1", "--within-alphabet"]
    for name in ("siamese", "prototypical", "pairs"):
        assert main(["evaluate", name, *asked, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["within_alphabet"]
        assert found["n_way"] == 14
        assert ("verification" in found) == (name != "prototypical")
    assert 0.3 < found["verification"] < 1
    assert main(["evaluate", "siamese", *asked]) == 0
    text = capsys.readouterr().out
    assert "14-way 1-shot, 20 test episodes within an alphabet" in text
    assert re.search(r"same or different, pairs of one alphabet \d\d\.\d\d %", text)
    error = refused(capsys, "evaluate", "siamese", "--within-alphabet", "--n-way", "60")
    assert re.match(r"n_way: at most the \d\d classes of WithinAlphabet", error)


def test_lakes_one_shot_runs(glyph_cache, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SCRATCHMETA_CACHE", glyph_cache)
    archive = str(zipped(tmp_path / "all_runs.zip", official()))
    loop = ["--steps", "2", "--validate-every", "2", "--validation-episodes", "2"]
    small = ["--image-size", "28", "--channels", "2", "--n-way", "5", "--n-query", "2"]
    for name in ("siamese", "maml"):
        assert main(["train", name, *small, *loop, "--out", name]) == 0
    capsys.readouterr()
    assert main(["evaluate", "siamese", "--one-shot-runs", archive, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["n_way"], found["k_shot"]) == (400, 20, 1)
    assert len(found["error_rate_by_run"]) == 20
    assert found["error_rate"] == pytest.approx(np.mean(found["error_rate_by_run"]))
    assert found["nearest_neighbour"] < 0.01  # the ink of a class is in nearly the same place
    assert main(["evaluate", "siamese", "--one-shot-runs", archive]) == 0
    assert f"error rate {percent(found['error_rate'])} of 400 trials" in capsys.readouterr().out

    error = refused(capsys, "evaluate", "maml", "--one-shot-runs", archive)
    assert re.match(r"n_way: .* one output for each of 5 classes, got 20", error)
    for own in ("--n-way", "--k-shot", "--n-query"):
        error = refused(capsys, "evaluate", "siamese", "--one-shot-runs", archive, own, "5")
        assert error == "--one-shot-runs has its own episodes: 20 ways, 1 shot, 1 query"
    error = refused(capsys, "evaluate", "siamese", "--one-shot-runs", "nothing.zip")
    assert error == "nothing.zip: no such archive or folder"
    assert main([*WAVES, "--out", "waves"]) == 0
    capsys.readouterr()
    error = refused(capsys, "evaluate", "waves", "--one-shot-runs", archive)
    assert error == "waves: --one-shot-runs wants a run on grey images of characters"
    error = refused(capsys, "evaluate", "waves", "--within-alphabet")
    assert error.startswith("waves: --within-alphabet wants characters, not Sinusoids")


def test_zero_shot_from_training_to_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    alphabets = {"train": range(1), "val": range(30, 31), "test": range(35, 36)}
    monkeypatch.setattr(glyphs, "SPLITS", alphabets)  # fewer, which are soon drawn
    small = ["--image-size", "16", "--channels", "4", "--n-way", "4", "--n-query", "2"]
    loop = ["--steps", "4", "--validate-every", "2", "--validation-episodes", "3", "--out", "z"]
    assert main(["train", "prototypical-zero-shot", *small, *loop]) == 0
    assert main(["evaluate", "z", "--episodes", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["n_way"], found["k_shot"]) == (5, 1)
    assert "nearest_neighbour" not in found
    assert main(["evaluate", "z", "--episodes", "5"]) == 0
    out = capsys.readouterr().out
    assert "5-way zero-shot" in out
    assert "pixels" not in out
    assert "k_shot: 1 wanted" in refused(capsys, "evaluate", "z", "--k-shot", "2")
    assert main(["plot", "z"]) == 0
    with Image.open("z/episode.png") as picture:
        assert min(picture.size) > 200


def test_zero_shot_on_birds(tmp_path, capsys):
    """Four hidden factors make the attributes, and with noise the features."""
    folder, rng = tmp_path / "data" / "cub", np.random.default_rng(0)
    for name in ("attributes", "features"):
        (folder / name).mkdir(parents=True)
    names = [f"{k:03}.Bird" for k in range(1, 39)]
    factors = rng.normal(size=(38, 4))
    matrix = 50 + 10 * np.clip(factors @ rng.normal(size=(4, 312)), -5, 5)
    seen = factors @ rng.normal(size=(4, 1024))
    np.savetxt(folder / "attributes" / "class_attribute_labels_continuous.txt", matrix)
    (folder / "classes.txt").write_text("".join(f"{k} {n}\n" for k, n in enumerate(names, 1)))
    for part, chosen in (("train", names[:20]), ("val", names[20:26]), ("test", names[26:])):
        (folder / f"{part}classes.txt").write_text("\n".join(chosen))
    for name, row in zip(names, seen, strict=True):
        x = row + 0.3 * rng.normal(size=(6, 1024))
        np.save(folder / "features" / f"{name}.npy", x)
    command = ["train", "prototypical-zero-shot", "--data", "cub", "--preset", "paper"]
    small = ["--n-way", "5", "--n-query", "5", "--test-query", "5", "--steps", "40"]
    small += ["--validate-every", "20", "--features", "32", "--lr", "1e-3", "--data-dir", "data"]
    assert main([*command, *small, "--out", "z"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "z", "--episodes", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.5
    assert main(["plot", "z"]) == 0
    assert Path("z/episode.png").stat().st_size > 5000
    assert "cub: where is it" in refused(capsys, *command)
    assert "classes.txt not found" in refused(capsys, *command, "--data-dir", ".")


def test_runs_without_a_name_are_numbered(capsys, tmp_path):
    for _ in range(2):
        assert main(WAVES) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "maml-sinusoids-1",
        "maml-sinusoids-2",
    ]


def test_the_same_command_gives_the_same_run(run, capsys, tmp_path):
    assert main([*WAVES, "--out", "twin"]) == 0
    assert (run / "last.safetensors").read_bytes() == (
        tmp_path / "twin/last.safetensors"
    ).read_bytes()
    assert main([*WAVES, "--out", "other", "--seed", "1"]) == 0
    assert (run / "last.safetensors").read_bytes() != (
        tmp_path / "other/last.safetensors"
    ).read_bytes()


# --- resume and overwrite -------------------------------------------------------------------------


def test_resume_continues_bit_for_bit(run, capsys, tmp_path):
    half = [*WAVES, "--out", "half"]
    half[half.index("--steps") + 1] = "3"
    assert main(half) == 0
    assert main(["train", "--resume", "half", "--steps", "6"]) == 0
    for name in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (tmp_path / "half" / name).read_bytes() == (run / name).read_bytes()
    config = Run.open("half").config
    assert config["training"]["steps"] == 6
    assert config["command"] == "scratchmeta train --resume half --steps 6"
    assert main(["train", "--resume", "half", "--steps", "7"]) == 0
    config = Run.open("half").config
    first = config["resumed_from"]
    assert first["command"].startswith("scratchmeta train maml --data sinusoids")
    assert "resumed_from" not in first
    assert config["resumed_by"] == [f"scratchmeta train --resume half --steps {n}" for n in (6, 7)]


def test_resume_refuses_to_become_another_run(run, capsys):
    before = contents(run)
    error = refused(capsys, "train", "--resume", "run", "--lr", "0.5")
    assert error.endswith("only --steps can be changed, not lr")
    error = refused(capsys, "train", "--resume", "run", "--inner-steps", "2", "--steps", "9")
    assert error.endswith("only --steps can be changed, not inner_steps")
    error = refused(capsys, "train", "--resume", "run", "--out", "elsewhere")
    assert error == "--resume continues a run in its own folder: no --out, no --overwrite"
    error = refused(capsys, "train", "--resume", "run", "--resume", "other")
    assert error == "--resume: wanted once, got run and other"
    error = refused(capsys, "train", "prototypical", "--resume", "run")
    assert error == "run: is a run of 'maml', not 'prototypical'"
    error = refused(capsys, "train", "maml", "--resume", "nowhere")
    assert error == "nowhere: not a run folder (no config.json in it)"
    assert contents(run) == before


def test_an_existing_run_is_overwritten_only_when_told(run, capsys):
    before = contents(run)
    assert "exists and is not empty" in refused(capsys, *WAVES, "--out", "run", "--seed", "1")
    assert contents(run) == before
    assert main([*WAVES, "--out", "run", "--seed", "1", "--overwrite"]) == 0
    assert contents(run)["last.safetensors"] != before["last.safetensors"]


def test_overwriting_with_an_impossible_command_keeps_the_old_run(run, capsys):
    before = contents(run)
    refused(capsys, "train", "maml", "--data", "omniglot", "--out", "run", "--overwrite")
    refused(capsys, *WAVES, "--n-way", "2", "--out", "run", "--overwrite")
    assert contents(run) == before


# --- signals --------------------------------------------------------------------------------------


PATIENCE = 300  # seconds, for a machine that has much else to do


@pytest.fixture
def started(interruptible):
    """Starts a training process and returns it once it is past its first validation."""
    processes = []

    def start(*argv):
        process = subprocess.Popen(
            [sys.executable, "-m", "scratchmeta", *argv, "--out", "killed"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists("killed/best.safetensors"):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def interruptible():
    """A script's `pytest &` ignores SIGINT, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


LONG = [*WAVES[:-4], "--steps", "1000000", "--validate-every", "10"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(signum, status, started):
    process = started(*LONG)
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    step = int(re.search(rf"stopped by {signum.name} after step (\d+); continue with", err)[1])
    assert err.rstrip().endswith("scratchmeta train --resume killed")
    assert "Traceback" not in err
    history = Run.open("killed").history()
    assert max(line["step"] for line in history) == step
    assert main(["train", "--resume", "killed", "--steps", str(step + 5)]) == 0
    assert (
        main([*WAVES[:-4], "--steps", str(step + 5), "--validate-every", "10", "--out", "w"]) == 0
    )
    assert contents_of("killed") == contents_of("w")


def test_even_a_killed_run_can_be_resumed(started):
    process = started(*LONG)
    process.kill()
    process.communicate(timeout=PATIENCE)
    step = max(line["step"] for line in Run.open("killed").history()) + 20
    assert main(["train", "--resume", "killed", "--steps", str(step)]) == 0
    assert main([*WAVES[:-4], "--steps", str(step), "--validate-every", "10", "--out", "w"]) == 0
    assert contents_of("killed") == contents_of("w")


def contents_of(folder):
    names = ("last.safetensors", "best.safetensors", "metrics.jsonl")
    return [(Path(folder) / name).read_bytes() for name in names]


# --- readers that go away, streams that are closed, disks that are full ---------------------------


def shell(line):
    """What a line of bash prints, and the statuses of its first pipe's commands."""
    line = line.replace("scratchmeta", f"{sys.executable} -m scratchmeta")
    script = f'{line}; echo "status ${{PIPESTATUS[*]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert "Traceback" not in done.stderr
    *text, statuses = done.stdout.splitlines()
    return text, done.stderr.splitlines(), statuses


def test_training_goes_on_when_nobody_reads_its_progress(tmp_path):
    """As with `2>&1 | head -c1`, but the reader is gone before the first line."""
    _, _, statuses = shell(f"scratchmeta {shlex.join(WAVES)} --out run 2>&1 | true")
    assert statuses == "status 141 0"  # as of what SIGPIPE ends: not all was read
    assert main([*WAVES, "--out", "w"]) == 0
    assert contents_of("run") == contents_of("w")


def test_ctrl_c_within_the_imports_is_no_traceback(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, path=None, target=None):
            if name == "scratchmeta.run.options":
                raise KeyboardInterrupt

    import_module("scratchmeta.run.options")
    monkeypatch.delitem(sys.modules, "scratchmeta.run.options")
    monkeypatch.delattr("scratchmeta.run.options")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "scratchmeta: interrupted\n"


def test_ctrl_c_that_ends_the_reader_too_leaves_a_checkpoint(started):
    process = started(*LONG)
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    steps = [line["step"] for line in Run.open("killed").history()]
    assert main(["train", "--resume", "killed", "--steps", str(max(steps) + 1)]) == 0


def test_with_standard_error_closed_all_goes_on_and_no_file_gets_what_is_meant_for_it():
    waves = shlex.join(WAVES)
    text, _, statuses = shell(f"scratchmeta {waves} --out run 2>&-")
    assert (text[0], statuses) == (
        "trained maml on sinusoids for 6 steps, saved in run",
        "status 0",
    )
    assert (Path("run") / ".lock").read_bytes() == b""
    text, _, statuses = shell("scratchmeta evaluate run --episodes 5 2>&-")
    assert re.match("maml on sinusoids, .* 5 test episodes", text[0])
    assert statuses == "status 0"


def test_help_that_nobody_reads_is_no_traceback():
    assert shell("scratchmeta --help | true") == ([], [], "status 141 0")


def test_a_full_disk_behind_standard_output_is_named():
    said = ["scratchmeta: error: standard output: No space left on device"]
    assert shell("scratchmeta --version > /dev/full") == ([], said, "status 2")
    assert shell("scratchmeta list > /dev/full") == ([], said, "status 2")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(run, capsys):
    (run / "metrics.jsonl").unlink()
    assert main(["train", "--resume", "run", "--steps", "7"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("scratchmeta: warning: run/metrics.jsonl: wanted the losses of steps")


# --- one line for whatever is wrong ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("trian", "unknown command 'trian': did you mean train?"),
        ("train promaml", "unknown algorithm 'promaml': did you mean .*maml"),
        ("train zzz", f"unknown algorithm 'zzz': wanted one of {', '.join(REGISTRY)}"),
        ("train", f"train: wanted the name of an algorithm first: {', '.join(REGISTRY)}"),
        ("train maml --data omnigolt", "unknown data for maml 'omnigolt': did you mean omniglot"),
        ("train maml --preset qiuck", "unknown preset of maml 'qiuck': did you mean quick"),
        ("train maml --data glyphs --preset paper", "unknown preset of maml on glyphs 'paper'"),
        ("train maml --data glyphs --data=sinusoids", "--data: wanted once, got glyphs and sinus"),
        ("train maml --validation-episodes 1", "validation_episodes: wanted at least 2, got 1"),
        ("train prototypical --weight-decay inf", "weight_decay: wanted at least 0, got inf"),
        ("train meta-lstm --forget-bias nan nan", "forget_bias: wanted the lower end first"),
        ("train maml --data sinusoids --tasks 1000000000000", "Unable to allocate"),
        ("train maml --n-wya 5", "Unrecognized options: --n-wya, 5; Perhaps you meant: --n-way"),
        ("train maml --steps many", "--steps: invalid literal .*'many'"),
        ("train maml --steps -3", "steps: wanted at least 1, got -3"),
        ("train reptile --weight-decay 0.1", "weight_decay: wanted with adam, got sgd"),
        ("train maml --k-shot 0", "k_shot: wanted at least 1, got 0"),
        ("train maml --tasks -1", "tasks: wanted at least 1, got -1"),
        ("train maml --lr nan", "lr: wanted a positive number, got nan"),
        ("train maml --seed -1", "seed: wanted at least 0, got -1"),
        ("train maml --image-size 2", "image_size: wanted at least 16, got 2"),
        ("train maml --channels 0", "channels: wanted at least 1, got 0"),
        (
            "train maml --data sinusoids --hidden 40 0",
            r"hidden: wanted at least 1 in every place, got \(40, 0\)",
        ),
        ("train maml --batch-norm running", "invalid choice 'running' for argument '--batch-norm'"),
        ("train maml --data omniglot", "omniglot: where is it.*--data-dir.*SCRATCHMETA_DATA"),
        ("train maml --data omniglot --data-dir .", "images_background"),
        (
            "train maml --data mini-imagenet --preset paper",
            "mini-imagenet: where is it.*SCRATCHMETA_DATA.*train.csv",
        ),
        ("train maml --data mini-imagenet --preset paper --data-dir .", "train.csv not found"),
        ("train maml --data sinusoids --n-way 2", "n_way: at most .* got 2"),
        ("train maml --data", "Missing value for argument '--data'"),
        ("train maml --test-way 3", "n_way: .* one output for each of 5 classes, got 3"),
        ("evaluate", "RUN"),
        ("evaluate nowhere", "nowhere: not a run folder"),
        ("plot nowhere", "nowhere: not a run folder"),
        ("check sofmax", "nothing to check is called 'sofmax': did you mean softmax"),
        ("bench --rounds 0", "rounds: wanted at least 1, got 0"),
        ("check --seed -1 relu", "seed: wanted at least 0, got -1"),
        ("taylor --seed -1", "seed: wanted at least 0, got -1"),
        ("compare --seed -1", "seed: wanted at least 0, got -1"),
        ("taylor --k", "k: wanted one or more numbers of minibatches, got none"),
        ("taylor --k -1", "k: wanted 2 to 7 minibatches .*, got -1"),
        (
            "train maml --data omniglot --data-dir nowhere",
            "omniglot: the folder nowhere of the data does not exist",
        ),
    ],
)
def test_bad_input_is_named_in_one_line(argv, message, capsys, tmp_path):
    assert re.search(message, refused(capsys, *argv.split()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv", [("evaluate", "run", "--episodes", "1"), ("evaluate", "run", "--k-shot", "0")]
)
def test_impossible_evaluations_are_refused(argv, run, capsys):
    assert re.search("episodes: wanted at least 2|k_shot: at least 1", refused(capsys, *argv))


@pytest.mark.parametrize("number", [-1, 2**63])
def test_only_test_episodes_are_drawn(number, run, capsys):
    error = refused(capsys, "plot", "run", "--episode", str(number))
    assert error == f"episode: wanted 0 to {2**63 - 1}, got {number}"
    assert not (run / "episode.png").exists()


@pytest.mark.parametrize(
    "argv",
    [("--resume", ""), ("--resume=",), ("--out", ""), ("--out=",), ("--data-dir", "")],
)
def test_an_empty_path_is_not_the_folder_one_is_in(argv, run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    before = contents(run)
    assert refused(capsys, *WAVES, *argv) == f"{argv[0].rstrip('=')}: wanted a value, got ''"
    assert refused(capsys, "evaluate", "") == "evaluate: wanted a value, got ''"
    assert contents(run) == before


def test_a_folder_that_is_no_run_is_neither_to_be_resumed_nor_overwritten(capsys, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    error = refused(capsys, *WAVES, "--out", "thesis")
    wanted = "wanted a new folder, an empty one, or a run's"
    assert error == f"thesis: exists and is not empty; {wanted}"


def test_a_corrupt_archive_is_named(tmp_path, capsys):
    (tmp_path / "images_background.zip").write_bytes(b"PK\x03\x04 no more")
    (tmp_path / "images_evaluation.zip").write_bytes(b"")
    error = refused(capsys, "train", "maml", "--data", "omniglot", "--data-dir", str(tmp_path))
    assert "images_background.zip" in error


def test_a_rate_that_has_fallen_to_0_ends_the_run(capsys):
    argv = [*WAVES, "--linear-decay", "--out", "run"]
    assert main(argv) == 0
    capsys.readouterr()
    error = refused(capsys, "train", "--resume", "run", "--steps", "9")
    assert error == (
        "--steps: the learning rate of this run falls to 0 at step 6, so it ends there"
    )
    assert main(["train", "--resume", "run"]) == 0


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "method",
            "batch_norm",
            "foo",
            "batch_norm: wanted 'transductive' or 'support', got 'foo'",
        ),
        ("training", "n_way", 2.5, "n_way: wanted int, got 2.5"),
        ("training", "optimizer", "foo", "optimizer: wanted .*'adam'.*got 'foo'"),
        ("network", "hidden", [4, "x"], r"hidden: wanted tuple\[int, ...\], got \(4, 'x'\)"),
        ("method", "type", "Reptile", "cannot read .method. .*wanted MAML for maml.*got Reptile"),
        (None, "algorithm", 5, "algorithm: wanted str, got 5"),
        (None, "data", "glyphs", "cannot read 'dataset' .*wanted Glyphs for maml on glyphs"),
    ],
)
def test_a_configuration_that_was_changed_by_hand_is_named(
    section, key, value, message, run, capsys
):
    config = json.loads((run / "config.json").read_text())
    (config[section] if section else config)[key] = value
    (run / "config.json").write_text(json.dumps(config))
    for argv in (["evaluate", "run"], ["train", "--resume", "run"]):
        error = refused(capsys, *argv)
        assert error.startswith("run/config.json: ")
        assert re.search(message, error)


def test_a_missing_extra_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    folder = tmp_path / "images_background" / "A" / "character01"
    folder.mkdir(parents=True)
    (tmp_path / "images_evaluation" / "A" / "character01").mkdir(parents=True)
    for name in ("images_background", "images_evaluation"):
        Path(tmp_path / name / "A" / "character01" / "0001_01.png").write_bytes(b"")
    error = refused(capsys, "train", "maml", "--data", "omniglot", "--data-dir", str(tmp_path))
    assert error == "PIL.Image is needed here: pip install 'scratchmeta[data]'"


def test_a_truncated_checkpoint_is_named(run, capsys):
    whole = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "best.safetensors: truncated" in refused(capsys, "evaluate", "run")
    before = contents(run)
    (run / "last.safetensors").write_bytes(whole[:100])
    before["last.safetensors"] = whole[:100]
    assert "last.safetensors: truncated" in refused(capsys, "train", "--resume", "run")
    assert contents(run) == before


def test_a_checkpoint_of_another_algorithm_is_named(run, capsys):
    argv = [word.replace("maml", "fomaml") for word in WAVES]
    assert main([*argv, "--out", "other"]) == 0
    capsys.readouterr()
    shutil.copy("other/best.safetensors", run / "best.safetensors")
    error = refused(capsys, "evaluate", "run")
    assert "best.safetensors: wanted a checkpoint of 'maml', got one of 'fomaml'" in error


def test_a_checkpoint_of_other_shapes_is_named(run, capsys):
    config = Run.open(run).config
    config["network"]["hidden"] = [5]
    (run / "config.json").write_text(json.dumps(config))
    error = refused(capsys, "evaluate", "run")
    assert re.search(r"params/linear1/bias: wanted .*\(5,\), got .*\(4,\)", error)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("network"), "cannot read 'network'"),
        (lambda c: c["network"].update(type="Transformer"), "cannot read 'network'.*Transformer"),
        (lambda c: c["training"].update(steps=-1), "cannot read 'training'.*steps.*-1"),
        (lambda c: c["training"].update(colour="red"), "cannot read 'training'.*colour"),
        (lambda c: c.pop("data"), "cannot read 'data'"),
        (lambda c: c.update(algorithm="zzz"), "unknown algorithm 'zzz'"),
    ],
)
def test_a_damaged_configuration_is_named(damage, message, run, capsys):
    config = Run.open(run).config
    damage(config)
    (run / "config.json").write_text(json.dumps(config))
    assert re.search(message, refused(capsys, "evaluate", "run"))
    assert re.search(message, refused(capsys, "train", "--resume", "run"))


def test_a_diverging_run_stops_with_its_checkpoint(capsys):
    argv = [*WAVES, "--out", "run", "--seed", "3"]
    assert main([*argv, "--lr", "1e12"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"scratchmeta: error: the .* is not finite at step [2-9] \(seed 3\)", error)
    before = {file.name: file.read_bytes() for file in Path("run").iterdir()}
    assert "last.safetensors" in before
    # what fails in its first step overwrites nothing, and leaves no folder
    for out in ("run", "new"):
        assert main([*argv, "--inner-lr", "1e30", "--overwrite", "--out", out]) == 2
        assert "is not finite at step 1 (seed 3)" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in Path("run").iterdir()} == before
    assert not Path("new").exists()


def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = refused(capsys, *WAVES, "--out", "file/run")
    assert error == "file/run: Not a directory"


@pytest.mark.skipif("cupy" in sys.modules or shutil.which("nvidia-smi"), reason="there may be CuPy")
def test_cupy_where_there_is_none(run, capsys, monkeypatch):
    for argv in (WAVES, ["evaluate", "run"], ["check", "mse"], ["bench"]):
        error = refused(capsys, *argv, "--backend", "cupy")
        assert "backend 'cupy' was asked for, but CuPy is not installed" in error
    assert backend.current() == "numpy"


def test_plot_without_matplotlib_says_what_to_install(run):
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from scratchmeta.run.cli import main; main(['plot', 'run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == (
        "scratchmeta: error: plot: matplotlib is not installed: pip install 'scratchmeta[plots]'\n"
    )


def test_a_full_disk_leaves_no_half_of_a_picture(run, capsys, monkeypatch):
    assert main(["plot", "run"]) == 0
    capsys.readouterr()
    before = contents(run)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert refused(capsys, "plot", "run") == "run/episode.png: No space left on device"
    assert contents(run) == before
    error = refused(capsys, "taylor", "--k", "2", "--plot", "new.png")
    assert error == "new.png: No space left on device"
    assert not Path("new.png").exists()


# --- list, check ----------------------------------------------------------------------------------


def test_list(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(REGISTRY)
    assert all(row["paper"] and row["family"] for row in rows)
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", text, re.MULTILINE) for name in REGISTRY)


def test_check_prints_a_line_for_each_and_a_summary(capsys):
    assert main(["check", "mse", "exp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["ok", "mse"], ["ok", "exp"]]
    assert lines[3].startswith("2 checked")
    assert main(["check", "mse", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [row["name"] for row in found["results"]] == ["mse"]


def test_check_fails_where_a_rule_is_wrong(capsys, monkeypatch):
    from scratchmeta import ops

    monkeypatch.setattr(ops.exp, "rules", [lambda g, y, x: 2 * g * y])
    assert main(["check", "exp"]) == 1
    assert "FAIL exp" in capsys.readouterr().out
    assert main(["check", "exp", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


# --- the analysis of meta-gradients ---


def test_taylor(capsys, tmp_path):
    assert main(["taylor", "--k", "2", "--plot", str(tmp_path / "t.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found] == ["FOMAML", "MAML", "Reptile"]
    assert all(abs(each["slope"] - 2) < 0.05 for each in found)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert main(["taylor", "--k", "2", "--problem", "sinusoid"]) == 0
    text = capsys.readouterr().out
    assert "less those in A and B" in text
    assert re.search(r"^MAML +2 .* 2\.00\d$", text, re.MULTILINE)
    assert "k: wanted 2 to 7" in refused(capsys, "taylor", "--k", "12")


def test_compare(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sinusoids = ["compare", "--data", "sinusoids", "--k-shot", "3", "--tasks", "2"]
    assert main([*sinusoids, "--inner-lr", "1e-6", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["maml", "fomaml", "reptile"]
    assert rows[1]["cosine"] == pytest.approx(1, abs=1e-4)
    assert main([*WAVES, "--steps", "2", "--out", "run"]) == 0
    assert main(["compare", "--run", "run", "--tasks", "2"]) == 0
    text = capsys.readouterr().out
    assert "sinusoids, 1-way 3-shot, 3 queries, α = 0.01, 1 inner step (Reptile: 2)\n" in text
    assert "cosine" in text
    assert main(["compare", "--run", "run", "--tasks", "2", "--inner-steps", "2"]) == 0
    assert "2 inner steps (Reptile: 3)" in capsys.readouterr().out
    error = refused(capsys, "compare", "--run", "run", "--data", "glyphs")
    assert error == "run: is a run on sinusoids, not glyphs"


def test_compare_takes_a_run_of_reptile(glyph_cache, monkeypatch, capsys):
    monkeypatch.setenv("SCRATCHMETA_CACHE", glyph_cache)
    small = ["--image-size", "16", "--channels", "4", "--steps", "1", "--validation-episodes", "2"]
    assert main(["train", "reptile", *small, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["compare", "--run", "run", "--tasks", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(np.isfinite(row["cosine"]) for row in rows)
    assert main(["train", "reptile", *small, "--inner-steps", "1", "--out", "one"]) == 0
    for run, steps in (("run", "4 inner steps (Reptile: 5)"), ("one", "1 inner step (Reptile: 2)")):
        capsys.readouterr()
        assert main(["compare", "--run", run, "--tasks", "2"]) == 0
        assert capsys.readouterr().out.splitlines()[0].endswith(f", {steps}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--inner-lr nan", "inner_lr: wanted a positive number, got nan"),
        ("--inner-lr inf", "inner_lr: wanted a positive number, got inf"),
        ("--inner-lr 0", "inner_lr: wanted a positive number, got 0"),
        ("--inner-lr -1", "inner_lr: wanted a positive number, got -1"),
        ("--inner-lr 1e30", "inner_lr: wanted a rate at which maml has a finite loss .*1e[+]30"),
        ("--inner-steps 0", "inner_steps: wanted 1 to 1000, got 0"),
        ("--inner-steps -1", "inner_steps: wanted 1 to 1000, got -1"),
        (f"--inner-steps {10**24}", "inner_steps: wanted 1 to 1000, got 1000000000000000000000000"),
        ("--tasks 0", "tasks: at least 1 wanted, got 0"),
    ],
)
def test_compare_refuses_what_would_give_no_numbers(argv, message, capsys):
    sinusoids = ["compare", "--data", "sinusoids", "--tasks", "2"]
    assert re.match(message, refused(capsys, *sinusoids, *argv.split()))
