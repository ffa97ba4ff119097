"""The engine's traps, one test each; the backend's switches; trees."""

import ast
import doctest
import gc
import importlib
import inspect
import os
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from scratchmeta import (
    Tensor,
    backend,
    core,
    grad,
    hvp,
    no_grad,
    ops,
    stop_gradient,
    tree,
    value_and_grad,
    vjp,
)
from scratchmeta.core import OperationError, primitive, pull_back
from scratchmeta.verify.gradcheck import gradcheck


def leaf(*numbers):
    return Tensor(np.array(numbers, float))


# --- gradients ------------------------------------------------------------------------------------


def test_a_value_used_twice():
    x = leaf(3.0)
    assert grad(ops.sum(x + x), x).tolist() == [2.0]
    assert grad(ops.sum(x * x), x).tolist() == [6.0]
    assert grad(ops.sum(ops.concat([x, x])), x).tolist() == [2.0]


def test_diamond():
    """Two paths from x to y: x → a, b → a b = x³."""
    x = leaf(2.0)
    a, b = ops.square(x), 1.0 * x
    assert grad(ops.sum(a * b), x).tolist() == [12.0]


def test_deep_diamonds_are_not_walked_path_by_path():
    """2⁴⁰ paths, 40 nodes."""
    x = y = leaf(1.0)
    for _ in range(40):
        y = y + y
    assert grad(ops.sum(y), x).tolist() == [2.0**40]


def test_all_orders():
    """∂ⁿ sin x, by differentiating n times."""
    x = Tensor(np.array(0.7))
    y = ops.sin(x)
    for derivative in (np.cos, lambda t: -np.sin(t), lambda t: -np.cos(t), np.sin, np.cos):
        y = grad(y, x, create_graph=True)
        assert float(y) == pytest.approx(derivative(0.7), rel=1e-14)


def test_an_input_without_a_path_gets_zeros():
    x, unused = leaf(1.0, 2.0), Tensor(np.ones((2, 3), np.float32))
    gx, g = grad(ops.sum(x), (x, unused))
    assert gx.tolist() == [1.0, 1.0]
    assert g.shape == (2, 3)
    assert g.dtype == np.float32
    assert not g.any()
    again = grad(ops.sum(x), unused, create_graph=True)
    assert isinstance(again, Tensor)
    assert not again.data.any()


def test_a_constant_result_has_zero_gradient():
    x = leaf(1.0)
    assert grad(ops.sum(stop_gradient(x)), x).tolist() == [0.0]
    with no_grad():
        y = ops.sum(x)
    assert grad(y, x).tolist() == [0.0]


def test_the_result_itself_as_input():
    y = ops.sum(leaf(1.0, 2.0))
    assert grad(y, y) == 1.0


def test_intermediate_results_as_inputs():
    """With respect to a and to what a was made of: both are total derivatives."""
    x = leaf(2.0)
    a = ops.square(x)
    y = ops.sum(a * x)
    ga, gx = grad(y, (a, x))
    assert ga.tolist() == [2.0]
    assert gx.tolist() == [12.0]


def test_one_result_of_several_as_input():
    h, c = split_in_two(leaf(1.0, 2.0))
    gh, gc_ = grad(ops.sum(h * c * c), (h, c))
    assert gh.tolist() == [4.0]
    assert gc_.tolist() == [4.0]


@primitive(joint=lambda gs, y, x: [ops.concat([zeros_or(g) for g in gs])])
def split_in_two(x):
    return x[:1].copy(), x[1:].copy()


def zeros_or(g):
    return np.zeros(1) if g is None else g


def test_results_without_a_cotangent():
    """Only one of two results is used: the rule sees None for the other."""
    x = leaf(1.0, 2.0)
    h, c = split_in_two(x)
    assert grad(ops.sum(h * 3.0), x).tolist() == [3.0, 0.0]
    assert grad(ops.sum(c * 3.0), x).tolist() == [0.0, 3.0]
    gradcheck(lambda x: split_in_two(x)[1] * 2.0, np.array([1.0, 2.0]))
    gradcheck(split_in_two, np.array([1.0, 2.0]))


def test_an_operation_one_of_whose_inputs_depends_on_another(rng):
    """Rules give partial derivatives; the engine adds the path through the other input."""
    x, w = rng.standard_normal((2, 3)), rng.standard_normal((3, 12))

    def dependent(x):
        return ops.lstm_cell(x, ops.tanh(x), ops.sin(x), w, w, ops.sum(x) * w[0])

    for kernels in (True, False):
        with backend.use_kernels(kernels):
            gradcheck(dependent, x, order=3, directions=1)
            gradcheck(
                lambda x: ops.cosine_attention(x, ops.exp(x), ops.sin(x), ops.sum(x)),
                x,
                order=3,
                directions=1,
            )
            gradcheck(lambda x: ops.pairwise_distance(x, ops.exp(x)), x, order=3, directions=1)


