"""Arrays that took seconds to make, kept on disk so that they take milliseconds the next time."""

import hashlib
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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

    For what is too large to be held in memory: the array is mapped from its file, read-only, and a
    part of it is read when it is looked at. Once in a process, before its first use, the file is
    read from end to end and compared with the checksum that follows the array; a damaged one is
    made anew. `rows()` yields what makes up the first axis, and at no time are all of them in
    memory. Other keys' files of this name are deleted. Where the folder cannot be written, the
    array is made in memory, with a warning.
    """
    digest = hashlib.sha256(f"{key} {shape}".encode()).hexdigest()
    path = folder() / f"{name}.{digest[:16]}.npy"
    try:
        return _map(path, shape)
    except (OSError, ValueError):  # absent, or not as it was written: it is made anew
        pass
    try:
        with _replacing(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(summed := _Summed(file), header)
            for row in rows():
                summed.write(np.ascontiguousarray(row, np.uint8))
            file.write(summed.checksum())
        for old in set(path.parent.glob(f"{name}.*.npy")) - {path}:
            old.unlink(missing_ok=True)
        return _map(path, shape)
    except OSError as error:
        warnings.warn(
            f"{path} could not be written, so it is made anew next time: {error}", stacklevel=3
        )
        return np.stack(list(rows()))


def damaged() -> list[Path]:
    """The files of the cache's folder that are not as they were written, all read from end to end.

    Nothing is changed: they are made anew when they are asked for.
    """
    paths = sorted(folder().glob("*.np[yz]"))
    sound = {".npy": _is_whole, ".npz": lambda path: _load(path) is not None}
    return [path for path in paths if not sound[path.suffix](path)]


# --- files --------------------------------------------------------------------------------------

_CHECKSUM = 4  # bytes
_BLOCK = 1 << 20
_found_whole: set[tuple[Path, int, int]] = set()  # path, size and time of what was read through


class _Summed:
    """Writes into a file, and sums up what it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.crc = file, 0

    def write(self, content: Any) -> None:
        self.crc = zlib.crc32(content, self.crc)
        self.file.write(content)

    def checksum(self) -> bytes:
        return self.crc.to_bytes(_CHECKSUM, "little")


def _is_whole(path: Path) -> bool:
    """Whether the file ends in the checksum of the rest."""
    crc, left = 0, path.stat().st_size - _CHECKSUM
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            crc, left = zlib.crc32(block, crc), left - len(block)
        return left == 0 and file.read() == crc.to_bytes(_CHECKSUM, "little")


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array in a file that is whole; raises ValueError for another one."""
    now = path.stat()
    seen = path, now.st_size, now.st_mtime_ns
    if seen not in _found_whole:
        if not _is_whole(path):
            raise ValueError(f"{path}: not as it was written")
        _found_whole.add(seen)
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
            np.savez(file, allow_pickle=False, **arrays)
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
