"""Differentiable operations, by family; Tensor's operators are set here.

Each works on raw arrays (returning raw arrays) and on Tensors alike. Names are those of the Python
array API where it has one, else NumPy's, else the field's.
"""

from scratchmeta.core import Tensor, raw
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
from scratchmeta.ops.linalg import einsum, matmul
from scratchmeta.ops.reduction import (
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
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

__all__ = [name for name in dir() if not name.startswith("_") and name not in ("Tensor", "raw")]

Tensor.__add__ = add
Tensor.__radd__ = lambda a, b: add(b, a)
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda a, b: subtract(b, a)
Tensor.__mul__ = multiply
Tensor.__rmul__ = lambda a, b: multiply(b, a)
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda a, b: divide(b, a)
Tensor.__pow__ = power
Tensor.__rpow__ = lambda a, b: power(b, a)
Tensor.__matmul__ = matmul
Tensor.__rmatmul__ = lambda a, b: matmul(b, a)
Tensor.__neg__ = negative
Tensor.__abs__ = abs
Tensor.__getitem__ = getitem
Tensor.__lt__ = lambda a, b: raw(a) < raw(b)
Tensor.__le__ = lambda a, b: raw(a) <= raw(b)
Tensor.__gt__ = lambda a, b: raw(a) > raw(b)
Tensor.__ge__ = lambda a, b: raw(a) >= raw(b)
Tensor.__eq__ = lambda a, b: raw(a) == raw(b)
Tensor.__ne__ = lambda a, b: raw(a) != raw(b)
Tensor.__hash__ = object.__hash__
