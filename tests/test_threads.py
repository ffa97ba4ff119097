"""Kernels and BLAS in turn: neither starves the other, and no thread waits by spinning."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kernel_tools import three_threads

from scratchmeta.kernels import threads

# In a process of its own, with two threads for each. Products and kernels in turn against the two
# one after the other: threads that spin while they wait would take the cores that the others need.
SCRIPT = """
import json, threading, time
import numba
import numpy as np
from scratchmeta.kernels import attention, conv, lstm, norm_pool, pairwise, threads

rng = np.random.default_rng(0)
x, y, a = (rng.standard_normal(shape).astype("f") for shape in ((500, 64), (500, 64), (300, 300)))

def kernel():
    pairwise.cityblock(x, y)

def product():
    a @ a

def least(*calls):
    for call in calls:
        call()
    times = []
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(4):
            for call in calls:
                call()
        times.append(time.perf_counter() - start)
    return min(times)

apart = least(kernel) + least(product)
together = least(kernel, product)

# every kernel, then: was a pool of Numba's started?
images, w = rng.standard_normal((1, 40, 14, 14, 8)), rng.standard_normal((1, 3, 3, 8, 8))
conv.conv2d(images, w, 1, ((1, 1), (1, 1)), (14, 14))
norm_pool.norm_relu_pool(images[0], np.ones(8), np.ones(8), 2, 1e-5)
attention.attention(x, y, y)
lstm.gates(np.ones((500, 256)), np.ones((500, 64)))
try:
    pool = numba.threading_layer()
except ValueError:
    pool = None
names = sorted(t.name for t in threading.enumerate() if t.name.startswith("scratchmeta"))
print(json.dumps([together / apart, pool, names, threads.count()]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: nothing to fight for")
def test_kernels_and_blas_in_turn_take_the_time_of_both():
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    ratios = []
    for _ in range(6):  # whatever else this machine does
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        ratio, pool, names, count = json.loads(done.stdout)
        assert pool is None, f"a kernel started Numba's own threads ({pool}), which spin"
        assert names == ["scratchmeta_0"]
        assert count == 2
        ratios.append(ratio)
        if ratio < 3:
            return
    raise AssertionError(f"products and kernels in turn: {ratios} times the two apart")


class Slow:
    """A "kernel" of which the caller's thread leaves a part to another thread, which takes long."""

    def __init__(self, error=None):
        self.caller, self.taken, self.error = threading.current_thread(), threading.Event(), error

    def __call__(self, start, stop, out):
        if threading.current_thread() is self.caller:
            assert self.taken.wait(20)
        else:
            self.taken.set()
            time.sleep(0.2)
            if self.error:
                raise self.error
        out[start:stop] += 1


def test_all_parts_are_done_when_a_kernel_returns(monkeypatch):
    for tasks in (3, 12, 13, 50):  # as many as threads, as parts, and more
        out = np.zeros(tasks)
        with three_threads(monkeypatch):
            threads.run(Slow(), 1, tasks, out)
            assert (out == 1).all()


def test_what_goes_wrong_in_another_thread_is_raised(monkeypatch):
    with three_threads(monkeypatch), pytest.raises(MemoryError, match="no room"):
        threads.run(Slow(MemoryError("no room")), 1, 50, np.zeros(50))
