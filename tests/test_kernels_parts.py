"""The parts that kernels are made of: elementary functions, products, unit rows, the disk cache."""

import json
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from kernel_tools import RTOL, assert_close, three_threads

from scratchmeta.kernels import elementary, product, runtime, unit

# --- elementary functions -------------------------------------------------------------------------


def compiled(function):
    @numba.njit
    def apply(x, y):
        for i in range(len(x)):
            y[i] = function(x[i])

    def of(x):
        y = np.empty_like(x)
        apply(x, y)
        return y

    return of


FUNCTIONS = {
    "exp": (compiled(elementary.exp), np.exp),
    "sigmoid": (compiled(elementary.sigmoid), lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (compiled(elementary.tanh), np.tanh),
}
LARGEST = {"float32": 87, "float64": 708}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", LARGEST)
def test_elementary_functions_are_within_four_ulp(name, dtype):
    function, oracle = FUNCTIONS[name]
    dense = [np.linspace(-size, size, 20001) for size in (LARGEST[dtype], 20, 1, 1e-3)]
    tiny = 10.0 ** -np.arange(1, 36)
    x = np.concatenate([*dense, tiny, -tiny, np.arange(-60, 60) * np.log(2)]).astype(dtype)
    wanted = oracle(x.astype(np.longdouble))
    error = np.abs(function(x).astype(np.longdouble) - wanted)
    ulp = np.spacing(np.abs(wanted).astype(dtype))
    worst = np.argmax(error / ulp)
    assert error[worst] <= 4 * ulp[worst], f"{name}({x[worst]}) is off by {error[worst]}"


@pytest.mark.parametrize("dtype", LARGEST)
def test_elementary_functions_at_the_ends(dtype):
    x = np.array([np.inf, -np.inf, 1e4, -1e4, 0.0, np.nan], dtype)
    results = {name: function(x) for name, (function, _) in FUNCTIONS.items()}
    assert all(np.isnan(y[5]) and np.isfinite(y[:5]).all() for y in results.values())
    np.testing.assert_allclose(results["tanh"][:5], [1, -1, 1, -1, 0], atol=1e-30)
    np.testing.assert_allclose(results["sigmoid"][:5], [1, 0, 1, 0, 0.5], atol=1e-30)
    assert (results["exp"][[0, 2]] > 1e37).all()
    assert (results["exp"][[1, 3]] < 1e-37).all()
    assert results["exp"][4] == 1


def test_elementary_functions_are_for_compiled_code():
    with pytest.raises(NotImplementedError, match="compiled code only"):
        elementary.exp(1.0)


# --- products -------------------------------------------------------------------------------------


@numba.njit
def multiply(a, b, c):
    product.product(a, b, c)


@numba.njit
def multiply_and_add(a, b, c):
    product.add_product(a, b, c)


@numba.njit
def sum_of_squares(a, b, w, c):
    product.squares(a, b, w, c)


@numba.njit
def sum_of_differences(a, b, w, c):
    product.differences(a, b, w, c)


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("rows", [4, 5, 7, 12])
def test_sums_of_terms_for_any_number_of_rows_and_columns(dtype, rows, rng):
    lanes = product.lanes(np.dtype(dtype))
    for depth, columns in ((0, lanes), (1, lanes + 1), (3, 9 * lanes - 1), (17, 13 * lanes + 3)):
        a, b, w = (
            rng.standard_normal(s).astype(dtype) for s in ((rows, depth), (depth, columns), depth)
        )
        c = np.full((rows, columns + 2), np.nan, dtype)[:, 1:-1]
        exact = a.astype(np.float64)[:, :, None] - b
        sum_of_squares(a, b, w, c)
        assert_close(c, (exact**2).sum(axis=1), RTOL[dtype])
        sum_of_differences(a, b, w, c)
        assert_close(c, (w.astype(np.float64)[:, None] * abs(exact)).sum(axis=1), RTOL[dtype])
        multiply(a, b, c)
        assert_close(c, a.astype(np.float64) @ b, RTOL[dtype])
        assert np.isnan(c.base[:, [0, -1]]).all()


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("transposed", [False, True])
def test_products(dtype, transposed, rng):
    lanes = product.lanes(np.dtype(dtype))
    assert lanes == {"float32": 8, "float64": 4}[dtype]
    for rows, depth, vectors in ((1, 1, 1), (2, 0, 2), (3, 5, 3), (1, 17, 4), (2, 3, 5), (1, 2, 7)):
        shape = rows * product.ROWS, depth
        a = rng.standard_normal(shape[::-1] if transposed else shape).astype(dtype)
        a = a.T if transposed else a
        # rows of b and c are contiguous, but do not follow one another
        wide = rng.standard_normal((max(shape), vectors * lanes + 3)).astype(dtype)
        b, c = (wide.copy()[:n, : vectors * lanes] for n in (depth, shape[0]))
        before = c.copy()
        multiply(a, b, c)
        assert_close(c, a.astype(np.float64) @ b, RTOL[dtype])
        c[...] = before
        multiply_and_add(a, b, c)
        assert_close(c, before + a.astype(np.float64) @ b, RTOL[dtype])


# --- unit rows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(on):
    return on(unit)


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 3, 5), (65, 33)], ids=str)
def test_unit_rows_and_their_gradient(rows, shape, dtype, rng, monkeypatch):
    x, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    with three_threads(monkeypatch):
        y, r = rows.unit(x)
        gx = rows.unit_backward(g, y, r)
    assert y.dtype == r.dtype == gx.dtype == dtype
    assert r.shape == shape[:-1]
    for i in np.ndindex(r.shape):
        if shape[-1]:
            length = np.sqrt(np.sum(x[i].astype(np.float64) ** 2))
            assert r[i] == pytest.approx(1 / length, rel=RTOL[dtype])
            assert_close(y[i], x[i] / length, RTOL[dtype])
            along = x[i] * np.vdot(x[i].astype(np.float64), g[i])
            assert_close(gx[i], g[i] / length - along / length**3, 10 * RTOL[dtype])


