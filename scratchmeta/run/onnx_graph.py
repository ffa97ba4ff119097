"""A record of operations, written as an ONNX graph.

`OPERATIONS` says of each operation what it is in ONNX, with arguments like the operation's own: the
graph g, the result y (its dtype, and its shape in each record), and then names of results,
constants, and lengths. A function is recorded several times. What its records share is constant; a
length in which they differ depends on how many inputs there are; and whatever else differs came by
a way that is not recorded, so that it is refused and not written as a constant.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from scratchmeta import __version__, tree
from scratchmeta.core import Node, Tensor
from scratchmeta.ops.conv import _geometry

OPSET = 18
FORMAT = 9  # the version of ONNX's files, which runtimes read since 2023
Inputs = dict[str, Tensor]


class Records(NamedTuple):
    """What stands at one place of all records, where it is not the same in all."""

    values: tuple[Any, ...]


class Result(NamedTuple):
    """What is known of an operation's result."""

    dtype: np.dtype
    shapes: list[tuple[int, ...]]  # in each record


def model(name: str, inputs: list[Inputs], outputs: list[Tensor], params: Any) -> onnx.ModelProto:
    """The graph that leads from `inputs` to the output, recorded several times.

    The first record is followed by one for each number of inputs that is free, which is larger by
    one there. Raises ValueError where the records do not agree.
    """
    records = [_record(output) for output in outputs]
    if any([node.op for node in record] != [node.op for node in records[0]] for record in records):
        raise ValueError(
            "export: which operations there are depends on the inputs, or on their number (where "
            "it is that of the support, --k-shot fixes it)"
        )
    for op in (node.op for node in records[0] if node.op is not None):
        if op.__name__ not in OPERATIONS:
            raise ValueError(f"export: the operation {op.__name__} cannot be exported")
    graph = _Graph(inputs, params)
    for nodes in zip(*records, strict=True):
        graph.add(nodes)
    graph.nodes.append(helper.make_node("Identity", [graph.names[outputs[0].node]], [name]))
    described = helper.make_graph(
        graph.nodes,
        "scratchmeta",
        [graph.described(key, [each[key] for each in inputs]) for key in inputs[0]],
        [graph.described(name, outputs)],
        graph.initializers,
    )
    made = helper.make_model(
        described,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="scratchmeta",
        producer_version=__version__,
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def _record(output: Tensor) -> list[Node]:
    """All nodes that led to an output, oldest first."""
    found, stack = {output.node}, [output.node]
    while stack:
        new = {parent for parent in stack.pop().parents if parent is not None} - found
        found |= new
        stack += new
    return sorted(found, key=lambda node: node.number)


class _Graph:
    """A graph under construction: `g("Add", a, b)` appends a node and returns its result's name.

    Arguments are names, or constants to be stored.
    """

    def __init__(self, inputs: list[Inputs], params: Any) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.shapes: dict[str, list[tuple[int, ...]]] = {}  # of each name, in each record
        self._stored: dict[tuple, str] = {}
        paths, leaves = tree.paths(params), tree.flatten(params)[0]
        self._of_params = {id(leaf): path for path, leaf in zip(paths, leaves, strict=True)}
        self.names: dict[Node, Any] = {t.node: key for key, t in inputs[0].items()}
        # the input whose number is larger by one in record 1, 2, ...
        self.free = [
            next(k for k, tensor in inputs[0].items() if len(tensor) < len(each[k]))
            for each in inputs[1:]
        ]
        self._numbers = [len(inputs[0][key]) for key in self.free]
        for key in inputs[0]:
            self.shapes[key] = [each[key].shape for each in inputs]

    def __call__(self, kind: str, *arguments: Any, outputs: int = 1, **attributes: Any) -> Any:
        names = [a if isinstance(a, str) else self.constant(a) for a in arguments]
        results = [f"{kind.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, results, **attributes))
        return results[0] if outputs == 1 else results

    def constant(self, value: Any, path: str = "") -> str:
        """The name of a constant, which is stored once."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = array.shape, array.dtype, hashlib.sha256(array.data).digest()
        if key not in self._stored:
            name = path or f"constant_{len(self._stored)}"
            self._stored[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._stored[key]

    def add(self, nodes: tuple[Node, ...]) -> None:
        """Write one recorded operation."""
        first = nodes[0]
        if first in self.names:
            return
        if first.op is None:
            if first.slot is None:
                raise ValueError("export: a Tensor was made that is none of the inputs")
            self.names[first] = self.names[first.parents[0]][first.slot]
            return
        kind = first.op.__name__
        arguments = [
            self._given(kind, tuple(node.args[i] for node in nodes)) if parent is None
            else self.names[parent]
            for i, parent in enumerate(first.parents)
        ]  # fmt: skip
        options = {
            key: self._given(kind, tuple(node.kwargs[key] for node in nodes))
            for key in first.kwargs
        }
        outs = [node.out if type(node.out) is tuple else (node.out,) for node in nodes]
        y = Result(np.asarray(outs[0][0]).dtype, [np.shape(out[0]) for out in outs])
        if y.dtype == np.float64:
            raise ValueError(f"export: float32 wanted, got {kind} with float64")
        found = OPERATIONS[kind](self, y, *arguments, **options)
        self.names[first] = found
        for i, name in enumerate(found if isinstance(found, list) else [found]):
            self.shapes[name] = [np.shape(out[i]) for out in outs]

    def _given(self, kind: str, values: tuple[Any, ...]) -> Any:
        """An argument that was not recorded: a constant, the name of an array, or Records."""
        array = isinstance(values[0], np.ndarray)
        if _same(values):
            return self._named(values[0]) if array else values[0]
        if kind in LENGTHS:
            return Records(values)
        if array and len({value.ndim for value in values}) == 1:
            shapes = [value.shape for value in values]
            # the same everywhere along the axes whose length is free
            cut = tuple(slice(None if len(set(n)) == 1 else 1) for n in zip(*shapes, strict=True))
            like = [np.broadcast_to(values[0][cut], shape) for shape in shapes]
            if all(map(np.array_equal, values, like)):
                name = self("Expand", self._named(values[0][cut]), self.lengths(shapes))
                self.shapes[name] = shapes
                return name
        raise ValueError(
            f"export: {kind} was given numbers that depend on the inputs but were not recorded; "
            "make them with operations of scratchmeta.ops"
        )

    def _named(self, array: np.ndarray) -> str:
        name = self.constant(array, self._of_params.get(id(array), ""))
        self.shapes[name] = [array.shape] * (1 + len(self.free))
        return name

    def lengths(self, values: Any) -> Any:
        """Integers, of which there is one list or one for each record, as a vector."""
        if not isinstance(values, Records | list):
            return np.array(values, np.int64)
        values = values.values if isinstance(values, Records) else values
        places = [self.length(place) for place in zip(*values, strict=True)]
        if all(not isinstance(place, str) for place in places):
            return np.concatenate(places)
        return self("Concat", *places, axis=0)

    def length(self, values: Any) -> Any:
        """A length as a vector of one number: its first value, or counted from the inputs.

        n = c + Σ k_i N_i, where N_i, the number of the free input i, is one larger in record i.
        """
        first, *others = values
        total = first
        named: list[Any] = []
        for key, other, number in zip(self.free, others, self._numbers, strict=True):
            if other == first:
                continue
            size = self("Shape", key, start=0, end=1)
            factor = other - first
            named.append(size if factor == 1 else self("Mul", size, np.array([factor], np.int64)))
            total -= factor * number
        if not named:
            return np.array([first], np.int64)
        result = named[0]
        for more in (*named[1:], *([np.array([total], np.int64)] if total else [])):
            result = self("Add", result, more)
        return result

    def described(self, name: str, tensors: list[Tensor]) -> Any:
        """The type and shape of an input or output, with the names of free numbers."""
        shape = []
        for values in zip(*(tensor.shape for tensor in tensors), strict=True):
            changed = [
                f"n_{k}" for k, n in zip(self.free, values[1:], strict=True) if n != values[0]
            ]
            shape.append(" + ".join(changed) if changed else int(values[0]))
        kind = helper.np_dtype_to_tensor_dtype(tensors[0].dtype)
        return helper.make_tensor_value_info(name, kind, shape)


def _same(values: tuple[Any, ...]) -> bool:
    """Whether all are equal: arrays, or whatever else arguments are."""
    first = values[0]
    if isinstance(first, np.ndarray):
        return all(v.dtype == first.dtype and np.array_equal(v, first) for v in values)
    if isinstance(first, tuple | list):
        return all(len(v) == len(first) for v in values) and all(
            _same(place) for place in zip(*values, strict=True)
        )
    return all(type(v) is type(first) and v == first for v in values)


# --- what the operations are in ONNX --------------------------------------------------------------


def _each(kind: str) -> Callable:
    """An operation on numbers, one at a time; constants are of the result's type."""

    def write(g, y, *arguments):
        return g(kind, *(a if isinstance(a, str) else np.asarray(a, y.dtype) for a in arguments))

    return write


def _reduced(kind: str) -> Callable:
    def write(g, y, x, axis=None, keepdims=False):
        axes = () if axis is None else (g.lengths(axis if isinstance(axis, tuple) else (axis,)),)
        return g(kind, x, *axes, keepdims=int(keepdims))

    return write


def _where(g, y, condition, a, b):
    condition = condition if isinstance(condition, str) else np.asarray(condition, bool)
    return g(
        "Where", condition, *(v if isinstance(v, str) else np.asarray(v, y.dtype) for v in (a, b))
    )


def _clip(g, y, a, low, high):
    for kind, bound in (("Max", low), ("Min", high)):
        if bound is not None:
            a = _each(kind)(g, y, a, bound)
    return a


def _getitem(g, y, x, index):
    """Slices, numbers, None and ..., and one vector of integers."""
    indices = index.values if isinstance(index, Records) else (index,) * len(g.shapes[x])
    indices = [i if isinstance(i, tuple) else (i,) for i in indices]
    ndim = len(g.shapes[x][0])
    named = sum(part is not None and part is not Ellipsis for part in indices[0])
    axis, squeezed, inserted, place = 0, [], [], 0
    for parts in zip(*indices, strict=True):
        part = parts[0]
        if part is None:
            inserted.append(place)
            place += 1
        elif part is Ellipsis:
            axis, place = axis + ndim - named, place + ndim - named
        elif isinstance(part, slice):
            lengths = [shape[axis] for shape in g.shapes[x]]
            bounds = zip(*(p.indices(n) for p, n in zip(parts, lengths, strict=True)), strict=True)
            start, stop, _ = bounds
            if part.step not in (None, 1):
                raise ValueError("export: getitem with steps cannot be exported")
            if part.start is not None or part.stop is not None:
                x = _sliced(g, x, g.length(start), g.length(stop), axis)
            axis, place = axis + 1, place + 1
        elif isinstance(part, int):
            at = [p % shape[axis] for p, shape in zip(parts, g.shapes[x], strict=True)]
            x = _sliced(g, x, g.length(at), g.length([p + 1 for p in at]), axis)
            squeezed.append(axis)
            axis += 1
        else:
            raise ValueError("export: getitem with an array of indices cannot be exported")
    if squeezed:
        x = g("Squeeze", x, np.array(squeezed, np.int64))
    return g("Unsqueeze", x, np.array(inserted, np.int64)) if inserted else g("Identity", x)


def _sliced(g, x, start, stop, axis):
    shapes = g.shapes[x]
    x = g("Slice", x, start, stop, np.array([axis], np.int64))
    g.shapes[x] = shapes  # as far as the axes to come matter
    return x


def _flip(g, y, x, axis):
    axes = np.atleast_1d(np.array(axis, np.int64))
    last = np.full_like(axes, np.iinfo(np.int64).min)
    return g("Slice", x, np.full_like(axes, -1), last, axes, np.full_like(axes, -1))


def _pad(g, y, x, widths, value):
    before, after = zip(*widths, strict=True)
    return g("Pad", x, np.array(before + after, np.int64), np.asarray(value, y.dtype))


def _affine(g, y, x, w, b):
    return g("Add", g("MatMul", x, w), g("Unsqueeze", b, np.array([-2])))


def _one_hot(g, y, labels, n, dtype="float32"):
    equal = g("Equal", g("Unsqueeze", labels, np.array([-1])), np.arange(n))
    return g("Cast", equal, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _on_maps(g, y, x, kind, *arguments, **attributes):
    """An operation on images, which in ONNX are (N, C, H, W) with one leading axis."""
    height, width, channels = g.shapes[x][0][-3:]
    x = g("Reshape", x, np.array([-1, height, width, channels]))
    x = g(kind, g("Transpose", x, perm=(0, 3, 1, 2)), *arguments, **attributes)
    return g("Reshape", g("Transpose", x, perm=(0, 2, 3, 1)), g.lengths(y.shapes))


def _conv2d(g, y, x, w, stride=1, padding="same"):
    *lead, kh, kw, _, _ = g.shapes[w][0]
    if lead:
        raise ValueError("export: conv2d with filters for each task cannot be exported")
    *_, (rows, columns) = _geometry(*g.shapes[x][0][-3:-1], kh, kw, stride, padding)
    pads = (rows[0], columns[0], rows[1], columns[1])
    w = g("Transpose", w, perm=(3, 2, 0, 1))
    return _on_maps(g, y, x, "Conv", w, strides=(stride, stride), pads=pads)


def _max_pool2d(g, y, x, size=2):
    return _on_maps(g, y, x, "MaxPool", kernel_shape=(size, size), strides=(size, size))


def _norm_relu_pool(g, y, x, scale, offset, size, eps):
    axes = np.array([-4, -3, -2])
    centred = g("Sub", x, g("ReduceMean", x, axes, keepdims=1))
    variance = g("ReduceMean", g("Mul", centred, centred), axes, keepdims=1)
    deviation = g("Sqrt", g("Add", variance, np.float32(eps)))
    scale, offset = (g("Unsqueeze", p, axes) for p in (scale, offset))
    normal = g("Relu", g("Add", g("Mul", centred, g("Div", scale, deviation)), offset))
    g.shapes[normal] = g.shapes[x]
    return [_max_pool2d(g, y, normal, size) if size > 1 else normal]


def _unit(g, x):
    """x / |x| along the last axis, and 0 where |x|² is no normal number."""
    square = g("ReduceSumSquare", x, np.array([-1]), keepdims=1)
    zero = g("Less", square, np.finfo(np.float32).tiny)
    length = g("Sqrt", g("Where", zero, np.float32(1), square))
    unit = g("Where", zero, np.float32(0), g("Div", x, length))
    g.shapes[unit] = g.shapes[x]
    return unit


def _scores(g, x, y):
    """x yᵀ."""
    ndim = len(g.shapes[y][0])
    return g("MatMul", x, g("Transpose", y, perm=(*range(ndim - 2), ndim - 1, ndim - 2)))


def _differences(g, x, y):
    return g("Sub", g("Unsqueeze", x, np.array([-2])), g("Unsqueeze", y, np.array([-3])))


def _sqeuclidean(g, r, x, y):
    return [g("ReduceSumSquare", _differences(g, x, y), np.array([-1]), keepdims=0)]


def _cityblock(g, r, x, y, weight):
    apart = g("Abs", _differences(g, x, y))
    if weight is not None:
        many = len(g.shapes[weight][0]) > 1
        weight = g("Unsqueeze", weight, np.array([-3, -2])) if many else weight
        apart = g("Mul", apart, weight)
    return [g("ReduceSum", apart, np.array([-1]), keepdims=0)]


def _cosine(g, r, x, y):
    return [g("Sub", np.float32(1), _scores(g, _unit(g, x), _unit(g, y)))]


def _attention(g, r, query, keys, values, scale):
    if isinstance(scale, str):
        raise ValueError("export: attention with an array of scales cannot be exported")
    scores = g("Mul", _scores(g, query, keys), np.float32(scale))
    return [g("MatMul", g("Softmax", scores, axis=-1), values)]


def _cosine_attention(g, r, query, keys, values, scale):
    return _attention(g, r, _unit(g, query), _unit(g, keys), values, scale)


def _lstm_gates(g, r, z, c):
    i, f, candidate, o = g("Split", z, outputs=4, axis=-1, num_outputs=4)
    kept = g("Mul", g("Sigmoid", f), c)
    new = g("Add", kept, g("Mul", g("Sigmoid", i), g("Tanh", candidate)))
    return [g("Mul", g("Sigmoid", o), g("Tanh", new)), new]


LENGTHS = {"broadcast_to", "reshape", "getitem"}  # their arguments may depend on those of inputs
OPERATIONS: dict[str, Callable] = {
    "add": _each("Add"),
    "subtract": _each("Sub"),
    "multiply": _each("Mul"),
    "divide": _each("Div"),
    "negative": _each("Neg"),
    "power": _each("Pow"),
    "exp": _each("Exp"),
    "log": _each("Log"),
    "log1p": lambda g, y, a: g("Log", g("Add", a, np.float32(1))),
    "sqrt": _each("Sqrt"),
    "square": lambda g, y, a: g("Mul", a, a),
    "sin": _each("Sin"),
    "cos": _each("Cos"),
    "tanh": _each("Tanh"),
    "sigmoid": _each("Sigmoid"),
    "softplus": _each("Softplus"),
    "relu": _each("Relu"),
    "abs": _each("Abs"),
    "sign": _each("Sign"),
    "maximum": _each("Max"),
    "minimum": _each("Min"),
    "clip": _clip,
    "where": _where,
    "broadcast_to": lambda g, y, x, shape: g("Expand", x, g.lengths(y.shapes)),
    "reshape": lambda g, y, x, shape: g("Reshape", x, g.lengths(y.shapes)),
    "transpose": lambda g, y, x, axes: g("Transpose", x, perm=axes),
    "getitem": _getitem,
    "concat": lambda g, y, *arrays, axis: g("Concat", *arrays, axis=axis),
    "pad": _pad,
    "flip": _flip,
    "sum": _reduced("ReduceSum"),
    "mean": _reduced("ReduceMean"),
    "mean_square": lambda g, y, x, *axis, **options: _reduced("ReduceMean")(
        g, y, g("Mul", x, x), *axis, **options
    ),
    "max": _reduced("ReduceMax"),
    "min": _reduced("ReduceMin"),
    "logsumexp": _reduced("ReduceLogSumExp"),
    "norm": lambda g, y, x, axis=-1, keepdims=False: _reduced("ReduceL2")(g, y, x, axis, keepdims),
    "softmax": lambda g, y, x, axis=-1: g("Softmax", x, axis=axis),
    "log_softmax": lambda g, y, x, axis=-1: g("LogSoftmax", x, axis=axis),
    "cumsum": lambda g, y, x, axis=-1: g("CumSum", x, np.array(axis)),
    "one_hot": _one_hot,
    "matmul": lambda g, y, a, b: g("MatMul", a, b),
    "affine": _affine,
    "einsum": lambda g, y, *operands, inputs, output: g(
        "Einsum", *operands, equation=f"{','.join(inputs)}->{output}"
    ),
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "norm_relu_pool": _norm_relu_pool,
    "sqeuclidean": _sqeuclidean,
    "cityblock": _cityblock,
    "cosine": _cosine,
    "attention": _attention,
    "cosine_attention": _cosine_attention,
    "lstm_gates": _lstm_gates,
}
