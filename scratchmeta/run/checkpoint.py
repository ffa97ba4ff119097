"""A run's folder: its configuration, its metrics, and checkpoints that are whole or absent.

    RUN/config.json         configuration, command, version, backend, hardware
    RUN/metrics.jsonl       one JSON object a line, `step` first
    RUN/last.safetensors    the state after the last completed step that was saved
    RUN/best.safetensors    the state that did best on the validation episodes, of equals the last
    RUN/test.json           what a sweep measured in each test episode

A checkpoint is one safetensors file: arrays named params/... and optimizer/... by their path in
the tree, calibrated/... what `calibrate` made of them and of training data that is not among them,
and in its header the step, the best validation so far, the algorithm, and a digest of all that, so
that a damaged one is refused. Everything is written beside its name and moved over it in one step
(os.replace), so a reader sees the old file or the new one. A lock on RUN/.lock keeps a second
process from training in the folder.
"""

import hashlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from scratchmeta import tree
from scratchmeta.shown import html_table

try:
    import fcntl as _fcntl

    fcntl: Any = _fcntl
except ImportError:  # Windows has no such locks: there two processes are not kept apart
    fcntl = None

FORMAT = "scratchmeta-3"  # the layout described above; a reader refuses any other
_LOCK, _PARTIAL = ".lock", ".partial"
_WRITTEN = ("metrics.jsonl", "last.safetensors", "best.safetensors")
FILES = (*_WRITTEN, "episode.png", "learning.png", "test.json")
# What is read from config.json beside the configuration itself, and of which type it must be.
_ENTRIES = {
    "algorithm": str, "data": str, "preset": str, "backend": str, "data_dir": str | None,
    "resumed_by": list, "resumed_from": dict, "validated": bool, "unnamed": str,
}  # fmt: skip


class CheckpointError(ValueError):
    """A run folder or checkpoint cannot be read, or does not fit what it is wanted for."""


class State(NamedTuple):
    """All that the next training step depends on besides its episodes, which (seed, step) gives."""

    step: int  # optimizer steps completed
    params: Any  # nested dict of arrays
    optimizer: Any  # nested dict of arrays
    best_score: float | None  # higher is better; None before the first validation
    best_step: int  # the step best_score was first reached at

    def __repr__(self) -> str:  # without the numbers, of which there are many
        arrays = tree.flatten(self.params)[0]
        best = "" if self.best_score is None else f", best at step {self.best_step}"
        numbers = sum(a.size for a in arrays)
        return f"State(step {self.step}, {numbers:,} parameters in {len(arrays)} arrays{best})"

    def _repr_html_(self) -> str:  # what notebooks ask for
        names, arrays = tree.paths(self.params), tree.flatten(self.params)[0]
        rows = [(n, a.dtype, tuple(a.shape)) for n, a in zip(names, arrays, strict=True)]
        return html_table(repr(self), ("parameters", "dtype", "shape"), rows)


# --- one checkpoint -----------------------------------------------------------------------------


def save_state(path: Path, state: State, algorithm: str, calibrated: Any = None) -> None:
    """Writes the checkpoint `path`, atomically.

    `calibrated` are the parameters as `predict` wants them; None where they are as they are.
    """
    write_atomically(path, _encoded(state, algorithm, calibrated))


def _encoded(state: State, algorithm: str, calibrated: Any = None) -> bytes:
    """The content of a checkpoint."""
    trees = {
        "params": state.params,
        "optimizer": {} if state.optimizer is None else state.optimizer,
        "calibrated": _new(state.params, calibrated),
    }
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
    header["sha256"] = _digest(header, arrays)
    # one entry, because safetensors writes several in any order, and equal states make equal files
    return save(arrays, metadata={"scratchmeta": json.dumps(header)})


