"""Convolution, by Numba and in CUDA: against loops over pixels, and as adjoints of one another."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_tools import LAYOUTS, RTOL, assert_close, three_threads

from scratchmeta import backend, ops
from scratchmeta.kernels import conv
from scratchmeta.verify.gradcheck import gradcheck


@pytest.fixture(scope="module")
def kernels(on):
    return on(conv)


def oracle(x, w, gy, stride, pads):
    """y, gx and gw for x (T, N, H, W, C) and one bank of filters a task, pixel by pixel."""
    x, w, gy = (a.astype(np.float64) for a in (x, w, gy))
    y, gx, gw = np.zeros(gy.shape), np.zeros(x.shape), np.zeros(w.shape)
    (top, _), (left, _) = pads
    for t, n, i, j in np.ndindex(gy.shape[:4]):
        for a, b in np.ndindex(w.shape[1:3]):
            h, v = stride * i + a - top, stride * j + b - left
            if 0 <= h < x.shape[2] and 0 <= v < x.shape[3]:
                y[t, n, i, j] += x[t, n, h, v] @ w[t, a, b]
                gx[t, n, h, v] += w[t, a, b] @ gy[t, n, i, j]
                gw[t, a, b] += np.outer(x[t, n, h, v], gy[t, n, i, j])
    return y, gx, gw


def result_size(x_shape, w_shape, stride, pads):
    sizes = zip(x_shape[2:4], w_shape[1:3], pads, strict=True)
    return tuple((n + low + high - k) // stride + 1 for n, k, (low, high) in sizes)


def computed(kernels, x, w, gy, stride, pads):
    y = kernels.conv2d(x, w, stride, pads, gy.shape[2:4])
    gx = kernels.conv2d_input(gy, w, x.shape, stride, pads)
    return y, gx, kernels.conv2d_weight(x, gy, (len(x), *w.shape[1:]), stride, pads)


def drawn(rng, dtype, x_shape, w_shape, stride, pads):
    """x, w and gy; some pixels are 0."""
    gy_shape = (*x_shape[:2], *result_size(x_shape, w_shape, stride, pads), w_shape[-1])
    x, w, gy = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, gy_shape))
    x[rng.random(x.shape) < 0.1] = 0
    return x, w, gy


@st.composite
def shapes(draw):
    """x (T, N, H, W, C), w (T or 1, kh, kw, C, F) with vectors of C and F, stride and pads."""
    tasks, n, c, f = (draw(st.integers(low, 2)) for low in (0, 0, 1, 1))
    kh, kw = (draw(st.integers(1, 3)) for _ in range(2))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2))
    h, w = (draw(st.integers(max(0, k - sum(p)), 5)) for k, p in zip((kh, kw), pads, strict=True))
    banks = draw(st.sampled_from([1, tasks])) if tasks else 1
    return (tasks, n, h, w, c), (banks, kh, kw, c, f), draw(st.integers(1, 3)), pads


# Windows that lie in the padding alone, on the right and on the left.
OUTSIDE = (1, 1, 4, 2, 1), (1, 2, 1, 1, 1), 1, ((0, 0), (2, 2))


@pytest.mark.parametrize("dtype", RTOL)
@given(shapes(), st.sampled_from(sorted(LAYOUTS)), st.integers(0, 2**32 - 1))
@example(OUTSIDE, "contiguous", 0)
@example(((1, 1, 4, 0, 2), (1, 2, 1, 2, 1), 1, ((0, 0), (0, 2))), "contiguous", 0)
def test_against_loops_over_pixels(kernels, dtype, drawn_shapes, layout, seed):
    (*x_shape, c), (*w_shape, _, f), stride, pads = drawn_shapes
    lanes = conv.lanes(np.dtype(dtype)) if kernels.cupy is None else 1
    x_shape, w_shape = (*x_shape, lanes * c), (*w_shape, lanes * c, lanes * f)
    x, w, gy = drawn(np.random.default_rng(seed), dtype, x_shape, w_shape, stride, pads)
    got = computed(kernels, *(LAYOUTS[layout](a) for a in (x, w, gy)), stride, pads)
    each = np.broadcast_to(w, (len(x), *w.shape[1:]))
    for a, wanted in zip(got, oracle(x, each, gy, stride, pads), strict=True):
        assert a.dtype == dtype
        assert_close(a, wanted, RTOL[dtype])


@pytest.mark.parametrize("banks", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_strips_parts_and_their_ends(kernels, banks, stride, rng, monkeypatch):
    """More windows than a strip, more strips than a part of gw, on three threads as on one."""
    pads = ((1, 1), (1, 0))
    x, w, gy = drawn(rng, "float32", (2, 37, 9, 7, 8), (banks, 3, 3, 8, 16), stride, pads)
    alone = computed(kernels, x, w, gy, stride, pads)
    with three_threads(monkeypatch):
        together = computed(kernels, x, w, gy, stride, pads)
    precise = computed(kernels, *(a.astype(np.float64) for a in (x, w, gy)), stride, pads)
    for a, b, c in zip(alone, together, precise, strict=True):
        assert np.array_equal(a, b)
        assert_close(a, c, 2e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_nan_shows_where_windows_cover_it(kernels, stride, rng):
    """And nowhere else, though what lies past a filter's end is multiplied by 0 in a tile."""
    pads = ((1, 0), (0, 1))
    x, w, gy = drawn(rng, "float64", (1, 2, 7, 6, 4), (1, 3, 2, 4, 4), stride, pads)
    x[0, 1, 3, 2, 1] = gy[0, 0, 1, 2, 3] = np.nan
    got = computed(kernels, x, w, gy, stride, pads)
    for a, wanted in zip(got, oracle(x, w, gy, stride, pads), strict=True):
        assert np.isnan(wanted).any()
        np.testing.assert_array_equal(np.isnan(a), np.isnan(wanted))
    assert not np.isnan(got[0]).all()
    assert not np.isnan(got[1]).all()


