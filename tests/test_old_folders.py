"""A run folder that an older scratchmeta wrote is refused in one sentence, whoever reads it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_cli import refused

import scratchmeta as sm
from scratchmeta import presets
from scratchmeta.run.cli import main

# config.json of `scratchmeta train maml --data sinusoids --hidden 4` at commit 1e052b4
CONFIG = {
    "algorithm": "maml", "data": "sinusoids", "preset": "quick",
    "dataset": {"type": "Sinusoids"},
    "network": {"type": "MLP", "hidden": [4], "normalize": False},
    "method": {
        "type": "MAML", "inner_lr": 0.01, "inner_steps": 1, "eval_inner_steps": 10,
        "first_order": False, "inner_batches": "same", "batch_norm": "transductive",
    },
    "training": {
        "type": "Training", "n_way": 1, "k_shot": 10, "n_query": 10, "tasks": 25, "steps": 2,
        "optimizer": "adam", "lr": 0.001, "weight_decay": 0.0, "halve_every": 0,
        "linear_decay": False, "clip_norm": 0.0, "clip_value": 0.0, "test_way": 0,
        "test_query": 10, "validate_every": 2, "validation_episodes": 2, "patience": 0, "seed": 0,
    },
    "command": "scratchmeta train maml --data sinusoids", "version": "0.1.0", "backend": "numpy",
    "hardware": {}, "data_dir": None,
}  # fmt: skip
HEADER = {"format": "scratchmeta-1", "algorithm": "maml", "step": 2, "best_score": -2.6,
          "best_step": 2}  # fmt: skip
SHAPES = {
    "optimizer/m": (13,), "optimizer/step": (), "optimizer/v": (13,),
    "params/linear1/bias": (4,), "params/linear1/weight": (1, 4),
    "params/linear2/bias": (1,), "params/linear2/weight": (4, 1),
}  # fmt: skip


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder as that version wrote it."""
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    Path("old/config.json").write_text(json.dumps(CONFIG))
    Path("old/metrics.jsonl").write_text('{"step": 2, "loss": 3.0}\n')
    arrays = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name in ("best", "last"):
        save_file(arrays, f"old/{name}.safetensors", {"scratchmeta": json.dumps(HEADER)})
    return Path("old")


@pytest.mark.parametrize(
    "command",
    ["evaluate old", "plot old", "train --resume old", "compare --run old", "export old x.onnx"],
)
def test_a_command_refuses_it(command, old, capsys):
    error = refused(capsys, *command.split())
    assert "wanted a checkpoint of format 'scratchmeta-" in error
    assert "got 'scratchmeta-1'; an older scratchmeta wrote it" in error
    assert sorted(p.name for p in old.iterdir() if p.name != ".lock") == [
        "best.safetensors", "config.json", "last.safetensors", "metrics.jsonl",
    ]  # fmt: skip


def test_python_refuses_it_and_a_new_run_may_replace_it(old):
    with pytest.raises(ValueError, match="an older scratchmeta wrote it"):
        sm.load(old)
    small = ["--hidden", "4", "--steps", "1", "--validation-episodes", "2", "--tasks", "2"]
    argv = ["train", "maml", "--data", "sinusoids", *small, "--out", "old", "--overwrite"]
    assert main(argv) == 0
    assert sm.load(old).config.algorithm == "maml"


def test_a_configuration_that_cannot_be_read_says_so_too():
    """What has moved since, from the network's options to the algorithm's, say."""
    moved = {**CONFIG, "network": {"type": "Relation", "channels": 64, "hidden": 8}}
    with pytest.raises(ValueError, match=r"cannot read 'network' \(.*an older scratchmeta wrote"):
        presets.from_dict(moved)
