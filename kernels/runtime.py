"""What the kernels have in common beside threads: dense arrays and CUDA modules."""

import functools
import re
from pathlib import Path

import numpy as np

_REALS = (np.dtype(np.float32), np.dtype(np.float64))


def module_of(array):
    """numpy or cupy, by the type of the array."""
    if isinstance(array, np.ndarray):
        return np
    import cupy

    return cupy


def dense(kernel: str, *arrays) -> list:
    """The arrays, C-contiguous (and writable, so that Numba compiles one version of each kernel).

    Raises TypeError unless all are float32 or all are float64.
    """
    dtype = arrays[0].dtype
    if dtype not in _REALS or any(a.dtype != dtype for a in arrays):
        got = ", ".join(str(a.dtype) for a in arrays)
        raise TypeError(f"{kernel}: wanted arrays of float32 or of float64, all alike, got {got}")
    if isinstance(arrays[0], np.ndarray):
        return [a if a.flags.carray else np.array(a, order="C") for a in arrays]
    return [module_of(a).ascontiguousarray(a) for a in arrays]


def padded(x, rows, columns):
    """x (B, R, C) as a C-contiguous array (B, rows, columns), at least R x C, with zeros beyond."""
    b, r, c = x.shape
    if (r, c) == (rows, columns):
        return np.ascontiguousarray(x)
    out = np.zeros((b, rows, columns), x.dtype)
    out[:, :r, :c] = x
    return out


def multiple(size, of):
    """`size` rounded up to a multiple of `of`."""
    return -(-size // of) * of


class CudaSource:
    """The kernels of one .cu file: ``source(name, dtype)`` is `name<float>` or `name<double>`.

    Every ``__global__`` function of the file is a template on the number type. The file is compiled
    by NVRTC through CuPy on first use; CuPy (from 14.2 on, for templates) keeps the result on disk.
    """

    def __init__(self, path: Path):
        self.path = path
        self._functions = {}

    @functools.cached_property
    def _names(self):
        code = self.path.read_text(encoding="utf-8")
        kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)", code)
        return [f"{kernel}<{real}>" for kernel in kernels for real in ("float", "double")]

    @functools.cached_property
    def _module(self):
        import cupy

        code = self.path.read_text(encoding="utf-8")
        return cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=self._names)

    def kernels(self):
        """(name, kernel of CuPy's) of everything in the file, compiled."""
        return [(name, self._module.get_function(name)) for name in self._names]

    def __call__(self, name: str, dtype: np.dtype):
        key = name, dtype.char
        if key not in self._functions:
            real = {"f": "float", "d": "double"}[dtype.char]
            self._functions[key] = self._module.get_function(f"{name}<{real}>")
        return self._functions[key]
