"""`scratchmeta evaluate`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from scratchmeta import backend
from scratchmeta.data import Described, Shuffled, WithinAlphabet, one_shot_runs
from scratchmeta.data.one_shot_runs import WAYS
from scratchmeta.run import elsewhere, evaluation, experiment
from scratchmeta.run.options import Backend, Folder, Named, UsageError, parse
from scratchmeta.shown import percent


@dataclass(frozen=True)
class EvaluateOptions(Named):
    """Evaluate a run on test episodes, of classes it was not trained on."""

    run: Folder
    """The run's folder."""
    episodes: int = 600
    """Test episodes."""
    n_way: int | None = None
    """Classes in an episode; as in the run's validation if not given."""
    k_shot: int | None = None
    """Labelled examples of each class; as in training if not given."""
    n_query: int | None = None
    """Examples of each class to predict; as in the run's validation if not given."""
    length: int | None = None
    """Vectors in a sequence (copy), or items (recall); as in training if not given."""
    seed: int = 0
    """Decides the test episodes."""
    within_alphabet: bool = False
    """Classes of one alphabet, each shot by one drawer (the design of Lake's one-shot runs)."""
    one_shot_runs: Path | None = None
    """Lake's one-shot runs, all_runs.zip or its folder, in place of episodes: 20-way 1-shot."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    data: str | None = None
    """Another data set to test on, of which all that was not trained on is tested: all classes of a
    folder, the test classes of others; the run's own if not given."""
    ink: Literal["dark", "bright"] = "dark"
    """With --data folder and a run on drawings: dark on white paper, or bright on black."""
    convert: bool = False
    """Make gray of colour, or colour of gray, where the other data has other channels."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: accuracy, mse, bit_errors or error_rate, ci95, episodes, ..."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    default = EvaluateOptions(run=tyro.MISSING, backend=backend.current())
    options = parse(EvaluateOptions, argv, "evaluate", default)
    with backend.use(options.backend):
        run = experiment.saved(options.run, options.checkpoint, options.data_dir, options.named)
        runs = options.one_shot_runs
        if runs:
            found = _one_shot_runs(run, runs, options)
        else:
            test = _tested(run, options)
            found = _evaluate(run, test, options)
    if options.json:
        print(json.dumps(found))
        return 0
    if options.one_shot_runs:
        print(f"{run.config.algorithm} on {run.config.data}, one-shot runs of {WAYS} ways")
        print(f"  error rate {percent(found['error_rate'])} of {found['trials']} trials")
        print(f"  nearest neighbour on pixels {percent(found['nearest_neighbour'])}")
        return 0
    n_way, k_shot, n = found["n_way"], found["k_shot"], found["episodes"]
    what = f"{run.config.algorithm} on {run.config.data}"
    if options.data:
        what = f"{what}, tested on {options.data}"
    if "bit_errors" in found:
        shortest, longest = found["lengths"]
        lengths = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        print(f"{what}, {n} test sequences of length {lengths}")
        print(f"  bit errors {found['bit_errors']:.4f} ± {found['ci95']:.4f} (95 % interval)")
        print(f"  of {found['bits']:.1f} bits a sequence; chance {found['chance']:.1f}")
        return 0
    within = " within an alphabet" if options.within_alphabet else ""
    shots = "zero-shot" if isinstance(test, Described) else f"{k_shot}-shot"
    print(f"{what}, {n_way}-way {shots}, {n} test episodes{within}")
    if "mse" in found:
        print(f"  mean squared error {found['mse']:.4f} ± {found['ci95']:.4f} (95 % interval)")
        for step, mse in enumerate(found.get("mse_by_step", [])):
            print(f"    after {step:2} inner steps {mse:.4f}")
    else:
        print(f"  accuracy {percent(found['accuracy'], found['ci95'])} (95 % interval)")
        if "nearest_neighbour" in found:
            print(f"  nearest neighbour on pixels {percent(found['nearest_neighbour'])}")
        print(f"  chance {percent(found['chance'])}")
    if "verification" in found:
        print(f"  same or different, pairs of one alphabet {percent(found['verification'])}")
    for number, accuracy in enumerate(found.get("by_instance", []), 1):
        print(f"  in sequences, image {number:2} of a class {percent(accuracy)}")
    return 0


def _tested(run: experiment.Saved, options: EvaluateOptions) -> Any:
    """The test classes of the run's own data, or another's."""
    was = run.record.get("data_dir")
    moved = options.data_dir and (was is None or options.data_dir.resolve() != Path(was))
    if options.data and (options.data != run.config.data or moved):
        return elsewhere.dataset(run, options.data, options.data_dir, options.ink, options.convert)
    if options.ink != "dark" or options.convert:
        raise UsageError("--ink and --convert go with --data of another data set")
    return run.splits.test


def _evaluate(run: experiment.Saved, test: Any, options: EvaluateOptions) -> dict[str, Any]:
    """The result, and beside it what it is to be compared with."""
    n_way, k_shot, n_query = run.config.training.test_shape
    n_way = n_way if options.n_way is None else options.n_way
    k_shot = k_shot if options.k_shot is None else options.k_shot
    n_query = n_query if options.n_query is None else options.n_query
    experiment.refuse_other_ways(run.config, n_way)
    dataset = experiment.of_length(test, options.length)
    if options.within_alphabet:
        if not hasattr(dataset, "alphabets"):
            raise UsageError(f"{options.run}: --within-alphabet wants characters, not {dataset}")
        dataset = WithinAlphabet(dataset)

    def on_test(algorithm: Any, progress: bool = False) -> evaluation.Evaluation:
        return evaluation.evaluate(
            algorithm,
            run.params,
            dataset,
            n_way,
            k_shot,
            n_query,
            episodes=options.episodes,
            seed=options.seed,
            progress=progress,
        )

    result = on_test(run.algorithm, progress=True)
    if not np.isfinite(result.value):
        raise ValueError(
            f"{options.run}: wanted predictions, got {result.measure} {result.value}: they are not "
            "finite; had training, or adaptation, diverged?"
        )
    if result.measure == "accuracy":
        found: dict[str, Any] = {**result.as_dict(), "chance": 1 / n_way}
        if not isinstance(test, Described):
            found["nearest_neighbour"] = on_test(evaluation.NearestNeighbour()).value
        found["within_alphabet"] = options.within_alphabet
        if hasattr(run.algorithm, "verification_accuracy") and not options.data:
            found["verification"] = evaluation.verification(
                run.algorithm, run.params, test, 10 * options.episodes, options.seed
            )
        if hasattr(run.algorithm, "instance_accuracy"):
            sequences = Shuffled(test, run.algorithm.labels)
            found["by_instance"] = evaluation.by_instance(
                run.algorithm, run.params, sequences, n_way, options.episodes, options.seed
            )
        return found
    if result.measure == "bit_errors":
        bits = on_test(evaluation.AllWrong()).value
        lengths = {"lengths": list(dataset.lengths)}
        return {**result.as_dict(), **lengths, "bits": bits, "chance": bits / 2}
    if not hasattr(run.algorithm, "eval_inner_steps"):
        return result.as_dict()
    adapted = (
        experiment.algorithm(run.config, eval_inner_steps=steps)
        for steps in range(run.algorithm.eval_inner_steps + 1)
    )
    return {**result.as_dict(), "mse_by_step": [on_test(each).value for each in adapted]}


def _one_shot_runs(run: experiment.Saved, path: Path, options: EvaluateOptions) -> dict[str, Any]:
    """The error rate in Lake's one-shot runs, and that of the nearest neighbour on pixels."""
    own = (options.n_way, options.k_shot, options.n_query)
    if own != (None, None, None) or options.within_alphabet:
        raise UsageError("--one-shot-runs has its own episodes: 20 ways, 1 shot, 1 query")
    experiment.refuse_other_ways(run.config, WAYS)
    shape = run.example_shape
    if len(shape) != 3 or shape[-1] != 1:
        raise UsageError(f"{options.run}: --one-shot-runs wants a run on grey images of characters")
    resampling = getattr(run.config.dataset, "resampling", "antialiased")  # as in training
    runs = one_shot_runs.read(path, shape[0], resampling)
    errors = evaluation.one_shot_errors(run.algorithm, run.params, runs)
    nearest = evaluation.one_shot_errors(evaluation.NearestNeighbour(), None, runs)
    return {
        "error_rate": errors.mean(),
        "trials": runs.answers.size,
        "n_way": WAYS,
        "k_shot": 1,
        "error_rate_by_run": errors.tolist(),
        "nearest_neighbour": nearest.mean(),
    }
