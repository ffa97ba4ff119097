"""The commands behind `scratchmeta`: functions of the arguments that return an exit status."""

import itertools
import json
import os
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from scratchmeta import (
    __version__,
    backend,
    episodes,
    evaluation,
    experiment,
    losses,
    presets,
    training,
)
from scratchmeta.algorithms import REGISTRY
from scratchmeta.checkpoint import Run
from scratchmeta.config import Config
from scratchmeta.data import Described, Shuffled, WithinAlphabet, one_shot_runs
from scratchmeta.data.one_shot_runs import WAYS
from scratchmeta.kernels import memory
from scratchmeta.options import (
    BenchOptions,
    CheckOptions,
    CompareOptions,
    EvaluateOptions,
    ListOptions,
    PlotOptions,
    TaylorOptions,
    TrainOptions,
    UsageError,
    parse,
)
from scratchmeta.progress import Progress
from scratchmeta.tree import to_backend

# --- train --------------------------------------------------------------------------------------


def train(argv: Sequence[str]) -> int:
    """`scratchmeta train`."""
    resume = _value(argv, "--resume")
    default = _recorded(Path(resume), argv) if resume else _preset(argv)
    options = parse(TrainOptions, argv, "train", default)
    if resume:
        _refuse_changes(default, options)
    with backend.use(options.backend):
        return _train(options, argv)


def _preset(argv: Sequence[str]) -> TrainOptions:
    """The options of the preset that the command line names."""
    if argv and not argv[0].startswith("-"):
        name = argv[0]
    elif {"-h", "--help"} & set(argv):
        name = "prototypical"
    else:
        raise UsageError(
            f"train: wanted the name of an algorithm first: {', '.join(presets.PRESETS)}"
        )
    config = presets.lookup(name, _value(argv, "--data"), _value(argv, "--preset") or "quick")
    return TrainOptions(**_sections(config), backend=backend.current())


def _recorded(folder: Path, argv: Sequence[str]) -> TrainOptions:
    """The options of the run in `folder`."""
    record = Run.open(folder).config
    config = experiment.recorded(folder, record)
    if not argv[0].startswith("-") and argv[0] != config.algorithm:
        raise UsageError(f"{folder}: is a run of {config.algorithm!r}, not {argv[0]!r}")
    data_dir = record.get("data_dir")
    return TrainOptions(
        **_sections(config),
        data_dir=data_dir and Path(data_dir),
        backend=record.get("backend", backend.current()),
    )


def _refuse_changes(was: TrainOptions, asked: TrainOptions) -> None:
    """Raises UsageError if anything but the number of steps is to be different from now on."""
    if asked.out or asked.overwrite:
        raise UsageError("--resume continues a run in its own folder: no --out, no --overwrite")
    if was.training.linear_decay and asked.training.steps != was.training.steps:
        raise UsageError(
            f"--steps: the learning rate of this run falls to 0 at step {was.training.steps}, "
            "so it ends there"
        )
    asked = replace(asked, training=replace(asked.training, steps=was.training.steps))
    for section, value in _sections(was).items():
        other = getattr(asked, section)
        if other == value:
            continue
        inner = fields(value) if hasattr(value, "__dataclass_fields__") else ()
        changed = [f.name for f in inner if getattr(value, f.name) != getattr(other, f.name)]
        raise UsageError(
            f"--resume continues a run as it is: only --steps can be changed, "
            f"not {', '.join(changed) or section}"
        )