def _digest(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the header's other entries and of the arrays with their names and types."""
    entries = {name: value for name, value in header.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _new(params: Any, calibrated: Any) -> Any:
    """What of the calibrated parameters is not among the parameters, as nested dicts."""
    if calibrated is None:
        return {}
    before = dict(zip(tree.paths(params), tree.flatten(params)[0], strict=True))
    after = dict(zip(tree.paths(calibrated), tree.flatten(calibrated)[0], strict=True))
    if lost := sorted(before.keys() - after.keys()):
        raise ValueError(f"calibrate: wanted all parameters and more, got none named {lost[0]}")
    return {name: leaf for name, leaf in after.items() if before.get(name) is not leaf}


def load_calibrated(path: Path, like: Any, algorithm: str) -> tuple[State, Any]:
    """The state in the checkpoint `path`, and the parameters as `predict` wants them.

    The state is without the optimizer's. Raises as `load_state` does for parameters that are not as
    in `like`.
    """
    state = load_state(path, State(0, like, None, None, 0), algorithm)
    params = state.params
    for name, array in _read(path)[1].items():
        group, _, place = name.partition("/")
        if group == "calibrated":
            params = _with(params, place.split("/"), tree.to_backend(np.array(array)))
    return state, params


def _with(params: Any, place: list[str], leaf: Any) -> Any:
    """The tree with a leaf at a place, which may be a new one in a dict."""
    if not place:
        return leaf
    first, *rest = place
    if isinstance(params, list | tuple):
        return [
            _with(child, rest, leaf) if str(i) == first else child for i, child in enumerate(params)
        ]
    return {**params, first: _with(params.get(first, {}), rest, leaf)}


def load_state(path: Path, like: State, algorithm: str) -> State:
    """Reads the checkpoint `path`; its arrays must have names, shapes and dtypes as in `like`.

    `like.optimizer` may be None: then only the parameters are read. Arrays come out on the
    backend in use.

    Raises CheckpointError for a missing, damaged or foreign file, for one of another algorithm,
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
    found: list[Any] = [header.get(name) for name in ("step", "best_score", "best_step")]
    step, score, best = found
    counts = all(isinstance(n, int) and n >= 0 for n in (step, best))
    if not counts or not (score is None or isinstance(score, float)):
        raise CheckpointError(f"{path}: wanted step, best_score and best_step, got {header}")
    return State(step, loaded["params"], loaded["optimizer"], score, best)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; a run that was killed as it began, --overwrite begins "
            "anew; of one that `save` wrote, the optimizer's state is not there"
        )
    path.open("rb").close()  # says so where it may not be read
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("scratchmeta", "{}"))
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({error})") from error
    found = header.get("format") if isinstance(header, dict) else header
    if found != FORMAT:
        old = "; an older scratchmeta wrote it" if str(found).startswith("scratchmeta-") else ""
        raise CheckpointError(
            f"{path}: wanted a checkpoint of format {FORMAT!r}, got {found!r}{old}"
        )
    if (got := _digest(header, arrays)) != header.get("sha256"):
        raise CheckpointError(
            f"{path}: damaged since it was written: wanted content of SHA-256 "
            f"{header.get('sha256')}, got {got}"
        )
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
    _replace({path: content})


def _replace(contents: Mapping[Path, bytes], delete: Iterable[Path] = ()) -> None:
    """Replaces files of one folder, in their order, once all are written beside their places.

    In between `delete` are deleted.
    """
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}") for path in contents}
    try:
        for path, content in contents.items():
            with _naming(path), open(beside[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in delete:
            path.unlink(missing_ok=True)
        for path, written in beside.items():
            os.replace(written, path)
            _flush_folder(path.parent)
    finally:
        for written in beside.values():
            written.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Brings the names in a folder to disk, where that can be asked for (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
        self._held: BinaryIO | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        config: dict,
        first: State,
        *,
        calibrated: Any = None,
        name: str = "last",
        overwrite: bool = False,
    ) -> "Run":
        """Begins a run in the folder `path`, held, with `first` as its last checkpoint, or the one
        of another `name`; `config` must have the key "algorithm".

        Raises FileExistsError if the folder holds anything, unless it holds a run and `overwrite`
        is true: then that run's files are deleted, once the new ones are safely written beside
        them. CheckpointError if another process trains there.

        Killed at any moment it leaves the old run, the new one, or a configuration without a
        checkpoint, which can be overwritten: never the one's configuration with the other's.
        """
        path = Path(path)
        cls.refuse(path, overwrite)
        _make_folders(path)
        run = cls(path, config)
        run.hold()
        try:
            began = {
                path / "config.json": run._recorded(),
                run.checkpoint(name): _encoded(first, config["algorithm"], calibrated),
            }
            # the old checkpoint first: without it nothing of the old run can be resumed
            _replace(began, delete=[run.checkpoint("last"), *(path / name for name in FILES)])
        except BaseException:
            run.release()
            raise
        return run

    @classmethod
    def refuse(cls, path: str | os.PathLike, overwrite: bool) -> None:
        """Raises what `create` raises about the folder as it is."""
        path = Path(path)
        if not path.is_dir() or all(map(_is_remnant, path.iterdir())):
            return
        if overwrite or _rest_of_a_run(path):
            cls.open(path)  # refuses to delete from a folder that is not a run's
            return
        if (path / "config.json").is_file():
            advice = f"--resume {path} continues it, --overwrite begins anew"
        else:
            advice = "wanted a new folder, an empty one, or a run's"
        raise FileExistsError(f"{path}: exists and is not empty; {advice}")

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Run":
        """The run in the folder `path`; raises CheckpointError if there is no readable one."""
        path = Path(path)
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            if rest := _rest_of_a_run(path):
                raise CheckpointError(
                    f"{path}: holds {rest} but no config.json, so it can be neither resumed nor "
                    "overwritten; delete it, or name another folder"
                ) from None
            raise CheckpointError(f"{path}: not a run folder (no config.json in it)") from None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path / 'config.json'}: not readable as JSON ({error})"
            ) from error
        if not isinstance(config, dict) or "algorithm" not in config:
            raise CheckpointError(f"{path / 'config.json'}: does not name its algorithm")
        for name in config.keys() & _ENTRIES.keys():
            if not isinstance(config[name], wanted := _ENTRIES[name]):
                kind = getattr(wanted, "__name__", wanted)
                raise CheckpointError(
                    f"{path / 'config.json'}: {name}: wanted {kind}, got {config[name]!r:.60}"
                )
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
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _refuse_another_folder(self) -> None:
        """Raises CheckpointError if the folder that is held does not lie in its place any more."""
        if self._held is None:
            return
        try:
            if os.path.samestat(os.stat(self.path / _LOCK), os.fstat(self._held.fileno())):
                return
        except FileNotFoundError:
            pass
        raise CheckpointError(
            f"{self.path}: was moved, deleted or replaced while training in it; what is there now "
            "is left alone, and the folder that was moved holds the last checkpoint"
        )

    def record(self) -> None:
        """Writes `config` to config.json."""
        self._refuse_another_folder()
        write_atomically(self.path / "config.json", self._recorded())

    def _recorded(self) -> bytes:
        return json.dumps(self.config, indent=2).encode() + b"\n"

    def checkpoint(self, name: str) -> Path:
        """The path of the checkpoint "last" or "best"."""
        return self.path / f"{name}.safetensors"

    def save(self, name: str, state: State, calibrated: Any = None) -> None:
        """Writes the checkpoint "last" or "best"."""
        self._refuse_another_folder()
        save_state(self.checkpoint(name), state, self.config["algorithm"], calibrated)

    def load(self, name: str, like: State) -> State:
        """Reads the checkpoint "last" or "best"; see `load_state`."""
        return load_state(self.checkpoint(name), like, self.config["algorithm"])

    def calibrated(self, name: str, like: Any) -> tuple[State, Any]:
        """What `load_calibrated` reads of the checkpoint "last" or "best".

        There is no best before the first validation: then it is the last.
        """
        if name == "best" and not self.checkpoint(name).exists():
            name = "last"
        return load_calibrated(self.checkpoint(name), like, self.config["algorithm"])

    def metrics(self, after: int) -> AbstractContextManager["Metrics"]:
        """The metrics file, cut off after step `after` and open to be continued from there.

        Warns where it has not a line for each step that far.
        """
        path = self.path / "metrics.jsonl"
        kept = [line for line in self.history() if line["step"] <= after]
        steps = [line["step"] for line in kept if "loss" in line]
        if steps != list(range(1, after + 1)):
            warnings.warn(
                f"{path}: wanted the losses of steps 1 to {after}, which the checkpoint has done, "
                f"got {len(steps)} of them; what is missing stays so",
                stacklevel=2,
            )
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        return appended(path)

    def history(self) -> list[dict]:
        """The lines of metrics.jsonl, without a last one that a crash left half written.

        Raises CheckpointError for any other line that is not an object of numbers with a step.
        """
        path = self.path / "metrics.jsonl"
        written = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        lines: list[dict] = []
        for number, line in enumerate(written, 1):
            try:
                lines.append(_metrics(json.loads(line)))
            except (ValueError, RecursionError):
                if number == len(written) and not line.endswith(b"\n"):
                    break
                raise CheckpointError(
                    f"{path}: line {number}: wanted an object with a step and a loss, or a "
                    f"validation and its ci95, got {line[:60]!r}"
                ) from None
        return lines


def _metrics(line: Any) -> dict[str, float]:
    """A line of metrics.jsonl; raises ValueError for anything else."""
    names = set(line) if isinstance(line, dict) else set()
    if names not in ({"step", "loss"}, {"step", "validation", "ci95"}):
        raise ValueError
    if type(line["step"]) is not int or not all(type(v) in (int, float) for v in line.values()):
        raise ValueError
    return line


def _rest_of_a_run(path: Path) -> str:
    """The names of a run's files in a folder without its config.json."""
    if (path / "config.json").is_file():
        return ""
    return " and ".join(name for name in _WRITTEN if (path / name).is_file())


def _is_remnant(file: Path) -> bool:
    """Whether a file of a folder is nothing: a lock, or what a run had half written when killed."""
    names = [re.escape(name) for name in ("config.json", *FILES)]
    return bool(re.fullmatch(rf"\{_LOCK}|\.({'|'.join(names)})\.\d+\{_PARTIAL}", file.name))


def _make_folders(path: Path) -> None:
    """The folder and all above it; Path.mkdir would call itself once for each."""
    missing = itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents))
    for folder in reversed(list(missing)):
        folder.mkdir(exist_ok=True)


class Metrics:
    """Writes one JSON object a line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def flush(self) -> None:
        """Brings the lines to disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def write(self, step: int, **values: float) -> None:
        """One line: {"step": step, name: value, ...}."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")


@contextmanager
def appended(path: str | os.PathLike) -> Iterator[Metrics]:
    """Metrics at the end of the file `path`."""
    with _naming(Path(path)), open(path, "a", encoding="utf-8") as file:
        yield Metrics(file)
