"""A run's folder: its configuration, its metrics, and checkpoints that are whole or absent.

    RUN/config.json         configuration, command, version, backend, hardware
    RUN/metrics.jsonl       one JSON object a line, `step` first
    RUN/last.safetensors    the state after the last completed step that was saved
    RUN/best.safetensors    the state that did best on the validation episodes, of equals the last

A checkpoint is one safetensors file: arrays named params/... and optimizer/... by their path in
the tree, and in its header the step, the best validation so far and the algorithm. Everything is
written beside its name and moved over it in one step (os.replace), so a reader sees the old file
or the new one. A lock on RUN/.lock keeps a second process from training in the folder.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from scratchmeta import tree

try:
    import fcntl
except ImportError:  # Windows has no such locks: there two processes are not kept apart
    fcntl = None

FORMAT = "scratchmeta-1"  # the layout described above; a reader refuses any other
_LOCK = ".lock"
FILES = ("metrics.jsonl", "last.safetensors", "best.safetensors", "episode.png", "learning.png")


class CheckpointError(ValueError):
    """A run folder or checkpoint cannot be read, or does not fit what it is wanted for."""


class State(NamedTuple):
    """All that the next training step depends on besides its episodes, which (seed, step) gives."""

    step: int  # optimizer steps completed
    params: Any  # nested dict of arrays
    optimizer: Any  # nested dict of arrays
    best_score: float | None  # higher is better; None before the first validation
    best_step: int  # the step best_score was first reached at


# --- one checkpoint -----------------------------------------------------------------------------


def save_state(path: Path, state: State, algorithm: str) -> None:
    """Writes the checkpoint `path`, atomically."""
    trees = {"params": state.params, "optimizer": state.optimizer}
    arrays = dict(zip(tree.paths(trees), tree.flatten(tree.to_numpy(trees))[0], strict=True))
    header = {
        "format": FORMAT,
        "algorithm": algorithm,
        "step": state.step,
        "best_score": state.best_score,
        "best_step": state.best_step,
    }
    # safetensors writes the bytes as they lie, so they must lie in C order
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # one entry, because safetensors writes several in any order, and equal states make equal files
    write_atomically(path, save(arrays, metadata={"scratchmeta": json.dumps(header)}))


def load_state(path: Path, like: State, algorithm: str) -> State:
    """Reads the checkpoint `path`; its arrays must have names, shapes and dtypes as in `like`.

    `like.optimizer` may be None: then only the parameters are read. Arrays come out on the
    backend in use.

    Raises CheckpointError for a missing, truncated or foreign file, for one of another algorithm,
    and naming the first array that does not fit, what was wanted and what was got.
    """
    header, arrays = _read(path)
    if header.get("algorithm") != algorithm:
        raise CheckpointError(
            f"{path}: wanted a checkpoint of {algorithm!r}, got one of {header.get('algorithm')!r}"
        )
    loaded = {}
    for group in ("params", "optimizer"):
        wanted = getattr(like, group)
        loaded[group] = None if wanted is None else _fit(path, group, wanted, arrays)
    step, score, best = (header.get(name) for name in ("step", "best_score", "best_step"))
    counts = all(isinstance(n, int) and n >= 0 for n in (step, best))
    if not counts or not (score is None or isinstance(score, float)):
        raise CheckpointError(f"{path}: wanted step, best_score and best_step, got {header}")
    return State(step, loaded["params"], loaded["optimizer"], score, best)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    path.open("rb").close()  # says so where it may not be read
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("scratchmeta", "{}"))
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    found = header.get("format") if isinstance(header, dict) else header
    if found != FORMAT:
        raise CheckpointError(f"{path}: wanted a checkpoint of format {FORMAT!r}, got {found!r}")
    return header, arrays


def _fit(path: Path, group: str, wanted: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree of the form `wanted` with leaves from `arrays`, every name and shape compared."""
    leaves, treedef = tree.flatten(wanted)
    names = tree.paths({group: wanted})
    for name in arrays:
        if name.startswith(f"{group}/") and name not in names:
            raise CheckpointError(f"{path}: {name} is not a parameter of this network or optimizer")
    fitted = []
    for name, leaf in zip(names, leaves, strict=True):
        if name not in arrays:
            raise CheckpointError(f"{path}: {name} is missing, wanted shape {leaf.shape}")
        got = arrays[name]
        if got.shape != leaf.shape or got.dtype != leaf.dtype:
            raise CheckpointError(
                f"{path}: {name}: wanted {leaf.dtype} of shape {leaf.shape}, "
                f"got {got.dtype} of shape {got.shape}"
            )
        fitted.append(np.array(got))  # a copy of its own, aligned and writable
    return tree.to_backend(tree.unflatten(treedef, fitted))


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file `path` in one moment: written beside it, flushed to disk, moved over it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with _naming(path):
            with open(beside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


_PARTIAL = ".partial"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, such as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


# --- the folder ---------------------------------------------------------------------------------


class Run:
    """One run's folder. `Run.create` begins it, `Run.open` finds it again."""

    def __init__(self, path: Path, config: dict) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(
        cls, path: str | os.PathLike, config: dict, first: State, *, overwrite: bool = False
    ) -> "Run":
        """Begins a run in the folder `path`, held, with `first` as its last checkpoint; `config`
        must have the key "algorithm".

        Raises FileExistsError if the folder holds anything, unless it holds a run and `overwrite`
        is true: then that run's files are deleted, once `first` is safely written. CheckpointError
        if another process trains there.
        """
        path = Path(path)
        cls.refuse(path, overwrite)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config)
        run.hold()
        try:
            run.save("last", first)
            for name in FILES:
                if path / name != run.checkpoint("last"):
                    (path / name).unlink(missing_ok=True)
            run.record()
        except BaseException:
            run.release()
            raise
        return run

    @classmethod
    def refuse(cls, path: str | os.PathLike, overwrite: bool) -> None:
        """Raises what `create` raises about the folder as it is."""
        path = Path(path)
        if path.is_dir() and any(file.name != _LOCK for file in path.iterdir()):
            if not overwrite:
                if (path / "config.json").is_file():
                    advice = f"--resume {path} continues it, --overwrite begins anew"
                else:
                    advice = "wanted a new folder, an empty one, or a run's"
                raise FileExistsError(f"{path}: exists and is not empty; {advice}")
            cls.open(path)  # refuses to delete from a folder that is not a run's

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Run":
        """The run in the folder `path`; raises CheckpointError if there is no readable one."""
        path = Path(path)
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: not a run folder (no config.json in it)") from None
        except ValueError as error:
            raise CheckpointError(
                f"{path / 'config.json'}: not readable as JSON ({error})"
            ) from error
        if not isinstance(config, dict) or "algorithm" not in config:
            raise CheckpointError(f"{path / 'config.json'}: does not name its algorithm")
        return cls(path, config)

    def hold(self) -> None:
        """Keeps other processes from training in this folder, until `release` or this one's end.

        What they left half written is deleted. Raises CheckpointError if one holds it.
        """
        file = open(self.path / _LOCK, "wb")  # noqa: SIM115  it is held open
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise CheckpointError(f"{self.path}: another process is training in it") from None
        except BaseException:
            file.close()
            raise
        self._held = file
        for left in self.path.glob(f".*{_PARTIAL}"):
            left.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets other processes train in this folder."""
        self._held.close()

    def record(self) -> None:
        """Writes `config` to config.json."""
        write_atomically(
            self.path / "config.json", json.dumps(self.config, indent=2).encode() + b"\n"
        )

    def checkpoint(self, name: str) -> Path:
        """The path of the checkpoint "last" or "best"."""
        return self.path / f"{name}.safetensors"

    def save(self, name: str, state: State) -> None:
        """Writes the checkpoint "last" or "best"."""
        save_state(self.checkpoint(name), state, self.config["algorithm"])

    def load(self, name: str, like: State) -> State:
        """Reads the checkpoint "last" or "best"; see `load_state`."""
        return load_state(self.checkpoint(name), like, self.config["algorithm"])

    def metrics(self, after: int) -> AbstractContextManager["Metrics"]:
        """The metrics file, cut off after step `after` and open to be continued from there."""
        path = self.path / "metrics.jsonl"
        kept = "".join(json.dumps(line) + "\n" for line in self.history() if line["step"] <= after)
        write_atomically(path, kept.encode())
        return appended(path)

    def history(self) -> list[dict]:
        """The lines of metrics.jsonl, without a last one that a crash left half written.

        Raises CheckpointError for any other line that is not an object with a step.
        """
        path = self.path / "metrics.jsonl"
        written = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        lines: list[dict] = []
        for number, line in enumerate(written, 1):
            try:
                lines.append(json.loads(line))
                lines[-1]["step"] + 0
            except (ValueError, TypeError, KeyError):
                if number == len(written) and not line.endswith(b"\n"):
                    break
                raise CheckpointError(
                    f"{path}: line {number}: wanted an object with a step, got {line[:60]!r}"
                ) from None
        return lines


class Metrics:
    """Writes one JSON object a line; `flush` hands the lines to the operating system."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.flush = file.flush

    def write(self, step: int, **values: float) -> None:
        """One line: {"step": step, name: value, ...}."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")


@contextmanager
def appended(path: str | os.PathLike) -> Iterator[Metrics]:
    """Metrics at the end of the file `path`."""
    with _naming(Path(path)), open(path, "a", encoding="utf-8") as file:
        yield Metrics(file)
