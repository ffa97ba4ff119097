"""The sweep over the table of cases: values, gradients, layouts, dtypes, shapes, kernels."""

import gc
import importlib
import inspect
import pkgutil

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import ORACLES
from small import INSTANCES

from scratchmeta import backend, core, losses, nn, ops, optim, tree
from scratchmeta.core import Tensor
from scratchmeta.ops.linalg import project
from scratchmeta.presets import REGISTRY
from scratchmeta.verify import cases, numbers
from scratchmeta.verify.cases import CASES, UnknownCase
from scratchmeta.verify.examples import call
from scratchmeta.verify.gradcheck import GradientError, compare_float32, gradcheck

ALL = list(CASES)
WITH_VALUES = [c.name for c in CASES.values() if c.kind != "algorithm"]


# --- the table is complete ------------------------------------------------------------------------


def primitives():
    """Every operation of the engine that scratchmeta.ops defines, private ones too."""
    found = {}
    package = importlib.import_module("scratchmeta.ops")
    for module in pkgutil.iter_modules(package.__path__, "scratchmeta.ops."):
        for value in vars(importlib.import_module(module.name)).values():
            if hasattr(value, "rules"):
                found[value] = value.__name__.strip("_")
    return found


def operations_used(example):
    """The primitives that differentiating the example to its order calls, by the graph's nodes."""
    used = set()

    def note(node):
        seen, stack = {node}, [node]
        while stack:
            node = stack.pop()
            if node.op is not None:
                used.add(node.op)
            new = {p for p in node.parents if p is not None} - seen
            seen |= new
            stack += new

    for y in tree.flatten(example(*live(example.inputs)))[0]:
        if isinstance(y, Tensor):
            note(y.node)
    return used


def live(inputs):
    """The inputs with Tensors in the place of floating-point arrays."""
    return tree.map(lambda x: Tensor(x) if is_float(x) else x, inputs)


def is_float(x):
    return backend.is_array(x) and x.dtype.kind == "f"


def test_every_primitive_has_a_row_that_uses_it():
    for primitive, name in primitives().items():
        assert name in CASES, f"no row for the primitive {name}"
        used = set().union(*(operations_used(e) for e in CASES[name].inputs()))
        constant = not any(primitive.rules) and primitive.joint is None
        assert primitive in used or constant, f"row {name} does not use {primitive}"


def test_every_public_operation_has_a_row():
    aliases = {"pow": "power", "permute_dims": "transpose", "cumulative_sum": "cumsum"}
    for alias, name in aliases.items():
        assert getattr(ops, alias) is getattr(ops, name)
    missing = {n for n in ops.__all__ if callable(getattr(ops, n))} - set(aliases) - set(CASES)
    assert not missing


def test_every_layer_loss_optimiser_and_algorithm_has_a_row():
    def public(module, wanted):
        own = {
            n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        }
        return {n for n, v in own.items() if wanted(v) and not n.startswith("_")}

    layers = public(
        nn, lambda v: inspect.isclass(v) and "__call__" in vars(v) and v is not nn.Network
    )
    layers |= {"Conv4", "MLP", "embed"}
    optimisers = public(optim, inspect.isclass) | {"global_norm", "clip_by_norm", "clip_by_value"}
    for kind, names in {
        "layer": layers,
        "loss": public(losses, inspect.isfunction),
        "optimiser": optimisers,
        "algorithm": set(REGISTRY),
    }.items():
        assert names, kind
        missing = names - {c.name for c in CASES.values() if c.kind == kind}
        assert not missing, f"no rows for {kind} {missing}"


def test_every_row_with_a_value_has_an_oracle():
    assert set(WITH_VALUES) == set(ORACLES)


# --- the sweep ------------------------------------------------------------------------------------


def close(got, wanted, rtol=1e-10):
    """Whether two trees of arrays are equal to `rtol` of their largest entries."""
    got, wanted = (tree.flatten(t)[0] for t in (got, wanted))
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        a, b = backend.to_numpy(core.raw(a)), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=1.0))


@pytest.mark.parametrize("name", WITH_VALUES)
def test_value(name):
    """On raw arrays and on Tensors: what NumPy, or a loop over scalars, computes."""
    for example in CASES[name].inputs():
        as_layer = CASES[name].kind == "layer" and name != "embed"
        first = (example.function,) if as_layer else ()
        wanted = ORACLES[name](*first, *example.inputs, **example.options)
        close(example(*example.inputs), wanted)
        close(example(*live(example.inputs)), wanted)


@pytest.mark.parametrize("name", ALL)
def test_gradient(name):
    """gradcheck of every example, with as many directions as `scratchmeta check` takes."""
    report = CASES[name].check(seed=0)
    assert report.worst < 1e-7
    assert report.directions > 0


@pytest.mark.parametrize("name", [c.name for c in CASES.values() if c.kind == "kernel"])
def test_gradient_with_kernels_off(name):
    with backend.use_kernels(False):
        assert CASES[name].check(seed=0).kernels is False


