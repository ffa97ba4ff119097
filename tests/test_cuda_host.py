"""Every CUDA kernel runs on the CPU and agrees with Numba's; the emulation catches what is wrong.

Those of the convolution are compared with the plain operations: Numba's do not take all sizes.

On a machine with a GPU (`make gpu`) the launchers run on it, the emulation's own tests as here.
"""

import faulthandler
import hashlib
import importlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import cuda_host
import fakecupy
import numpy as np
import pytest
from cuda_host import CompileError, LaunchError, RawModule, nvrtc

from scratchmeta.data.cache import folder
from scratchmeta.ops import conv as plain

pytestmark = pytest.mark.skipif(
    cuda_host.COMPILER is None and not fakecupy.ON_GPU, reason="g++ is not installed"
)

FOLDER = Path(importlib.import_module("scratchmeta.kernels").__file__).parent
SOURCES = {path.stem: path for path in sorted(FOLDER.glob("*.cu"))}


def kernels_of(stem):
    pattern = r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)"
    return re.findall(pattern, SOURCES[stem].read_text(encoding="utf-8"))


# --- the library's kernels, through its own launchers ---------------------------------------------
# stem of the .cu file -> everything its launchers compute from arrays draw(shape) for some sizes


def unit(kernels, draw, rows, _, d):
    y, r = kernels.unit(draw(rows, d))
    return y, r, kernels.unit_backward(draw(rows, d), y, r)


def pairwise(kernels, draw, n, m, d):
    x, y, weight, g = draw(2, n, d), draw(2, m, d), draw(2, d), draw(2, n, m)
    return (
        kernels.sqeuclidean(x, y),
        *kernels.sqeuclidean_backward(g, x, y),
        kernels.cityblock(x, y),
        kernels.cityblock(x, y, weight),
        *kernels.cityblock_backward(g, x, y, weight),
        kernels.cosine(x, y),
        *kernels.cosine_backward(g, x, y),
    )


def attention(kernels, draw, n, m, d):
    q, k, v, g, scale = draw(2, n, d), draw(2, m, d), draw(2, m, 3), draw(2, n, 3), draw(2, n)
    results = []
    for score in ("cosine", "dot"):
        out, logsumexp = kernels.attention(q, k, v, scale, score)
        back = kernels.attention_backward(g, q, k, v, out, logsumexp, scale, score)
        results += [out, logsumexp, *back]
    return results


def lstm(kernels, draw, rows, _, n):
    z, c, gh, gc, u, v = (draw(rows, size * n) for size in (4, 1, 1, 1, 4, 1))
    h_new, c_new, gates = kernels.gates(z, c)
    first = kernels.gates_backward(gh, gc, c, c_new, gates)
    second = kernels.gates_double_backward(u, v, gh, gc, c, c_new, gates)
    return (h_new, c_new, gates, *first, *second)


def norm_pool(kernels, draw, n, height, channels):
    x = draw(2, min(n, 9), min(height, 12), 5, channels)  # up to 540 pixels: blocks add up 512
    scale, offset, uscale, uoffset = (draw(2, channels) for _ in range(4))
    results = []
    for size in (1, 2):
        y, kept = kernels.norm_relu_pool(x, scale, offset, size, 1e-5)
        u, g = draw(*x.shape), draw(*y.shape)
        first = kernels.norm_relu_pool_backward(g, kept, x, scale, size)
        us = u, uscale, uoffset
        second = kernels.norm_relu_pool_double_backward(*us, g, kept, x, scale, size)
        results += [y, *kept, *first, *second]
    return results


