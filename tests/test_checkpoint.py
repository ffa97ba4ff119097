"""Checkpoints are whole or absent, come back bit for bit, and say what does not fit."""

import errno
import json
import os
import sys

import numpy as np
import pytest

from scratchmeta import tree
from scratchmeta.run import checkpoint
from scratchmeta.run.checkpoint import CheckpointError, Run, State, load_state, save_state


def make_state(step=3):
    rng = np.random.default_rng(step)
    params = {
        "conv": {"weight": rng.normal(size=(3, 3, 1, 2)).astype(np.float32)},
        "head": {"bias": rng.normal(size=4).astype(np.float32)},
    }
    optimizer = {"step": np.asarray(step), "m": tree.map(np.copy, params), "nothing": {}}
    return State(step, params, optimizer, 1 / 3, 2)


def leaves(state):
    return [
        state.params["conv"]["weight"],
        state.params["head"]["bias"],
        state.optimizer["step"],
        state.optimizer["m"]["conv"]["weight"],
        state.optimizer["m"]["head"]["bias"],
    ]


def same(a, b):
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(leaves(a), leaves(b), strict=True)
    )


def created(path, config, overwrite=False):
    """A run begun in a folder that is not held any more."""
    run = Run.create(path, config, make_state(0), overwrite=overwrite)
    run.release()
    return run


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "last.safetensors"
    save_state(path, make_state(), "maml")
    return path


def test_what_was_saved_comes_back_bit_for_bit(path):
    saved, loaded = make_state(), load_state(path, make_state(step=9), "maml")
    assert same(saved, loaded)
    assert (loaded.step, loaded.best_score, loaded.best_step) == (3, 1 / 3, 2)
    assert loaded.optimizer["nothing"] == {}
    loaded.params["head"]["bias"] += 1  # writable


def test_a_transposed_array_keeps_its_values(tmp_path):
    state = make_state()
    weight = np.arange(12, dtype=np.float32).reshape(3, 4).T
    state = state._replace(params={"w": weight}, optimizer={"step": np.asarray(0)})
    save_state(tmp_path / "x", state, "maml")
    loaded = load_state(tmp_path / "x", state, "maml")
    np.testing.assert_array_equal(loaded.params["w"], weight)
    assert loaded.params["w"].flags.c_contiguous


def test_no_validation_yet_is_kept_apart_from_a_score(tmp_path):
    save_state(tmp_path / "x", make_state()._replace(best_score=None), "maml")
    assert load_state(tmp_path / "x", make_state(), "maml").best_score is None


def test_parameters_alone_can_be_read(path):
    loaded = load_state(path, make_state()._replace(optimizer=None), "maml")
    assert loaded.optimizer is None
    assert loaded.params["head"]["bias"].tobytes() == make_state().params["head"]["bias"].tobytes()


def test_any_damage_is_noticed(path):
    """A bit flipped in every seventh byte, and stretches of zeros: in names, numbers, arrays."""
    whole = path.read_bytes()
    flips = [
        whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :] for k in range(0, len(whole), 7)
    ]
    zeros = [whole[:k] + bytes(16) + whole[k + 16 :] for k in range(0, len(whole) - 16, 13)]
    for damaged in {*flips, *zeros} - {whole}:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.safetensors: "):
            load_state(path, make_state(), "maml")


def test_damaged_arrays_are_called_damaged(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"damaged since it was written: wanted .*SHA-256 "):
        load_state(path, make_state(), "maml")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.safetensors: truncated"):
        load_state(path, make_state(), "maml")


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such checkpoint"):
        load_state(tmp_path / "gone.safetensors", make_state(), "maml")


def test_another_programs_safetensors_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"wanted .* format 'scratchmeta-3', got None"):
        load_state(tmp_path / "x.safetensors", make_state(), "maml")


def test_a_checkpoint_of_another_algorithm_is_refused(path):
    with pytest.raises(
        CheckpointError, match="wanted a checkpoint of 'reptile', got one of 'maml'"
    ):
        load_state(path, make_state(), "reptile")