def value_and_gradients(example, inputs):
    """Raw results, and the gradients of the floating-point inputs for fixed cotangents."""
    xs = live(inputs)
    ys = [y for y in tree.flatten(example(*xs))[0] if is_float(core.raw(y))]
    rng = np.random.default_rng(0)
    ws = [backend.asarray(rng.standard_normal(y.shape).astype(y.dtype)) for y in ys]
    leaves = [x for x in tree.flatten(xs)[0] if isinstance(x, Tensor)]
    return [core.raw(y) for y in ys], core.pull_back(ys, ws, leaves, create_graph=False)


@pytest.mark.parametrize("name", [c.name for c in CASES.values() if c.kind != "operation"])
def test_kernels_change_nothing(name):
    for example in CASES[name].inputs():
        with backend.use_kernels(True):
            on = value_and_gradients(example, example.inputs)
        with backend.use_kernels(False):
            off = value_and_gradients(example, example.inputs)
        close(on, off, rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_graphs_are_freed_without_the_collector(name):
    """Two orders of differentiation leave no reference cycles for memory to pile up in."""

    def twice(example):
        xs = live(example.inputs)
        ys = tree.flatten(example(*xs))[0]
        leaves = [x for x in tree.flatten(xs)[0] if isinstance(x, Tensor)]
        ws = [backend.xp(core.raw(y)).ones_like(core.raw(y)) for y in ys]
        gs = core.pull_back(ys, ws, leaves, create_graph=True)
        core.pull_back(gs, [g.data for g in gs], leaves, create_graph=False)

    examples = CASES[name].inputs()
    for example in examples:
        twice(example)  # fills caches
    gc.collect(1)
    gc.freeze()  # the test runner's own objects need not be searched
    gc.disable()
    try:
        for example in examples:
            twice(example)
        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("name", ALL)
def test_cupy_computes_the_same(name, cupy):
    """The same numbers as on NumPy, without one array of NumPy's getting in between."""
    for k, example in enumerate(CASES[name].inputs()):
        values, gradients = value_and_gradients(example, example.inputs)
        assert all(isinstance(a, cupy.ndarray) for a in (*values, *gradients))
        with backend.use("numpy"):
            same = CASES[name].inputs()[k]
            wanted = value_and_gradients(same, same.inputs)
        close([values, gradients], wanted)


@pytest.mark.parametrize("name", ["tanh", "power", "getitem", "conv2d", "lstm_cell", "fomaml"])
def test_gradcheck_runs_on_cupy(name, cupy):
    report = CASES[name].check()
    assert report.backend == "cupy"
    assert report.worst < 1e-7


def strided(x):
    """A copy whose entries lie two apart and in reverse order along every axis."""
    if not is_float(x) or x.ndim == 0:
        return x
    room = np.zeros([2 * n + 1 for n in x.shape])
    view = room[tuple(slice(2 * n - 1, None, -2) if n else slice(0, 0) for n in x.shape)]
    view[...] = x
    return view


def column_major(x):
    return np.asfortranarray(x) if is_float(x) and x.ndim else x


@pytest.mark.parametrize("layout", [strided, column_major])
@pytest.mark.parametrize("name", ALL)
def test_layout_does_not_matter(name, layout):
    for example in CASES[name].inputs():
        wanted = value_and_gradients(example, example.inputs)
        close(value_and_gradients(example, tree.map(layout, example.inputs)), wanted, rtol=1e-9)


# Batch-norm over a few numbers loses more digits than one operation does.
LOSSY = {"Conv4": 2e-3, "ConvBlock": 1e-3, "MLP": 1e-3, "embed": 1e-3}


@pytest.mark.parametrize("name", [n for n in WITH_VALUES if n != "astype"])
def test_float32(name):
    """The float32 gradient is near the float64 one, and is float32 all the way."""
    for example in CASES[name].inputs():
        compare_float32(example, *example.inputs, rtol=LOSSY.get(name, 1e-4), name=name)


@pytest.mark.parametrize("name", REGISTRY)
def test_algorithms_in_float32(name, rng):
    algorithm, params, episodes = INSTANCES[name](rng)
    loss, grads = algorithm.meta_gradient(params, episodes)
    narrow = [
        x.astype(np.float32) if is_float(x) else x for x in tree.flatten((params, episodes))[0]
    ]
    narrow = tree.unflatten((params, episodes), narrow)
    loss32, grads32 = algorithm.meta_gradient(*narrow)
    assert loss32.dtype == np.float32
    assert {g.dtype for g in tree.flatten(grads32)[0]} == {np.dtype(np.float32)}
    assert algorithm.predict(*narrow).dtype == np.float32
    close([loss32, grads32], [loss, grads], rtol=1e-4)


def test_dtypes_in_the_middle():
    """astype gives back the dtype that it was given, also where differentiated again."""
    x = Tensor(np.array([1.0, 2.0]))
    y = ops.astype(x, np.float32)
    assert y.dtype == np.float32
    (g,) = core.pull_back([y], [np.ones(2, np.float32)], [x], create_graph=True)
    assert g.dtype == np.float64


ZERO_SIZE = {
    "elementwise": call(ops.exp, np.zeros((0, 3))),
    "broadcast against none": call(ops.multiply, np.zeros((0, 3)), np.ones(3)),
    "broadcast to none": call(ops.add, np.zeros((2, 0)), np.ones((2, 1))),
    "sum of none": call(ops.sum, np.zeros((2, 0)), axis=1),
    "none of the sums": call(ops.mean, np.zeros((0, 3)), axis=1),
    "softmax": call(ops.softmax, np.zeros((0, 3))),
    "logsumexp": call(ops.logsumexp, np.zeros((0, 3)), axis=1),
    "cumsum": call(ops.cumsum, np.zeros((3, 0))),
    "norm": call(ops.norm, np.zeros((0, 3))),
    "matmul of no rows": call(ops.matmul, np.zeros((0, 3)), np.ones((3, 2))),
    "matmul over nothing": call(ops.matmul, np.zeros((2, 0)), np.zeros((0, 3))),
    "matmul of a stack over nothing": call(ops.matmul, np.zeros((2, 3, 0)), np.zeros((0, 4))),
    "matmul of a stack to nothing": call(ops.matmul, np.ones((2, 3, 4)), np.zeros((4, 0))),
    "matmul of no stack": call(ops.matmul, np.zeros((0, 2, 3)), np.ones((3, 2))),
    "project without rows": call(project, np.zeros((2, 0, 3)), np.ones((2, 3, 4))),
    "einsum": call(ops.einsum, "nd,md->nm", np.zeros((0, 3)), np.ones((2, 3))),
    "solve for nothing": call(ops.solve, np.eye(3), np.zeros((3, 0))),
    "solve without unknowns": call(ops.solve, np.zeros((2, 0, 0)), np.zeros((0, 3))),
    "solve of no stack": call(ops.solve, np.zeros((0, 2, 2)), np.ones((2, 3))),
    "concat": call(ops.concat, [np.zeros((0, 3)), np.ones((1, 3))]),
    "split": call(ops.split, np.ones((2, 3)), parts=[3, 0]),
    "getitem": call(ops.getitem, np.ones((2, 3)), index=slice(0, 0)),
    "take": call(ops.take, np.ones((2, 3)), np.zeros(0, int)),
    "pad": call(ops.pad, np.zeros((0, 2)), widths=[(1, 0), (0, 0)]),
    "conv2d without images": call(ops.conv2d, np.zeros((0, 4, 4, 1)), np.ones((3, 3, 1, 2))),
    "conv2d without tasks": call(ops.conv2d, np.zeros((0, 2, 4, 4, 1)), np.ones((0, 3, 3, 1, 2))),
    "max_pool2d": call(ops.max_pool2d, np.zeros((0, 4, 4, 1))),
    "avg_pool2d": call(ops.avg_pool2d, np.zeros((0, 5, 4, 1))),
    "pairwise_distance": call(ops.pairwise_distance, np.zeros((0, 3)), np.ones((2, 3))),
    "cosine_attention": call(
        ops.cosine_attention, np.zeros((0, 3)), np.ones((2, 3)), np.ones((2, 1))
    ),
    "lstm_gates": call(ops.lstm_gates, np.zeros((0, 8)), np.zeros((0, 2))),
    "lstm_gates of no units": call(ops.lstm_gates, np.zeros((3, 0)), np.zeros((3, 0))),
    "distances to nothing": call(ops.pairwise_distance, np.ones((2, 3)), np.zeros((0, 3))),
    "distances without features": call(
        ops.pairwise_distance, np.zeros((2, 0)), np.zeros((3, 0)), "cityblock", np.zeros(0)
    ),
    "conv2d without channels": call(ops.conv2d, np.zeros((2, 4, 4, 0)), np.zeros((3, 3, 0, 4))),
    "conv2d by kernels": call(ops.conv2d, np.zeros((0, 4, 4, 4)), np.ones((3, 3, 4, 4))),
    "norm_relu_pool without tasks": call(
        ops.norm_relu_pool, np.zeros((0, 2, 4, 4, 2)), np.ones((0, 2)), np.ones((0, 2))
    ),
    "norm_relu_pool without channels": call(
        ops.norm_relu_pool, np.zeros((2, 4, 4, 0)), np.zeros(0), np.zeros(0)
    ),
}


@pytest.mark.parametrize("what", ZERO_SIZE)
def test_zero_size(what):
    """Values and gradients of nothing have their shapes, and what is left gets zeros."""
    example = ZERO_SIZE[what]
    assert example.check(what, directions=1).order == 2
    for kernels in (True, False):
        with backend.use_kernels(kernels):
            values, gradients = value_and_gradients(example, example.inputs)
        for g in gradients if not sum(y.size for y in values) else []:
            assert not g.any()


# --- leading axes ---------------------------------------------------------------------------------


def _tasks(*shapes):
    return lambda rng: tuple(numbers.normal(rng, 3, *shape) for shape in shapes)


# op -> inputs for three tasks; the op on all of them at once is the op on each
LEADING = {
    "matmul": (ops.matmul, _tasks((2, 4), (4, 3))),
    "project": (project, _tasks((2, 4), (4, 3), (3,))),
    "einsum": (lambda a, b: ops.einsum("...nd,...md->...nm", a, b), _tasks((2, 4), (3, 4))),
    "solve": (ops.solve, _tasks((3, 3), (3, 2))),
    "conv2d": (ops.conv2d, _tasks((2, 4, 5, 2), (3, 3, 2, 2))),
    "max_pool2d": (ops.max_pool2d, _tasks((2, 4, 5, 2))),
    "avg_pool2d": (ops.avg_pool2d, _tasks((2, 4, 5, 2))),
    "sqeuclidean": (ops.pairwise_distance, _tasks((2, 4), (3, 4))),
    "cityblock": (
        lambda x, y: ops.pairwise_distance(x, y, "cityblock"),
        _tasks((2, 4), (3, 4)),
    ),
    "cosine": (lambda x, y: ops.pairwise_distance(x, y, "cosine"), _tasks((2, 4), (3, 4))),
    "attention": (ops.attention, _tasks((2, 4), (3, 4), (3, 2))),
    "cosine_attention": (ops.cosine_attention, _tasks((2, 4), (3, 4), (3, 2))),
    "lstm_gates": (ops.lstm_gates, _tasks((2, 8), (2, 2))),
    "lstm_cell": (ops.lstm_cell, _tasks((2, 3), (2, 2), (2, 2), (3, 8), (2, 8), (8,))),
    "norm_relu_pool": (ops.norm_relu_pool, _tasks((2, 4, 4, 2), (2,), (2,))),
    "mse": (losses.mse, _tasks((4, 2), (4, 2))),
    "binary_cross_entropy": (losses.binary_cross_entropy, _tasks((4,), (4,))),
}


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("name", LEADING)
def test_a_leading_axis_is_a_loop_over_tasks(name, kernels, rng):
    op, make = LEADING[name]
    inputs = make(rng)
    with backend.use_kernels(kernels):
        values, gradients = value_and_gradients(call(op), inputs)
        draw = np.random.default_rng(0)
        ws = [draw.standard_normal(y.shape) for y in values]
        for t in range(3):
            y, pull = core.vjp(op, *(x[t] for x in inputs))
            several = isinstance(y, tuple)
            close(list(y) if several else [y], [v[t] for v in values])
            own = pull(tuple(w[t] for w in ws) if several else ws[0][t])
            close(list(own), [g[t] for g in gradients])


def test_layers_take_parameters_of_each_task(rng):
    """Shared parameters, and the same ones copied for each task, give the same values."""
    layers = {
        "linear": (nn.Linear(3, 2), (4, 3)),
        "conv": (nn.Conv2d(1, 2), (2, 4, 4, 1)),
        "norm": (nn.BatchNorm(2), (2, 3, 3, 2)),
        "block": (nn.ConvBlock(1, 2), (2, 4, 4, 1)),
        "mlp": (nn.MLP([3, 4, 2], batch_norm=True), (4, 3)),
        "conv4": (nn.Conv4(2, image_size=16, n_out=3), (3, 16, 16, 1)),
        "strided": (nn.Conv4(2, image_size=9, pooling="stride", n_out=3), (3, 9, 9, 1)),
        "lstm": (nn.LSTM(3, 2), (4, 3)),
    }
    for layer, shape in layers.values():
        params = numbers.float64(layer.init(rng), rng)
        copied = tree.map(lambda p: np.broadcast_to(p, (2, *p.shape)), params)
        x = rng.standard_normal((2, *shape))
        close(layer(copied, x), layer(params, x))
        singly = [tree.flatten(layer(params, x[t]))[0] for t in range(2)]
        close(layer(params, x), [np.stack(parts) for parts in zip(*singly, strict=True)])


# --- choices at kinks, as the docstrings state them -----------------------------------------------


def slopes_at(op, *xs):
    """Σ ∂y/∂x for every entry, found with a cotangent that is no number that occurs elsewhere."""
    tensors = [Tensor(np.array(x, float)) for x in xs]
    y = op(*tensors)
    gs = core.pull_back([y], [np.full(y.shape, 0.7)], tensors, create_graph=False)
    return [(g / 0.7).tolist() for g in gs]


def test_slopes_at_kinks_are_the_documented_ones():
    assert slopes_at(ops.relu, [0.0, -0.0]) == [[0.0, 0.0]]
    assert slopes_at(ops.abs, [0.0]) == [[0.0]]
    assert slopes_at(ops.maximum, [1.0, 2.0], [1.0, 0.0]) == [[0.5, 1.0], [0.5, 0.0]]
    assert slopes_at(ops.minimum, [1.0, 2.0], [1.0, 0.0]) == [[0.5, 0.0], [0.5, 1.0]]
    assert slopes_at(lambda x: ops.clip(x, 0.0, 1.0), [0.0, 1.0, 2.0]) == [[1.0, 1.0, 0.0]]
    assert slopes_at(ops.max, [3.0, 3.0, 1.0]) == [[0.5, 0.5, 0.0]]
    assert slopes_at(ops.min, [3.0, 1.0, 1.0]) == [[0.0, 0.5, 0.5]]
    assert slopes_at(ops.norm, [0.0, 0.0]) == [[0.0, 0.0]]
    assert slopes_at(lambda x: x**0, [0.0, 2.0]) == [[0.0, 0.0]]
    assert slopes_at(ops.power, [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]) == [
        [0.0, 0.0, 0.0],
        [0.0, 0.0, pytest.approx(np.log(2.0))],
    ]
    assert slopes_at(ops.power, [-2.0], [2.0]) == [[-4.0], [0.0]]
    assert slopes_at(ops.power, [0.0], [1.0]) == [[1.0], [0.0]]
    assert slopes_at(lambda x: x**0, [np.inf]) == [[0.0]]
    assert core.hvp(ops.norm, np.zeros(2), np.ones(2)).tolist() == [0.0, 0.0]
    assert slopes_at(ops.norm, [1e-200, 0.0]) == [[0.0, 0.0]]
    assert slopes_at(lambda p: (-2.0) ** p, [2.0]) == [[0.0]]
    ties = np.array([[2.0, 2.0], [2.0, 1.0]]).reshape(1, 2, 2, 1)
    assert np.ravel(slopes_at(ops.max_pool2d, ties)).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert ops.top_k_mask(np.array([1.0, 3.0, 3.0, 3.0]), 2).tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("op", "x", "wanted"),
    [
        (ops.sigmoid, [-1e4, 1e4], [0.0, 1.0]),
        (ops.sigmoid, [-30.0, -300.0], [9.357622968839299e-14, 5.148200222412013e-131]),
        (ops.softplus, [-1e4, 1e4], [0.0, 1e4]),
        (ops.logsumexp, [1e4, 1e4], 1e4 + np.log(2.0)),
        (ops.softmax, [1e4, 0.0], [1.0, 0.0]),
        (ops.log_softmax, [1e4, 0.0], [0.0, -1e4]),
        (ops.logsumexp, [-np.inf, 0.0], 0.0),
    ],
)
def test_large_numbers_do_not_overflow(op, x, wanted):
    x = Tensor(np.array(x))
    np.testing.assert_allclose(core.raw(op(x)), wanted, rtol=1e-12, atol=1e-300)
    assert np.isfinite(core.grad(ops.sum(op(x)), x)).all()