def test_only_nodes_on_a_path_are_visited():
    def forbidden(g, y, x):
        raise AssertionError("the rule of an operation off the path was called")

    @primitive(forbidden)
    def off_the_path(x):
        return x.copy()

    x, other = leaf(1.0), leaf(2.0)
    y = ops.sum(x * off_the_path(other))
    assert grad(y, x).tolist() == [2.0]
    before = off_the_path(x)  # older than the input asked for
    z = before * 1.0
    assert grad(ops.sum(z * z), z).tolist() == [2.0]


def test_rules_of_constants_are_not_called():
    def forbidden(g, y, a, b):
        raise AssertionError("the rule of a constant was called")

    @primitive(lambda g, y, a, b: g * b, forbidden)
    def product(a, b):
        return a * b

    x = leaf(2.0)
    assert grad(ops.sum(product(x, np.array([3.0]))), x).tolist() == [3.0]


def test_a_chain_of_a_hundred_thousand():
    """No recursion: neither in the backward pass nor when the graph is freed."""
    x = y = leaf(1.0)
    for _ in range(100_000):
        y = y + 1.0
    assert grad(ops.sum(y), x).tolist() == [1.0]
    del y


def test_no_cycles_are_left_to_the_collector():
    x = leaf(1.0, 2.0)

    def step():
        y = ops.sum(ops.tanh(x * x) / (x + 3.0))
        g = grad(y, x, create_graph=True)
        grad(ops.sum(g * g), x)

    step()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_memory_goes_with_the_last_handle():
    x = leaf(1.0, 2.0)
    middle = ops.exp(x)
    array = weakref.ref(middle.data)
    y = ops.sum(middle * middle)
    del middle
    assert array() is not None  # the graph needs it
    del y
    assert array() is None


def test_gradients_keep_dtype_and_are_arrays():
    for dtype in (np.float32, np.float64):
        x = Tensor(np.array(2.0, dtype))
        y = 3.0 * x * x + 1.0
        assert y.dtype == dtype
        g = grad(y, x)
        assert isinstance(g, np.ndarray)
        assert g.shape == ()
        assert g.dtype == dtype
        assert grad(y, x, create_graph=True).dtype == dtype


def test_zero_dimensional_results():
    x = Tensor(np.array([1.0, 2.0]))
    y = ops.sum(x)
    assert y.shape == ()
    assert y.ndim == 0
    assert float(y * y) == 9.0
    assert grad(y * y, x).tolist() == [6.0, 6.0]
    assert grad(ops.tanh(x[0]), x).tolist() == [1.0 - np.tanh(1.0) ** 2, 0.0]


def test_the_form_of_the_inputs_is_the_form_of_the_gradients():
    x, y = leaf(1.0), leaf(2.0)
    g = grad(ops.sum(x * y), {"a": [x, (y,)], "b": x})
    assert tree.map(lambda a: a.tolist(), g) == {"a": [[2.0], ([1.0],)], "b": [2.0]}


def test_a_cotangent_for_any_shape():
    x = leaf(1.0, 2.0)
    assert grad(x * x, x, cotangent=-0.5).tolist() == [-1.0, -2.0]
    assert grad(x * x, x, cotangent=np.array([1.0, 10.0])).tolist() == [2.0, 40.0]
    g = grad(x * x * x, x, create_graph=True, cotangent=2)  # 6 x²
    assert grad(g, x, cotangent=1.0).tolist() == [12.0, 24.0]


def test_arrays_of_the_caller_are_not_added_to():
    """Not the cotangent either, which is the gradient of each of the four x."""
    x, g = leaf(1.0, 2.0), np.array([1.0, 10.0])
    y = x + x + x + x
    for _ in range(2):
        assert grad(y, x, cotangent=g).tolist() == [4.0, 40.0]
    assert g.tolist() == [1.0, 10.0]


def test_what_grad_refuses():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"wanted a scalar y or a cotangent, got shape \(2,\)"):
        grad(x * x, x)
    with pytest.raises(ValueError, match=r"wanted a cotangent of y's shape \(2,\), got \(1,\)"):
        grad(x * x, x, cotangent=np.ones(1))
    with pytest.raises(
        TypeError, match=r"wanted live floating-point Tensors .* got ndarray at 'w'"
    ):
        grad(ops.sum(x), {"w": np.ones(2)})
    with pytest.raises(TypeError, match="got a constant Tensor"):
        grad(ops.sum(x), stop_gradient(x))
    counts = Tensor([1, 2, 3])  # whose gradients would be cut down to integers
    with pytest.raises(TypeError, match="got one of int64 numbers"):
        grad(ops.sum(ops.exp(counts)), counts)
    with pytest.raises(TypeError, match="got one of int64 numbers at 'a'"):
        value_and_grad(lambda p: p["a"] * 0.5)({"a": 3})


