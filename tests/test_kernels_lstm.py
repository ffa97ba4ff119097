"""The LSTM cell, by Numba and in CUDA, against loops over scalars and by complex step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_tools import LAYOUTS, RTOL, assert_close, three_threads

from scratchmeta.kernels import lstm


@pytest.fixture(scope="module")
def kernels(on):
    return on(lstm)


def sigma(x):
    return 1 / (1 + np.exp(-x))


def step(z, c):
    """h' and c'; complex numbers too, as in `backward`."""
    i, f, g, o = np.split(z, 4, axis=-1)
    c = sigma(f) * c + sigma(i) * np.tanh(g)
    return sigma(o) * np.tanh(c), c


def backward(gh, gc, z, c):
    """gz and gc_before as derived by hand."""
    i, f, g, o = np.split(z, 4, axis=-1)
    i, f, g, o = sigma(i), sigma(f), np.tanh(g), sigma(o)
    t = np.tanh(f * c + i * g)
    s = gc + gh * o * (1 - t**2)
    parts = s * g * i * (1 - i), s * c * f * (1 - f), s * i * (1 - g**2), gh * t * o * (1 - o)
    return np.concatenate(parts, axis=-1), s * f


def slope(f, x, u, wanted):
    """⟨wanted, ∂f(x + h u)/∂h⟩ by complex step."""
    return sum(np.sum(g * a.imag) / 1e-30 for g, a in zip(wanted, f(x + 1e-30j * u), strict=True))


SHAPES = st.tuples(
    st.lists(st.integers(0, 3), max_size=3).map(tuple),  # leading axes
    st.integers(0, 9),  # H
)


@pytest.mark.parametrize("dtype", RTOL)
@given(shape=SHAPES, layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 2**32 - 1))
def test_gates_against_loops_over_scalars(kernels, dtype, shape, layout, seed):
    rng, (lead, n) = np.random.default_rng(seed), shape
    z, c = (3 * rng.standard_normal((*lead, k)).astype(dtype) for k in (4 * n, n))
    h_new, c_new, gates = kernels.gates(LAYOUTS[layout](z), LAYOUTS[layout](c))
    assert h_new.dtype == c_new.dtype == gates.dtype == dtype
    assert (h_new.shape, c_new.shape, gates.shape) == (c.shape, c.shape, z.shape)
    for index in np.ndindex(c.shape):
        row, j = index[:-1], index[-1]
        zi, zf, zg, zo = (float(z[(*row, j + k * n)]) for k in range(4))
        i, f, o = (1 / (1 + math.exp(-a)) for a in (zi, zf, zo))
        state = f * float(c[index]) + i * math.tanh(zg)
        assert c_new[index] == pytest.approx(state, rel=RTOL[dtype], abs=RTOL[dtype])
        assert h_new[index] == pytest.approx(o * math.tanh(state), rel=RTOL[dtype], abs=RTOL[dtype])
        wanted = i, f, math.tanh(zg), o
        got = [gates[(*row, j + k * n)] for k in range(4)]
        assert got == pytest.approx(wanted, rel=RTOL[dtype])


@pytest.mark.parametrize("lead", [(), (5,), (2, 0), (2, 33)], ids=str)
def test_both_orders_of_derivatives_by_complex_step(kernels, lead, rng, monkeypatch):
    n = 7
    z, u = rng.standard_normal((2, *lead, 4 * n))
    c, gh, gc, v = rng.standard_normal((4, *lead, n))
    with three_threads(monkeypatch):
        h_new, c_new, gates = kernels.gates(z, c)
        gz, gc_before = kernels.gates_backward(gh, gc, c, c_new, gates)
        double = kernels.gates_double_backward(u, v, gh, gc, c, c_new, gates)
    assert_close(h_new, step(z, c)[0], 1e-14)
    for x, gradient, f in (
        (z, gz, lambda z: step(z, c)),
        (c, gc_before, lambda c: step(z, c)),
    ):
        w = rng.standard_normal(x.shape)
        assert np.sum(gradient * w) == pytest.approx(slope(f, x, w, (gh, gc)), rel=1e-12, abs=1e-12)
    inputs = [gh, gc, z, c]
    for k, gradient in enumerate(double):
        w = rng.standard_normal(inputs[k].shape)

        def moved(x, k=k):
            return backward(*(x if j == k else a for j, a in enumerate(inputs)))

        wanted = slope(moved, inputs[k], w, (u, v))
        assert np.sum(gradient * w) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_float32_against_float64(kernels, rng):
    z, u = rng.standard_normal((2, 9, 40))
    c, gh, gc, v = rng.standard_normal((4, 9, 10))
    results = []
    for dtype in (np.float64, np.float32):
        a = [x.astype(dtype) for x in (u, v, gh, gc, c)]
        h_new, c_new, gates = kernels.gates(z.astype(dtype), a[4])
        first = kernels.gates_backward(*a[2:], c_new, gates)
        results.append((h_new, *first, *kernels.gates_double_backward(*a, c_new, gates)))
        assert all(r.dtype == dtype for r in results[-1])
    for wanted, got in zip(*results, strict=True):
        assert_close(got, wanted, 5e-6)


@pytest.mark.parametrize("dtype", RTOL)
def test_saturated_gates(kernels, dtype):
    """z = ±10⁴: gates of 0 or 1, no overflow, nothing but zeros behind them."""
    z = np.array([[-1e4, 1e4, 1e4, 1e4], [1e4, -1e4, -1e4, -1e4]], dtype)
    c = np.array([[0.5], [0.5]], dtype)
    h_new, c_new, gates = kernels.gates(z, c)
    assert_close(gates, np.array([[0, 1, 1, 1], [1, 0, -1, 0]], dtype), 1e-12)
    assert_close(c_new, np.array([[0.5], [-1]], dtype), 1e-12)
    assert_close(h_new, np.array([[np.tanh(0.5)], [0]], dtype), 1e-6)
    ones = np.ones_like(c)
    gz, _ = kernels.gates_backward(ones, ones, c, c_new, gates)
    assert_close(gz, np.zeros_like(z), 1e-12)


@pytest.mark.parametrize("per_element", [False, True], ids=["shared", "one for each task"])
def test_the_cell_and_its_gradients(kernels, per_element, rng):
    t, rows, d, n = 2, 3, 4, 5
    lead = (t,) if per_element else ()
    x, h, c = (rng.standard_normal((t, rows, k)) for k in (d, n, n))
    w_x, w_h, b = (rng.standard_normal((*lead, *s)) for s in ((d, 4 * n), (n, 4 * n), (4 * n,)))
    gh, gc = rng.standard_normal((2, t, rows, n))
    inputs = [x, h, c, w_x, w_h, b]

    def cell(x, h, c, w_x, w_h, b):
        return step(x @ w_x + h @ w_h + (b[:, None] if per_element else b), c)

    h_new, c_new, gates = kernels.lstm_cell(*inputs)
    for got, wanted in zip((h_new, c_new), cell(*inputs), strict=True):
        assert_close(got, wanted, 1e-13)
    gradients = kernels.lstm_cell_backward(gh, gc, *inputs, c_new, gates)
    for k, gradient in enumerate(gradients):
        assert gradient.shape == inputs[k].shape
        w = rng.standard_normal(inputs[k].shape)

        def moved(a, k=k):
            return cell(*(a if j == k else other for j, other in enumerate(inputs)))

        wanted = slope(moved, inputs[k], w, (gh, gc))
        assert np.sum(gradient * w) == pytest.approx(wanted, rel=1e-12)


def test_what_does_not_fit_is_named(kernels, rng):
    with pytest.raises(ValueError, match=r"gates: wanted z .* got \(2, 9\) and \(2, 3\)"):
        kernels.gates(np.zeros((2, 9)), np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"gates: wanted .* got float64, float32"):
        kernels.gates(np.zeros((2, 12)), np.zeros((2, 3), np.float32))
    c = np.zeros((2, 3))
    with pytest.raises(
        ValueError, match=r"gates_backward: wanted \(2, 12\) 1 times.* got \(2, 3\)"
    ):
        kernels.gates_backward(c, c, c, c, c)
    with pytest.raises(ValueError, match=r"gates_double_backward: wanted \(2, 12\) 2 times"):
        kernels.gates_double_backward(c, c, c, c, c, c, np.zeros((2, 12)))