@pytest.mark.parametrize("kernels", [True, False])
def test_a_zero_vector_is_like_nothing(kernels):
    """Cosine 0, distance 1, and gradients 0, in float32 as in float64."""
    for dtype in (np.float32, np.float64):
        x = Tensor(np.array([[0.0, 0.0], [3.0, 4.0]], dtype))
        y = Tensor(np.array([[4.0, 3.0], [0.0, 0.0]], dtype))
        with backend.use_kernels(kernels):
            d = ops.pairwise_distance(x, y, "cosine")
            np.testing.assert_allclose(d.data, [[1.0, 1.0], [0.04, 1.0]], rtol=1e-5)
            gx, gy = core.grad(ops.sum(d), (x, y))
            assert np.isfinite(gx).all()
            assert not gx[0].any()
            assert not gy[1].any()
            mixed = ops.cosine_attention(x, y, y)
            np.testing.assert_allclose(mixed.data[0], y.data.mean(axis=0), rtol=1e-5)
            assert not core.grad(ops.sum(mixed), x)[0].any()


@pytest.mark.parametrize("optimiser", [optim.SGD(0.1, 0.9), optim.RMSProp(0.1), optim.Adam(0.1)])
def test_optimisers_at_zero_gradients(optimiser):
    """A parameter that never had a gradient stays, and the step can be differentiated twice."""
    p = Tensor(np.array([1.0, 2.0]))
    params, state = {"w": p}, optimiser.init({"w": p})
    for _ in range(2):
        params, state = optimiser.step(params, {"w": p * np.array([0.0, 1.0])}, state)
    assert float(params["w"][0]) == 1.0
    g = core.grad(ops.sum(params["w"]), p, create_graph=True)
    assert float(g[0]) == 1.0
    assert np.isfinite(core.grad(ops.sum(g), p)).all()


