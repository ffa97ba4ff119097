"""Distances, by Numba and in CUDA: against loops over scalars, accuracy, odd inputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_tools import LAYOUTS, RTOL, assert_close, three_threads

from scratchmeta.kernels import pairwise


@pytest.fixture(scope="module")
def kernels(on):
    return on(pairwise)


def metrics(t, w):
    """(term, slope) of a coordinate's difference t, by metric."""
    sign = 1.0 * (t > 0) - 1.0 * (t < 0)
    return {"sqeuclidean": (t * t, 2 * t), "cityblock": (w * abs(t), w * sign)}


def oracle(metric, x, y, weight, g):
    """D, gx, gy and gweight, one number after the other."""
    x, y, weight, g = (a.astype(np.float64) for a in (x, y, weight, g))
    (n, d), m = x.shape, len(y)
    out, gx, gy, gw = np.zeros((n, m)), np.zeros((n, d)), np.zeros((m, d)), np.zeros(d)
    for i, j, k in itertools.product(range(n), range(m), range(d)):
        term, slope = metrics(x[i, k] - y[j, k], weight[k])[metric]
        out[i, j] += term
        gx[i, k] += g[i, j] * slope
        gy[j, k] -= g[i, j] * slope
        gw[k] += g[i, j] * abs(x[i, k] - y[j, k])
    return out, gx, gy, gw


def computed(kernels, metric, x, y, weight, g):
    if metric == "cityblock":
        return kernels.cityblock(x, y, weight), *kernels.cityblock_backward(g, x, y, weight)
    return kernels.sqeuclidean(x, y), *kernels.sqeuclidean_backward(g, x, y)


def drawn(rng, dtype, lead, n, m, d):
    """x, y, weight and g; some coordinates of x and y are equal."""
    shapes = (*lead, n, d), (*lead, m, d), (d,), (*lead, n, m)
    x, y, weight, g = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    x, y = (np.where(rng.random(a.shape) < 0.1, dtype(0), a) for a in (x, y))
    return x, y, weight, g