def test_another_shape_is_named_with_what_was_wanted_and_got(path):
    like = make_state()
    like.params["conv"]["weight"] = np.zeros((3, 3, 1, 8), np.float32)
    with pytest.raises(
        CheckpointError,
        match=r"params/conv/weight: wanted float32 of shape \(3, 3, 1, 8\), "
        r"got float32 of shape \(3, 3, 1, 2\)",
    ):
        load_state(path, like, "maml")


def test_another_dtype_is_named(path):
    like = make_state()
    like.optimizer["m"]["head"]["bias"] = np.zeros(4)
    with pytest.raises(CheckpointError, match=r"m/head/bias: wanted float64 .* got float32"):
        load_state(path, like, "maml")


def test_a_parameter_too_few_or_too_many_is_named(path):
    like = make_state()
    like.params["head"]["weight"] = np.zeros(2, np.float32)
    with pytest.raises(CheckpointError, match=r"params/head/weight is missing"):
        load_state(path, like, "maml")
    like = make_state()
    del like.params["head"]
    with pytest.raises(CheckpointError, match=r"params/head/bias is not a parameter"):
        load_state(path, like, "maml")


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, make_state(step=4), "maml")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_reader_never_sees_half_a_checkpoint(path, monkeypatch):
    """Between the writing and the replacing, the name still stands for the old content."""
    seen = []
    replace = os.replace

    def observed(source, target):
        seen.append(load_state(path, make_state(), "maml").step)
        replace(source, target)

    monkeypatch.setattr(os, "replace", observed)
    save_state(path, make_state(step=4), "maml")
    assert (seen, load_state(path, make_state(), "maml").step) == ([3], 4)


def test_what_was_replaced_is_on_disk_before_anything_else_happens(path, monkeypatch):
    """First the content, then its name, and the folder that holds the name."""
    done = []
    replace, fsync = os.replace, os.fsync

    def flushed(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "replace", lambda *names: done.append("name") or replace(*names))
    monkeypatch.setattr(os, "fsync", flushed)
    save_state(path, make_state(step=4), "maml")
    assert done == ["file", "name", "folder"]


def test_metrics_are_on_disk_when_flushed(tmp_path, monkeypatch):
    run, flushed = created(tmp_path, {"algorithm": "maml"}), []
    with run.metrics(after=0) as metrics:
        monkeypatch.setattr(os, "fsync", flushed.append)
        metrics.write(1, loss=1.0)
        assert not flushed  # that would be slow
        metrics.flush()
        assert flushed == [metrics.file.fileno()]
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'


# --- the folder ---------------------------------------------------------------------------------


def test_a_run_is_found_again(tmp_path):
    run = created(tmp_path / "deep" / "run", {"algorithm": "maml", "training": {"lr": 0.1}})
    run.save("best", make_state())
    found = Run.open(tmp_path / "deep" / "run")
    assert found.config == {"algorithm": "maml", "training": {"lr": 0.1}}
    assert same(found.load("best", make_state(step=9)), make_state())


def test_an_existing_run_is_not_overwritten_unasked(tmp_path):
    run = created(tmp_path / "run", {"algorithm": "maml"})
    run.save("last", make_state())
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"run: exists and is not empty.*--resume.*--overwrite"
    ):
        created(tmp_path / "run", {"algorithm": "reptile"})
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


def test_overwriting_begins_anew_and_keeps_what_is_not_the_runs(tmp_path):
    run = created(tmp_path / "run", {"algorithm": "maml"})
    run.save("last", make_state())
    (run.path / "notes.txt").write_text("mine")
    created(tmp_path / "run", {"algorithm": "reptile"}, overwrite=True)
    assert sorted(file.name for file in run.path.iterdir()) == [
        ".lock",
        "config.json",
        "last.safetensors",
        "notes.txt",
    ]
    assert Run.open(run.path).config == {"algorithm": "reptile"}


def test_overwriting_deletes_nothing_before_the_new_run_is_written(tmp_path, monkeypatch):
    run = created(tmp_path / "run", {"algorithm": "maml"})
    run.save("best", make_state())
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        created(run.path, {"algorithm": "reptile"}, overwrite=True)
    assert error.value.filename == str(run.path / "config.json")  # the first that is written
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before


class Killed(BaseException):
    """As a kill: nothing looks out for it."""


