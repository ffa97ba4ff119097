"""Every test: one BLAS thread, a hypothesis profile, and no trace left behind in global state."""

import os

# Before NumPy is imported: xdist has a worker per core.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ.get("OPENBLAS_NUM_THREADS", "1")
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from scratchmeta import backend, core

hypothesis.settings.register_profile("dev", max_examples=15, deadline=None)
hypothesis.settings.register_profile(
    "ci",
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[p for p in hypothesis.Phase if p is not hypothesis.Phase.shrink],
)
hypothesis.settings.register_profile("thorough", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)


def global_state():
    """What no test may leave changed."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - it is read, not used
    return {
        "backend": backend.current(),
        "kernels": backend.kernels_enabled(),
        "recording": core.is_recording(),
        "NumPy's global random state": (kind, keys.tobytes(), *rest),
        "NumPy's error state": np.geterr(),
    }


@pytest.fixture(autouse=True)
def leaves_no_trace():
    """Fails a test that changes global state."""
    before = global_state()
    yield
    after = global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed {', '.join(changed)}"


@pytest.fixture
def cupy():
    """CuPy, or its stand-in where there is none, as the backend in use."""
    from fakecupy import install  # late: it compiles nothing, but imports more than most tests need

    with install() as module, backend.use("cupy"):
        yield module


@pytest.fixture(scope="module", params=["numba", "cuda"])
def on(request):
    """on(module): its kernels for NumPy arrays, Numba's or CUDA's, run on the host or on a GPU."""
    from cuda_host import COMPILER
    from fakecupy import ON_GPU
    from kernel_tools import kernels_on

    if request.param == "cuda" and COMPILER is None and not ON_GPU:
        pytest.skip("g++ is not installed")
    with kernels_on(request.param) as of:
        yield of


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20160501)
