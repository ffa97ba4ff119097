"""`scratchmeta sweep`."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import tyro

from scratchmeta import backend, presets
from scratchmeta.fields import type_name
from scratchmeta.run import sweeps
from scratchmeta.run.options import Backend, UsageError, at_least, parse
from scratchmeta.run.progress import say
from scratchmeta.run.sweeps import plan

Algorithms = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ALGORITHM [ALGORITHM ...]")
]
Vary = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="OPTION VALUE [VALUE ...]"),
]


@dataclass(frozen=True)
class SweepOptions:
    """Train algorithms with several seeds, test all on the same episodes, and compare them.

    Every run is a folder in the sweep's. The same command continues what was stopped, killed or
    failed, and does not run again what is finished; more algorithms, seeds or values add to it. The
    table has two 95 % intervals, half of each after ±: over seeds (Student's t: other trainings, on
    these episodes) and over episodes (1.96 s / √n: other episodes, for these trained runs); then
    the differences to the first row, of the same seeds on the same episodes.
    """

    algorithms: Algorithms
    """Any of `scratchmeta list`, or classes of one's own: FILE.py:Class, package.module:Class."""
    data: str
    """Name of the data set, the same for all."""
    out: Path
    """The sweep's folder: runs, table.md, table.csv, runs.csv, differences.csv, sweep.json,
    sweep.png."""
    preset: str = "quick"
    """quick, paper or author-code: where the other options come from."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides the initial parameters and the training episodes of a run."""
    vary: Vary = ()
    """An option of `train` and its values, every one of which is tried with every other; may be
    given again. With one value it is set for all. A value is what would stand after the option, in
    quotes if it is several: --vary lr 1e-3 3e-3 --vary hidden "40 40" "64 64" --vary first_order
    True False. (--lr 1e-3 3e-3 could not be told from an option of two numbers.) An algorithm
    without the option is trained once, as it is."""
    jobs: int = 1
    """Processes that work at a time, one thread each; 1 is this process, with its threads."""
    episodes: int = 600
    """Test episodes, the same for all."""
    n_way: int | None = None
    """Classes in a test episode; as in each run's validation if not given."""
    k_shot: int | None = None
    """Labelled examples of each class in a test episode; as in training if not given."""
    n_query: int | None = None
    """Examples of each class to predict in a test episode; as in validation if not given."""
    test_seed: int = 0
    """Decides the test episodes."""
    data_dir: Path | None = None
    """Folder of the data (or SCRATCHMETA_DATA)."""
    backend: Backend = field(default_factory=backend.current)
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print sweep.json in place of the table."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(SweepOptions, argv, "sweep")
    at_least(0, "test_seed", options.test_seed)
    varied = {name.replace("-", "_"): values for name, *values in options.vary}
    if len(varied) < len(options.vary):
        raise UsageError("--vary: wanted each option once, with all its values")
    with backend.use(options.backend):
        vary = {
            name: [_value(options, name, text) for text in values]
            for name, values in varied.items()
        }
        try:
            found = sweeps.sweep(
                options.algorithms,
                options.data,
                options.seeds,
                out=options.out,
                preset=options.preset,
                vary=vary,
                jobs=options.jobs,
                episodes=options.episodes,
                test_seed=options.test_seed,
                n_way=options.n_way,
                k_shot=options.k_shot,
                n_query=options.n_query,
                data_dir=options.data_dir,
                progress=True,
            )
        except sweeps.Stopped as stop:
            say(f"scratchmeta: {stop}; the same command continues the sweep")
            return 128 + stop.signum
    if find_spec("matplotlib"):
        from scratchmeta.run import plots

        plots.sweep(found, options.out / "sweep.png")
    else:
        say("scratchmeta: no sweep.png without matplotlib: pip install 'scratchmeta[plots]'")
    print(json.dumps(found.as_dict()) if options.json else found, end="\n" if options.json else "")
    return 1 if found.failed else 0


def _value(options: SweepOptions, name: str, text: str) -> Any:
    """A value of an option as the command line has it, read as the first algorithm's that has it.

    What none of them has is said by the sweep.
    """
    for algorithm in options.algorithms:
        wanted = plan.hint(presets.lookup(algorithm, options.data, options.preset), name)
        if wanted is not None:
            try:
                return parse(wanted, shlex.split(text), "sweep")
            except ValueError:
                raise UsageError(
                    f"--vary {name}: wanted {type_name(wanted)}, got {text!r}"
                ) from None
    return text
