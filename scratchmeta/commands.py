"""The commands behind `scratchmeta`, each an options object and a function of it."""

import contextlib
import io
import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import tyro

from scratchmeta import __version__, backend, experiment, presets
from scratchmeta.algorithms import REGISTRY
from scratchmeta.checkpoint import Run
from scratchmeta.evaluation import Evaluation, NearestNeighbour
from scratchmeta.evaluation import evaluate as evaluated
from scratchmeta.presets import Config
from scratchmeta.training import train as trained

Options = TypeVar("Options")
Backend = Literal["numpy", "cupy"]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


class UsageError(ValueError):
    """The command line cannot be read."""


def parse(
    options: type[Options],
    argv: Sequence[str],
    prog: str,
    default: Options | Any = tyro.MISSING_NONPROP,
) -> Options:
    """The options of `argv`, others as in `default`; raises UsageError saying what is wrong.

    The description in --help is the docstring of `options`.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                default=default,
                args=list(argv),
                prog=f"scratchmeta {prog}",
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        # tyro draws a box around: what is wrong, a rule, hints, a rule, where the help is
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        text = " ".join(line for line in lines if line and line[0] not in "╭╰")
        parts = [part.strip() for part in text.split("─") if part.strip()]
        said = "; ".join(part for part in parts if "full helptext" not in part)
        raise UsageError(f"{said} (scratchmeta {prog} --help lists the options)") from None


# --- train --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Config):
    """Train an algorithm, in a run folder that evaluate, plot and --resume take.

    What is not given comes from the preset. `scratchmeta train ALGORITHM --data DATA --preset
    PRESET --help` shows its values.
    """

    algorithm: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ALGORITHM")]
    """One of `scratchmeta list`."""
    out: Path | None = None
    """The run's folder; the first free one of runs/ALGORITHM-DATA-1, 2, ... if not given."""
    resume: Path | None = None
    """Continue the run in this folder, bit for bit; only --steps can be changed."""
    overwrite: bool = False
    """Replace the run that is in the folder."""
    data_dir: Path | None = None
    """Folder of the data (or SCRATCHMETA_DATA); Omniglot's zips in it or in its folder omniglot."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""


def train(argv: Sequence[str]) -> int:
    """`scratchmeta train`."""
    named = bool(argv) and not argv[0].startswith("-")
    resume = _value(argv, "--resume")
    if resume:
        config = presets.from_dict(Run.open(resume).config)
        if named and argv[0] != config.algorithm:
            raise UsageError(f"{resume}: is a run of {config.algorithm!r}, not {argv[0]!r}")
    elif named or _asks_for_help(argv):
        name = argv[0] if named else "prototypical"
        data, preset = _value(argv, "--data"), _value(argv, "--preset")
        config = presets.lookup(name, data, preset or "quick")
    else:
        raise UsageError(
            f"train: wanted the name of an algorithm first: {', '.join(presets.PRESETS)}"
        )
    default = TrainOptions(**_sections(config), backend=backend.current())
    options = parse(TrainOptions, argv, "train", default)
    asked = Config(**_sections(options))
    if resume:
        _refuse_changes(config, asked)
    return _train(asked, options, argv)


def _train(config: Config, options: TrainOptions, argv: Sequence[str]) -> int:
    backend.use(options.backend)
    splits = experiment.splits(config, options.data_dir)
    algorithm = experiment.algorithm(config)
    experiment.refuse_other_ways(config, config.training.test_way or config.training.n_way)
    folder = options.resume or options.out or _free_folder(config)
    record = {
        **config.as_dict(),
        "command": shlex.join(["scratchmeta", "train", *argv]),
        "version": __version__,
        "seed": config.training.seed,
        "backend": options.backend,
        "hardware": hardware(),
        "data_dir": options.data_dir and str(options.data_dir),
    }
    state = trained(
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
    print(
        f"trained {config.algorithm} on {config.data} for {state.step} steps, run saved in {folder}"
    )
    print(f"next: scratchmeta evaluate {folder}; scratchmeta plot {folder}")
    return 0


def _value(argv: Sequence[str], option: str) -> str | None:
    """The value of an option that decides what the other options are."""
    for i, argument in enumerate(argv):
        if argument == option and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def _asks_for_help(argv: Sequence[str]) -> bool:
    return "-h" in argv or "--help" in argv


def _sections(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(Config)}


def _refuse_changes(was: Config, asked: Config) -> None:
    """Raises UsageError if anything but the number of steps differs."""
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


def _free_folder(config: Config) -> Path:
    number = 1
    while (path := Path("runs") / f"{config.algorithm}-{config.data}-{number}").exists():
        number += 1
    return path


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


@dataclass(frozen=True)
class EvaluateOptions:
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
    seed: int = 0
    """Decides the test episodes."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: accuracy or mse, ci95, episodes, n_way, k_shot."""