def _train(options: TrainOptions, argv: Sequence[str]) -> int:
    memory.keep_freed()
    config = Config(**_sections(options))
    algorithm = experiment.algorithm(config)
    experiment.refuse_other_ways(config, config.training.test_shape[0])
    splits = experiment.splits(config, options.data_dir)
    record = {
        **config.as_dict(),
        "command": shlex.join(["scratchmeta", "train", *argv]),
        "version": __version__,
        "backend": options.backend,
        "hardware": hardware(),
        "data_dir": options.data_dir and str(options.data_dir.resolve()),
    }
    if options.resume:  # what began the run stays on record, and how it went on
        was = Run.open(options.resume).config
        record["resumed_from"] = was.get("resumed_from", was)
        record["resumed_by"] = [*was.get("resumed_by", []), record["command"]]
    with _folder(config, options) as folder:
        state = training.train(
            algorithm,
            splits.train,
            config.training,
            validation=splits.validation,
            run=folder,
            config=record,
            resume=options.resume is not None,
            overwrite=options.overwrite,
            progress=True,
        )
    print(f"trained {config.algorithm} on {config.data} for {state.step} steps, saved in {folder}")
    run = shlex.quote(str(folder))
    print(f"next: scratchmeta evaluate {run}; scratchmeta plot {run}")
    return 0


def _value(argv: Sequence[str], option: str) -> str | None:
    """The value of an option that decides what the other options are."""
    values = []
    for i, argument in enumerate(argv):
        if argument == option and i + 1 < len(argv):
            values.append(argv[i + 1])
        if argument.startswith(f"{option}="):
            values.append(argument.removeprefix(f"{option}="))
    if len(values) > 1:
        raise UsageError(f"{option}: wanted once, got {' and '.join(values)}")
    return values[0] if values else None


def _sections(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(Config)}


@contextmanager
def _folder(config: Config, options: TrainOptions) -> Iterator[Path]:
    """The run's folder: the one asked for, or the first free one, which goes again if nothing comes
    of it."""
    path = options.resume or options.out
    if path is not None:
        yield path
        return
    for number in itertools.count(1):
        path = Path("runs") / f"{config.algorithm}-{config.data}-{number}"
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    try:
        yield path
    finally:
        with suppress(OSError):  # which they raise where anything is in them
            path.rmdir()
            path.parent.rmdir()


