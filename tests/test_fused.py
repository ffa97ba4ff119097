"""fused(): orders 0 to 3 agree with the reference alone, also for arguments made of one another."""

import numpy as np
import pytest

from scratchmeta import Tensor, backend, grad, ops
from scratchmeta.ops.fused import fused

# A small operation with two results and known derivatives: p = x y², q = sin x, kernels by hand.


def reference(x, y):
    return x * ops.square(y), ops.sin(x)


calls = []


def forward(x, y):
    calls.append("forward")
    return (x * y * y, np.sin(x)), {"cos x": np.cos(x)}


def backward(gs, ys, kept, x, y):
    calls.append("backward")
    gp, gq = gs
    return gp * y * y + gq * kept["cos x"], 2 * gp * x * y


def double_backward(us, gs, ys, kept, x, y):
    calls.append("double backward")
    gp, gq = gs
    ux, uy = (np.zeros_like(x) if u is None else u for u in us)
    g_gp = ux * y * y + 2 * uy * x * y
    g_gq = ux * np.cos(x)
    g_x = -ux * gq * np.sin(x) + 2 * uy * gp * y
    g_y = 2 * ux * gp * y + 2 * uy * gp * x
    return g_gp, g_gq, g_x, g_y


OPERATIONS = {
    "reference beyond order 1": fused(reference, forward, backward),
    "double backward by hand": fused(reference, forward, backward, double_backward),
}


def derivatives(op, order, dependent, only=None):
    """Derivatives of a scalar made from op; the second argument is made of the first or not."""
    rng = np.random.default_rng(3)
    x = Tensor(rng.normal(size=4))
    y = Tensor(rng.normal(size=4))
    second = ops.tanh(x) + y if dependent else y
    p, q = op(x, second)
    value = ops.sum(ops.exp(0.3 * p)) if only == "p" else ops.sum(ops.square(q))
    value = ops.sum(ops.exp(0.3 * p) * ops.square(q)) if only is None else value
    results = [value.data]
    for n in range(order):
        gx, gy = grad(value, (x, y), create_graph=True)
        results += [gx.data, gy.data]
        value = ops.sum(gx * ops.cos(x) + 0.7 * n * gy * gy)
    return results


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dependent", [False, True], ids=["independent", "one made of the other"])
@pytest.mark.parametrize("only", [None, "p", "q"])
def test_every_order_agrees_with_the_reference(name, dependent, only):
    got = derivatives(OPERATIONS[name], 3, dependent, only)
    wanted = derivatives(reference, 3, dependent, only)
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


def test_kernels_run_while_on_and_only_then():
    op = OPERATIONS["double backward by hand"]
    calls.clear()
    x, y = Tensor(np.ones(2)), Tensor(np.ones(2))
    p, _ = op(x, y)
    g = grad(ops.sum(p), x, create_graph=True)
    assert calls == ["forward", "backward"]
    grad(ops.sum(g * g), y)
    assert calls == ["forward", "backward", "double backward"]
    calls.clear()
    with backend.use_kernels(False):
        p, q = op(x, y)
        grad(ops.sum(p * q), x)
    assert calls == []


def test_raw_arrays_give_raw_arrays():
    p, q = OPERATIONS["reference beyond order 1"](np.ones(2), 3.0 * np.ones(2))
    assert type(p) is type(q) is np.ndarray
    np.testing.assert_array_equal(p, [9.0, 9.0])


@pytest.mark.parametrize("kernels", [True, False])
def test_results_do_not_depend_on_one_another(kernels, rng):
    z, c = Tensor(rng.standard_normal((1, 8))), Tensor(rng.standard_normal((1, 2)))
    with backend.use_kernels(kernels):
        h_new, c_new = ops.lstm_gates(z, c)
    assert grad(ops.sum(h_new), c_new).tolist() == [[0.0, 0.0]]


def test_arrays_of_several_types_are_the_references():
    """What NumPy makes of them, with kernels as without."""
    x, y = np.ones((2, 3), "f"), np.zeros((4, 3))
    assert ops.pairwise_distance(x, y).dtype == np.float64
    with pytest.raises(ValueError, match=r"wanted floating-point arrays, got int64\(2, 3\)"):
        ops.pairwise_distance(np.ones((2, 3), int), y)
    assert ops.attention(x, x, x, 1 / np.sqrt(3)).dtype == np.float32  # a number is a number
    with pytest.raises(ValueError, match=r"at least one key, got keys \(0, 3\)"):
        ops.attention(x, x[:0], x[:0])
