"""Sweeps: what is run and what is not again, the same numbers wherever it is done, the table."""

import csv
import hashlib
import json
import math
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_cli import refused

import scratchmeta as sm
from scratchmeta import presets
from scratchmeta.run import experiment, plots, sweeps, training
from scratchmeta.run.cli import main
from scratchmeta.run.evaluation import TEST
from scratchmeta.run.sweeps import intervals, job, plan, tables

WAVES = {
    "tasks": [2], "k_shot": [3], "n_query": [3], "hidden": [(4,)], "steps": [6],
    "validate_every": [2], "validation_episodes": [3],
}  # fmt: skip
TWO = {**WAVES, "inner_lr": [0.01, 0.02]}
FOLDERS = [f"{name},seed={seed}" for name in ("maml", "fomaml") for seed in (0, 1)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)


def waves(algorithms=("maml", "fomaml"), out="root", seeds=(0, 1), vary=WAVES, **more):
    return sm.sweep(algorithms, "sinusoids", seeds, out=out, vary=vary, episodes=20, **more)


def measured(root):
    """{run: what it measured in each episode} of a sweep's folder."""
    return {
        path.parent.name: json.loads(path.read_text())["values"]
        for path in Path(root).glob("*/test.json")
    }


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What maml and fomaml measure, done in this process; nothing may change its folder."""
    root = tmp_path_factory.mktemp("wanted") / "root"
    return root, waves(out=root)


# --- intervals ----------------------------------------------------------------------------------


def test_t_is_that_of_the_tables():
    printed = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 30: 2.0423, 599: 1.9639}
    assert {ν: round(intervals.student(ν), 4) for ν in printed} == printed


def half(values, t):
    """t s / √n, in scalars."""
    mean = sum(values) / len(values)
    s = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return t * s / math.sqrt(len(values))


def test_intervals_are_over_rows_and_over_columns():
    x = np.random.default_rng(0).normal(size=(3, 5))
    by_row = [sum(row) / 5 for row in x.tolist()]
    by_column = [sum(column) / 3 for column in x.T.tolist()]
    assert intervals.over_seeds(x) == pytest.approx(half(by_row, 4.302652729749))
    assert intervals.over_episodes(x) == pytest.approx(half(by_column, 1.96))
    assert intervals.over_seeds(x[:1]) is None


@pytest.mark.parametrize("runs", [2, 4])
def test_nineteen_of_twenty_intervals_over_seeds_hold_the_mean(runs):
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2000, runs, 1))
    held = [abs(x.mean()) < intervals.over_seeds(x) for x in draws]
    assert 0.935 < np.mean(held) < 0.965


# --- what is run --------------------------------------------------------------------------------


def test_every_value_is_tried_with_every_other():
    found = plan.plan(["maml"], "sinusoids", "quick", {"lr": [0.1, 0.2], "hidden": [(4, 4), [5]]})
    assert list(found) == [
        "maml,lr=0.1,hidden=4x4", "maml,lr=0.1,hidden=5",
        "maml,lr=0.2,hidden=4x4", "maml,lr=0.2,hidden=5",
    ]  # fmt: skip
    config = found["maml,lr=0.2,hidden=5"]
    quick = presets.lookup("maml", "sinusoids")
    assert config.training == replace(quick.training, lr=0.2)
    assert config.network == replace(quick.network, hidden=(5,))


def test_one_value_is_in_no_name_and_who_has_no_such_option_stays_as_it_is():
    options = {"inner_lr": [0.1, 0.2], "steps": [7]}
    found = plan.plan(["prototypical", "maml"], "glyphs", "quick", options)
    assert list(found) == ["prototypical", "maml,inner_lr=0.1", "maml,inner_lr=0.2"]
    assert {config.training.steps for config in found.values()} == {7}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithms": ["mamml"]}, "did you mean maml"),
        ({"algorithms": []}, "algorithms: wanted at least one"),
        ({"algorithms": ["maml", "maml"]}, "maml twice"),
        ({"seeds": []}, "seeds: wanted at least one"),
        ({"seeds": [-1]}, "seed: wanted at least 0, got -1"),
        ({"jobs": 0}, "jobs: wanted at least 1, got 0"),
        ({"vary": {"colour": [1]}}, "colour: is an option of none of maml"),
        ({"vary": {"seed": [1]}}, "other than seed"),
        ({"vary": {"lr": []}}, "lr: wanted at least one value"),
        ({"vary": {"lr": ["fast"]}}, "lr: wanted float, got 'fast'"),
        ({"vary": {"lr": [-1.0]}}, "lr: wanted a positive number"),
        ({"vary": {"lr": [0.1, 0.1]}}, "maml,lr=0.1 twice"),
        ({"n_query": 0}, "n_query: at least 1 wanted, got 0"),
        ({"n_way": 2}, "n_way: at most the 1 classes"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(changes, said):
    with pytest.raises(ValueError, match=said):
        waves(**{"algorithms": ["maml"], **changes})
    assert not Path("root").exists()


def test_too_few_episodes_are_refused():
    with pytest.raises(ValueError, match="episodes: wanted at least 2, got 1"):
        sm.sweep(["maml"], "sinusoids", out="root", episodes=1)


def test_other_ways_than_an_algorithm_tells_apart_are_refused():
    with pytest.raises(ValueError, match="n_way: the network of this maml run"):
        sm.sweep(["prototypical", "maml"], "glyphs", out="root", n_way=7)


def test_without_joblib_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "joblib", None)
    said = refused(capsys, "sweep", "maml", "--data", "sinusoids", "--out", "root")
    assert said == "sweep: joblib is not installed: pip install 'scratchmeta[sweep]'"


# --- the numbers --------------------------------------------------------------------------------


def test_a_run_is_the_run_of_train_and_its_test_that_of_evaluate(wanted):
    root, found = wanted
    assert sorted(measured(root)) == sorted(FOLDERS)
    argv = [
        f"--{o.replace('_', '-')}={' '.join(map(str, v)) if isinstance(v, tuple) else v}"
        for o, (v,) in WAVES.items()
    ]
    assert main(["train", "fomaml", "--data", "sinusoids", *argv, "--seed=1", "--out=one"]) == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert Path("one", name).read_bytes() == (root / "fomaml,seed=1" / name).read_bytes()
    saved = experiment.saved("one")
    result = sm.evaluate(
        saved.algorithm, saved.params, saved.splits.test, 1, 3, saved.config.training.test_query,
        episodes=20,
    )  # fmt: skip
    (run,) = (run for run in found.runs if (run["name"], run["seed"]) == ("fomaml", 1))
    assert run["mean"] == result.value
    assert run["ci95"] == result.ci95
    values = measured(root)["fomaml,seed=1"]
    assert np.mean(values) == result.value


def test_rows_and_differences_are_of_what_was_measured(wanted):
    root, found = wanted
    values = measured(root)
    x = {n: np.array([values[f"{n},seed={s}"] for s in (0, 1)]) for n in ("maml", "fomaml")}
    assert [row.name for row in found.rows] == ["maml", "fomaml"]
    for row in found.rows:
        assert row.measure == "mse"
        assert row.mean == pytest.approx(x[row.name].mean())
        assert row.by_seed == {0: np.mean(x[row.name][0]), 1: np.mean(x[row.name][1])}
        assert row.over_seeds == intervals.over_seeds(x[row.name])
        assert row.over_episodes == intervals.over_episodes(x[row.name])
        assert row.seconds > 0
    (difference,) = found.differences
    assert (difference.name, difference.less, difference.seeds) == ("fomaml", "maml", [0, 1])
    less = x["fomaml"] - x["maml"]
    assert difference.mean == pytest.approx(less.mean())
    assert difference.over_seeds == intervals.over_seeds(less)
    assert difference.over_episodes == intervals.over_episodes(less)


def test_its_files_hold_the_table(wanted):
    root, found = wanted
    assert (root / "table.md").read_text() == str(found) == found._repr_markdown_()
    assert json.loads((root / "sweep.json").read_text()) == json.loads(json.dumps(found.as_dict()))
    with open(root / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], float(row["mean"])) for row in rows] == [
        (row.name, row.mean) for row in found.rows
    ]
    with open(root / "runs.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    with open(root / "differences.csv", newline="") as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["0 1"]


def test_the_table_reads():
    def tested(values, way=5, measure="accuracy", seconds=None):
        return tables.Tested(way, 1, 15, 2, 0, measure, "the same", 9, seconds, values)

    about = {"data": "glyphs", "preset": "quick", "seeds": [0, 1], "episodes": 2}
    found = tables.Sweep.of(
        about,
        {
            ("a", 0): tested([0.5, 0.7], seconds=5.0), ("a", 1): tested([0.6, 0.8], seconds=7.0),
            ("b,lr=0.1", 0): tested([0.4, 0.6]),
            ("c", 0): tested([0.9, 0.9])._replace(fingerprint="another"),
        },
        ["a", "b,lr=0.1", "c", "d"],
        {"d,seed=0": {"error": "ValueError: not\nfinite", "traceback": ""}},
    )  # fmt: skip
    assert str(found).splitlines() == [
        "glyphs, quick: 5-way 1-shot, 2 test episodes, seeds 0 1",
        "",
        "|          | accuracy | over seeds | over episodes |  seeds | a run |",
        "| -------- | -------: | ---------: | ------------: | -----: | ----: |",
        "| a        |  65.00 % |    ± 63.53 |       ± 19.60 |      2 | 6.0 s |",
        "| b lr=0.1 |  50.00 % |            |       ± 19.60 | 1 of 2 |       |",
        "| c        |  90.00 % |            |        ± 0.00 | 1 of 2 |       |",
        "| d        |          |            |               | 0 of 2 |       |",
        "",
        "| less a   | points | over seeds | over episodes |  seeds |",
        "| -------- | -----: | ---------: | ------------: | -----: |",
        "| b lr=0.1 | -10.00 |            |        ± 0.00 | 1 of 2 |",
        "",
        "± are halves of 95 % intervals: over seeds by Student's t, on these episodes; over",
        "episodes, for these trained runs. Differences are of the same seeds and episodes.",
        "",
        "d,seed=0 failed: ValueError: not finite",
    ]


def test_a_table_of_errors_has_four_places():
    runs = {
        ("a", 0): tables.Tested(1, 10, 15, 2, 0, "mse", "", 9, 120.0, [0.5, 0.7]),
        ("b", 0): tables.Tested(1, 10, 15, 2, 0, "mse", "", 9, 12.0, [0.25, 0.5]),
    }
    about = {"data": "sinusoids", "preset": "paper", "seeds": [0], "episodes": 2}
    assert str(tables.Sweep.of(about, runs, ["a", "b"], {})).splitlines()[:10] == [
        "sinusoids, paper: 10-shot, 2 test episodes, seed 0",
        "",
        "|     |    mse | over seeds | over episodes | seeds | a run |",
        "| --- | -----: | ---------: | ------------: | ----: | ----: |",
        "| a   | 0.6000 |            |      ± 0.1960 |     1 | 2 min |",
        "| b   | 0.3750 |            |      ± 0.2450 |     1 |  12 s |",
        "",
        "| less a |     mse | over seeds | over episodes | seeds |",
        "| ------ | ------: | ---------: | ------------: | ----: |",
        "| b      | -0.2250 |            |      ± 0.0490 |     1 |",
    ]


def test_rows_of_several_shapes_say_which():
    def tested(shots):
        return tables.Tested(5, shots, 15, 2, 0, "accuracy", f"{shots}", 9, None, [0.5, 0.5])

    about = {"data": "glyphs", "preset": "quick", "seeds": [0], "episodes": 2}
    found = tables.Sweep.of(about, {("a", 0): tested(1), ("b", 0): tested(5)}, ["a", "b"], {})
    assert found.differences == []
    assert str(found).splitlines()[4:6] == [
        "| a   | 5-way 1-shot |  50.00 % |            |        ± 0.00 |     1 |       |",
        "| b   | 5-way 5-shot |  50.00 % |            |        ± 0.00 |     1 |       |",
    ]


def test_runs_are_told_apart_by_the_episodes_they_were_tested_on():
    dataset = sm.data.Sinusoids()
    one = job.fingerprint(dataset, (1, 3, 5), 0)
    assert one == job.fingerprint(sm.data.Sinusoids(), (1, 3, 5), 0)
    drawn = [sm.episodes.sample(dataset, 1, 3, 5, 1, 0, TEST + number) for number in range(8)]
    digest = hashlib.sha256()
    for array in (array for episode in drawn for array in episode):
        digest.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    assert one == digest.hexdigest()
    others = [((1, 3, 6), 0), ((1, 2, 5), 0), ((1, 3, 5), 1)]
    assert one not in {job.fingerprint(dataset, *other) for other in others}


def test_the_plot_has_every_seed_and_both_intervals(wanted, monkeypatch):
    _, found = wanted
    kept = SimpleNamespace()
    monkeypatch.setattr(plots, "_saved", lambda figure, path: setattr(kept, "figure", figure))
    plots.sweep(found, "sweep.png")
    rows, differences = kept.figure.axes
    drawn = {x for line in rows.lines for x in np.atleast_1d(line.get_xdata())}
    for row in found.rows:
        assert {row.mean, *row.by_seed.values()} <= drawn
    spans = [tuple(segment[:, 0]) for bar in rows.collections for segment in bar.get_segments()]
    for row in found.rows:
        for half in (row.over_seeds, row.over_episodes):
            assert any(np.allclose(span, (row.mean - half, row.mean + half)) for span in spans)
    drawn = {x for line in differences.lines for x in np.atleast_1d(line.get_xdata())}
    assert found.differences[0].mean in drawn


# --- what is not run again ----------------------------------------------------------------------


def never(*arguments, **options):
    raise AssertionError("it was trained again")


def test_what_is_finished_is_not_run_again(monkeypatch):
    before = waves(["maml"])
    written = {path: path.stat().st_mtime_ns for path in Path("root").glob("*,*/*")}
    monkeypatch.setattr(training, "train", never)
    assert waves(["maml"]) == before
    assert {path: path.stat().st_mtime_ns for path in Path("root").glob("*,*/*")} == written


def test_more_seeds_and_values_train_what_is_new(monkeypatch):
    waves(["maml"], seeds=[0])
    trained, train = [], training.train
    monkeypatch.setattr(
        training, "train", lambda *a, **o: trained.append(o["run"].name) or train(*a, **o)
    )
    found = waves(["maml"], seeds=[1, 0])
    assert trained == ["maml,seed=1"]
    assert found.rows[0].by_seed.keys() == {1, 0}
    waves(["fomaml", "maml"], seeds=[0])
    assert trained == ["maml,seed=1", "fomaml,seed=0"]


def test_other_test_episodes_train_nothing(monkeypatch):
    before = waves(["maml"])
    monkeypatch.setattr(training, "step", never)
    after = waves(["maml"], test_seed=3)
    assert after.rows[0].mean != before.rows[0].mean
    assert after.rows[0].seconds == before.rows[0].seconds
    assert waves(["maml"], k_shot=2).rows[0].k_shot == 2
    assert waves(["maml"]).rows[0].by_seed == before.rows[0].by_seed


def test_a_run_begun_with_other_options_is_refused(monkeypatch):
    waves(["maml"], seeds=[0])
    monkeypatch.setattr(training, "train", never)
    with pytest.raises(ValueError, match=r"maml,seed=0: was begun with steps 6, not 7: name"):
        waves(["fomaml", "maml"], seeds=[1, 0], vary={**WAVES, "steps": [7]})


def test_overwriting_a_run_deletes_what_was_measured():
    waves(["maml"], seeds=[0])
    run = Path("root", "maml,seed=0")
    assert main(["train", "maml", "--data", "sinusoids", "--steps", "1", "--tasks", "2",
                 "--out", str(run), "--overwrite"]) == 0  # fmt: skip
    assert (run / "last.safetensors").exists()
    assert not (run / "test.json").exists()


def test_a_damaged_result_is_named():
    waves(["maml"], seeds=[0])
    Path("root", "maml,seed=0", "test.json").write_text("{}")
    with pytest.raises(ValueError, match=r"test\.json: is not what a sweep wrote .*; delete it"):
        waves(["maml"], seeds=[0])


# --- failures and faults ------------------------------------------------------------------------

# MAML, which does once what a file says.
FAULTY = """
import os, signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scratchmeta.algorithms import MAML