@pytest.mark.parametrize("moment", range(1, 20))
def test_killed_while_overwriting_it_leaves_one_run_or_none(tmp_path, monkeypatch, moment):
    """At each call that changes the folder, before or after it: never one's configuration with the
    other's checkpoint or metrics, and always a folder that can be overwritten."""
    run = created(tmp_path / "run", {"algorithm": "maml"})
    run.save("last", make_state())
    run.save("best", make_state())
    (run.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    calls = []

    def watched(call):
        def stopping(*args, **options):
            calls.append(call.__name__)
            if len(calls) == moment:
                raise Killed
            if len(calls) < moment:
                return call(*args, **options)

        return stopping

    with monkeypatch.context() as patch:
        for module, name in ((os, "replace"), (os, "fsync"), (type(run.path), "unlink")):
            patch.setattr(module, name, watched(getattr(module, name)))
        try:
            created(run.path, {"algorithm": "reptile"}, overwrite=True)
            assert len(calls) < moment
        except Killed:
            pass
    found = Run.open(run.path)
    if found.config == {"algorithm": "maml"} and found.checkpoint("last").exists():
        assert found.load("last", make_state(9)).step == 3
        assert found.history()
        assert found.checkpoint("best").exists()
    elif found.checkpoint("last").exists():
        assert found.load("last", make_state(9)).step == 0
        assert not found.history()
        assert not found.checkpoint("best").exists()
    else:
        with pytest.raises(CheckpointError, match=r"no such checkpoint; .*--overwrite begins anew"):
            found.load("last", make_state(9))
    again = created(run.path, {"algorithm": "reptile"}, overwrite=True)
    assert again.load("last", make_state(9)).step == 0
    assert sorted(file.name for file in run.path.iterdir()) == [
        ".lock",
        "config.json",
        "last.safetensors",
    ]


def test_what_a_kill_left_of_a_run_that_never_began_is_in_nobodys_way(tmp_path):
    (tmp_path / ".lock").write_bytes(b"")
    (tmp_path / ".last.safetensors.123.partial").write_bytes(b"half")
    (tmp_path / ".config.json.123.partial").write_bytes(b"{")
    created(tmp_path, {"algorithm": "maml"})
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".mine.123.partial").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError, match="wanted a new folder"):
        created(tmp_path / "other", {"algorithm": "maml"})


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_that_lost_its_configuration_is_to_be_deleted(tmp_path, overwrite):
    run = created(tmp_path, {"algorithm": "maml"})
    (tmp_path / "config.json").unlink()
    wanted = "holds last.safetensors but no config.json, so .* delete it, or name another folder"
    with pytest.raises(CheckpointError, match=wanted):
        created(tmp_path, {"algorithm": "maml"}, overwrite=overwrite)
    with pytest.raises(CheckpointError, match=wanted):
        Run.open(tmp_path)
    assert run.checkpoint("last").exists()


@pytest.mark.parametrize("another", [True, False])
def test_a_folder_that_was_moved_away_is_missed(tmp_path, another):
    run = Run.create(tmp_path / "run", {"algorithm": "maml"}, make_state(0))
    run.path.rename(tmp_path / "moved")
    if another:
        created(tmp_path / "run", {"algorithm": "reptile"})
        before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    for write in (lambda: run.save("last", make_state()), run.record):
        with pytest.raises(CheckpointError, match="run: was moved, deleted or replaced while"):
            write()
    if another:
        assert {file.name: file.read_bytes() for file in run.path.iterdir()} == before
    else:
        assert not run.path.exists()
    assert Run.open(tmp_path / "moved").load("last", make_state(9)).step == 0
    run.release()


def test_a_folder_deeper_than_python_calls(tmp_path):
    path = tmp_path.joinpath(*["d"] * (sys.getrecursionlimit() + 100))
    run = created(path, {"algorithm": "maml"})
    assert Run.open(path).config == {"algorithm": "maml"}
    for file in path.iterdir():  # pytest could not
        file.unlink()
    while run.path != tmp_path:
        run.path.rmdir()
        run.path = run.path.parent