@pytest.mark.parametrize("metric", ["sqeuclidean", "cityblock"])
@pytest.mark.parametrize("dtype", RTOL)
@given(
    lead=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    sizes=st.tuples(*[st.integers(0, 9)] * 3),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_loops_over_scalars(kernels, metric, dtype, lead, sizes, layout, seed):
    inputs = drawn(np.random.default_rng(seed), np.dtype(dtype).type, lead, *sizes)
    x, y, weight, g = (LAYOUTS[layout](a) for a in inputs)
    got = computed(kernels, metric, x, y, weight, g)
    assert all(a.dtype == dtype for a in got)
    gweight = np.zeros(sizes[2])
    for index in np.ndindex(lead):
        out, gx, gy, gw = oracle(metric, x[index], y[index], weight, g[index])
        for a, b in zip(got, (out, gx, gy), strict=False):
            assert_close(a[index], b, RTOL[dtype])
        gweight += gw
    if metric == "cityblock":
        assert_close(got[3], gweight, RTOL[dtype])


@pytest.mark.parametrize("sizes", [(257, 129, 33), (33, 300, 65), (1, 500, 7), (70, 1, 257)])
@pytest.mark.parametrize("dtype", RTOL)
def test_blocks_and_their_ends(kernels, sizes, dtype, rng, monkeypatch):
    for metric in ("sqeuclidean", "cityblock"):
        x, y, weight, g = drawn(rng, np.dtype(dtype).type, (1,), *sizes)
        with three_threads(monkeypatch):
            out, gx, gy, *gw = computed(kernels, metric, x, y, weight, g)
        x, y, weight, g = (a.astype(np.float64) for a in (x, y, weight, g))
        t = x[:, :, None] - y[:, None]
        term, slope = metrics(t, weight)[metric]
        assert_close(out, term.sum(-1), RTOL[dtype])
        assert_close(gx, (g[..., None] * slope).sum(2), RTOL[dtype])
        assert_close(gy, -(g[..., None] * slope).sum(1), RTOL[dtype])
        if gw:
            assert_close(gw[0], (g[..., None] * abs(t)).sum((0, 1, 2)), RTOL[dtype])


@pytest.mark.parametrize("metric", ["sqeuclidean", "cityblock", "cosine"])
def test_gradients_are_derivatives(kernels, metric, rng):
    """Richardson differences of the kernel itself, along random directions."""
    distance, back = getattr(kernels, metric), getattr(kernels, f"{metric}_backward")
    inputs = [rng.standard_normal((2, 6, 5)), rng.standard_normal((2, 4, 5))]
    if metric == "cityblock":
        inputs.append(rng.standard_normal((2, 5)))
        kinks = np.abs(inputs[0][:, :, None] - inputs[1][:, None]).min()
        assert kinks > 1e-3
    g = rng.standard_normal((2, 6, 4))
    directions = [rng.standard_normal(a.shape) for a in inputs]

    def along(h):
        return np.vdot(g, distance(*(a + h * u for a, u in zip(inputs, directions, strict=True))))

    h = 1e-4
    wanted = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    got = sum(np.vdot(ga, u) for ga, u in zip(back(g, *inputs), directions, strict=True))
    assert got == pytest.approx(wanted, rel=1e-9)


def test_no_weight_is_a_weight_of_ones(kernels, rng):
    x, y, _, g = drawn(rng, np.float64, (2,), 5, 4, 3)
    assert np.array_equal(kernels.cityblock(x, y), kernels.cityblock(x, y, np.ones(3)))
    gx, gy, gweight = kernels.cityblock_backward(g, x, y)
    assert gweight is None
    for a, b in zip((gx, gy), kernels.cityblock_backward(g, x, y, np.ones(3)), strict=False):
        assert np.array_equal(a, b)


def test_a_weight_for_each_element_of_the_batch(kernels, rng):
    x, y, _, g = drawn(rng, np.float64, (3,), 5, 4, 2)
    weight = rng.standard_normal((3, 2))
    got = kernels.cityblock(x, y, weight), *kernels.cityblock_backward(g, x, y, weight)
    for b in range(3):
        args = x[b], y[b], weight[b]
        one = kernels.cityblock(*args), *kernels.cityblock_backward(g[b], *args)
        for a, wanted in zip(got, one, strict=True):
            np.testing.assert_allclose(a[b], wanted, rtol=1e-14, atol=1e-14)


def test_equal_coordinates_have_slope_zero(kernels):
    x = np.ones((3, 2))
    assert not kernels.sqeuclidean(x, x).any()
    assert not kernels.cityblock(x, x).any()
    for gradient in kernels.cityblock_backward(np.ones((3, 3)), x, x, np.ones(2)):
        assert not gradient.any()


def test_far_from_the_origin_nothing_cancels(kernels, rng):
    """float32 rows about 1 apart, 10,000 away from 0: |x|² + |y|² − 2 x·y would be off by 10."""
    x, y, weight, g = drawn(rng, np.float32, (), 20, 30, 16)
    x, y = x + np.float32(1e4), y + np.float32(1e4)
    for metric in ("sqeuclidean", "cityblock"):
        wanted = oracle(metric, x, y, weight, g)
        for a, b in zip(computed(kernels, metric, x, y, weight, g), wanted, strict=False):
            assert_close(a, b, 1e-5)


@pytest.mark.parametrize("dtype", RTOL)
def test_cosine(kernels, dtype, rng):
    x, y, _, g = drawn(rng, np.dtype(dtype).type, (2,), 6, 5, 7)
    x[1, 2], y[0, 3] = 0, 0
    out, (gx, gy) = kernels.cosine(x, y), kernels.cosine_backward(g, x, y)
    for b, i, j in np.ndindex(out.shape):
        lengths = float(np.linalg.norm(x[b, i])) * float(np.linalg.norm(y[b, j]))
        cosine = float(x[b, i].astype(np.float64) @ y[b, j]) / lengths if lengths else 0.0
        assert out[b, i, j] == pytest.approx(1 - cosine, abs=RTOL[dtype])
    assert not gx[1, 2].any()
    assert not gy[0, 3].any()
    # a longer vector has the same cosines
    assert np.abs((gx * x).sum(-1)).max() < RTOL[dtype]
    assert np.abs((gy * y).sum(-1)).max() < RTOL[dtype]


def test_nan_and_infinity_stay_in_their_rows(kernels):
    x, y = np.zeros((3, 4)), np.ones((2, 4))
    x[0, 1], x[1, 2] = np.nan, np.inf
    for distance in (kernels.sqeuclidean, kernels.cityblock):
        out = distance(x, y)
        assert np.isnan(out[0]).all()
        assert np.isinf(out[1]).all()
        assert np.array_equal(out[2], [4, 4])


def test_what_does_not_fit_is_named(kernels, rng):
    x, y, weight, g = drawn(rng, np.float64, (2,), 4, 3, 5)
    with pytest.raises(ValueError, match=r"sqeuclidean: wanted x .*, got \(2, 4, 5\), \(2, 3, 4\)"):
        kernels.sqeuclidean(x, y[..., :4])
    with pytest.raises(ValueError, match=r"cityblock: wanted x .*got \(2, 4, 5\), \(3, 5\)"):
        kernels.cityblock(x, y[0])
    with pytest.raises(ValueError, match=r"cityblock: wanted weight .*got \(4,\)"):
        kernels.cityblock(x, y, weight[:4])
    with pytest.raises(ValueError, match=r"cityblock_backward: wanted g \(2, 4, 3\), got \(4, 3\)"):
        kernels.cityblock_backward(g[0], x, y, weight)
    with pytest.raises(ValueError, match="cosine: wanted x"):
        kernels.cosine(x, y[0])
    with pytest.raises(TypeError, match=r"sqeuclidean: wanted .* got float64, float32"):
        kernels.sqeuclidean(x, y.astype(np.float32))
    with pytest.raises(TypeError, match=r"sqeuclidean: wanted .* got int64, int64"):
        kernels.sqeuclidean(x.astype(int), y.astype(int))