FAULT, calls = Path({fault!r}), 0


@dataclass(frozen=True)
class Faulty(MAML):
    def meta_gradient(self, params, episodes):
        global calls
        calls += 1
        if calls % 6 == 5:
            with suppress(FileNotFoundError):
                FAULT.rename(FAULT.with_suffix(".taken"))
                who, signum = FAULT.with_suffix(".taken").read_text().split()
                if who == "error":
                    raise AttributeError("no such thing")
                os.kill(os.getppid() if who == "parent" else os.getpid(), int(signum))
        return super().meta_gradient(params, episodes)
"""


@pytest.fixture
def faulty(tmp_path):
    """faulty(what): the name of an algorithm that does it in its fifth step, once."""

    def make(what):
        (tmp_path / "fault").write_text(what)
        (tmp_path / "faulty.py").write_text(FAULTY.format(fault=str(tmp_path / "fault")))
        return ["./faulty.py:Faulty"]

    return make


def nothing_was_lost(algorithm):
    """Whether the runs have the numbers of those that nothing happened to."""
    waves(algorithm, out="unhurt")
    assert measured("root") == measured("unhurt")


def test_a_run_that_fails_does_not_stop_the_others(faulty):
    algorithm = faulty("error 0")
    found = waves(algorithm)
    assert list(found.failed) == ["Faulty,seed=0"]
    assert "Faulty,seed=0 failed: AttributeError: no such thing" in str(found)
    assert "meta_gradient" in found.failed["Faulty,seed=0"]["traceback"]
    assert found.rows[0].by_seed.keys() == {1}
    found = waves(algorithm)  # goes on after step 4
    assert not found.failed
    assert [run["seconds"] is None for run in found.runs] == [True, False]
    nothing_was_lost(algorithm)


def test_a_signal_stops_it_and_the_same_call_continues(faulty):
    algorithm = faulty(f"self {signal.SIGTERM:d}")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(sweeps.Stopped, match="stopped by SIGTERM"):
        waves(algorithm)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not Path("root", "Faulty,seed=1").exists()
    waves(algorithm)
    nothing_was_lost(algorithm)


def test_a_killed_process_is_said_and_its_run_continued(faulty):
    algorithm = faulty(f"self {signal.SIGKILL:d}")
    with pytest.raises(ChildProcessError, match="a process was killed while it worked"):
        waves(algorithm, jobs=2)
    assert len(measured("root")) < 2
    waves(algorithm, jobs=2)
    nothing_was_lost(algorithm)


# --- many processes -----------------------------------------------------------------------------


def test_processes_of_this_machine_find_the_same_numbers(wanted):
    root, before = wanted
    found = waves(jobs=2)
    assert measured("root") == measured(root)
    assert [row.mean for row in found.rows] == [row.mean for row in before.rows]


def test_a_process_has_one_thread():
    import joblib

    with sweeps._processes(joblib, 2):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        found = joblib.Parallel()(joblib.delayed(os.getenv)(name) for name in names)
    assert set(found) == {"1"}


@contextmanager
def dask():
    """A Dask cluster of two processes on this machine, as joblib's backend."""
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield


