"""One run of a sweep: a job in words that any process of any machine can read, and doing it."""

import hashlib
import json
import math
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import __version__, backend, episodes, presets
from scratchmeta.run import evaluation, experiment, outside, training
from scratchmeta.run.checkpoint import Run, write_atomically
from scratchmeta.run.config import SECTIONS, Config
from scratchmeta.run.hardware import hardware
from scratchmeta.run.sweeps.tables import Tested

FINGERPRINT = 8  # test episodes whose digest says that two runs were tested on the same


class Job(NamedTuple):
    """One run, in words that any process of any machine can read."""

    path: str
    record: dict  # its configuration
    named: Mapping[str, str]  # what of it comes from outside the library
    test: dict[str, int]
    data_dir: str | None
    backend: str
    kernels: bool


class Outcome(NamedTuple):
    """How a job went; what was measured is in its folder."""

    path: str
    error: str = ""
    traceback: str = ""
    signum: int | None = None


def of(root: Path, name: str, config: Config, test: dict, data_dir: Any) -> Job:
    """Raises ValueError if there is a run of its name that was begun with other options."""
    path = root / f"{name},seed={config.training.seed}"
    sources = {"algorithm": config.method.of, "network": getattr(config.network, "of", None)}
    named = {
        what: source["name"] for what, cls in sources.items() if (source := outside.source(cls))
    }
    job = Job(
        str(path), config.as_dict(), named, test, data_dir and str(Path(data_dir).resolve()),
        backend.current(), backend.kernels_enabled(),
    )  # fmt: skip
    if not (path / "config.json").is_file():
        return job
    was = Run.open(path).config
    before = {"backend": was.get("backend"), **_flat(was)}
    after = {"backend": job.backend, **_flat(json.loads(json.dumps(job.record)))}
    for option in sorted(before.keys() | after.keys()):
        if before.get(option) != after.get(option):
            raise ValueError(
                f"{path}: was begun with {option} {before.get(option)}, not {after.get(option)}: "
                "name another folder, or delete this one"
            )
    return job


def _flat(record: dict) -> dict[str, Any]:
    """{option: value} of a recorded configuration."""
    names = {key: record.get(key) for key in ("algorithm", "data", "preset", "loaded")}
    return names | {
        option: value for section in SECTIONS for option, value in record[section].items()
    }


def finished(job: Job) -> Tested | None:
    """What was measured in a run that was tested as the job wants it, else None."""
    path = Path(job.path) / "test.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found[key] == value for key, value in job.test.items())
        return Tested(**found) if same else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not what a sweep wrote ({error}); delete it") from error


def run(job: Job) -> Outcome:
    """Trains and tests a run, from where it was; a known error and an unknown one are outcomes."""
    try:
        with backend.use(job.backend), backend.use_kernels(job.kernels):
            _run(job)
    except training.Interrupted as stop:
        return Outcome(job.path, signum=stop.signum)
    except Exception as error:  # anything: a sweep of a night does not end for one run's mistake
        return Outcome(job.path, f"{type(error).__name__}: {error}", traceback.format_exc())
    return Outcome(job.path)


def _run(job: Job) -> None:
    from scratchmeta.kernels import memory  # late: it compiles

    memory.keep_freed()
    path = Path(job.path)
    config = presets.from_dict(job.record, path, job.named, resume=True)
    splits = experiment.splits(config, job.data_dir)
    begun = (path / "last.safetensors").is_file()
    surroundings = {
        "version": __version__,
        "backend": job.backend,
        "hardware": hardware(),
        "data_dir": job.data_dir,
    }
    began = time.perf_counter()
    training.train(
        experiment.algorithm(config),
        splits.train,
        config.training,
        validation=splits.validation,
        run=path,
        config=Run.open(path).config if begun else job.record | surroundings,
        resume=begun,
        overwrite=not begun,  # of what was killed before its first checkpoint
    )
    seconds = None if begun else time.perf_counter() - began
    if begun and (path / "test.json").is_file():  # tested on other episodes before
        seconds = json.loads((path / "test.json").read_text(encoding="utf-8")).get("seconds")
    saved = experiment.saved(path, "best", job.data_dir, dict(job.named))
    shape = job.test["n_way"], job.test["k_shot"], job.test["n_query"]
    count, seed = job.test["episodes"], job.test["seed"]
    with np.errstate(all="ignore"):  # what is not finite is refused below
        measure, values = evaluation.by_episode(
            saved.algorithm, saved.params, saved.splits.test, *shape, episodes=count, seed=seed
        )
    if not math.isfinite(values.mean()):
        raise ValueError(f"wanted predictions, got {measure} {values.mean()}: had it diverged?")
    tested = Tested(
        **job.test,
        measure=measure,
        fingerprint=fingerprint(saved.splits.test, shape, seed),
        step=saved.step,
        seconds=seconds,
        values=values.tolist(),
    )
    write_atomically(path / "test.json", json.dumps(tested._asdict()).encode() + b"\n")


def fingerprint(dataset: Any, shape: tuple[int, int, int], seed: int) -> str:
    """A digest of the first test episodes: of two runs that share it, all are the same."""
    digest = hashlib.sha256()
    for number in range(FINGERPRINT):
        episode = episodes.sample(dataset, *shape, 1, seed, evaluation.TEST + number)
        for array in episode:
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
