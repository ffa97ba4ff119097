"""Sweeps: algorithms × seeds × options, trained apart and tested on the same episodes.

    ROOT/maml,inner_lr=0.1,seed=0/    a run's folder, and in it
        test.json                     what was measured in each test episode, in their order
    ROOT/table.md, table.csv          a row for each algorithm with its options
    ROOT/runs.csv, differences.csv    each run; each pair, on the same episodes
    ROOT/sweep.json                   all of it

A run is a function of its configuration, and so is the table: asked for again, a sweep trains what
is not finished, from its checkpoint where it has one, and measures what was not measured. More
seeds or options add runs to those that are there.

Work goes through joblib, a run a task, so where it is done is joblib's choice: processes of this
machine, or those of a Dask or Ray cluster that see ROOT and the data under the same paths.
"""

import itertools
import signal
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scratchmeta
from scratchmeta import backend
from scratchmeta.run import training
from scratchmeta.run.hardware import hardware
from scratchmeta.run.progress import Progress

if TYPE_CHECKING:
    from scratchmeta.run.sweeps.job import Job, Outcome
    from scratchmeta.run.sweeps.tables import Sweep


class Stopped(KeyboardInterrupt):
    """A signal stopped a sweep, which the same call continues."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def sweep(
    algorithms: Sequence[str],
    data: str,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    out: str | PathLike,
    preset: str = "quick",
    vary: Mapping[str, Sequence[Any]] | None = None,
    jobs: int | None = None,
    episodes: int = 600,
    test_seed: int = 0,
    n_way: int | None = None,
    k_shot: int | None = None,
    n_query: int | None = None,
    data_dir: str | PathLike | None = None,
    progress: bool = False,
) -> "Sweep":
    """Trains each algorithm's preset with each seed, tests all on the same episodes, compares them.

    `vary` is {option: values}: every combination of them is trained. An option with one value is
    that of all and in no name. An algorithm without an option is trained as it is, once.

    Tested are the best checkpoints, on the first `episodes` test episodes of `test_seed`, of the
    shape of each run's validation where `n_way`, `k_shot` or `n_query` is None. The result has, and
    ROOT/table.md shows, for each row the mean over seeds and episodes and two 95 % intervals: over
    seeds by Student's t, over episodes by 1.96 s / √n; and the same for the differences of the
    rows, paired by seed and episode. scratchmeta.run.sweeps.intervals says what each of them means.

    `jobs` processes work at a time, one thread each; None is joblib's choice: one run after the
    other in this process, or what `joblib.parallel_config` says, which takes a sweep to a cluster:

        with joblib.parallel_config("dask"):
            sm.sweep(["maml", "reptile"], "glyphs", out="/shared/sweep")

    A run that fails does not stop the others: the result says which, and why. A signal stops all,
    and raises Stopped. Raises ValueError for what cannot be run, before anything is, and for a run
    in ROOT that was begun with other options.
    """
    from scratchmeta.run.sweeps import job, plan, tables  # late: importing scratchmeta is quick

    joblib, root, vary = _joblib(), Path(out).resolve(), vary or {}
    seeds = list(dict.fromkeys(seeds))
    if not seeds:
        raise ValueError("seeds: wanted at least one, got none")
    configs = plan.plan(algorithms, data, preset, vary)
    test = plan.tests(configs, (n_way, k_shot, n_query), episodes, test_seed)
    asked = {
        (name, seed): job.of(root, name, plan.seeded(configs[name], seed), test[name], data_dir)
        for seed, name in itertools.product(seeds, configs)
    }
    plan.try_data(configs, test, data_dir)
    failed = _done(joblib, asked.values(), jobs, progress)
    about = {
        "version": scratchmeta.__version__,
        "data": data,
        "preset": preset,
        "seeds": seeds,
        "vary": {option: list(values) for option, values in vary.items()},
        "episodes": episodes,
        "test_seed": test_seed,
        "backend": backend.current(),
        "jobs": jobs,
        "hardware": hardware(),
    }
    found = {key: tested for key, each in asked.items() if (tested := job.finished(each))}
    result = tables.Sweep.of(about, found, list(configs), failed)
    result.write(root)
    return result


def _done(
    joblib: Any, asked: Collection["Job"], jobs: int | None, progress: bool
) -> dict[str, dict[str, str]]:
    """What failed, {run: {"error": ..., "traceback": ...}}, after all that is not finished ran."""
    from scratchmeta.run.sweeps.job import finished

    waiting = [each for each in asked if finished(each) is None]
    done, failed = len(asked) - len(waiting), {}
    with (
        Progress("sweep", len(asked), done, shown=progress) as bar,
        _processes(joblib, jobs),
        training.Signals(catch=True, say=False) as signals,
    ):
        try:
            with signals.at_once(), closing(_outcomes(joblib, waiting)) as outcomes:
                for number, outcome in enumerate(outcomes, done + 1):
                    if outcome.signum is not None:
                        raise Stopped(outcome.signum)
                    run = Path(outcome.path).name
                    if outcome.error:
                        failed[run] = {"error": outcome.error, "traceback": outcome.traceback}
                    bar.update(number, f"{run} failed" if outcome.error else run)
        except KeyboardInterrupt as stop:
            if isinstance(stop, Stopped):
                raise
            raise Stopped(signals.caught or signal.SIGINT) from None
    return failed


def _joblib() -> Any:
    try:
        import joblib
    except ImportError as missing:
        raise ImportError(
            f"sweep: {missing.name} is not installed: pip install 'scratchmeta[sweep]'"
        ) from missing
    return joblib


def _processes(joblib: Any, jobs: int | None) -> Any:
    """joblib's context with so many processes of one thread, or the one that there is."""
    if jobs is None:
        return nullcontext()
    if jobs < 1:
        raise ValueError(f"jobs: wanted at least 1, got {jobs}")
    return joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1)


def _outcomes(joblib: Any, jobs: Sequence["Job"]) -> Generator["Outcome", None, None]:
    """As they come. Raises ChildProcessError when a process was killed with its run."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    from scratchmeta.run.sweeps.job import run

    parallel = joblib.Parallel(return_as="generator_unordered")
    try:
        yield from parallel(joblib.delayed(run)(job) for job in jobs)
    except TerminatedWorkerError as error:
        raise ChildProcessError(
            "sweep: a process was killed while it worked (was there memory enough?); the same "
            "command continues"
        ) from error