def test_a_dask_cluster_finds_the_same_numbers_though_a_worker_is_killed(faulty):
    algorithm = faulty(f"self {signal.SIGKILL:d}")
    with dask():
        found = waves(algorithm)
    assert not found.failed
    assert not Path("fault").exists()
    interrupted = [run["seconds"] is None for run in found.runs]
    assert interrupted.count(True) == 1  # it went on from its checkpoint
    nothing_was_lost(algorithm)


# --- the command --------------------------------------------------------------------------------

VARY = {**WAVES, "hidden": ["4"]}
ARGV = [
    "sweep", "maml", "--data", "sinusoids", "--out", "root", "--episodes", "20",
    "--seeds", "0", "1",
    *(word for option, (value,) in VARY.items() for word in ("--vary", option, f"{value}")),
]  # fmt: skip


def test_the_command_prints_the_table_and_draws(wanted, capsys):
    assert main(ARGV) == 0
    assert capsys.readouterr().out == Path("root", "table.md").read_text()
    assert {
        run: wanted_ for run, wanted_ in measured(wanted[0]).items() if "fomaml" not in run
    } == (measured("root"))
    assert Path("root", "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert main([*ARGV, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("root", "sweep.json").read_text())


def test_a_value_is_what_would_stand_after_the_option(capsys):
    values = ["--vary", "first-order", "True", "False", "--vary", "hidden", "4 4", "5"]
    steps = ["--vary", "steps", "1", "--vary", "tasks", "1", "--vary", "k_shot", "2"]
    assert main(["sweep", "maml", "--data", "sinusoids", "--out", "root", "--seeds", "0",
                 "--episodes", "2", *values, *steps]) == 0  # fmt: skip
    found = {path.parent.name for path in Path("root").glob("*/test.json")}
    assert found == {
        f"maml,first_order={first},hidden={hidden},seed=0"
        for first in (True, False) for hidden in ("4x4", "5")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["lr", "fast"], "--vary lr: wanted float, got 'fast'"),
        (["lr", "0.1", "--vary", "lr", "0.2"], "--vary: wanted each option once"),
        (["colour", "red"], "vary: colour: is an option of none of maml"),
        (["inner_batches", "some"], "--vary inner_batches: wanted"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(vary, said, capsys):
    argv = ["sweep", "maml", "--data", "sinusoids", "--out", "root", "--vary"]
    assert refused(capsys, *argv, *vary).startswith(said)


def test_the_exit_status_says_whether_all_worked(faulty, capsys):
    argv = ["sweep", *faulty("error 0"), *ARGV[2:]]
    assert main(argv) == 1
    assert "Faulty,seed=0 failed" in capsys.readouterr().out
    assert main(argv) == 0


def test_the_command_says_how_it_goes_on_after_a_signal(faulty, capsys):
    argv = ["sweep", *faulty(f"parent {signal.SIGTERM:d}"), *ARGV[2:], "--jobs", "2"]
    assert main(argv) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "scratchmeta: stopped by SIGTERM; the same command continues the sweep" in said
    assert main(argv) == 0


def test_without_matplotlib_there_is_a_table_and_a_word(monkeypatch, capsys):
    from scratchmeta.run.commands import sweep as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(ARGV) == 0
    captured = capsys.readouterr()
    assert "no sweep.png without matplotlib: pip install 'scratchmeta[plots]'" in captured.err
    assert captured.out == Path("root", "table.md").read_text()
    assert not Path("root", "sweep.png").exists()