def test_adjoint_in_the_image_and_in_the_filters(kernels, rng):
    """⟨gy, conv2d(x, w)⟩ = ⟨conv2d_input(gy, w), x⟩ = ⟨conv2d_weight(x, gy), w⟩."""
    x, w, gy = drawn(rng, "float64", (2, 5, 8, 6, 4), (2, 3, 2, 4, 8), 2, ((1, 0), (0, 2)))
    y, gx, gw = computed(kernels, x, w, gy, 2, ((1, 0), (0, 2)))
    assert np.vdot(gx, x) == pytest.approx(np.vdot(gy, y), rel=1e-12)
    assert np.vdot(gw, w) == pytest.approx(np.vdot(gy, y), rel=1e-12)


@given(
    st.integers(1, 2),
    st.sampled_from(["same", "valid", 1]),
    st.sampled_from([(), (2,)]),
    st.sampled_from([(), (2,), (2, 1)]),
    st.integers(0, 2**32 - 1),
)
def test_three_orders_of_derivatives(stride, padding, x_lead, w_lead, seed):
    """gradcheck of the operation while its three kernels run, whatever the leading axes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*x_lead, 2, 4, 3, 2))
    w = rng.standard_normal((*w_lead, 2, 2, 2, 4))
    report = gradcheck(
        lambda x, w: ops.conv2d(x, w, stride, padding), x, w, order=3, directions=1, rng=rng
    )
    assert report.kernels


@pytest.mark.parametrize("dtype", RTOL)
def test_kernels_run_where_the_columns_fill_vectors(dtype, rng, monkeypatch):
    """And the plain functions elsewhere: the same results on and off."""
    calls = []
    for name in ("conv2d", "conv2d_input", "conv2d_weight"):
        kernel = getattr(conv, name)
        monkeypatch.setattr(conv, name, lambda *a, k=kernel, n=name: calls.append(n) or k(*a))
    lanes = conv.lanes(np.dtype(dtype))
    for c, f in ((lanes, lanes), (1, lanes), (lanes, lanes + 1)):
        x, w, gy = drawn(rng, dtype, (1, 3, 5, 4, c), (1, 3, 3, c, f), 1, ((1, 1), (1, 1)))
        results = []
        for kernels in (True, False):
            calls.clear()
            with backend.use_kernels(kernels):
                results.append(
                    (
                        ops.conv2d(x[0], w[0]),
                        ops.conv2d_input(gy[0], w[0], x[0].shape, 1, "same"),
                        ops.conv2d_weight(x[0], gy[0], w[0].shape, 1, "same"),
                    )
                )
            taken = [] if f % lanes else ["conv2d", "conv2d_input", "conv2d_weight"]
            taken = [n for n in taken if n != "conv2d_input" or c == lanes]
            assert calls == (taken if kernels else [])
        for on, off in zip(*results, strict=True):
            assert_close(on, off, RTOL[dtype])


def test_what_does_not_fit_is_named(kernels, rng):
    x, w, gy = drawn(rng, "float64", (2, 3, 5, 4, 4), (2, 3, 3, 4, 8), 1, ((1, 1), (1, 1)))
    same = 1, ((1, 1), (1, 1))
    with pytest.raises(ValueError, match=r"conv2d: wanted images .*got .*\(2, 3, 3, 5, 8\)"):
        kernels.conv2d(x, np.ones((2, 3, 3, 5, 8)), *same, (5, 4))
    with pytest.raises(ValueError, match=r"conv2d: wanted images .*\(2, 3, 4, 4, 8\) with pads"):
        kernels.conv2d(x, w, *same, (4, 4))
    with pytest.raises(ValueError, match=r"conv2d: wanted images .*\(3, 3, 3, 4, 8\)"):
        kernels.conv2d(x, np.ones((3, 3, 3, 4, 8)), *same, (5, 4))
    with pytest.raises(ValueError, match="conv2d_input: wanted images"):
        kernels.conv2d_input(gy[:, :2], w, x.shape, *same)
    with pytest.raises(ValueError, match="conv2d_weight: wanted images"):
        kernels.conv2d_weight(x, gy[..., :4], w.shape, *same)
    with pytest.raises(TypeError, match="conv2d: wanted arrays of float32 or of float64"):
        kernels.conv2d(x, w.astype(np.float32), *same, (5, 4))