def test_cotangents_are_checked_everywhere():
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"wanted a cotangent of y's shape \(3,\), got \(2, 3\)"):
        vjp(lambda x: x * 2.0, x)[1](np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"wanted a cotangent of y's shape \(3,\), got \(2, 3\)"):
        hvp(lambda x: ops.sum(x * x * x), x, np.ones((2, 3)))
    assert vjp(ops.sum, x)[1](2)[0].tolist() == [2.0] * 3
    live = Tensor(x)  # integers become what y is
    y = (live + live) + live * 0.5
    assert grad(y, live, cotangent=np.array([1, 2, 3])).tolist() == [2.5, 5.0, 7.5]
    assert grad(y, live, cotangent=np.float64(2.0)).tolist() == [5.0] * 3


# --- the other forms ------------------------------------------------------------------------------


def test_value_and_grad():
    params = {"w": np.array([1.0, 2.0]), "b": np.array(3.0)}
    value, g = value_and_grad(lambda p, x: ops.sum(p["w"] * x) + p["b"] * p["b"])(
        params, np.array([4.0, 5.0])
    )
    assert isinstance(value, np.floating)
    assert value == 23.0
    assert tree.map(np.ndarray.tolist, g) == {"w": [4.0, 5.0], "b": 6.0}


def test_vjp_of_one_and_of_several_results(rng):
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((3, 2))
    y, pull = vjp(ops.matmul, a, b)
    g = rng.standard_normal((2, 2))
    ga, gb = pull(g)
    assert isinstance(y, np.ndarray)
    np.testing.assert_allclose(ga, g @ b.T, rtol=1e-14)
    np.testing.assert_allclose(gb, a.T @ g, rtol=1e-14)

    (s, c), pull = vjp(lambda p: (ops.sin(p["x"]), ops.cos(p["x"])), {"x": a})
    np.testing.assert_allclose(pull((c, -s))[0]["x"], c * c + s * s, rtol=1e-14)


def test_hvp_is_the_hessian_times_a_vector(rng):
    h, x, v = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)
    got = hvp(lambda p: 0.5 * ops.sum(p["x"] * ops.matmul(h, p["x"])), {"x": x}, {"x": v})
    np.testing.assert_allclose(got["x"], 0.5 * (h + h.T) @ v, rtol=1e-13)
    assert hvp(lambda x: ops.sum(x), x, v).tolist() == [0.0, 0.0, 0.0]


def test_pull_back_adds_results_up():
    x = leaf(2.0)
    (g,) = pull_back([x * x, x], [np.array([1.0]), np.array([10.0])], [x], create_graph=False)
    assert g.tolist() == [14.0]


# --- recording ------------------------------------------------------------------------------------


def test_no_grad_is_local_and_survives_errors():
    x = leaf(1.0)
    with pytest.raises(OperationError), no_grad():
        x[7]
    assert core.is_recording()
    with no_grad():
        assert not core.is_recording()
    with no_grad(), pytest.raises(ValueError, match="y is a constant, computed while nothing was"):
        grad(ops.sum(x * 1.0), x)
    again = no_grad()
    with again:
        with again:
            pass
        assert not core.is_recording()
    assert core.is_recording()
    y = ops.sum(x * x)
    with no_grad():  # but what was recorded before can be differentiated, and differentiably
        g = grad(y, x, create_graph=True)
    assert grad(ops.sum(g), x).tolist() == [2.0]


def test_threads_do_not_switch_off_one_anothers_recording():
    inside, done = threading.Event(), threading.Event()

    def without():
        with no_grad():
            inside.set()
            done.wait(10)

    other = threading.Thread(target=without)
    other.start()
    inside.wait(10)
    x = leaf(3.0)
    assert core.is_recording()
    assert grad(ops.sum(x * x), x).tolist() == [6.0]
    done.set()
    other.join()


def test_constants_may_be_trees():
    x = leaf(1.0, 2.0)
    constant = stop_gradient({"w": x, "list": [x * 2.0, 7]})
    assert grad(ops.sum(x * constant["w"]), x).tolist() == [1.0, 2.0]
    assert constant["list"][1] == 7
    copy = np.array(constant["w"])
    copy[0] = 9.0
    assert x.data[0] == 1.0
    assert np.asarray(stop_gradient(ops.sum(x))).shape == ()


def test_raw_arrays_stay_raw():
    a = np.ones(2)
    assert type(ops.exp(a)) is np.ndarray
    assert type(ops.exp(Tensor(a))) is Tensor
    assert type(a * Tensor(a)) is Tensor
    assert type(ops.exp(stop_gradient(Tensor(a)))) is Tensor
    assert stop_gradient(a) is a


