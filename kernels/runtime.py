"""What the kernels have in common: tame threads, dense arrays, CUDA modules.

**Threads.** GNU OpenMP, under Numba's `prange`, by default keeps its threads spinning after a
parallel loop, in case another one follows. On few cores they starve OpenBLAS: a product between two
parallel loops took tens of times as long. Importing this module has the pool start with a spin of a
few microseconds, then sleep, unless the environment already says what to do (`OMP_WAIT_POLICY`,
`GOMP_SPINCOUNT`, `KMP_BLOCKTIME`). Sleeping at once would be no better: a woken thread was often put on the
waker's core. The environment is restored afterwards, for other libraries and child processes.
A pool that is already running when this module is imported is left as it is.
"""

import functools
import os
import re
from pathlib import Path
from types import FunctionType

import numba
import numpy as np

# Reassociation lets sums be vectorised and contraction lets products be fused into them; neither
# assumes that NaN and ∞ do not occur.
FASTMATH = {"reassoc", "contract", "nsz"}

# Elementary operations (a few per nanosecond) from which on a parallel loop is worth waking threads.
PARALLEL_WORK = 1 << 19


def _start_threads() -> None:
    """Start Numba's thread pool with threads that go to sleep soon after a parallel loop."""
    ours = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
    if any(name in os.environ for name in (*ours, "KMP_BLOCKTIME")):
        return
    os.environ.update(ours)
    try:
        numba.get_num_threads()  # loads the threading layer, which reads the environment once
    finally:
        for name in ours:
            del os.environ[name]


_start_threads()


def serial_and_parallel(body):
    """Compile a function written with prange twice, on first use: (on one thread, on all).

    The twin needs a name of its own, because Numba's disk cache tells functions apart by their
    qualified name and closure, and does not look at `parallel`.
    """
    twin = FunctionType(body.__code__, body.__globals__, body.__name__, closure=body.__closure__)
    twin.__qualname__ = f"{body.__qualname__}_parallel"
    options = {"cache": True, "fastmath": FASTMATH, "error_model": "numpy"}
    return numba.njit(**options)(body), numba.njit(**options, parallel=True)(twin)


def serial(body):
    """Compile a function on first use, to run on the caller's thread."""
    return numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy")(body)


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
    if dtype.char not in "fd" or any(a.dtype != dtype for a in arrays):
        got = ", ".join(str(a.dtype) for a in arrays)
        raise TypeError(f"{kernel}: wanted arrays of float32 or of float64, all alike, got {got}")
    if isinstance(arrays[0], np.ndarray):
        return [a if a.flags.carray else np.array(a, order="C") for a in arrays]
    return [module_of(a).ascontiguousarray(a) for a in arrays]


class CudaSource:
    """The kernels of one .cu file: ``source(name, dtype)`` is `name<float>` or `name<double>`.

    Every ``__global__`` function of the file is a template on the number type. The file is compiled
    by NVRTC through CuPy on first use; CuPy keeps the result on disk.
    """

    def __init__(self, path: Path):
        self.path = path
        self._functions = {}

    @functools.cached_property
    def _module(self):
        import cupy

        code = self.path.read_text(encoding="utf-8")
        kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)", code)
        names = [f"{kernel}<{real}>" for kernel in kernels for real in ("float", "double")]
        return cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=names)

    def __call__(self, name: str, dtype: np.dtype):
        key = name, dtype.char
        if key not in self._functions:
            real = {"f": "float", "d": "double"}[dtype.char]
            self._functions[key] = self._module.get_function(f"{name}<{real}>")
        return self._functions[key]
