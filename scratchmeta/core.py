"""The whole engine: Tensor, Node, primitive and reverse-mode differentiation of any order.

A **Tensor** is a handle: an array and the node that produced it. A **Node** remembers one call of
a primitive: its arguments, its result, and the nodes its arguments came from. A **primitive** is a
plain function on raw arrays with one *rule* per argument, written in the library's own operations:

    @primitive(lambda g, y, a, b: g * b,       # ā = ȳ ∂y/∂a     g is ȳ, the cotangent of y
               lambda g, y, a, b: g * a)       # b̄ = ȳ ∂y/∂b
    def multiply(a, b):
        return a * b

Given raw arrays, `multiply` returns a raw array; given a Tensor it returns a Tensor and records a
node. This is what makes one rule serve every order: the backward pass feeds the rules raw arrays
when only the numbers are wanted (`create_graph=False`), and Tensors, whose operations are recorded
in turn, when the gradient is to be differentiated again.

Gradients are returned values. Nothing is stored on a Tensor, no array that anybody else has is
modified in place, nodes point only to older nodes, so there are no reference cycles and a graph's
memory goes when its last handle goes. Nothing is copied without need either: a gradient may be a
read-only view, or share its memory with another one or with the cotangent that was given.
"""

import functools
import inspect
import reprlib
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from scratchmeta import backend, tree

Array = backend.Array
Shape = tuple[int, ...]
Tree = Any  # an array, or nested dicts, tuples and lists of arrays
Value = Any  # a Tensor, an array or a number; as a result, a Tensor if an argument is one
X = TypeVar("X", bound=Any)  # a Tensor or an array, and the result is the same
P = ParamSpec("P")
R = TypeVar("R")

# Nodes are numbered by creation: every node is newer than its parents.
_next_number = count().__next__
_by_age = attrgetter("number")


class Node:
    """One recorded call: `out = op(*args, **kwargs)`.

    `parents[i]` is the node that args[i] came from, or None where args[i] is a constant.

    A leaf, which a Tensor made from an array gets, has no op. One output of a several-output op
    has no op either, and `slot` says which output of its only parent it is.
    """

    __slots__ = ("args", "kwargs", "number", "op", "out", "parents", "slot")

    def __init__(self, op=None, args=(), kwargs=None, parents=(), out=None, slot=None):
        self.op, self.args, self.kwargs = op, args, kwargs
        self.parents, self.out, self.slot = parents, out, slot
        self.number = _next_number()

    def __repr__(self):
        if self.op is None:
            return f"Node({self.number}: {'leaf' if self.slot is None else f'output {self.slot}'})"
        return f"Node({self.number}: {self.op.__name__} -> {_described(self.out)})"


def _of_data(attribute: str) -> Any:
    return property(attrgetter(f"data.{attribute}"))


class Tensor:
    """An array to differentiate with respect to, or the result of operations on such.

    `data` is the raw NumPy or CuPy array (never copied, never modified); `shape`, `dtype`, `ndim`,
    `size` are the array's. Operators and indexing are the functions of `scratchmeta.ops`;
    comparisons give raw boolean arrays.

    >>> from scratchmeta import Tensor, grad, ops
    >>> x = Tensor(np.array([1.0, 2.0]))
    >>> grad(ops.sum(x * x), x)
    array([2., 4.])
    """

    __slots__ = ("data", "node")
    # Above NumPy's and CuPy's: makes `ndarray * Tensor` ask Tensor.__rmul__. There is no
    # __array_ufunc__, so that np.exp(Tensor) asks __array__, which says what to do.
    __array_priority__ = 1000

    data: Array
    node: Node

    def __init__(self, data: Value, node: Node | None = None) -> None:
        if node is None:
            node = Node()
            if isinstance(data, Tensor):
                raise TypeError("Tensor: wanted an array, got a Tensor")
            data = backend.plain(data) if backend.is_array(data) else backend.asarray(data)
        self.data, self.node = data, node

    shape: Shape = _of_data("shape")
    dtype: Any = _of_data("dtype")
    ndim: int = _of_data("ndim")
    size: int = _of_data("size")

    if TYPE_CHECKING:  # the operators, which scratchmeta.ops puts in

        def __neg__(self) -> "Tensor": ...
        def __abs__(self) -> "Tensor": ...
        def __getitem__(self, index: Any) -> "Tensor": ...
        def astype(self, dtype: Any) -> "Tensor": ...
        def __add__(self, other: Value) -> "Tensor": ...
        def __lt__(self, other: Value) -> Array: ...

        __sub__ = __mul__ = __truediv__ = __pow__ = __matmul__ = __add__
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rpow__ = __rmatmul__ = __add__
        __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __lt__

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.node is not DEAD:
            raise TypeError(
                "a live Tensor does not turn into an array silently: for np.exp(x) write "
                "ops.exp(x), of scratchmeta.ops; for its numbers read .data, or stop_gradient it "
                "first"
            )
        data = backend.xp(self.data).asarray(self.data, dtype)  # NumPy wants no scalars here
        return data.copy() if copy else data


