"""Kernels on all cores, without a thread pool that fights with BLAS.

A kernel is a compiled function kernel(start, stop, *arrays) that does the tasks start ... stop − 1
and lets go of Python's lock while it does. `run` calls it on parts of the tasks from ordinary
Python threads, which sleep when there is nothing to do. Against Numba's `prange` this means that no
OpenMP thread spins between two loops and starves OpenBLAS, that a kernel is compiled once, serially
and quickly, that callers may themselves be threads or forked processes, and that a core which
another program takes does not hold up the rest: whoever is free takes the next part.

Waking the threads takes some 30 µs; kernels with little work run on the caller's.
"""

import functools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numba

_SHORT = 1 << 19  # elementary operations, a few per nanosecond, that are not worth waking a thread
_PARTS = 4  # parts of the tasks for each thread


@functools.cache
def count() -> int:
    """How many threads kernels use: as OMP_NUM_THREADS says, else one for each usable core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else numba.config.NUMBA_NUM_THREADS


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count() - 1, thread_name_prefix="scratchmeta")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _work_off(compiled, parts: deque, arrays: tuple) -> None:
    while True:
        try:
            start, stop = parts.popleft()
        except IndexError:
            return
        compiled(start, stop, *arrays)


def run(compiled, work: int, tasks: int, *arrays) -> None:
    """All tasks of a kernel, on all threads if the work, in elementary operations, is worth it."""
    if work < _SHORT or tasks < 2 or count() == 1:
        compiled(0, tasks, *arrays)
        return
    n = min(tasks, _PARTS * count())
    parts = deque((tasks * i // n, tasks * (i + 1) // n) for i in range(n))
    others = [_pool().submit(_work_off, compiled, parts, arrays) for _ in range(count() - 1)]
    _work_off(compiled, parts, arrays)
    for other in others:
        if not other.cancel():  # one that has not begun by now has nothing left to do
            other.result()