def test_a_folder_is_one_process_at_a_time(tmp_path):
    run = Run.create(tmp_path / "run", {"algorithm": "maml"}, make_state(0))
    with pytest.raises(CheckpointError, match="run: another process is training in it"):
        Run.open(run.path).hold()
    with pytest.raises(CheckpointError, match="run: another process is training in it"):
        created(run.path, {"algorithm": "maml"}, overwrite=True)
    (run.path / ".last.safetensors.1.partial").write_bytes(b"half")  # what a kill leaves
    run.release()
    again = Run.open(run.path)
    again.hold()
    again.release()
    assert not list(run.path.glob(".*.partial"))


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a run folder"):
        created(tmp_path, {"algorithm": "maml"}, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_is_taken(tmp_path):
    created(tmp_path, {"algorithm": "maml"})
    assert Run.open(tmp_path).config["algorithm"] == "maml"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00", "[" * 100_000])
def test_a_broken_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: (not readable|does not name)"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("algorithm", None, "wanted str, got None"),
        ("data", 5, "wanted str, got 5"),
        ("preset", ["quick"], r"wanted str, got \['quick'\]"),
        ("backend", None, "wanted str, got None"),
        ("data_dir", {}, r"wanted str \| None, got {}"),
        ("resumed_by", "x", "wanted list, got 'x'"),
        ("resumed_from", [], r"wanted dict, got \[\]"),
    ],
)
def test_an_entry_of_another_type_is_named(name, value, wanted, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "maml", name: value}))
    with pytest.raises(CheckpointError, match=rf"config\.json: {name}: {wanted}"):
        Run.open(tmp_path)


def test_metrics_that_are_missing_are_missed(tmp_path):
    run = created(tmp_path, {"algorithm": "maml"})
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3)]
    file.write_text("".join(lines))
    with run.metrics(after=3):  # all there
        pass
    for left in (lines[:2], lines[1:], [lines[0], lines[2]], []):
        file.write_text("".join(left))
        got = rf"wanted the losses of steps 1 to 3.* got {len(left)} of them"
        with pytest.warns(UserWarning, match=got), run.metrics(after=3):
            pass
        assert file.read_text() == "".join(left)
    file.unlink()
    with pytest.warns(UserWarning, match="got 0 of them"), run.metrics(after=3):
        pass


def test_metrics_are_cut_off_after_the_step_they_continue_from(tmp_path):
    run = created(tmp_path, {"algorithm": "maml"})
    with run.metrics(after=0) as metrics:
        for step in range(1, 6):
            metrics.write(step, loss=1 / step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # what a power cut leaves
    with run.metrics(after=3) as metrics:
        metrics.write(4, loss=0.5)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 1 / 2},
        {"step": 3, "loss": 1 / 3},
        {"step": 4, "loss": 0.5},
    ]
    assert run.history()[-1] == {"step": 4, "loss": 0.5}


@pytest.mark.parametrize(
    "line",
    [
        b"5", b"{}", b"[1]", b'{"loss": 1', b"\xff", b"[" * 100_000, b"null",
        b'{"step": null, "loss": 1}', b'{"step": 2.5, "loss": 1}', b'{"step": true, "loss": 1}',
        b'{"step": 2, "loss": null}', b'{"step": 2, "loss": "x"}', b'{"step": 2, "loss": [1]}',
        b'{"step": 2}', b'{"step": 2, "validation": 1}',
        b'{"step": 2, "validation": 1, "ci95": {}}',
        b'{"step": 1' + b"0" * 5000 + b', "loss": 1}',
    ],
)  # fmt: skip
def test_a_broken_line_of_the_metrics_is_named_and_nothing_is_lost(tmp_path, line):
    run = created(tmp_path, {"algorithm": "maml"})
    content = b'{"step": 1, "loss": 2.0}\n' + line + b'\n{"step": 3, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"metrics\.jsonl: line 2: wanted an object with a st"
    ):
        run.metrics(after=3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


@pytest.mark.parametrize("step", ["x", 2.5, None, -1])
def test_a_header_without_its_numbers_is_refused(path, step):
    save_state(path, make_state()._replace(step=step), "maml")
    with pytest.raises(CheckpointError, match="wanted step, best_score and best_step, got"):
        load_state(path, make_state(), "maml")


def test_every_file_a_run_deletes_is_one_it_writes():
    assert {"last.safetensors", "best.safetensors", "metrics.jsonl"} < set(checkpoint.FILES)