DEAD = Node()  # the node of every Tensor that nothing is recorded from


# --- recording ------------------------------------------------------------------------------------


class _Thread(threading.local):
    recording = True


_thread = _Thread()  # what one thread switches off stays on in the others
_ever_off = False  # until one has, operations need not look: that would be 3 % of a small step


class recording:
    """Switches recording on or off, in this thread, for the length of a with-block."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.before: list[bool] = []

    def __enter__(self) -> None:
        global _ever_off
        _ever_off = _ever_off or not self.on
        self.before.append(_thread.recording)
        _thread.recording = self.on

    def __exit__(self, *exception: object) -> None:
        _thread.recording = self.before.pop()


def no_grad() -> recording:
    """A with-block inside which nothing is recorded: results are Tensors, but constants."""
    return recording(False)


def is_recording() -> bool:
    """Whether operations on live Tensors are being recorded in this thread."""
    return _thread.recording


def stop_gradient(x: Tree) -> Tree:
    """The same values, of an array or a tree of them, as constants: ∂ stop_gradient(x) / ∂x = 0."""
    if type(x) is Tensor:
        return Tensor(x.data, DEAD)
    return tree.map(stop_gradient, x) if isinstance(x, dict | list | tuple) else x


def raw(x: Tensor | Array) -> Array:
    """The array of a Tensor; anything else as it is."""
    return x.data if type(x) is Tensor else x


class OperationError(ValueError):
    """An operation was given arguments that do not fit; the message names it and their shapes."""


def _described(value):
    value = raw(value)
    return f"{value.dtype}{tuple(value.shape)}" if backend.is_array(value) else reprlib.repr(value)


def explain(op: Any, args: Sequence, kwargs: dict, error: Exception) -> OperationError:
    """An OperationError that says which operation, with what, and what was wrong with it."""
    of = getattr(error, "obj", None)
    if isinstance(of, list | tuple | int | float | str):  # which has no such attribute
        error = TypeError(f"wanted arrays or Tensors, got a {type(of).__name__}")
    names = op.names + [op.names[-1] if op.names else ""] * len(args)
    given = [f"{name}={_described(a)}" for name, a in zip(names, args, strict=False)]
    given += [f"{name}={_described(a)}" for name, a in kwargs.items()]
    return OperationError(f"{op.__name__}({', '.join(given)}): {error}")


# Types of constants that are not worth a call of `backend.plain`.
_PLAIN = frozenset((np.ndarray, float, int, tuple, type(None)))


def primitive(
    *rules: Callable | None, joint: Callable | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turns a function on raw arrays into a differentiable operation.

    `rules[i](g, y, *args, **kwargs)` is the cotangent of args[i], given the cotangent g of the
    result y; None marks an argument that is not differentiated. `joint(g, y, *args, **kwargs)`,
    instead, returns the cotangents of all arguments at once. A function that returns a tuple is a
    several-output operation: g is then a list, with None for an output that nothing depends on.
    The operation keeps its rules in the list `op.rules` (or in `op.joint`).

    Raises OperationError where the function itself raises ValueError, TypeError, IndexError or
    AttributeError, and for arrays that are not only arrays (see `backend.plain`).
    """

    def decorate(forward):
        names = [
            name
            for name, p in inspect.signature(forward).parameters.items()
            if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)
        ]

        @functools.wraps(forward)
        def op(*args, **kwargs):
            if kwargs:  # arrays given by name take their places, so that rules find them there
                while len(args) < len(rules) and names[len(args)] in kwargs:
                    args += (kwargs.pop(names[len(args)]),)
            plain, parents = args, None
            try:
                for a in args:
                    if type(a) is Tensor:  # then raw arrays, and the live node each came from
                        plain, parents = [], []
                        for b in args:
                            if type(b) is Tensor:
                                plain.append(b.data)
                                parents.append(None if b.node is DEAD else b.node)
                            else:
                                plain.append(b if type(b) in _PLAIN else backend.plain(b))
                                parents.append(None)
                        break
                out = forward(*plain, **kwargs)
                if parents is None:
                    if type(out) is list:  # what Python makes of a sum or a multiple of lists
                        raise TypeError("wanted arrays or Tensors, got lists")
                    return out
            except OperationError:
                raise
            except (ValueError, TypeError, IndexError, AttributeError) as error:
                raise explain(op, args, kwargs, error) from error
            live = any(parents) and (not _ever_off or _thread.recording)
            node = Node(op, plain, kwargs, parents, out) if live else DEAD
            if type(out) is tuple:
                return tuple(
                    Tensor(o, Node(parents=(node,), slot=i) if live else DEAD)
                    for i, o in enumerate(out)
                )
            return Tensor(out, node)

        op.__name__ = forward.__name__.lstrip("_")  # as messages have it
        op.rules, op.joint, op.names = list(rules), joint, names
        return op

    return decorate