def test_prod_is_exact_where_entries_are_zero():
    """Two zeros: the first derivative is 0, the second is the product of the others."""
    x = Tensor(np.array([0.0, 3.0, 0.0, 5.0]))
    g = core.grad(ops.prod(x), x, create_graph=True)
    assert core.raw(g).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert core.grad(g[0], x).tolist() == [0.0, 0.0, 15.0, 0.0]


@pytest.mark.parametrize("block_bytes", [1, 700, 5000])
def test_convolution_in_blocks(monkeypatch, block_bytes):
    """Columns made for one image, a few images or a few stacks at a time: the same results."""
    from scratchmeta.ops import conv

    names = ("conv2d", "conv2d_input", "conv2d_weight")
    wanted = [value_and_gradients(e, e.inputs) for n in names for e in CASES[n].inputs()]
    monkeypatch.setitem(conv._BLOCK_BYTES, "numpy", block_bytes)
    got = [value_and_gradients(e, e.inputs) for n in names for e in CASES[n].inputs()]
    close(got, wanted)


# --- drawn by hypothesis --------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
LAYOUTS = st.sampled_from([lambda x: x, strided, column_major])
ELEMENTWISE = {
    "exp": numbers.normal,
    "tanh": numbers.normal,
    "sigmoid": numbers.normal,
    "log": numbers.positive,
    "sqrt": numbers.positive,
    "relu": numbers.away_from_zero,
    "abs": numbers.away_from_zero,
    "square": numbers.normal,
    "softplus": numbers.normal,
}


