"""A function, its vector-Jacobian product, and that one's: what `gradcheck` compares with slopes.

All are functions of a list of arrays with a list of arrays as the result, and have names for both:

    order 1   x → f(x)
    order 2   (x, w) → Jᵀw, with J = ∂f/∂x
    order 3   (x, w, u) → Kᵀu, with K = ∂(Jᵀw)/∂(x, w)
"""

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from scratchmeta import backend, core, tree
from scratchmeta.core import Tensor, raw

Array = backend.Array


class Function:
    """f as a function of the list of its float64 arrays, with names for inputs and outputs."""

    order = 1

    def __init__(self, f: Callable, inputs: tuple) -> None:
        self.f = f
        leaves, self.treedef = tree.flatten(inputs)
        self.leaves = [raw(leaf) for leaf in leaves]
        paths = tree.paths(inputs)
        self.live = [
            _is_input(x, where) for x, where in zip(self.leaves, _names(f, paths), strict=True)
        ]
        self.inputs = [n for n, live in zip(_names(f, paths), self.live, strict=True) if live]
        self.points = [x for x, live in zip(self.leaves, self.live, strict=True) if live]
        if not self.points:
            raise TypeError("gradcheck: wanted at least one float64 array to differentiate in")

    def trace(self, xs: Sequence[Tensor]) -> list:
        """f's outputs, connected to the Tensors xs."""
        rest = iter(xs)
        leaves = [next(rest) if live else x for x, live in zip(self.leaves, self.live, strict=True)]
        ys, _ = tree.flatten(self.f(*tree.unflatten(self.treedef, leaves)))
        for y in ys:
            if not backend.is_array(raw(y)):
                raise TypeError(f"gradcheck: wanted f to return Tensors, got {type(y).__name__}")
        return [y for y in ys if raw(y).dtype.kind in "fc"]

    def value(self, points: Sequence[Array]) -> list[Array]:
        """f's outputs, raw."""
        return [raw(y) for y in self.trace([Tensor(p) for p in points])]

    def name_outputs(self, n: int) -> None:
        self.outputs = ["output"] if n == 1 else [f"output {i}" for i in range(n)]

    def pull(self, points, ws, create_graph: bool = False) -> list[Array]:
        """Jᵀw at these points: one array for each of them, raw."""
        xs = [Tensor(p) for p in points]
        return [raw(g) for g in core.pull_back(self.trace(xs), ws, xs, create_graph)]


class Derivative(Function):
    """(x, w) → Jᵀw of the function below: what the next order differentiates."""

    def __init__(self, below: Function, ws: Sequence[Array]) -> None:
        self.below = below
        self.order = below.order + 1
        self.points = [*below.points, *ws]
        self.inputs = below.inputs + [f"cotangent of {name}" for name in below.outputs]

    def name_outputs(self, n: int) -> None:
        self.outputs = [f"gradient of {name}" for name in self.below.inputs]

    def trace(self, zs):
        n = len(self.below.points)
        return core.pull_back(self.below.trace(zs[:n]), zs[n:], zs[:n], create_graph=True)

    def value(self, points):
        n = len(self.below.points)
        return self.below.pull(points[:n], points[n:])


def _is_input(x, name):
    """Whether x is differentiated; integers, numbers and anything else are constants."""
    if not backend.is_array(x) or x.dtype.kind not in "fc":
        return False
    if x.dtype != np.float64:
        raise TypeError(
            f"gradcheck: wanted float64, got {x.dtype} for {name}: differences in {x.dtype} verify "
            "nothing; compare_float32 holds a float32 gradient against the float64 one"
        )
    return True


def _names(f, paths):
    """What to call leaves: input 0 'x' for an array, input 1 'params/conv/w' for one in a tree."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        parameters = []
    names = []
    for path in paths:
        first, _, rest = path.partition("/")
        name = ""
        if (
            int(first) < len(parameters)
            and parameters[int(first)].kind != inspect.Parameter.VAR_POSITIONAL
        ):
            name = parameters[int(first)].name
        name = "/".join(part for part in (name, rest) if part)
        names.append(f"input {first} {name!r}" if name else f"input {first}")
    return names