# --- the backward pass ----------------------------------------------------------------------------


def _pull(ys: list[tuple[Node, Any]], xs: list[Node], create_graph: bool) -> dict[Node, Any]:
    """Cotangents of the nodes xs that some y depends on; ys are nodes and their cotangents."""
    targets = set(xs)
    oldest = min(x.number for x in targets)

    # Nodes that some y depends on, leaving out all that are older than every x: they cannot depend
    # on one.
    stack = [y for y, _ in ys]
    reachable = set(stack)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in reachable and parent.number >= oldest:
                reachable.add(parent)
                stack.append(parent)

    # Of these, the ones that depend on some x, oldest first.
    path, wanted = [], set(targets)
    for node in sorted(reachable, key=_by_age):
        if not wanted.isdisjoint(node.parents):
            wanted.add(node)
            path.append(node)

    cotangents: dict[Node, Any] = {}
    for y, g in ys:
        cotangents[y] = cotangents[y] + g if y in cotangents else g

    # Nodes whose cotangent is a sum made here, so that nobody else has it: it is added to in place.
    sums: set[Node] = set()

    # Newest first: when a node's turn comes, everything that depends on it has already had its say.
    for node in reversed(path):
        g = cotangents.get(node) if node in targets else cotangents.pop(node, None)
        if g is None:
            continue
        op, parents, args, out = node.op, node.parents, node.args, node.out
        if op is None:  # one of several outputs, whose op wants all their cotangents
            (source,) = parents
            cotangents.setdefault(source, [None] * len(source.out))[node.slot] = g
            continue
        if create_graph:
            args = list(args)
            for i, parent in enumerate(parents):
                if parent is not None:
                    args[i] = Tensor(args[i], parent)
            out = Tensor(out, node) if type(out) is not tuple else out
        rules, kwargs = op.rules, node.kwargs
        together = op.joint and op.joint(g, out, *args, **kwargs)
        for i, parent in enumerate(parents):
            if parent in wanted:
                gx = together[i] if together else rules[i] and rules[i](g, out, *args, **kwargs)
                if gx is None:
                    continue
                if parent not in cotangents:
                    cotangents[parent] = gx
                elif parent in sums:
                    cotangents[parent] += gx
                else:
                    cotangents[parent] = cotangents[parent] + gx
                    sums.add(parent)
    return cotangents


def pull_back(ys: Sequence, gs: Sequence, xs: Sequence[Tensor], create_graph: bool) -> list:
    """Σ ȳ ∂y/∂x over the ys, for every x; zeros for an x that no y depends on.

    Raises ValueError where a cotangent has not its y's shape.
    """
    roots = []
    for y, g in zip(ys, gs, strict=True):
        if type(y) is Tensor and y.node is not DEAD:
            roots.append((y.node, _cotangent(g, y, create_graph)))
    found = {}
    if roots and xs:
        nodes = [x.node for x in xs]
        if create_graph and not _thread.recording:
            with recording(True):
                found = _pull(roots, nodes, create_graph)
        else:
            found = _pull(roots, nodes, create_graph)

    def finish(x):
        g = found.get(x.node)
        if g is None:
            g = backend.xp(x.data).zeros_like(x.data)
            return Tensor(g, DEAD) if create_graph else g
        if create_graph or (type(g) is type(x.data) and g.dtype == x.data.dtype):
            return g
        # NumPy turns 0-d results into scalars; a gradient is an array of its input's dtype
        # whatever happened on the way.
        return backend.xp(x.data).asarray(g, dtype=x.dtype)

    return [finish(x) for x in xs]


def _cotangent(g: Any, y: Tensor, create_graph: bool) -> Any:
    """g with the dtype of y, whose cotangent it is to be; a Tensor if it is to be recorded."""
    if type(g) is not Tensor and not backend.is_array(g):
        g = backend.xp(y.data).asarray(g)
    if g.shape != y.data.shape:
        raise ValueError(f"wanted a cotangent of y's shape {y.shape}, got {g.shape}")
    if g.dtype != y.data.dtype:
        g = g.astype(y.data.dtype)
    if not create_graph:
        return raw(g)
    return g if type(g) is Tensor else Tensor(g, DEAD)