def verify(op, oracle, *inputs, order=2):
    """The oracle's value, and gradcheck."""
    close(op(*inputs), oracle(*inputs))
    gradcheck(op, *inputs, order=order, directions=1)


@given(st.sampled_from(list(ELEMENTWISE)), SHAPES, LAYOUTS, SEEDS)
def test_elementwise(name, shape, layout, seed):
    x = layout(ELEMENTWISE[name](np.random.default_rng(seed), *shape))
    verify(getattr(ops, name), ORACLES[name], x)


@given(
    st.sampled_from(["add", "subtract", "multiply", "divide", "power"]),
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    LAYOUTS,
    SEEDS,
)
def test_broadcasting_is_explicit_tiling(name, shapes, layout, seed):
    """op(a, b) is op of copies made first; a's gradient is the sum of its copies' gradients."""
    rng = np.random.default_rng(seed)
    a, b = (layout(numbers.positive(rng, *shape)) for shape in shapes.input_shapes)
    op = getattr(ops, name)
    verify(op, ORACLES[name], a, b)
    tiled = [np.array(np.broadcast_to(x, shapes.result_shape)) for x in (a, b)]
    value, (ga, gb) = value_and_gradients(call(op), (a, b))
    value_tiled, (ta, tb) = value_and_gradients(call(op), tuple(tiled))
    close(value, value_tiled)
    close([ga, gb], [ORACLES["sum_to"](ta, a.shape), ORACLES["sum_to"](tb, b.shape)])