@pytest.mark.parametrize(("dtype", "length"), [("float32", 1e-19), ("float64", 1e-154)])
def test_shortest_vectors_count_as_zero(rows, dtype, length):
    x = np.array([[length, 0], [2 * length, 0], [0, 0], [np.nan, 0]], dtype)
    y, r = rows.unit(x)
    np.testing.assert_allclose(y[:3], [[0, 0], [1, 0], [0, 0]], rtol=1e-6)
    assert r[0] == r[2] == 0
    assert np.isnan(y[3, 0])
    assert not rows.unit_backward(np.ones_like(x), y, r)[[0, 2]].any()


def test_a_cotangent_that_does_not_fit_is_named(rows):
    y, r = rows.unit(np.ones((2, 3)))
    with pytest.raises(
        ValueError, match=r"unit_backward: wanted .* got \(3, 3\), \(2, 3\), \(2,\)"
    ):
        rows.unit_backward(np.ones((3, 3)), y, r)


# --- dense arrays and the disk cache --------------------------------------------------------------


def test_dense_copies_only_where_it_must(rng):
    a = rng.standard_normal((3, 4))
    read_only = a.copy()
    read_only.flags.writeable = False
    same, transposed, copy = runtime.dense("a kernel", a, a.T, read_only)
    assert same is a
    assert transposed.flags.carray
    assert copy.flags.carray
    assert np.array_equal(transposed, a.T)
    for bad in (a.astype(np.float16), a.astype(">f8"), a.astype(int)):
        with pytest.raises(TypeError, match="a kernel: wanted arrays of float32 or of float64"):
            runtime.dense("a kernel", bad)


CHILD = """
import json, sys
from pathlib import Path
stat = Path.stat
Path.stat = lambda path: NEWER(stat(path)) if path.name == "elementary.py" else stat(path)
class NEWER:
    def __init__(self, stat):
        self.st_mtime, self.st_size = stat.st_mtime + (sys.argv[1:] == ["newer"]), stat.st_size

import numpy as np
from scratchmeta.kernels import lstm, pairwise
x = np.arange(6.0).reshape(2, 3)
results = [pairwise.cityblock(x, 2 * x).tolist(), pairwise.sqeuclidean(x, 2 * x).tolist()]
lstm.gates(x[:, :0], x[:, :0])
kernels = pairwise._cityblock, pairwise._sqeuclidean, lstm._gates
print(json.dumps([[k.stats.cache_misses.total(), k.stats.cache_hits.total()] for k in kernels]
                 + results))
"""


def test_a_second_process_compiles_only_what_may_have_changed(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = []
    for arguments in ([], [], ["newer"]):  # a file that the kernels' own files import
        command = [sys.executable, "-c", CHILD, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        runs.append(json.loads(done.stdout))
    assert runs[0][:3] == [[1, 0]] * 3
    assert runs[1][:3] == [[0, 1]] * 3
    assert runs[2][:3] == [[1, 0]] * 3
    # two kernels made by one function are not mistaken for one another
    assert runs[0][3:] == runs[1][3:] == [[[3, 21], [6, 12]], [[5, 149], [14, 50]]]