def test_arrays_are_not_copied():
    a = np.ones(2)
    assert Tensor(a).data is a
    assert stop_gradient(Tensor(a)).data is a


# --- Tensor ---------------------------------------------------------------------------------------


def test_operators_on_either_side():
    x, a = leaf(2.0, 4.0), np.array([1.0, 2.0])
    for y, wanted in (
        (x + a, [3.0, 6.0]),
        (a + x, [3.0, 6.0]),
        (x - 1.0, [1.0, 3.0]),
        (a - x, [-1.0, -2.0]),
        (a * x, [2.0, 8.0]),
        (x / a, [2.0, 2.0]),
        (a / x, [0.5, 0.5]),
        (x**2, [4.0, 16.0]),
        (2.0**x, [4.0, 16.0]),
        (a**x, [1.0, 16.0]),
        (-x, [-2.0, -4.0]),
        (abs(-x), [2.0, 4.0]),
        (np.float64(2.0) * x, [4.0, 8.0]),
        (x[::-1], [4.0, 2.0]),
    ):
        assert type(y) is Tensor
        assert y.data.tolist() == wanted
    assert float(x @ a) == 10.0
    assert float(a @ x) == 10.0


def test_an_array_times_a_tensor_is_one_operation():
    """Without __array_ufunc__ = None NumPy would make an array of Tensors, entry by entry."""
    x = leaf(1.0, 2.0)
    y = np.ones((3, 2)) * x
    assert type(y) is Tensor
    assert y.shape == (3, 2)
    assert grad(ops.sum(y), x).tolist() == [3.0, 3.0]


def test_comparisons_give_raw_booleans():
    x = leaf(1.0, 2.0)
    for got, wanted in (
        (x < 2.0, [True, False]),
        (x <= x, [True, True]),
        (x > np.array([0.0, 3.0]), [True, False]),
        (x >= 2.0, [False, True]),
        (x == 1.0, [True, False]),
        (x != 1.0, [False, True]),
    ):
        assert type(got) is np.ndarray
        assert got.tolist() == wanted


def test_iteration_and_unpacking():
    x = leaf(1.0, 2.0)
    first, second = x
    assert [float(v) for v in x] == [1.0, 2.0]
    assert grad(first * second, x).tolist() == [2.0, 1.0]
    with pytest.raises(TypeError):
        list(Tensor(np.array(1.0)))


def test_a_tensor_as_a_number():
    x = Tensor(np.array([2.5]))
    assert len(x) == 1
    assert x.size == 1
    assert float(x[0]) == 2.5
    assert int(x[0]) == 2
    assert bool(x[0] > 2.0)
    assert repr(x) == "Tensor(array([2.5]))"
    assert Tensor([1.0, 2.0]).data.tolist() == [1.0, 2.0]
    assert x in {x: 1}


def test_a_live_tensor_is_not_silently_an_array():
    x = leaf(1.0)
    with pytest.raises(TypeError, match=r"read \.data, or stop_gradient it first"):
        np.asarray(x)
    assert np.asarray(stop_gradient(x)).tolist() == [1.0]
    with pytest.raises(TypeError, match="wanted an array, got a Tensor"):
        Tensor(x)


# --- errors name the operation --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x + np.ones(2), r"add\(a=float64\(3,\), b=float64\(2,\)\)"),
        (lambda x: ops.reshape(x, (2, 2)), r"reshape\(x=float64\(3,\), shape=\(2, 2\)\)"),
        (lambda x: x[7], r"getitem\(x=float64\(3,\), index=7\): .*out of bounds"),
        (lambda x: ops.sum(x, axis=1), r"sum\(x=float64\(3,\), axis=1\)"),
        (lambda x: ops.conv2d(x, x), r"conv2d\(.*wanted images \(..., N, H, W, C\)"),
        (lambda x: ops.top_k_mask(x, 4), r"top_k_mask\(.*k: wanted 0 to 3, got 4"),
        (lambda x: ops.cumsum(x, axis=1), r"cumsum\(.*axis: wanted -1 to 0"),
        (lambda x: ops.roll(x, 1, (0, 0)), r"roll\(x=float64\(3,\), shift=1, axis=\(0, 0\)\)"),
        (lambda x: ops.mean(x[:0]), r"mean\(.*wanted at least one entry"),
        (lambda x: ops.lstm_gates(x, x), r"lstm_gates\(z=float64\(3,\), c=float64\(3,\)\)"),
    ],
)
def test_operation_errors(call, message):
    with pytest.raises(OperationError, match=message):
        call(leaf(1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.squeeze(x, 0), "squeeze: wanted length 1 on axis 0"),
        (lambda x: ops.split(x, 2), "split: wanted a multiple of 2 on axis 0"),
        (lambda x: ops.split(x, [1, 1]), "split: wanted pieces adding up to 3"),
        (lambda x: ops.einsum("ij", x), "wanted explicit subscripts"),
        (lambda x: ops.einsum("i,i->", x), "wanted 2 operands"),
        (lambda x: ops.einsum("ii->i", x), "wanted one letter, used once, per axis"),
        (lambda x: ops.pairwise_distance(x, x, "manhattan"), "wanted a metric of"),
        (lambda x: ops.prod(x[:0]), "prod: wanted at least one entry"),
    ],
)
def test_argument_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(leaf(1.0, 2.0, 3.0))


