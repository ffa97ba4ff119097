"""What the tests of the kernels share."""

from contextlib import contextmanager

import fakecupy
import numpy as np

from scratchmeta.kernels import threads

RTOL = {"float64": 1e-12, "float32": 2e-5}
LAYOUTS = {
    "contiguous": lambda a: a,
    "transposed": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}


def assert_close(got, wanted, rtol):
    """Equal shapes, and numbers that differ by at most rtol of the largest."""
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * np.abs(wanted).max(initial=1.0))


class Module:
    """A module of kernels whose functions take and give NumPy arrays, on a device or not.

    `cupy` is None for Numba's kernels; else arrays are taken to CuPy's device and results back.
    """

    def __init__(self, module, cupy):
        self.module, self.cupy = module, cupy

    def __getattr__(self, name):
        function = getattr(self.module, name)
        if self.cupy is None:
            return function

        def call(*args, **kwargs):
            args = [_on_device(self.cupy, arg) for arg in args]
            return _on_host(self.cupy, function(*args, **kwargs))

        return call


def _on_device(cupy, value):
    """An array, or those in a tuple, on the device in the same layout: over the same strides."""
    if isinstance(value, tuple):
        return tuple(_on_device(cupy, v) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    if value.flags.c_contiguous:
        return cupy.asarray(value)
    # the stretch of memory that the array lies in, from its lowest address on
    steps = [n // value.itemsize for n in value.strides]
    lowest = value[tuple(slice(-1, None) if n < 0 else slice(1) for n in steps)]
    reach = [(size - 1) * abs(n) for size, n in zip(value.shape, steps, strict=True)]
    strided = np.lib.stride_tricks.as_strided
    stretch = cupy.asarray(strided(lowest, (1 + sum(reach),), (value.itemsize,)))
    first = sum(r for r, n in zip(reach, steps, strict=True) if n < 0)
    return cupy.lib.stride_tricks.as_strided(stretch[first:], value.shape, value.strides)


def _on_host(cupy, value):
    if isinstance(value, tuple | list):
        return type(value)(_on_host(cupy, v) for v in value)
    return cupy.asnumpy(value) if isinstance(value, cupy.ndarray) else value


@contextmanager
def kernels_on(device):
    """module -> its kernels for NumPy arrays: Numba's or, on a GPU or run on the host, CUDA's."""
    if device == "numba":
        yield lambda module: Module(module, None)
    else:
        with fakecupy.install() as cupy:
            yield lambda module: Module(module, cupy)


@contextmanager
def three_threads(monkeypatch):
    """Kernels share their tasks among three threads, however little work there is."""
    caches = threads.count, threads._pool
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "3")
        patch.setattr(threads, "_SHORT", 0)
        for cache in caches:
            cache.cache_clear()
        assert threads.count() == 3
        yield
        threads._pool().shutdown()
    for cache in caches:
        cache.cache_clear()
