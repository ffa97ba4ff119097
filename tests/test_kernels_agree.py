"""Kernels on and off: the same answer for inputs that are not finite, and the same refusals.

Values are the same, ∞ and NaN included. Gradients are the same where they are finite, and are not
finite in the same places; there one may have ∞ and the other NaN, as sums of infinities depend on
the order.
"""

import numpy as np
import pytest

from scratchmeta import backend, ops
from scratchmeta.core import OperationError, Tensor, pull_back

OPERATIONS = {
    "sqeuclidean": (lambda x, y: ops.pairwise_distance(x, y), [(3, 5), (9, 5)]),
    "cityblock": (lambda x, y: ops.pairwise_distance(x, y, "cityblock"), [(3, 5), (9, 5)]),
    "weighted": (
        lambda x, y, w: ops.pairwise_distance(x, y, "cityblock", w),
        [(3, 5), (9, 5), (5,)],
    ),
    "cosine": (lambda x, y: ops.pairwise_distance(x, y, "cosine"), [(3, 5), (9, 5)]),
    "attention": (lambda q, k, v: ops.attention(q, k, v, 0.5), [(3, 5), (9, 5), (9, 4)]),
    "scaled": (ops.attention, [(3, 5), (9, 5), (9, 4), (3,)]),
    "cosine_attention": (ops.cosine_attention, [(3, 5), (9, 5), (9, 4)]),
    "lstm_gates": (ops.lstm_gates, [(3, 16), (3, 4)]),
    "lstm_cell": (ops.lstm_cell, [(3, 5), (3, 4), (3, 4), (5, 16), (4, 16), (16,)]),
    "norm_relu_pool": (ops.norm_relu_pool, [(3, 5, 4, 2), (2,), (2,)]),
    "norm_relu": (lambda x, s, o: ops.norm_relu_pool(x, s, o, 1), [(3, 5, 4, 2), (2,), (2,)]),
    "conv2d": (ops.conv2d, [(3, 5, 4, 2), (3, 3, 2, 8)]),
}
FINE = [(name, k) for name, (_, shapes) in OPERATIONS.items() for k in range(len(shapes))]


def arrays_of(name, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in OPERATIONS[name][1]]


def answers(name, arrays):
    """Values and gradients, with kernels and without."""
    found = []
    for kernels in (True, False):
        with backend.use_kernels(kernels), np.errstate(all="ignore"):
            xs = [Tensor(backend.asarray(a)) for a in arrays]
            ys = OPERATIONS[name][0](*xs)
            ys = ys if isinstance(ys, tuple) else (ys,)
            gs = [np.ones(y.shape, y.dtype) for y in ys]
            gxs = pull_back(ys, [backend.asarray(g) for g in gs], xs, create_graph=False)
            both = [[backend.to_numpy(a) for a in part] for part in ([y.data for y in ys], gxs)]
            found.append(both)
    return found


def assert_alike(name, arrays):
    (ys, gxs), (wanted_ys, wanted_gxs) = answers(name, arrays)
    for y, wanted in zip(ys, wanted_ys, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=2e-4, atol=1e-5)
    for g, wanted in zip(gxs, wanted_gxs, strict=True):
        assert (g.shape, g.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_array_equal(np.isfinite(g), np.isfinite(wanted))
        fine = np.isfinite(g)
        np.testing.assert_allclose(g[fine], wanted[fine], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("name", "k"), FINE)
def test_a_number_that_is_not_finite(name, k, value, place, dtype):
    arrays = arrays_of(name, dtype)
    arrays[k].flat[place] = value
    assert_alike(name, arrays)


@pytest.mark.parametrize("name", ["sqeuclidean", "cityblock", "weighted", "cosine"])
def test_infinities_that_cancel(name):
    """∞ − ∞ in one pair of rows, at the same feature of both."""
    arrays = arrays_of(name)
    for array in arrays[:2]:
        array.flat[0] = np.inf
    assert_alike(name, arrays)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["cityblock", "norm_relu_pool", "norm_relu"])
def test_the_same_on_a_gpu(cupy, name, value):
    for k in range(len(OPERATIONS[name][1])):
        arrays = arrays_of(name)
        arrays[k].flat[0] = value
        assert_alike(name, arrays)


@pytest.mark.parametrize(("name", "k"), FINE)
def test_numbers_with_their_bytes_the_other_way_round(name, k):
    """The other order of bytes is another dtype to NumPy, and no kernel's."""
    arrays = arrays_of(name)
    arrays[k] = arrays[k].astype(arrays[k].dtype.newbyteorder())
    assert_alike(name, arrays)
    assert_alike(name, [a.astype(a.dtype.newbyteorder()) for a in arrays_of(name)])


def fewer_axes(name, k):
    arrays = arrays_of(name)
    arrays[k] = arrays[k].reshape(-1, arrays[k].shape[-1])[0]
    return arrays


MISFITS = [
    *((name, fewer_axes(name, k)) for name, k in [*FINE[:4], ("cosine", 0), ("cosine", 1)]),
    *((name, fewer_axes(name, k)) for name in ("attention", "cosine_attention") for k in range(3)),
    *(("lstm_gates", fewer_axes("lstm_gates", k)) for k in (0, 1)),
    ("lstm_gates", [np.ones((3, 16)), np.array(1.0)]),
    ("lstm_gates", [np.ones((1, 16)), np.ones((3, 4))]),
    ("weighted", [np.ones((3, 5)), np.ones((9, 5)), np.ones((1,))]),
    ("weighted", [np.ones((3, 5)), np.ones((9, 5)), np.array(1.0)]),
    ("attention", [np.ones((3, 5)), np.ones((9, 5)), np.ones((8, 4))]),
    ("attention", [np.ones((3, 5)), np.ones((9, 4)), np.ones((9, 4))]),
    ("scaled", [np.ones((3, 5)), np.ones((9, 5)), np.ones((9, 4)), np.ones((1,))]),
    ("scaled", [np.ones((2, 3, 5)), np.ones((2, 9, 5)), np.ones((2, 9, 4)), np.ones((3,))]),
]


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("name", "arrays"), MISFITS)
def test_shapes_that_do_not_fit_are_refused_either_way(name, arrays, kernels):
    with backend.use_kernels(kernels), pytest.raises(OperationError, match="wanted"):
        OPERATIONS[name][0](*map(Tensor, arrays))