def test_an_axis_that_does_not_exist():
    with pytest.raises(IndexError, match="axis: wanted -1 to 0 for 1 dimensions, got 2"):
        ops.take(leaf(1.0), np.array([0]), axis=2)


def test_arguments_given_by_name_are_differentiated(rng):
    x, w = Tensor(rng.standard_normal((1, 3, 3, 1))), Tensor(rng.standard_normal((2, 2, 1, 1)))
    by_place = grad(ops.sum(ops.conv2d(x, w)), (x, w))
    by_name = grad(ops.sum(ops.conv2d(x=x, w=w, stride=1)), (x, w))
    mixed = grad(ops.sum(ops.conv2d(x, w=w)), (x, w))
    for a, b, c in zip(by_place, by_name, mixed, strict=True):
        assert a.tolist() == b.tolist() == c.tolist()


@pytest.mark.parametrize("kernels", [True, False])
def test_kernels_take_arguments_by_name(kernels, rng):
    arrays = {
        "query": Tensor(rng.standard_normal((2, 3))),
        "keys": Tensor(rng.standard_normal((4, 3))),
        "values": Tensor(rng.standard_normal((4, 1))),
        "scale": Tensor(np.array(2.0)),
    }
    with backend.use_kernels(kernels):
        for op in (ops.cosine_attention, ops.attention):
            by_place = grad(ops.sum(op(*arrays.values())), arrays)
            by_name = grad(ops.sum(op(**arrays)), arrays)
            for name, g in by_place.items():
                np.testing.assert_allclose(by_name[name], g, rtol=1e-12)


# --- what is no array -----------------------------------------------------------------------------


LIST = [1.0, 2.0]
OTHERS = {
    **{"shape": (2,), "axis": 0, "index": 0, "indices": np.array([0]), "widths": ((0, 0),)},
    **{"shift": 1, "source": 0, "destination": 0, "parts": 1, "low": 0.0, "high": 1.0, "k": 1},
    **{"n": 2, "dtype": np.float64, "stride": 1, "padding": "same", "subscripts": "i->i"},
}


@pytest.mark.parametrize("name", ops.__all__)
def test_a_list_in_an_arrays_place_is_named(name):
    """Where NumPy's function takes it for an array, the answer is the array's."""
    op = getattr(ops, name)
    parameters = inspect.signature(op).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty]

    def call(array):
        return op(*(OTHERS.get(p, array) for p in wanted))

    try:
        got = call(LIST)
    except OperationError as error:
        message = str(error)
    else:
        assert np.array_equal(got, call(np.array(LIST)))
        return
    assert re.match(rf"({op.__name__}|mean)(\(|: )", message)  # var begins with a mean


def test_sums_and_multiples_of_lists_are_not_pythons():
    for call in (lambda: ops.add([1.0], [2.0]), lambda: ops.multiply([1.0], 2)):
        with pytest.raises(OperationError, match="wanted arrays or Tensors, got lists"):
            call()


def test_an_array_with_a_mask_does_not_lose_it():
    masked = np.ma.array([[1.0, 2.0]], mask=[[False, True]])
    with pytest.raises(TypeError, match="wanted plain arrays, got a MaskedArray"):
        Tensor(masked)
    with pytest.raises(TypeError, match="got a MaskedArray"):
        value_and_grad(ops.sum)(masked)
    live = Tensor(np.ones((1, 2)))
    for call in (
        lambda: live * masked,
        lambda: masked * live,
        lambda: ops.where(live > 0, masked, live),
        lambda: ops.pairwise_distance(live, masked),
        lambda: ops.pairwise_distance(masked, masked),
    ):
        with pytest.raises(OperationError, match="got a MaskedArray"):
            call()
    with pytest.raises(TypeError, match="got a matrix"):  # whose product is another one
        Tensor(live.data.view(np.matrix))
    assert Tensor(live.data.view(np.memmap)).shape == (1, 2)


def test_numpys_functions_point_to_ours():
    x = leaf(1.0, 2.0)
    for call in (
        lambda: np.exp(x),
        lambda: np.sum(x),
        lambda: np.add(x, 1.0),
        lambda: np.stack([x, x]),
        lambda: np.linalg.norm(x),
    ):
        with pytest.raises(TypeError, match=r"for np\.exp\(x\) write ops\.exp\(x\)"):
            call()