def hardware() -> dict[str, Any]:
    """What the numbers were made on, for config.json and tables of timings."""
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.is_file()
        else []
    )
    return {
        "system": platform.platform(),
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


# --- evaluate -----------------------------------------------------------------------------------


def evaluate(argv: Sequence[str]) -> int:
    """`scratchmeta evaluate`."""
    default = EvaluateOptions(run=tyro.MISSING, backend=backend.current())
    options = parse(EvaluateOptions, argv, "evaluate", default)
    with backend.use(options.backend):
        run = experiment.saved(options.run, options.checkpoint, options.data_dir)
        found = _one_shot_runs(run, options) if options.one_shot_runs else _evaluate(run, options)
    if options.json:
        print(json.dumps(found))
        return 0
    if options.one_shot_runs:
        print(f"{run.config.algorithm} on {run.config.data}, one-shot runs of {WAYS} ways")
        print(f"  error rate {found['error_rate']:.2%} of {found['trials']} trials")
        print(f"  nearest neighbour on pixels {found['nearest_neighbour']:.2%}")
        return 0
    n_way, k_shot, n = found["n_way"], found["k_shot"], found["episodes"]
    what = f"{run.config.algorithm} on {run.config.data}"
    if "bit_errors" in found:
        shortest, longest = found["lengths"]
        lengths = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        print(f"{what}, {n} test sequences of length {lengths}")
        print(f"  bit errors {found['bit_errors']:.4f} ± {found['ci95']:.4f} (95 % interval)")
        print(f"  of {found['bits']:.1f} bits a sequence; chance {found['chance']:.1f}")
        return 0
    within = " within an alphabet" if options.within_alphabet else ""
    shots = "zero-shot" if isinstance(run.splits.test, Described) else f"{k_shot}-shot"
    print(f"{what}, {n_way}-way {shots}, {n} test episodes{within}")
    if "mse" in found:
        print(f"  mean squared error {found['mse']:.4f} ± {found['ci95']:.4f} (95 % interval)")
        for step, mse in enumerate(found["mse_by_step"]):
            print(f"    after {step:2} inner steps {mse:.4f}")
    else:
        print(f"  accuracy {found['accuracy']:.2%} ± {found['ci95']:.2%} (95 % interval)")
        if "nearest_neighbour" in found:
            print(f"  nearest neighbour on pixels {found['nearest_neighbour']:.2%}")
        print(f"  chance {found['chance']:.2%}")
    if "verification" in found:
        print(f"  same or different, pairs of one alphabet {found['verification']:.2%}")
    for number, accuracy in enumerate(found.get("by_instance", []), 1):
        print(f"  in sequences, image {number:2} of a class {accuracy:.2%}")
    return 0


def _evaluate(run: experiment.Saved, options: EvaluateOptions) -> dict[str, Any]:
    """The result, and beside it what it is to be compared with."""
    n_way, k_shot, n_query = run.config.training.test_shape
    n_way = n_way if options.n_way is None else options.n_way
    k_shot = k_shot if options.k_shot is None else options.k_shot
    n_query = n_query if options.n_query is None else options.n_query
    experiment.refuse_other_ways(run.config, n_way)
    dataset = experiment.of_length(run.splits.test, options.length)
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
        found = {**result.as_dict(), "chance": 1 / n_way}
        if not isinstance(run.splits.test, Described):
            found["nearest_neighbour"] = on_test(evaluation.NearestNeighbour()).value
        found["within_alphabet"] = options.within_alphabet
        if hasattr(run.algorithm, "verification_accuracy"):
            found["verification"] = evaluation.verification(
                run.algorithm, run.params, run.splits.test, 10 * options.episodes, options.seed
            )
        if hasattr(run.algorithm, "instance_accuracy"):
            sequences = Shuffled(run.splits.test, run.config.method.labels)
            found["by_instance"] = evaluation.by_instance(
                run.algorithm, run.params, sequences, n_way, options.episodes, options.seed
            )
        return found
    if result.measure == "bit_errors":
        bits = on_test(evaluation.AllWrong()).value
        lengths = {"lengths": list(dataset.lengths)}
        return {**result.as_dict(), **lengths, "bits": bits, "chance": bits / 2}
    adapted = (
        experiment.algorithm(run.config, eval_inner_steps=steps)
        for steps in range(run.config.method.eval_inner_steps + 1)
    )
    return {**result.as_dict(), "mse_by_step": [on_test(each).value for each in adapted]}


def _one_shot_runs(run: experiment.Saved, options: EvaluateOptions) -> dict[str, Any]:
    """The error rate in Lake's one-shot runs, and that of the nearest neighbour on pixels."""
    own = (options.n_way, options.k_shot, options.n_query)
    if own != (None, None, None) or options.within_alphabet:
        raise UsageError("--one-shot-runs has its own episodes: 20 ways, 1 shot, 1 query")
    experiment.refuse_other_ways(run.config, WAYS)
    shape = getattr(run.splits.test, "image_shape", (None,))
    if shape[-1] != 1:
        raise UsageError(f"{options.run}: --one-shot-runs wants a run on grey images of characters")
    runs = one_shot_runs.read(options.one_shot_runs, shape[0])
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


# --- check, bench -------------------------------------------------------------------------------


def _at_least(lowest: int, name: str, value: int) -> None:
    if value < lowest:
        raise UsageError(f"{name}: wanted at least {lowest}, got {value}")


def check(argv: Sequence[str]) -> int:
    """`scratchmeta check`."""
    options = parse(CheckOptions, argv, "check", CheckOptions(backend=backend.current()))
    _at_least(0, "seed", options.seed)
    from scratchmeta import cases  # after the options: --help need not wait for the table

    total = len(cases.select(options.names))
    with (
        backend.use(options.backend),
        backend.use_kernels(not options.no_kernels),
        Progress("check", total) as bar,
    ):
        results = cases.run(
            options.names, options.seed, lambda done, total, last: bar.update(done, last.name)
        )
    passed = all(result.passed for result in results)
    if options.json:
        print(json.dumps({"passed": passed, "results": [r.as_dict() for r in results]}))
    else:
        print(cases.table(results))
    return 0 if passed else 1


def bench(argv: Sequence[str]) -> int:
    """`scratchmeta bench`."""
    options = parse(BenchOptions, argv, "bench", BenchOptions(backend=backend.current()))
    _at_least(1, "rounds", options.rounds)
    memory.keep_freed()
    rows = []
    for name in REGISTRY:
        for data in _presets(name):
            if data in ("omniglot", "mini-imagenet", "cub"):
                continue  # on disk, if anywhere; and Omniglot's quick presets are like glyphs'
            config = presets.lookup(name, data)
            with backend.use(options.backend):
                on = _step_seconds(config, options.rounds)
                with backend.use_kernels(False):
                    off = _step_seconds(config, options.rounds)
            rows.append({"name": name, "data": data, "seconds": on, "without_kernels": off})
    if options.json:
        print(json.dumps({"hardware": hardware(), "backend": options.backend, "steps": rows}))
        return 0
    machine = hardware()
    print(f"{options.backend} on {machine['processor']}, {machine['cores']} cores")
    print(f"{'one step of':<28}{'kernels on':>14}{'off':>14}")
    for row in rows:
        times = "".join(f"{1000 * row[key]:11.1f} ms" for key in ("seconds", "without_kernels"))
        print(f"{row['name'] + ' on ' + row['data']:<28}{times}")
    return 0


def _step_seconds(config: Config, rounds: int) -> float:
    """The median time of `rounds` training steps."""
    settings, algorithm = config.training, experiment.algorithm(config)
    dataset = experiment.splits(config).train
    batch = to_backend(episodes.sample(dataset, *settings.shape, settings.tasks))
    optimizer, state = training.start(algorithm, settings)
    times: list[float] = []
    while len(times) <= rounds or sum(times) < 0.2:
        began = time.perf_counter()
        _, state = training.step(algorithm, optimizer, state, batch, settings)
        backend.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


# --- the analysis of meta-gradients -------------------------------------------------------------


def taylor(argv: Sequence[str]) -> int:
    """`scratchmeta taylor`."""
    options = parse(TaylorOptions, argv, "taylor")
    if not options.k:
        raise UsageError("k: wanted one or more numbers of minibatches, got none")
    from scratchmeta.analysis import taylor

    problems = [taylor.problem(k, options.seed, options.problem) for k in options.k]
    found = [taylor.measure(name, problem) for problem in problems for name in taylor.MEASURED]
    if options.plot:
        _plots("taylor").expansions(found, options.plot)
    if options.json:
        print(json.dumps([expansion._asdict() for expansion in found]))
        return 0
    print(f"what is left of the gradients of a {options.problem} problem, relative to them")
    print(f"{'':<15}{'less the terms in A':^32}{'less those in A and B':^32}")
    columns = f"{'α = 0.01':>10}{'0.1':>9}{'∝ α to the':>13}"
    print(f"{'gradient of':<12}{'k':>3}{columns}{columns}")
    for each in found:
        (with_1, without_1), (with_2, without_2) = each.at(0.01), each.at(0.1)
        print(
            f"{each.name:<12}{each.k:>3}"
            f"{without_1:>10.1e}{without_2:>9.1e}{each.slope_without_b:>13.3f}"
            f"{with_1:>10.1e}{with_2:>9.1e}{each.slope:>13.3f}"
        )
    return 0


def compare(argv: Sequence[str]) -> int:
    """`scratchmeta compare`."""
    options = parse(CompareOptions, argv, "compare", CompareOptions(backend=backend.current()))
    _at_least(0, "seed", options.seed)
    from scratchmeta.analysis import compare

    with backend.use(options.backend):
        if options.run:
            saved = experiment.saved(options.run, "best", options.data_dir)
            config, params, dataset = saved.config, saved.params, saved.splits.train
            if not hasattr(config.method, "inner_lr"):
                raise UsageError(f"{options.run}: is a run of {config.algorithm!r}, which has no α")
            if options.data not in (None, config.data):
                raise UsageError(f"{options.run}: is a run on {config.data}, not {options.data}")
            if config.algorithm == "reptile":  # Adam's moments are beside its network
                params = params["network"]
        else:
            config = presets.lookup("maml", options.data)
            dataset = experiment.splits(config, options.data_dir).train
            params = experiment.network(config).init(np.random.default_rng(options.seed))
        n_way, k_shot, n_query = config.training.shape
        k_shot = k_shot if options.k_shot is None else options.k_shot
        n_query = n_query if options.n_query is None else options.n_query
        shape = n_way, k_shot, n_query, options.tasks
        batch = to_backend(episodes.sample(dataset, *shape, seed=options.seed))
        loss = {"loss": losses.mse} if config.data == "sinusoids" else {}
        alpha, steps = config.method.inner_lr, config.method.inner_steps
        if config.algorithm == "reptile":  # whose steps include the last batch
            steps = max(1, steps - 1)
        alpha = alpha if options.inner_lr is None else options.inner_lr
        steps = steps if options.inner_steps is None else options.inner_steps
        rows = compare.compare(
            experiment.network(config), to_backend(params), batch, alpha, steps, **loss
        )
    if options.json:
        print(json.dumps([row._asdict() for row in rows]))
        return 0
    print(
        f"{config.data}, {n_way}-way {k_shot}-shot, {n_query} queries, α = {alpha:g}, "
        f"{steps} inner step{'s' if steps > 1 else ''} (Reptile: {steps + 1})"
    )
    print(f"{'':<10}{'loss':>8}{'norm':>10}{'of maml':>10}{'cosine':>9}{'ms':>9}")
    for row in rows:
        print(
            f"{row.name:<10}{row.loss:8.3f}{row.norm:10.4f}{row.norm_ratio:10.3f}"
            f"{row.cosine:9.4f}{1000 * row.seconds:9.1f}"
        )
    return 0


# --- list, plot ---------------------------------------------------------------------------------


def list_(argv: Sequence[str]) -> int:
    """`scratchmeta list`."""
    options = parse(ListOptions, argv, "list")
    rows = [
        {
            "name": name,
            "paper": entry.paper,
            "family": entry.family,
            "presets": _presets(name),
        }
        for name, entry in REGISTRY.items()
    ]
    if options.json:
        print(json.dumps(rows))
        return 0
    width = max(map(len, REGISTRY)) + 2
    for row in rows:
        print(f"{row['name']:<{width}}{row['family']:<15}{row['paper']}")
        for data, names in row["presets"].items():
            print(f"{'':<{width}}{data:<15}{', '.join(names)}")
    return 0


def _presets(algorithm: str) -> dict[str, list[str]]:
    """{data: names of the presets}."""
    table = presets.PRESETS[algorithm]
    return {data: [p for d, p in table if d == data] for data, _ in table}


def plot(argv: Sequence[str]) -> int:
    """`scratchmeta plot`."""
    options = parse(PlotOptions, argv, "plot")
    plots = _plots("plot")
    run = experiment.saved(options.run, "best", options.data_dir)
    for path in (
        plots.episode(run, options.run / "episode.png", options.episode, options.length),
        plots.learning(Run.open(options.run), options.run / "learning.png"),
    ):
        print(path)
    return 0


def _plots(command: str) -> Any:
    """The module that draws, which wants matplotlib."""
    try:
        from scratchmeta import plots
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"{command}: {str(missing.name).partition('.')[0]} is not installed: "
            "pip install 'scratchmeta[plots]'"
        ) from None
    return plots


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "check": check,
    "list": list_,
    "plot": plot,
    "bench": bench,
    "taylor": taylor,
    "compare": compare,
}
