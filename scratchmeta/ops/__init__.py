"""Differentiable operations, by family; Tensor's operators are set here.

Each works on raw arrays (returning raw arrays) and on Tensors alike. Names are those of the Python
array API where it has one, else NumPy's, else the field's.
"""

from typing import Any

from scratchmeta.core import Tensor, raw
from scratchmeta.ops.accelerated import (
    attention,
    cosine_attention,
    lstm_cell,
    lstm_gates,
    norm_relu_pool,
    pairwise_distance,
)
from scratchmeta.ops.composite import composite
from scratchmeta.ops.conv import (
    avg_pool2d,
    conv2d,
    conv2d_input,
    conv2d_weight,
    max_pool2d,
)
from scratchmeta.ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    cos,
    divide,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    subtract,
    tanh,
    where,
)
from scratchmeta.ops.linalg import einsum, matmul, project, solve
from scratchmeta.ops.reduction import (
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    mean_square,
    min,
    norm,
    one_hot,
    prod,
    softmax,
    sum,
    top_k_mask,
    var,
)
from scratchmeta.ops.shape import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    getitem,
    matrix_transpose,
    moveaxis,
    pad,
    reshape,
    roll,
    scatter_add,
    split,
    squeeze,
    stack,
    sum_to,
    take,
    take_along_axis,
    transpose,
)

# The array API's names for three of these.
pow, permute_dims, cumulative_sum = power, transpose, cumsum

__all__ = [
    "abs",
    "add",
    "astype",
    "attention",
    "avg_pool2d",
    "broadcast_to",
    "clip",
    "concat",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "cos",
    "cosine_attention",
    "cumsum",
    "cumulative_sum",
    "divide",
    "einsum",
    "exp",
    "expand_dims",
    "flip",
    "getitem",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "lstm_cell",
    "lstm_gates",
    "matmul",
    "matrix_transpose",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "mean_square",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "norm",
    "norm_relu_pool",
    "one_hot",
    "pad",
    "pairwise_distance",
    "permute_dims",
    "pow",
    "power",
    "prod",
    "project",
    "relu",
    "reshape",
    "roll",
    "scatter_add",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "solve",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "sum_to",
    "take",
    "take_along_axis",
    "tanh",
    "top_k_mask",
    "transpose",
    "var",
    "where",
]

for _name in __all__:
    if not hasattr(_op := globals()[_name], "rules"):  # no primitive
        globals()[_name] = composite(_op)

# NumPy's attributes for which an operation has another name
_SPELLED = {"T": "transpose", "mT": "matrix_transpose", "dot": "matmul", "swapaxes": "moveaxis"}


def _instead(name):
    """What x.sum or x.T leads to: the error says what to write. As a property for each name, since
    a class with __getattr__ is slower in all it has."""

    def refuse(x):
        op = _SPELLED.get(name, name)
        hint = f"write ops.{op}(x, ...), of scratchmeta.ops"
        raise AttributeError(f"a Tensor has no {name!r}: {hint}", name=name)

    return property(refuse)


for _name in (*__all__, *_SPELLED):
    if _name != "astype":
        setattr(Tensor, _name, _instead(_name))
for _name, _operation in {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "truediv": divide,
    "pow": power,
    "matmul": matmul,
}.items():
    setattr(Tensor, f"__{_name}__", _operation)
    setattr(Tensor, f"__r{_name}__", lambda a, b, f=_operation: f(b, a))
_others: dict[str, Any] = {
    "__neg__": negative,
    "__abs__": abs,
    "__getitem__": getitem,
    "astype": astype,
    "__lt__": lambda a, b: raw(a) < raw(b),
    "__le__": lambda a, b: raw(a) <= raw(b),
    "__gt__": lambda a, b: raw(a) > raw(b),
    "__ge__": lambda a, b: raw(a) >= raw(b),
    "__eq__": lambda a, b: raw(a) == raw(b),
    "__ne__": lambda a, b: raw(a) != raw(b),
    "__hash__": object.__hash__,
}
for _name, _operation in _others.items():
    setattr(Tensor, _name, _operation)