@st.composite
def arrays_and_axes(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=3))
    axes = draw(st.none() | hnp.valid_tuple_axes(len(shape), min_size=1))
    return shape, axes, draw(st.booleans())


@given(
    st.sampled_from(["sum", "mean", "max", "min", "logsumexp", "var"]),
    arrays_and_axes(),
    LAYOUTS,
    SEEDS,
)
def test_reductions(name, drawn, layout, seed):
    shape, axis, keepdims = drawn
    x = layout(numbers.distinct(np.random.default_rng(seed), *shape))
    settings = {"axis": axis, "keepdims": keepdims}
    verify(lambda x: getattr(ops, name)(x, **settings), lambda x: ORACLES[name](x, **settings), x)


@given(
    st.sampled_from(["softmax", "log_softmax", "cumsum", "prod", "norm"]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4),
    LAYOUTS,
    SEEDS,
    st.data(),
)
def test_along_an_axis(name, shape, layout, seed, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = layout(numbers.away_from_zero(np.random.default_rng(seed), *shape))
    verify(lambda x: getattr(ops, name)(x, axis), lambda x: ORACLES[name](x, axis), x)


@given(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), SEEDS, st.data())
def test_basic_indexing(shape, seed, data):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    x = np.random.default_rng(seed).standard_normal(shape)
    verify(lambda x: ops.getitem(x, index), lambda x: x[index], x)


@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), SEEDS, st.data())
def test_integer_indexing(shape, seed, data):
    """Places may be named twice; they then receive both cotangents."""
    count = data.draw(st.integers(1, len(shape)))
    rng = np.random.default_rng(seed)
    index = tuple(rng.integers(-n, n, size=5) for n in shape[:count])
    verify(lambda x: ops.getitem(x, index), lambda x: x[index], rng.standard_normal(shape))