def conv(kernels, draw, n, height, channels):
    results = []
    for (kh, kw), stride, pads, f, banks in (
        ((3, 3), 1, ((1, 1), (1, 1)), 4, 1),
        ((2, 3), 2, ((0, 1), (2, 0)), 70, 2),
    ):
        x = draw(2, min(n, 9), min(height, 9), 4, min(channels, 33))
        w = draw(banks, kh, kw, x.shape[-1], f)
        sides = zip(x.shape[2:4], (kh, kw), pads, strict=True)
        out = tuple((size + low + high - k) // stride + 1 for size, k, (low, high) in sides)
        gy = draw(2, x.shape[1], *out, f)
        on = plain._plain if isinstance(x, np.ndarray) else kernels
        results.append(on.conv2d(x, w, stride, pads, out))
        results.append(on.conv2d_input(gy, w, x.shape, stride, pads))
        results.append(on.conv2d_weight(x, gy, (2, *w.shape[1:]), stride, pads))
    return results


LAUNCHES = {
    "conv": conv,
    "unit": unit,
    "pairwise": pairwise,
    "attention": attention,
    "lstm": lstm,
    "norm_pool": norm_pool,
}
SIZES = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (31, 33, 5), (33, 1, 65), (65, 64, 17)]
SIZES += [(1, 257, 3), (257, 2, 33)]
# whole tiles, blocks and warps, and nothing else: 64 rows or columns, 16 numbers at a time
SIZES += [(64, 64, 16), (128, 64, 64), (8, 128, 32)]


def launched(stem, dtype, rng, sizes, cupy):
    """The same numbers through Numba and through CUDA: two lists of results."""
    kernels = importlib.import_module(f"scratchmeta.kernels.{stem}")
    drawn = []

    def draw(*shape):
        drawn.append(rng.standard_normal(shape).astype(dtype))
        return drawn[-1]

    wanted = LAUNCHES[stem](kernels, draw, *sizes)
    again = iter(drawn)
    got = LAUNCHES[stem](kernels, lambda *shape: cupy.asarray(next(again)), *sizes)
    return list(wanted), [cupy.asnumpy(array) for array in got]


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("stem", SOURCES)
def test_a_cuda_kernel_computes_what_numba_does(stem, sizes, dtype, rng):
    assert stem in LAUNCHES, f"nothing launches the kernels of {SOURCES[stem].name} here"
    with fakecupy.install() as cupy:
        wanted, got = launched(stem, dtype, rng, sizes, cupy)
    assert len(wanted) == len(got)
    rtol = 3e-5 if dtype == "f" else 1e-12
    for a, b in zip(wanted, got, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * np.abs(a).max(initial=1.0))


@pytest.mark.skipif(fakecupy.ON_GPU, reason="listens to the emulation")
@pytest.mark.parametrize("stem", SOURCES)
def test_every_kernel_of_a_file_is_launched(stem, rng, monkeypatch):
    names, launch = set(), cuda_host.Function.__call__

    def noting(self, *args, **kwargs):
        names.add(self.name)
        launch(self, *args, **kwargs)

    monkeypatch.setattr(cuda_host.Function, "__call__", noting)
    with fakecupy.install() as cupy:
        for dtype in "fd":
            for sizes in ((5, 4, 3), (5, 65, 3)):  # the second is worked on in parts
                launched(stem, dtype, rng, sizes, cupy)
    assert names >= {f"{k}<{real}>" for k in kernels_of(stem) for real in ("float", "double")}


def test_more_rows_than_a_grid_is_high(rng):
    """A grid's y and z end at 65,535."""
    from scratchmeta.kernels.pairwise import sqeuclidean

    x, y = rng.standard_normal((65537, 2)), rng.standard_normal((1, 2))
    with fakecupy.install() as cupy:
        got = cupy.asnumpy(sqeuclidean(cupy.asarray(x), cupy.asarray(y)))
    np.testing.assert_allclose(got[:, 0], np.square(x - y).sum(axis=1), rtol=1e-12)


