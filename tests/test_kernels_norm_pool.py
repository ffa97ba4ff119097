"""Batch-norm, ReLU and max-pooling, by Numba and in CUDA, against loops and the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_tools import LAYOUTS, RTOL, assert_close, three_threads

from scratchmeta import Tensor, backend, core, ops
from scratchmeta.kernels import norm_pool

EPS = 1e-5


@pytest.fixture(scope="module")
def kernels(on):
    return on(norm_pool)


def oracle(x, scale, offset, size):
    """y and, of every window, which entry it is, for x (N, H, W, C) and one group's parameters."""
    n, height, width, channels = x.shape
    y = np.zeros((n, height // size, width // size, channels))
    at = np.full(y.shape, -1)
    for c in range(channels):
        numbers = [float(v) for v in x[..., c].ravel()]
        mean = math.fsum(numbers) / len(numbers)
        variance = math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)
        for i, h, w in np.ndindex(y.shape[:3]):
            for k in range(size * size):
                v = float(x[i, h * size + k // size, w * size + k % size, c])
                z = float(scale[c]) * (v - mean) / math.sqrt(variance + EPS) + float(offset[c])
                if z > y[i, h, w, c]:
                    y[i, h, w, c], at[i, h, w, c] = z, k
    return y, at


def drawn(rng, dtype, lead, images):
    """x with numbers no two of which tie, scale and offset, for groups `lead`."""
    shape = (*lead, *images)
    x = rng.permutation(math.prod(shape)).reshape(shape) * 0.7 - 0.3 * math.prod(shape)
    scale, offset = (rng.standard_normal((*lead, images[-1])) + 0.5 for _ in range(2))
    return [a.astype(dtype) for a in (x / max(1, math.prod(shape)) ** 0.5, scale, offset)]


LEADS = st.lists(st.integers(0, 2), max_size=2).map(tuple)
IMAGES = st.tuples(st.integers(0, 3), *[st.integers(0, 5)] * 2, st.integers(0, 3))


@pytest.mark.parametrize("dtype", RTOL)
@given(LEADS, IMAGES, st.sampled_from([1, 2]), st.sampled_from(sorted(LAYOUTS)), st.integers(0, 99))
def test_against_loops_over_scalars(kernels, dtype, lead, images, size, layout, seed):
    inputs = drawn(np.random.default_rng(seed), dtype, lead, images)
    x, scale, offset = (LAYOUTS[layout](a) for a in inputs)
    y, (mean, r, at) = kernels.norm_relu_pool(x, scale, offset, size, EPS)
    n, height, width, c = images
    assert y.dtype == dtype
    assert y.shape == at.shape == (*lead, n, height // size, width // size, c)
    assert mean.shape == r.shape == (math.prod(lead), c)
    for i in np.ndindex(lead) if x.size else ():
        wanted, which = oracle(x[i], scale[i], offset[i], size)
        assert_close(y[i], wanted, 10 * RTOL[dtype])
        near_the_kink = np.abs(wanted) < 1e-4
        assert ((at[i] == which) | near_the_kink).all()


def orders(kernels, x, scale, offset, g, us, size):
    """The gradients for the cotangent g of y, and the cotangents of g and them all for `us`."""
    y, kept = kernels.norm_relu_pool(x, scale, offset, size, EPS)
    first = kernels.norm_relu_pool_backward(g, kept, x, scale, size)
    second = kernels.norm_relu_pool_double_backward(*us, g, kept, x, scale, size)
    return [y, *first, *second]


def orders_of_the_definition(x, scale, offset, g, us, size):
    """The same by the engine, from the plain definition."""
    args = [Tensor(a) for a in (x, scale, offset)]
    cotangent = Tensor(g)
    with backend.use_kernels(False):
        y = ops.norm_relu_pool(*args, size=size, eps=EPS)
        first = core.pull_back([y], [cotangent], args, create_graph=True)
        wanted = [cotangent, args[0], args[1]]
        second = core.pull_back(first, list(us), wanted, create_graph=False)
    return [core.raw(a) for a in (y, *first, *second)]


def cotangents(rng, dtype, x, scale, size):
    *lead, n, h, w, c = x.shape
    shapes = (*lead, n, h // size, w // size, c), x.shape, scale.shape, scale.shape
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", RTOL)
@given(
    LEADS.filter(lambda lead: 0 not in lead),
    st.tuples(st.integers(1, 3), *[st.integers(2, 5)] * 2, st.integers(1, 3)),
    st.sampled_from([1, 2]),
    st.sampled_from(sorted(LAYOUTS)),
    st.integers(0, 99),
)
def test_both_orders_against_the_definition(kernels, dtype, lead, images, size, layout, seed):
    rng = np.random.default_rng(seed)
    inputs = drawn(rng, "float64", lead, images)
    g, *us = cotangents(rng, "float64", *inputs[:2], size)
    wanted = orders_of_the_definition(*inputs, g, us, size)
    narrow = [LAYOUTS[layout](a.astype(dtype)) for a in (*inputs, g, *us)]
    got = orders(kernels, *narrow[:4], narrow[4:], size)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        assert_close(a, b, 1e-11 if dtype == "float64" else 2e-3)


@pytest.mark.parametrize("size", [1, 2])
def test_threads_change_nothing(kernels, size, rng, monkeypatch):
    x, scale, offset = drawn(rng, "float32", (2,), (33, 5, 7, 9))
    g, *us = cotangents(rng, "float32", x, scale, size)
    alone = orders(kernels, x, scale, offset, g, us, size)
    with three_threads(monkeypatch):
        together = orders(kernels, x, scale, offset, g, us, size)
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("images", [(0, 4, 4, 2), (2, 0, 4, 2), (2, 4, 4, 0), (1, 1, 1, 3)])
@pytest.mark.parametrize("size", [1, 2])
def test_nothing_in_nothing_out(kernels, images, size, rng):
    """No images, no pixels, no channels; and one pixel, whose window is none with size 2."""
    x, scale, offset = drawn(rng, "float64", (2,), images)
    g, *us = cotangents(rng, "float64", x, scale, size)
    y, gx, gscale, goffset, ug, ux, uscale = orders(kernels, x, scale, offset, g, us, size)
    assert (y.shape, ug.shape) == (g.shape, g.shape)
    assert gx.shape == ux.shape == x.shape
    assert gscale.shape == goffset.shape == uscale.shape == scale.shape
    if g.size == 0:
        assert not gx.any()
        assert not gscale.any()
        assert not goffset.any()


@pytest.mark.parametrize("dtype", RTOL)
def test_equal_numbers(kernels, dtype):
    """Variance 0, and ties: y is the offset, the cotangent is the first entry's."""
    x, one = np.full((1, 2, 2, 1), 3, dtype), np.ones(1, dtype)
    y, kept = kernels.norm_relu_pool(x, one, one, 2, EPS)
    assert_close(y, np.ones((1, 1, 1, 1)), RTOL[dtype])
    assert kept[2].item() == 0
    _, gscale, goffset = kernels.norm_relu_pool_backward(np.ones_like(y), kept, x, one, 2)
    assert (gscale.item(), goffset.item()) == (0, 1)
    # where nothing is above 0, nothing flows back
    y, kept = kernels.norm_relu_pool(x, one, 0 * one, 2, EPS)
    assert (y.item(), kept[2].item()) == (0, -1)
    assert not kernels.norm_relu_pool_backward(np.ones_like(y), kept, x, one, 2)[0].any()


def test_far_from_zero_nothing_cancels(kernels, rng):
    """float32 images around 10,000: E[x²] − E[x]² would have no digit left."""
    x, scale, offset = drawn(rng, "float64", (), (4, 6, 6, 3))
    x = (x + 1e4).astype("float32")
    got, _ = kernels.norm_relu_pool(x, *(p.astype("float32") for p in (scale, offset)), 2, EPS)
    wanted, _ = kernels.norm_relu_pool(x.astype("float64"), scale, offset, 2, EPS)
    assert_close(got, wanted, 1e-3)


def test_nan_shows_in_its_channel(kernels, rng):
    x, scale, offset = drawn(rng, "float64", (), (2, 4, 4, 3))
    x[1, 2, 3, 1] = np.nan
    y, _ = kernels.norm_relu_pool(x, scale, offset, 2, EPS)
    assert np.isnan(y[..., 1]).all()
    assert np.isfinite(y[..., [0, 2]]).all()


def test_what_does_not_fit_is_named(kernels, rng):
    x, scale, offset = drawn(rng, "float64", (2,), (3, 4, 4, 5))
    with pytest.raises(ValueError, match=r"norm_relu_pool: wanted .*got \(2, 3, 4, 4, 5\), \(5,\)"):
        kernels.norm_relu_pool(x, scale[0], offset, 2, EPS)
    with pytest.raises(ValueError, match=r"norm_relu_pool: wanted size 1 or 2, got 3"):
        kernels.norm_relu_pool(x, scale, offset, 3, EPS)
    with pytest.raises(TypeError, match="norm_relu_pool: wanted arrays of float32 or of float64"):
        kernels.norm_relu_pool(x, scale, offset.astype("float32"), 2, EPS)
    y, kept = kernels.norm_relu_pool(x, scale, offset, 2, EPS)
    with pytest.raises(ValueError, match=r"norm_relu_pool_backward: wanted g \(2, 3, 2, 2, 5\), "):
        kernels.norm_relu_pool_backward(y[:, :1], kept, x, scale, 2)