def test_numpys_methods_point_to_ours():
    x = leaf(1.0, 2.0)
    for name, op in {"sum": "sum", "reshape": "reshape", "T": "transpose", "dot": "matmul"}.items():
        with pytest.raises(AttributeError, match=rf"a Tensor has no '{name}': write ops\.{op}\(x"):
            getattr(x, name)
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'nonsense'"):
        getattr(x, "non" + "sense")
    assert not hasattr(x, "sum")
    assert not hasattr(Tensor, "__getattr__")  # it would slow down x.data


def test_a_mistake_in_a_rule_says_what_to_write():
    """Rules get Tensors when their gradient is to be differentiated."""

    @primitive(lambda g, y, x: g * np.cos(x))
    def sine(x):
        return np.sin(x)

    @primitive(lambda g, y, x: ops.broadcast_to(g, x.shape) * x.sum())
    def half_square(x):
        return 0.5 * x.sum() ** 2

    with pytest.raises(TypeError, match=r"write ops\.exp\(x\)"):
        gradcheck(sine, np.ones(2))
    with pytest.raises(AttributeError, match=r"write ops\.sum\(x"):
        gradcheck(half_square, np.ones(2))


def test_a_node_says_what_it_is():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    assert re.fullmatch(r"Node\(\d+: leaf\)", repr(x.node))
    assert re.fullmatch(r"Node\(\d+: multiply -> float64\(2,\)\)", repr(y.node))
    h, _ = split_in_two(x)
    assert re.fullmatch(r"Node\(\d+: output 0\)", repr(h.node))
    assert "split_in_two -> " in repr(h.node.parents[0])


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [[0, 0], ([0, 0],), np.array([0, 0]), (np.array([0, 0]),)])
def test_an_entry_picked_twice_gets_both_cotangents(index):
    x = leaf(1.0, 2.0, 3.0)
    assert grad(x[index], x, cotangent=np.array([1.0, 10.0])).tolist() == [11.0, 0.0, 0.0]
    g = grad(x[index] * x[index], x, create_graph=True, cotangent=np.array([1.0, 10.0]))
    assert g.data.tolist() == [22.0, 0.0, 0.0]
    assert grad(ops.sum(g), x).tolist() == [22.0, 0.0, 0.0]
    mask = x[np.array([True, False, True])]
    assert grad(mask, x, cotangent=np.array([1.0, 10.0])).tolist() == [1.0, 0.0, 10.0]


def test_every_tensor_of_a_tuple_becomes_a_constant():
    x = leaf(1.0, 2.0)
    for constants in (stop_gradient((x, x * 2.0)), stop_gradient([x, x * 2.0])):
        assert type(constants) in (tuple, list)
        for c in constants:
            assert type(c) is Tensor
            assert c.node is core.DEAD
        assert grad(ops.sum(constants[0] * constants[1] * x), x).tolist() == [2.0, 8.0]


@pytest.mark.parametrize(
    ("x", "y", "g"),
    [
        ([-np.inf, 1.0], 1.0, [0.0, 1.0]),
        ([-np.inf, -np.inf], -np.inf, None),
        ([np.inf, 1.0], np.inf, None),
        ([-1e4, -1e4], -1e4 + np.log(2.0), [0.5, 0.5]),
        ([1e4, 0.0], 1e4, [1.0, 0.0]),
    ],
)
def test_logsumexp_of_infinities(x, y, g):
    """A sum over nothing but zeros is 0, not NaN."""
    x = leaf(*x)
    with np.errstate(divide="ignore"):
        assert float(ops.logsumexp(x)) == pytest.approx(y)
        assert float(ops.logsumexp(x, axis=0, keepdims=True)[0]) == pytest.approx(y)
    if g is not None:
        assert grad(ops.logsumexp(x), x).tolist() == pytest.approx(g)


def test_a_gradient_has_its_inputs_dtype_after_promotion():
    """A float32 input among float64 numbers; with create_graph the gradient is as it was made."""
    x, w = Tensor(np.ones(2, np.float32)), leaf(1.0, 2.0)
    y = ops.sum(x * w * w)
    assert y.dtype == np.float64
    gx, gw = grad(y, (x, w))
    assert (gx.dtype, gw.dtype) == (np.float32, np.float64)
    assert grad(y, x, create_graph=True).dtype == np.float64
    y, pull = vjp(lambda x: x * w, np.ones(2, np.float32))
    assert pull(np.ones(2, np.float32))[0].dtype == np.float32
    assert value_and_grad(lambda x: ops.sum(x * w))(np.ones(2, np.float32))[1].dtype == np.float32