@given(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3), LAYOUTS, SEEDS, st.data())
def test_moving_numbers(shape, layout, seed, data):
    """transpose, moveaxis, flip, roll, pad and concat: NumPy's values, and gradients."""
    x = layout(np.random.default_rng(seed).standard_normal(shape))
    axes = st.integers(-len(shape), len(shape) - 1)
    axis, to, n = data.draw(axes), data.draw(axes), data.draw(st.integers(-4, 4))
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    widths = data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=len(shape)))
    widths = widths[: len(shape)]
    for op, oracle in (
        (lambda x: ops.transpose(x, order), lambda x: np.transpose(x, order)),
        (lambda x: ops.moveaxis(x, axis, to), lambda x: np.moveaxis(x, axis, to)),
        (lambda x: ops.flip(x, axis), lambda x: np.flip(x, axis)),
        (lambda x: ops.roll(x, n, axis), lambda x: np.roll(x, n, axis)),
        (lambda x: ops.pad(x, widths, 2.0), lambda x: ORACLES["pad"](x, widths, 2.0)),
        (lambda x: ops.concat([x, x], axis), lambda x: np.concatenate([x, x], axis)),
        (lambda x: ops.stack([x, x], axis), lambda x: np.stack([x, x], axis)),
        (lambda x: ops.expand_dims(x, axis), lambda x: np.expand_dims(x, axis)),
    ):
        verify(op, oracle, x, order=1)


@given(
    hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=2, min_side=1, max_side=3
    ),
    LAYOUTS,
    SEEDS,
)
def test_matmul(shapes, layout, seed):
    rng = np.random.default_rng(seed)
    a, b = (layout(rng.standard_normal(shape)) for shape in shapes.input_shapes)
    verify(ops.matmul, np.matmul, a, b)


@given(
    hnp.mutually_broadcastable_shapes(
        signature="(n,n),(n,k)->(n,k)", max_dims=2, min_side=1, max_side=3
    ),
    LAYOUTS,
    SEEDS,
)
def test_solve(shapes, layout, seed):
    """Cramer's rule; and a x = b, with the gradients of its solution."""
    rng = np.random.default_rng(seed)
    a_shape, b_shape = shapes.input_shapes
    a = layout(numbers.invertible(rng, *a_shape[:-2], n=a_shape[-1]))
    b = layout(rng.standard_normal(b_shape))
    verify(ops.solve, ORACLES["solve"], a, b)
    close(a @ ops.solve(a, b), np.broadcast_to(b, shapes.result_shape))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 1)), r"solve\(a=float64\(2, 2\), .*: Singular matrix"),
        (np.ones((2, 3)), np.ones((2, 1)), r"solve\(a=float64\(2, 3\), .*square"),
        (np.eye(3), np.ones((2, 1)), r"solve\(a=float64\(3, 3\), b=float64\(2, 1\)\)"),
        (np.ones((2, 3, 3)), np.ones((4, 3, 1)), r"b=float64\(4, 3, 1\)\): shape mismatch"),
        (np.eye(3), np.ones(2), r"solve\(a=float64\(3, 3\), b=float64\(2, 1\)\)"),
    ],
)
def test_what_solve_cannot_solve(a, b, message):
    with pytest.raises(core.OperationError, match=message):
        ops.solve(a, b)


@st.composite
def convolutions(draw):
    lead = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=1, max_side=2))
    n, c, f = (draw(st.integers(1, 2)) for _ in range(3))
    c, f = draw(
        st.sampled_from([(c, f), (c, 4), (4, 4)])
    )  # some for the plain ops, some for kernels
    kh, kw = (draw(st.integers(1, 3)) for _ in range(2))
    h, w = (draw(st.integers(k, 6)) for k in (kh, kw))
    x_lead, w_lead = lead.input_shapes
    padding = draw(st.sampled_from(["same", "valid", 1]))
    return (*x_lead, n, h, w, c), (*w_lead, kh, kw, c, f), draw(st.integers(1, 3)), padding


@given(convolutions(), st.booleans(), LAYOUTS, SEEDS)
def test_conv2d(drawn, kernels, layout, seed):
    x_shape, w_shape, stride, padding = drawn
    rng = np.random.default_rng(seed)
    x, w = (layout(rng.standard_normal(shape)) for shape in (x_shape, w_shape))
    with backend.use_kernels(kernels):
        verify(
            lambda x, w: ops.conv2d(x, w, stride, padding),
            lambda x, w: ORACLES["conv2d"](x, w, stride, padding),
            x,
            w,
            order=1,
        )


@given(
    st.sampled_from(["max_pool2d", "avg_pool2d"]),
    st.lists(st.integers(1, 2), max_size=2),
    st.tuples(*[st.integers(3, 7)] * 2),
    st.integers(1, 3),
    LAYOUTS,
    SEEDS,
)
def test_pooling(name, lead, sides, size, layout, seed):
    x = layout(numbers.distinct(np.random.default_rng(seed), *lead, 2, *sides, 2))
    verify(lambda x: getattr(ops, name)(x, size), lambda x: ORACLES[name](x, size), x, order=1)