def _live_leaves(name: str, xs: Tree) -> tuple[list[Tensor], Any]:
    leaves, treedef = tree.flatten(xs)
    for i, leaf in enumerate(leaves):
        live = type(leaf) is Tensor and leaf.node is not DEAD
        if not live or leaf.data.dtype.kind not in "fc":
            kind = type(leaf).__name__
            if type(leaf) is Tensor:
                kind = f"one of {leaf.dtype} numbers" if live else "a constant Tensor"
            path = tree.paths(xs)[i]
            at = f" at {path!r}" if path else ""
            raise TypeError(
                f"{name}: wanted live floating-point Tensors to differentiate with respect to, "
                f"got {kind}{at}"
            )
    return leaves, treedef


def grad(y: Tensor, xs: Tree, create_graph: bool = False, cotangent: Value | None = None) -> Tree:
    """∂y/∂x for every Tensor x in the tree xs, as a tree of the same form.

    y is a scalar (0-d) Tensor; or one of any shape with a `cotangent` ȳ, an array of that shape or
    one number for all entries, and then it is the gradient of Σ ȳ y. The gradients are raw arrays
    with their x's shape and dtype; with `create_graph` they are Tensors that can be differentiated
    again, in the dtype that the operations gave. An x that y does not depend on gets zeros.

    Raises ValueError when y is not a scalar and has no cotangent, or one of another shape, or was
    computed while nothing was recorded, TypeError when a leaf of xs is not a live Tensor of
    floating-point numbers.
    """
    leaves, treedef = _live_leaves("grad", xs)
    value = raw(y)
    if not _thread.recording and (type(y) is not Tensor or y.node is DEAD):
        raise ValueError("grad: y is a constant, computed while nothing was recorded (no_grad)")
    shape = getattr(value, "shape", ())
    if cotangent is None:
        if shape:
            raise ValueError(f"grad: wanted a scalar y or a cotangent, got shape {shape}")
        cotangent = 1.0
    g: Any = cotangent
    if type(g) is not Tensor and not getattr(g, "ndim", 0):
        g = backend.xp(value).full(shape, g, getattr(value, "dtype", None))
    elif g.shape != shape:
        raise ValueError(f"grad: wanted a cotangent of y's shape {shape}, got {g.shape}")
    return tree.unflatten(treedef, pull_back([y], [g], leaves, create_graph))


def value_and_grad(
    f: Callable, cotangent: Value | None = None
) -> Callable[..., tuple[Array, Tree]]:
    """A function returning f(params, *args) and its gradient in the tree params, as raw arrays;
    see `grad`."""

    def value_and_gradient(params: Tree, *args: Any, **kwargs: Any) -> tuple[Array, Tree]:
        with recording(True):
            live = tree.map(lambda p: p if type(p) is Tensor else Tensor(p), params)
            y = f(live, *args, **kwargs)
        return raw(y), grad(y, live, cotangent=cotangent)

    return value_and_gradient


def vjp(f: Callable, *xs: Array) -> tuple[Array | tuple, Callable]:
    """f(*xs), raw, and the function g -> gᵀ ∂f/∂x for every x, raw: the vector-Jacobian product.

    Each x is an array or a tree of arrays, f returns a Tensor or a tuple of them, and g has the
    result's form.
    """
    with recording(True):
        live = tree.map(lambda x: x if type(x) is Tensor else Tensor(x), xs)
        y = f(*live)
    leaves, treedef = _live_leaves("vjp", live)
    several = isinstance(y, tuple)

    def pull(g):
        ys, gs = (y, g) if several else ((y,), (g,))
        return tree.unflatten(treedef, pull_back(ys, gs, leaves, create_graph=False))

    return (tuple(map(raw, y)) if several else raw(y)), pull


def hvp(f: Callable, x: Tree, v: Tree) -> Tree:
    """The Hessian-vector product ∇²f(x) v of a scalar function f of a tree of arrays.

    Reverse over reverse: ∇ₓ⟨∇f(x), v⟩ with v held constant (Pearlmutter 1994 has the forward form).
    """
    with recording(True):
        live = tree.map(lambda p: p if type(p) is Tensor else Tensor(p), x)
        gradient = grad(f(live), live, create_graph=True)
    leaves, treedef = _live_leaves("hvp", live)
    return tree.unflatten(
        treedef,
        pull_back(tree.flatten(gradient)[0], tree.flatten(v)[0], leaves, create_graph=False),
    )
