"""`scratchmeta train`."""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from scratchmeta import __version__, backend
from scratchmeta.kernels import memory
from scratchmeta.run import experiment, presets, training
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.config import Config
from scratchmeta.run.hardware import hardware
from scratchmeta.run.options import Backend, UsageError, parse


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
    """Folder of the data, or where it has a folder omniglot or mini-imagenet (or
    SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    resume = _value(argv, "--resume")
    default = _preset(argv) if resume is None else _recorded(Path(resume), argv)
    options = parse(TrainOptions, argv, "train", default)
    if resume is not None:
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