def test_more_than_a_kernel_counts_in_32_bits_is_refused():
    """The launchers' own checks, before there is an array so large."""
    from scratchmeta.kernels import conv, norm_pool

    most = 2**31 - 64
    with fakecupy.install() as cupy:
        x = cupy.zeros(1, np.float32)
        for n, (height, width, c), (out_h, out_w), f in (
            (most // 2**10, (2**5, 2**5, 1), (1, 1), 1),
            (most // 2**10, (1, 1, 1), (2**5, 2**5), 1),
            (1, (1, 1, most // 9 + 1), (1, 1), 1),
            (1, (1, 1, 1), (1, 1), most // 9 + 1),
        ):
            geometry = height, width, c, 3, 3, 1, 0, 0, out_h, out_w
            with pytest.raises(ValueError, match=r"conv2d: wanted fewer than 2³¹ pixels .*, got "):
                conv._launch("conv2d", 1, (x, x, x), 0, n + 1, geometry, f)
        with pytest.raises(
            ValueError, match=r"fewer than 2³¹ numbers in a row .*got 65536 x 32768"
        ):
            norm_pool._elementwise("forward", (1, 1, 2**16, 2**15), 1, x)


def spelled_out(stem):
    return [f"{kernel}<{real}>" for kernel in kernels_of(stem) for real in ("float", "double")]


def compiled_before(*parts):
    """Where the cache notes that a compiler has accepted these texts."""
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    place = folder() / "cuda_on_host"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{key}.accepted"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("stem", SOURCES)
def test_nvcc_compiles_every_kernel_for_sm_90(stem, tmp_path):
    names = spelled_out(stem)
    used = "\n".join(f"void* use_{i} = (void*)&{name};" for i, name in enumerate(names))
    source = tmp_path / f"{stem}.cu"
    source.write_text(f"{SOURCES[stem].read_text(encoding='utf-8')}\n{used}\n", encoding="utf-8")
    flags = ["-std=c++17", "-arch=sm_90", "-Werror", "all-warnings", "-cubin", "-Xptxas", "-v"]
    accepted = compiled_before("nvcc", flags, source.read_bytes())
    if accepted.exists():
        return
    done = subprocess.run(
        ["nvcc", *flags, source, "-o", tmp_path / "out.cubin"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall("Compiling entry function", done.stderr)) == len(names)
    assert set(re.findall(r"(\d+) bytes spill stores", done.stderr)) == {"0"}
    accepted.touch()


@pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not installed")
@pytest.mark.parametrize("architecture", ["sm_70", "sm_80", "sm_90"])
@pytest.mark.parametrize("stem", SOURCES)
def test_nvrtc_compiles_every_kernel(stem, architecture):
    """What CuPy compiles with accepts less than nvcc: it has no headers. Nothing is spilled."""
    if architecture not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} does not know {architecture}")
    code = SOURCES[stem].read_text(encoding="utf-8")
    accepted = compiled_before("nvrtc", nvrtc.version(), nvrtc.OPTIONS, architecture, code)
    if not accepted.exists():
        machine_code, used = nvrtc.compiled(code, spelled_out(stem), architecture)
        assert machine_code
        assert [usage.kernel for usage in used] == spelled_out(stem)
        assert {usage.spilled for usage in used} == {0}
        # blocks are 256 threads at most, and a multiprocessor has 65,536 registers
        assert all(0 < usage.registers <= 255 and usage.shared <= 48 * 1024 for usage in used)
        accepted.touch()


def test_nothing_that_nvrtc_does_not_know():
    """Also where NVRTC is not installed: macros of headers that it does not have."""
    for path in SOURCES.values():
        code = re.sub("//.*", "", path.read_text(encoding="utf-8"))
        unknown = {"include", "INFINITY", "NAN", "HUGE_VAL", "FLT_MAX", "DBL_MAX", "INT_MAX", "std"}
        assert not unknown & set(re.findall(r"\w+", code)), path.name


# --- the emulation: what it computes --------------------------------------------------------------

CODE = r"""
template <class T> __global__ void places(T* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = 1000 * block + thread;
}

__device__ __forceinline__ float twice(float x) { return fmaf(x, 1.f, x) * rsqrtf(1.f); }

extern "C" __global__ void __launch_bounds__(64) from_next(const float* __restrict__ x, float* y) {
    extern __shared__ float row[];
    row[threadIdx.x] = twice(x[threadIdx.x]);
    __syncthreads();
    y[threadIdx.x] = row[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void from_next_without_barrier(const float* x, float* y) {
    __shared__ float row[64];
    row[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = row[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void overwritten_too_early(const float* x, float* y, int rounds) {
    __shared__ float row[64];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        row[threadIdx.x] = x[threadIdx.x] * i;
        __syncthreads();
        sum += row[63 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void shuffles(const int* x, int* y) {
    const int v = x[threadIdx.x], n = blockDim.x;
    int* out = y + threadIdx.x;
    out[0 * n] = __shfl_xor_sync(0xffffffffu, v, 5);
    out[1 * n] = __shfl_down_sync(0xffffffffu, v, 3);
    out[2 * n] = __shfl_up_sync(0xffffffffu, v, 3, 8);
    out[3 * n] = __shfl_sync(0xffffffffu, v, 2, 16);
    out[4 * n] = (int)__ballot_sync(0xffffffffu, v % 3 == 0);
    out[5 * n] = __any_sync(0xffffffffu, v == 7) + 2 * __all_sync(0xffffffffu, v < 50);
    out[6 * n] = __syncthreads_count(v % 2) + 100 * __syncthreads_or(v == 7);
    out[7 * n] = __syncthreads_and(v < 50);
    out[8 * n] = threadIdx.x % 2 ? __shfl_xor_sync(0xaaaaaaaau, v, 2) : 0;
    __syncwarp();
}

extern "C" __global__ void sums(const double* x, double* sum, int* counts) {
    atomicAdd(sum, x[threadIdx.x]);
    atomicAdd(&counts[0], 1);
    atomicMax(&counts[1], (int)threadIdx.x);
    atomicMin(&counts[2], -(int)threadIdx.x);
}

extern "C" __global__ void half_a_barrier(float* y) {
    if (threadIdx.x < 16) __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void two_barriers(float* y) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}

extern "C" __global__ void half_a_warp(float* y) {
    if (threadIdx.x >= 16) return;
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.f, 1);
}

extern "C" __global__ void out_of_mask(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffu, 1.f, 1);
}

extern "C" __global__ void not_in_mask(float* y) { y[threadIdx.x] = __shfl_xor_sync(1u, 1.f, 0); }

extern "C" __global__ void unwritten(float* y) {
    __shared__ float row[64];
    if (threadIdx.x % 2) row[threadIdx.x] = 1;
    y[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void indexed(float* y, int i) {
    __shared__ float row[64];
    row[threadIdx.x + i] = 1;
    y[threadIdx.x] = row[threadIdx.x];
}

extern "C" __global__ void behind_dynamic(float* y, int i) {
    extern __shared__ float row[];
    row[threadIdx.x + i] = 1;
    y[threadIdx.x] = 2;
}

extern "C" __global__ void behind_array(float* y, int i) { y[(int)threadIdx.x + i] = 1; }

extern "C" __global__ void from_behind(const float* x, float* y, int i) {
    y[threadIdx.x] = 1 + x[(int)threadIdx.x + i];
}

extern "C" __global__ void at_an_address(long long address) { *(int*)address = 1; }

extern "C" __global__ void parameters(float* y, float a, double b, int c, long long d,
                                      const bool* e) {
    y[threadIdx.x] = a + b + c + d + (e ? e[0] : 0);
}
"""
NAMES = ("places<int>", "places<double>")


@pytest.fixture(scope="module")
def kernel():
    """get_function of one module of all of CODE's kernels."""
    if cuda_host.COMPILER is None:
        pytest.skip("g++ is not installed")
    return RawModule(code=CODE, options=("-std=c++17",), name_expressions=NAMES).get_function


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_places(kernel, dtype):
    y = np.empty(2 * 3 * 2 * 24, dtype)
    name = "places<int>" if dtype is np.int32 else "places<double>"
    kernel(name)((2, 3, 2), (4, 3, 2), (y,))
    assert y.tolist() == [1000 * b + t for b in range(12) for t in range(24)]


def test_barrier_and_dynamic_shared_memory(kernel):
    x, y = np.arange(48, dtype=np.float32), np.empty(48, np.float32)
    kernel("from_next")((1,), (48,), (x, y), shared_mem=48 * 4)
    assert y.tolist() == [2.0 * ((i + 1) % 48) for i in range(48)]


def test_warp_functions(kernel):
    x, y = np.arange(64, dtype=np.int32), np.zeros((9, 64), np.int32)
    kernel("shuffles")((1,), (64,), (x, y))
    for t in range(64):
        lane, warp = t % 32, t // 32 * 32
        assert y[0, t] == warp + (lane ^ 5)
        assert y[1, t] == (t + 3 if lane + 3 < 32 else t)
        assert y[2, t] == (t - 3 if lane % 8 >= 3 else t)
        assert y[3, t] == t // 16 * 16 + 2
        assert int(y[4, t]) % 2**32 == sum(2**i for i in range(32) if (warp + i) % 3 == 0)
        assert y[5, t] == (1 + 2 if warp == 0 else 0)
        assert y[6, t] == 32 + 100
        assert y[7, t] == 0
        assert y[8, t] == (warp + (lane ^ 2) if t % 2 else 0)


def test_atomics(kernel, rng):
    x, total = rng.standard_normal(64), np.zeros(1)
    counts = np.zeros(3, np.int32)
    kernel("sums")((1,), (64,), (x, total, counts))
    assert total[0] == pytest.approx(x.sum(), rel=1e-12)
    assert counts.tolist() == [64, 63, -63]


def test_shared_memory_starts_as_nan(kernel):
    y = np.zeros(64, np.float32)
    kernel("unwritten")((1,), (64,), (y,))
    assert np.isnan(y[::2]).all()
    assert (y[1::2] == 1).all()


def test_scalars_are_passed_as_cupy_does(kernel):
    y, flag = np.zeros(2, np.float32), np.array([True])
    kernel("parameters")((1,), (2,), (y, np.float32(0.5), 2.0, np.int32(3), 10**6, flag))
    assert y.tolist() == [1000006.5, 1000006.5]
    kernel("parameters")((1,), (2,), (y, np.float32(0.5), 2.0, np.int32(3), 4, None))
    assert y.tolist() == [9.5, 9.5]


# --- the emulation: what it catches ---------------------------------------------------------------


def one_array(kernel, name, *scalars, threads=32):
    kernel(name)((1,), (threads,), (np.zeros(32, np.float32), *scalars))


@pytest.mark.parametrize(
    ("name", "scalars"), [("from_next_without_barrier", ()), ("overwritten_too_early", (3,))]
)
def test_a_race_is_caught(kernel, name, scalars):
    x, y = np.arange(1, 65, dtype=np.float32), np.empty(64, np.float32)
    with pytest.raises(LaunchError, match=f"{name}: threads race: argument 1 at "):
        kernel(name)((1,), (64,), (x, y, *map(np.int32, scalars)))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("half_a_barrier", "block .0, 0, 0.: diverging barriers: .* waits .* has returned"),
        ("two_barriers", r"diverging barriers: .*__syncthreads, line \d+, .*__syncthreads, line"),
        ("half_a_warp", "mask names a thread that does not take part: .* has returned"),
        ("out_of_mask", r"thread \(15, 0, 0\) reads lane 16 in __shfl_down_sync"),
        ("not_in_mask", r"thread \(\d+, 0, 0\) calls __shfl_xor_sync, .* a mask it is not in"),
    ],
)
def test_threads_that_do_not_meet_are_caught(kernel, name, what):
    with pytest.raises(LaunchError, match=f"{name}, .*{what}"):
        one_array(kernel, name)


def test_a_line_that_is_named_is_the_sources(kernel):
    line = CODE.splitlines().index("    if (threadIdx.x < 16) __syncthreads();") + 1
    with pytest.raises(LaunchError, match=f"__syncthreads, line {line}"):
        one_array(kernel, "half_a_barrier")


def test_after_an_error_launches_go_on(kernel):
    with pytest.raises(LaunchError):
        one_array(kernel, "two_barriers")
    test_barrier_and_dynamic_shared_memory(kernel)


def test_what_lies_outside_is_caught(kernel):
    one_array(kernel, "indexed", np.int32(32))
    with pytest.raises(LaunchError, match="uses the index 64 outside of an array, line"):
        one_array(kernel, "indexed", np.int32(33))
    with pytest.raises(LaunchError, match="written behind its 128 bytes of dynamic shared memory"):
        kernel("behind_dynamic")(
            (1,), (32,), (np.zeros(32, np.float32), np.int32(1)), shared_mem=128
        )
    for i, what in (
        (1, r"thread \(31, 0, 0\) reads or writes outside of the array, 0 bytes behind its end"),
        (-1, "written outside of the array"),
    ):
        with pytest.raises(LaunchError, match=f"argument 0: {what}"):
            one_array(kernel, "behind_array", np.int32(i))


def test_reading_outside_is_caught_and_the_argument_named(kernel):
    launch, y = kernel("from_behind"), np.zeros(32, np.float32)
    for n in (32, 33, 1024, 5000):  # those of whole pages, too
        x = np.arange(n, dtype=np.float32)
        launch((1,), (32,), (x, y, np.int32(n - 32)))
        assert y.tolist() == (x[-32:] + 1).tolist()
        for i, where in (
            (n - 31, "0 bytes behind its end"),
            (n + 10_000, f"{4 * 10_000} bytes behind its end"),
            (-1, "4 bytes before its beginning"),
            (-10_000, f"{4 * 10_000} bytes before its beginning"),
        ):
            with pytest.raises(LaunchError, match=f"from_behind, .*: argument 0: .*, {where}"):
                launch((1,), (32,), (x, y, np.int32(i)))
    with pytest.raises(LaunchError, match=r"argument 1: .* 0 bytes behind its end"):
        launch((1,), (32,), (x, np.zeros(0, np.float32), np.int32(0)))
    with pytest.raises(LaunchError, match=r"argument 0: .* 4 bytes behind its end"):  # null
        launch((1,), (32,), (None, y, np.int32(1)))


def test_a_fault_that_is_no_arrays_ends_the_process_as_ever(kernel):
    child = os.fork()
    if not child:
        faulthandler.disable()
        kernel("at_an_address")((1,), (1,), (8,))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def test_arguments_that_a_gpu_would_misread_are_caught(kernel):
    y = np.zeros(32, np.float32)
    good = [y, np.float32(0), 0.0, np.int32(0), 0, None]
    kernel("parameters")((1,), (32,), good)
    for i, bad, what in [
        (0, np.zeros(32), r"wanted \*f4, got \*f8"),
        (0, np.zeros((2, 32), np.float32).T, "wanted a C-contiguous array"),
        (0, 3, r"wanted \*f4, got i8"),
        (1, 0.0, "wanted f4, got f8"),
        (2, 0, "wanted f8, got i8"),
        (3, 0, "wanted i4, got i8"),
        (4, np.int32(0), "wanted i8, got i4"),
        (5, y, r"wanted \*b1, got \*f4"),
    ]:
        args = [*good[:i], bad, *good[i + 1 :]]
        with pytest.raises(LaunchError, match=f"parameters: argument {i}: {what}"):
            kernel("parameters")((1,), (32,), args)
    with pytest.raises(LaunchError, match="wanted 6 arguments, got 5"):
        kernel("parameters")((1,), (32,), good[:5])
    with pytest.raises(LaunchError, match="arguments overlap in part"):
        kernel("from_next")((1,), (8,), (y[:8], y[4:12]), shared_mem=32)


def test_what_cuda_refuses_to_launch(kernel):
    for grid, block, shared, what in [
        ((1,), (2048,), 0, "block at most"),
        ((1,), (64, 32), 0, "at most 1024 threads"),
        ((1, 65536), (1,), 0, "grid at most"),
        ((1,), (1,), 48 * 1024 + 1, "at most 49152 bytes"),
    ]:
        with pytest.raises(LaunchError, match=what):
            kernel("unwritten")(grid, block, (np.zeros(64, np.float32),), shared_mem=shared)
    with pytest.raises(TypeError, match="wanted grid as a tuple"):
        kernel("unwritten")([1], (1,), (np.zeros(64, np.float32),))


@pytest.mark.skipif(cuda_host.COMPILER is None, reason="g++ is not installed")
def test_modules_that_cannot_be_made():
    with pytest.raises(ValueError, match=r"name_expressions want an option -std"):
        RawModule(code="", name_expressions=["f<float>"])
    with pytest.raises(LookupError, match="wanted one of f, got 'g'"):
        RawModule(code='extern "C" __global__ void f(int* x) {}').get_function("g")
    broken = 'extern "C" __global__ void f(int* x) {\n    *x = y;\n}'
    with pytest.raises(CompileError, match=r"kernel\.cu:2:.*y\S? was not declared"):
        RawModule(code=broken).get_function("f")