def evaluate(argv: Sequence[str]) -> int:
    """`scratchmeta evaluate`."""
    default = EvaluateOptions(run=tyro.MISSING, backend=backend.current())
    options = parse(EvaluateOptions, argv, "evaluate", default)
    backend.use(options.backend)
    run = experiment.saved(options.run, options.checkpoint, options.data_dir)
    training = run.config.training
    n_way = options.n_way if options.n_way is not None else training.test_way or training.n_way
    experiment.refuse_other_ways(run.config, n_way)
    shape = (
        n_way,
        training.k_shot if options.k_shot is None else options.k_shot,
        training.test_query if options.n_query is None else options.n_query,
    )

    def on_test(algorithm: Any, progress: bool) -> Evaluation:
        return evaluated(
            algorithm,
            run.params,
            run.splits.test,
            *shape,
            episodes=options.episodes,
            seed=options.seed,
            progress=progress,
        )

    result = on_test(run.algorithm, progress=True)
    found = result.as_dict()
    if result.measure == "accuracy":
        baseline = on_test(NearestNeighbour(), progress=False)
        found |= {"chance": 1 / n_way, "nearest_neighbour": baseline.value}
    else:
        steps = range(run.config.method.eval_inner_steps + 1)
        found["mse_by_step"] = [
            on_test(experiment.algorithm(run.config, eval_inner_steps=step), False).value
            for step in steps
        ]
    if options.json:
        print(json.dumps(found))
        return 0
    print(
        f"{run.config.algorithm} on {run.config.data}, {n_way}-way {shape[1]}-shot, "
        f"{options.episodes} test episodes"
    )
    print(f"  {result} (95 % interval)")
    if result.measure == "accuracy":
        print(
            f"  nearest neighbour on pixels {100 * baseline.value:.2f} %, "
            f"chance {100 / n_way:.2f} %"
        )
    else:
        for step, mse in enumerate(found["mse_by_step"]):
            print(f"  mse after {step:2} inner steps {mse:.4f}")
    return 0


# --- list, plot ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListOptions:
    """List the algorithms: name, paper, family, and the data they have presets for."""

    json: bool = False
    """Print a JSON list of objects."""


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
    for row in rows:
        print(f"{row['name']:<14}{row['family']:<14}{row['paper']}")
        for data, names in row["presets"].items():
            print(f"{'':<14}{data:<14}{', '.join(names)}")
    return 0


def _presets(algorithm: str) -> dict[str, list[str]]:
    """{data: names of the presets}."""
    table = presets.PRESETS[algorithm]
    return {data: [p for d, p in table if d == data] for data, _ in table}


@dataclass(frozen=True)
class PlotOptions:
    """Draw a run: a test episode with its predictions, and the learning curve."""

    run: Folder
    """The run's folder; episode.png and learning.png are written into it."""
    episode: int = 0
    """Number of the test episode."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""


def plot(argv: Sequence[str]) -> int:
    """`scratchmeta plot`."""
    options = parse(PlotOptions, argv, "plot")
    try:
        from scratchmeta import plots
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"plot: {missing.name} is not installed: pip install 'scratchmeta[plots]'"
        ) from None
    run = experiment.saved(options.run, "best", options.data_dir)
    for path in (
        plots.episode(run, options.run / "episode.png", options.episode),
        plots.learning(Run.open(options.run), options.run / "learning.png"),
    ):
        print(path)
    return 0


COMMANDS = {"train": train, "evaluate": evaluate, "list": list_, "plot": plot}
