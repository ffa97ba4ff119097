"""Arrays that took seconds to make, kept on disk so that they take milliseconds the next time."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

Arrays = dict[str, np.ndarray]


def folder() -> Path:
    """Return $SCRATCHMETA_CACHE, else the folder scratchmeta in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("SCRATCHMETA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scratchmeta"


def cached(name: str, key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays stored under `name` with this `key`, or else build and store them.

    `name` says what the arrays are, `key` what they were made from: when the key has changed or the
    file is damaged (every array carries a checksum), they are built anew and the file is replaced,
    in one step, so that a reader never sees half of it. Where the folder cannot be written, the
    arrays are returned all the same, with a warning.
    """
    path = folder() / f"{name}.npz"
    digest = hashlib.sha256(key.encode()).hexdigest()
    arrays = _load(path)
    if arrays is None or str(arrays.pop("key", "")) != digest:
        arrays = build()
        _store(path, {**arrays, "key": np.array(digest)})
    return arrays


def mapped(
    name: str, key: str, shape: tuple[int, ...], rows: Callable[[], Iterator[np.ndarray]]
) -> np.ndarray:
    """Return the uint8 array stored under `name` with this `key`, or else make and store it.

    For what is too large to be read at once: the array is mapped from its file, read-only, and a
    part of it is read when it is looked at. So it has no checksum, only its shape is verified.
    `rows()` yields what makes up the first axis, and at no time are all of them in memory. Other
    keys' files of this name are deleted. Where the folder cannot be written, the array is made in
    memory, with a warning.
    """
    digest = hashlib.sha256(f"{key} {shape}".encode()).hexdigest()
    path = folder() / f"{name}.{digest[:16]}.npy"
    try:
        return _map(path, shape)
    except (OSError, ValueError, EOFError):  # absent, or not all of it: it is made anew
        pass
    try:
        with _replacing(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for row in rows():
                file.write(np.ascontiguousarray(row, np.uint8))
        for old in set(path.parent.glob(f"{name}.*.npy")) - {path}:
            old.unlink(missing_ok=True)
        return _map(path, shape)
    except OSError as error:
        warnings.warn(
            f"{path} could not be written, so it is made anew next time: {error}", stacklevel=3
        )
        return np.stack(list(rows()))


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{path}: uint8 {shape} wanted, got {array.dtype} {array.shape}")
    return array


def _load(path: Path) -> Arrays | None:
    try:
        # a real file object, because np.load leaves its own open when the header is damaged
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # absent, or damaged in whatever way: it is made anew
        return None


def _store(path: Path, arrays: Arrays) -> None:
    try:
        with _replacing(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(
            f"{path} could not be written, so it is made anew next time: {error}", stacklevel=3
        )


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` once it is written, and not before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