LEADS = st.lists(st.integers(1, 2), max_size=2).map(tuple)
SIDES = st.integers(1, 5)


@given(LEADS, SIDES, SIDES, SIDES, st.booleans(), LAYOUTS, SEEDS)
def test_distances_and_attention(lead, n, m, d, kernels, layout, seed):
    rng = np.random.default_rng(seed)
    x, y = (layout(numbers.away_from_zero(rng, *lead, k, d)) for k in (n, m))
    values = layout(rng.standard_normal((*lead, m, 2)))
    apart = numbers.distinct(rng, *lead, n + m, d)  # no two coordinates equal: |·| has no kink
    with backend.use_kernels(kernels):
        for metric in ("sqeuclidean", "cosine"):
            verify(
                lambda x, y, metric=metric: ops.pairwise_distance(x, y, metric),
                lambda x, y, metric=metric: ORACLES["pairwise_distance"](x, y, metric),
                x,
                y,
            )
        verify(
            lambda x, y, weight: ops.pairwise_distance(x, y, "cityblock", weight),
            lambda x, y, weight: ORACLES["pairwise_distance"](x, y, "cityblock", weight),
            apart[..., :n, :],
            apart[..., n:, :],
            rng.standard_normal(d),
        )
        for name in ("attention", "cosine_attention"):
            verify(getattr(ops, name), ORACLES[name], x, y, values)


@given(LEADS, SIDES, SIDES, st.booleans(), LAYOUTS, SEEDS)
def test_lstm(lead, n, d, kernels, layout, seed):
    rng = np.random.default_rng(seed)
    shapes = ((*lead, d), (*lead, n), (*lead, n), (d, 4 * n), (n, 4 * n), (4 * n,))
    inputs = [layout(rng.standard_normal(shape)) for shape in shapes]
    with backend.use_kernels(kernels):
        verify(ops.lstm_cell, ORACLES["lstm_cell"], *inputs, order=1)
        z = layout(rng.standard_normal((*lead, 4 * n)))
        verify(ops.lstm_gates, ORACLES["lstm_gates"], z, inputs[1])


# --- the table as an interface --------------------------------------------------------------------


def test_select_by_name_kind_and_nothing():
    assert [c.name for c in cases.select(["tanh", "exp", "tanh"])] == ["tanh", "exp"]
    assert {c.kind for c in cases.select(["loss"])} == {"loss"}
    assert [c.name for c in cases.select()] == ALL
    assert {c.kind for c in CASES.values()} == set(cases.KINDS)


def test_unknown_names_get_close_matches():
    with pytest.raises(UnknownCase, match=r"'sofmax': did you mean .*softmax"):
        cases.select(["sofmax"])
    with pytest.raises(UnknownCase, match="kinds: operation, kernel"):
        cases.select(["zzzz"])


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two rows named 'tanh'"):
        cases.row("operation", "tanh")(lambda rng: iter(()))


def test_run_reports_progress_and_aligned_lines():
    seen = []
    results = cases.run(["exp", "sum"], progress=lambda *step: seen.append(step))
    assert [(done, total, r.name) for done, total, r in seen] == [(1, 2, "exp"), (2, 2, "sum")]
    lines = cases.table(results).splitlines()
    assert len(lines) == 4
    assert len(lines[0]) == len(lines[1]) == len(lines[2])
    assert lines[0].split()[:2] == ["order", "directions"]
    assert lines[1].startswith("ok   exp ")
    numbers = lines[1].split()[2:6]
    r = results[0].report
    assert numbers == ["2", str(r.directions), f"{r.worst:.1e}", f"{r.estimate:.1e}"]
    directions = sum(r.report.directions for r in results)
    assert lines[3].startswith(f"2 checked along {directions} directions in ")
    assert lines[3].endswith("all passed")
    row = results[0].as_dict()
    assert row["passed"]
    assert row["order"] == 2
    assert row["worst_relative_error"] == results[0].report.worst


def test_a_wrong_rule_fails_its_row_and_no_other(monkeypatch):
    monkeypatch.setattr(ops.tanh, "rules", [lambda g, y, a: g * (1.0 + y * y)])
    results = cases.run(["tanh", "exp"])
    assert [r.passed for r in results] == [False, True]
    assert "gradient check failed: tanh, order 1" in results[0].error
    assert "inputs: scratchmeta.verify.cases.CASES['tanh'].inputs(0)[0].inputs" in results[0].error
    assert results[0].as_dict()["error"] == results[0].error
    assert cases.summary(results).endswith("1 failed: tanh")
    assert "\nFAIL tanh\ngradient check failed" in cases.table(results)
    with pytest.raises(GradientError):
        CASES["tanh"].check()


def test_rows_do_not_depend_on_one_another():
    """A row draws the same inputs whether it is checked alone or after others, and per seed."""
    first, again, other = (CASES["exp"].inputs(seed)[0].inputs[0] for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