def test_what_differentiates_records_inside_no_grad():
    x = np.array([1.0, 2.0])

    def cubes(x):
        return ops.sum(x * x * x)

    with no_grad():
        value, gradient = value_and_grad(cubes)(x)
        assert (value, gradient.tolist()) == (9.0, [3.0, 12.0])
        assert vjp(cubes, x)[1](1.0)[0].tolist() == [3.0, 12.0]
        assert hvp(cubes, x, np.ones(2)).tolist() == [6.0, 12.0]
        assert not core.is_recording()


# --- the backend ----------------------------------------------------------------------------------


def test_xp_follows_the_first_array():
    assert backend.xp(np.ones(2)) is np
    assert backend.xp(2.0, "text", np.ones(2)) is np
    assert backend.xp() is np


def test_is_array():
    assert backend.is_array(np.ones(2))
    assert backend.is_array(np.float32(1.0))
    assert not backend.is_array(1.0)
    assert not backend.is_array([1.0])
    assert not backend.is_array(leaf(1.0))


def test_switches_nest_and_come_back():
    assert backend.kernels_enabled()
    with backend.use_kernels(False):
        assert not backend.kernels_enabled()
        with backend.use_kernels(True):
            assert backend.kernels_enabled()
        assert not backend.kernels_enabled()
    assert backend.kernels_enabled()
    with pytest.raises(KeyError), backend.use_kernels(False):
        raise KeyError
    assert backend.kernels_enabled()
    with backend.use("numpy"):
        assert backend.current() == "numpy"


def test_unknown_backends_are_named():
    with pytest.raises(backend.BackendError, match="wanted one of numpy, cupy, got 'torch'"):
        backend.use("torch")
    assert backend.current() == "numpy"


def test_cupy_where_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    with pytest.raises(backend.BackendError, match=r"CuPy is not installed.*scratchmeta\[cupy\]"):
        backend.use("cupy")
    assert backend.current() == "numpy"


def test_the_environment_chooses_the_first_backend():
    code = "from scratchmeta import backend; print(backend.current()); backend.asarray([1.0])"
    environment = {**os.environ, "SCRATCHMETA_BACKEND": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "wanted one of numpy, cupy, got 'nonsense'" in done.stderr


def test_asarray_copies_only_when_it_must():
    a = np.ones(2)
    assert backend.asarray(a) is a
    assert backend.asarray(a, np.float32).dtype == np.float32
    assert backend.to_numpy(a) is a
    assert backend.asarray([1, 2]).tolist() == [1, 2]


def test_scatter_add_adds_twice_where_named_twice():
    target = np.zeros(3)
    backend.scatter_add(target, np.array([0, 2, 2]), np.array([1.0, 10.0, 100.0]))
    assert target.tolist() == [1.0, 0.0, 110.0]


def answer(f, *args):
    """What f returns, or the error that it raises, as something that can be compared."""
    try:
        y = f(*args)
    except ValueError as error:
        return str(error)
    return y.tolist(), y.shape, y.strides, y.dtype, y.flags.writeable


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 1), (1, 3), (2, 3), (2, 0)])
@pytest.mark.parametrize("to", [(), (3,), (0,), (2, 3), (2, 0), (4, 2, 3), (-1, 3), (-1,)])
def test_broadcasting_is_numpys(shape, to, order):
    x = np.arange(float(np.prod(shape))).reshape(shape).copy(order)
    assert answer(backend.broadcast_to, x, to) == answer(np.broadcast_to, x, to)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (3, 0), (2, 3, 4), (2, 1, 3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_rows_are_added(shape, dtype, rng):
    x = (10 * rng.standard_normal(shape)).astype(dtype)
    got = backend.add_rows(x)
    assert (got.shape, got.dtype) == (x.sum(axis=-2).shape, x.sum(axis=-2).dtype)
    np.testing.assert_allclose(got, x.sum(axis=-2), rtol=1e-5, atol=1e-5)


# --- trees ----------------------------------------------------------------------------------------


def example_tree():
    return {"b": np.array([1.0]), "a": [np.array([[2.0], [3.0]]), (np.array(4.0),)]}


def test_flatten_and_paths_follow_the_sorted_keys():
    leaves, treedef = tree.flatten(example_tree())
    assert [v.tolist() for v in leaves] == [[[2.0], [3.0]], 4.0, [1.0]]
    assert tree.paths(example_tree()) == ["a/0", "a/1/0", "b"]
    again = tree.unflatten(treedef, leaves)
    assert list(again) == ["b", "a"]  # in the order the dict had
    assert again["a"][1][0] is leaves[1]
    assert type(again["a"][1]) is tuple


def test_unflatten_wants_as_many_leaves():
    _, treedef = tree.flatten(example_tree())
    for wrong in ([1], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=f"wanted 3 leaves, got {len(wrong)}"):
            tree.unflatten(treedef, wrong)


def test_map_over_several_trees_and_named_tuples():
    from scratchmeta.episodes import Episode

    doubled = tree.map(lambda a, b: a + b, Episode(1, 2, 3, 4), Episode(1, 2, 3, 4))
    assert doubled == Episode(2, 4, 6, 8)
    assert tree.map(lambda a, b: (a, b), {"x": 1, "y": 2}, {"y": 20, "x": 10}) == {
        "x": (1, 10),
        "y": (2, 20),
    }
    assert tree.map(abs, -1) == 1


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"a": 1}, {"b": 1}, r"wanted a dict with keys \['a'\], got a dict with keys \['b'\]"),
        ([1, 2], [1], "wanted a list of 2, got a list of 1"),
        ({"a": 1}, [1], "wanted a dict .*, got a list of 1"),
        (1, [1], "wanted a leaf, got a list of 1"),
        ([1], 1, "wanted a list of 1, got a leaf"),
    ],
)
def test_map_names_forms_that_differ(one, other, message):
    with pytest.raises(ValueError, match=message):
        tree.map(lambda a, b: a, one, other)


