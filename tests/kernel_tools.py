"""What the tests of the kernels share."""

from contextlib import contextmanager

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
    for cache in caches:
        cache.cache_clear()
