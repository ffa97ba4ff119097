"""Arrays that took seconds to make, kept on disk so that they take milliseconds the next time."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

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


def _load(path: Path) -> Arrays | None:
    try:
        # a real file object, because np.load leaves its own open when the header is damaged
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # absent, or damaged in whatever way: it is made anew
        return None


def _store(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        warnings.warn(
            f"{path} could not be written, so it is made anew next time: {error}", stacklevel=3
        )