def test_ravel_and_back():
    vector, unravel = tree.ravel(example_tree())
    assert vector.tolist() == [2.0, 3.0, 4.0, 1.0]
    again = unravel(vector + 1.0)
    assert again["a"][0].tolist() == [[3.0], [4.0]]
    assert again["a"][1][0].shape == ()
    assert again["b"].tolist() == [2.0]


def test_lerp_and_astype():
    a, b = {"w": np.array([0.0, 2.0])}, {"w": np.array([4.0, 4.0])}
    assert tree.lerp(a, b, 0.25)["w"].tolist() == [1.0, 2.5]
    assert tree.astype(a, np.float32)["w"].dtype == np.float32
    assert tree.to_numpy(tree.to_backend(a))["w"].tolist() == [0.0, 2.0]


# --- the house ------------------------------------------------------------------------------------

# From the ground up. A module may import those of lower storeys, and of its own; one that is not
# named here is on top: it may import any, and none below may import it.
STOREYS = [
    ["backend", "fields", "shown"],
    ["tree"],
    ["core"],
    ["ops", "graph"],
    [
        "verify.slopes",
        "verify.pullbacks",
        "verify.plain",
        "verify.aliasing",
        "verify.plain_networks",
    ],
    ["verify.diagnosis"],
    ["verify.gradcheck", "nn", "losses", "optim"],
    ["episodes", "verify.numbers", "verify.examples"],
    ["data", "verify.episodes"],
    ["verify.author_images"],
    ["algorithms"],
    ["analysis", "run.outside", "run.structure"],
    ["run.config", "run.datasets", "run.networks"],
    ["presets"],
    ["verify.cases"],
    ["run.checkpoint", "run.hardware", "run.onnx_graph", "run.options"],
    ["run.progress", "run.saved"],
    ["run.evaluation", "run.export", "run.experiment", "run.elsewhere"],
    ["verify.conformance", "run.recording"],
    ["run.training"],
    ["run.sweeps"],
    ["run.plots"],
    ["run.commands"],
    ["run.cli"],
]
STOREY = {name: k for k, names in enumerate(STOREYS) for name in names}


def unit(module):
    """What a module of scratchmeta, "run.commands.list", belongs to in STOREYS: "run.commands"."""
    parts = module.split(".")
    return next((u for u in (".".join(parts[:2]), parts[0]) if u in STOREY), parts[0])


def imports(file):
    """The units of scratchmeta that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            found = [name.name for name in node.names]
        else:
            continue
        for name in found:
            if name.startswith("scratchmeta.") and name != "scratchmeta.__version__":
                yield unit(name.removeprefix("scratchmeta."))


def test_imports_only_look_down():
    house = Path(core.__file__).parent
    for file in sorted(house.rglob("*.py")):
        own = unit(".".join(file.relative_to(house).with_suffix("").parts))
        for other in imports(file):
            if own in ("__init__", other) or other == "kernels":
                continue
            below = STOREY.get(other, len(STOREYS)) < STOREY.get(own, len(STOREYS) + 1)
            assert below, f"{file.relative_to(house)} imports {other}, which is not below it"


def test_kernels_know_no_autodiff():
    """They take arrays and give arrays; operations import them, not the other way round."""
    kernels = Path(core.__file__).parents[1] / "kernels"
    for file in sorted(kernels.glob("*.py")):
        assert set(imports(file)) <= {"backend", "kernels"}, file.name


@pytest.mark.parametrize("name", ["backend", "core", "graph", "verify.gradcheck", "shown", "tree"])
def test_examples_in_docstrings(name):
    module = importlib.import_module(f"scratchmeta.{name}")
    failed, attempted = doctest.testmod(module, extraglobs={"np": np})
    assert attempted > 0
    assert failed == 0
