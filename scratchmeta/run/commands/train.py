"""`scratchmeta train`."""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from scratchmeta import __version__, backend, presets
from scratchmeta.kernels import memory
from scratchmeta.run import experiment, outside, training
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.config import SECTIONS, Config
from scratchmeta.run.hardware import hardware
from scratchmeta.run.options import Backend, UsageError, documented, of_type, parse


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train an algorithm, in a run folder that evaluate, plot and --resume take.

    What is not given comes from the preset. `scratchmeta train ALGORITHM --data DATA --preset
    PRESET --help` shows its values.
    """

    algorithm: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ALGORITHM")]
    """One of `scratchmeta list`, or a class of one's own: FILE.py:Class, package.module:Class."""
    data: str
    """Name of the data set."""
    preset: str
    """quick, paper or author-code: where the other options come from."""
    network_class: Annotated[str | None, tyro.conf.arg(name="network", metavar="CLASS")] = None
    """A network of one's own in place of the preset's: FILE.py:Class, package.module:Class."""
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
    config, options = read(argv)
    with backend.use(options.backend):
        return _train(config, options, argv)


def read(argv: Sequence[str]) -> tuple[Config, TrainOptions]:
    """The configuration that a command line asks for, and its options."""
    resume, network = _value(argv, "--resume"), _value(argv, "--network")
    if resume is not None:
        record = Run.open(resume).config
        config = _recorded(Path(resume), record, argv, network)
        data_dir = record.get("data_dir")
        more = {
            "data_dir": data_dir and Path(data_dir),
            "backend": record.get("backend", backend.current()),
        }
    else:
        config, more = _preset(argv, network), {"backend": backend.current()}
    options = parse(_options(config), argv, "train", _defaults(config, more))
    if resume is not None:
        _refuse_changes(config, options)
    return _asked(config, options), options


def _options(config: Config) -> type[TrainOptions]:
    """TrainOptions with the sections that a configuration has."""
    sections = [(name, documented(getattr(config, name).__class__)) for name in SECTIONS]
    return make_dataclass(
        "TrainOptions",
        sections,
        bases=(TrainOptions,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": TrainOptions.__doc__},
    )


def _defaults(config: Config, more: dict[str, Any]) -> TrainOptions:
    names = {name: getattr(config, name) for name in ("algorithm", "data", "preset")}
    sections = {name: getattr(config, name) for name in SECTIONS}
    shown = {name: of_type(documented(x.__class__), x) for name, x in sections.items()}
    return _options(config)(**names, **shown, **more)


def _asked(config: Config, options: TrainOptions) -> Config:
    """The configuration with the sections that the command line asks for."""
    sections = {name: (type(getattr(config, name)), getattr(options, name)) for name in SECTIONS}
    return replace(config, **{name: of_type(*section) for name, section in sections.items()})


def _preset(argv: Sequence[str], network: str | None) -> Config:
    """The configuration of the preset that the command line names."""
    if argv and not argv[0].startswith("-"):
        name = argv[0]
    elif {"-h", "--help"} & set(argv):
        name = "prototypical"
    else:
        raise UsageError(
            f"train: wanted the name of an algorithm first: {', '.join(presets.REGISTRY)}"
        )
    config = presets.lookup(name, _value(argv, "--data"), _value(argv, "--preset") or "quick")
    if network is not None:
        cls = outside.load(outside.NETWORK, network)
        config = replace(config, network=presets.network_options(cls)())
    return config


def _recorded(folder: Path, record: dict, argv: Sequence[str], network: str | None) -> Config:
    """The configuration of the run in `folder`."""
    named = argv[0] if outside.is_outside(argv[0]) else None
    config = experiment.recorded(
        folder, record, {"algorithm": named, "network": network}, resume=True
    )
    if not named and not argv[0].startswith("-") and argv[0] != config.algorithm:
        raise UsageError(f"{folder}: is a run of {config.algorithm!r}, not {argv[0]!r}")
    return config


def _refuse_changes(was: Config, options: TrainOptions) -> None:
    """Raises UsageError if anything but the number of steps is to be different from now on."""
    if options.out or options.overwrite:
        raise UsageError("--resume continues a run in its own folder: no --out, no --overwrite")
    asked = _asked(was, options)
    if was.training.linear_decay and asked.training.steps != was.training.steps:
        raise UsageError(
            f"--steps: the learning rate of this run falls to 0 at step {was.training.steps}, "
            "so it ends there"
        )
    asked = replace(asked, training=replace(asked.training, steps=was.training.steps))
    changed = [name for name in ("data", "preset") if getattr(options, name) != getattr(was, name)]
    for name in SECTIONS:
        before, after = getattr(was, name), getattr(asked, name)
        changed += [
            f.name for f in fields(before) if getattr(before, f.name) != getattr(after, f.name)
        ]
    if changed:
        raise UsageError(
            "--resume continues a run as it is: only --steps can be changed, "
            f"not {', '.join(changed)}"
        )


def _train(config: Config, options: TrainOptions, argv: Sequence[str]) -> int:
    memory.keep_freed()
    algorithm = experiment.algorithm(config)
    experiment.refuse_other_ways(config, config.training.test_shape[0])
    splits, validated = experiment.splits(config, options.data_dir), True
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
        record["validated"] = validated = was.get("validated", True)
    with _folder(config, options) as folder:
        state = training.train(
            algorithm,
            splits.train,
            config.training,
            validation=splits.validation if validated else None,
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


@contextmanager
def _folder(config: Config, options: TrainOptions) -> Iterator[Path]:
    """The run's folder: the one asked for, or the first free one, which goes again if nothing comes
    of it."""
    path = options.resume or options.out
    if path is not None:
        yield path
        return
    for number in itertools.count(1):
        free = Path("runs") / f"{config.algorithm}-{config.data}-{number}"
        try:
            free.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    try:
        yield free
    finally:
        with suppress(OSError):  # which they raise where anything is in them
            free.rmdir()
            free.parent.rmdir()
