"""Operations that move numbers without changing them; each comes with its adjoint.

broadcast_to  <-> sum_to          copying is undone by adding
getitem       <-> scatter_add     picking out is undone by putting back into zeros
concat        <-> slicing         pad, flip, roll, transpose and reshape likewise
"""

import builtins
import math
from collections.abc import Sequence
from typing import Any

from scratchmeta import backend
from scratchmeta.backend import xp
from scratchmeta.core import Array, Shape, Value, X, primitive


def _axis(axis, ndim):
    """axis as a number from 0; raises IndexError when there is no such axis."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"axis: wanted {-ndim} to {ndim - 1} for {ndim} dimensions, got {axis}")
    return axis % ndim


# --- copying and adding -------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: sum_to(g, x.shape), None)
def broadcast_to(x: X, shape: Shape) -> X:
    """x copied along new leading axes and along axes of length 1 until it has this shape."""
    return backend.broadcast_to(x, shape)


@primitive(lambda g, y, x, shape: broadcast_to(g, x.shape), None)
def sum_to(x: X, shape: Shape) -> X:
    """x added up over what `broadcast_to` would copy: the adjoint of broadcast_to."""
    extra = x.ndim - len(shape)
    ones = [i for i, n in enumerate(shape) if n == 1 and x.shape[extra + i] != 1]
    if not ones:
        rows = x.reshape(math.prod(x.shape[:extra]), math.prod(shape))
        return backend.add_rows(rows).reshape(shape)
    axes = (*range(extra), *(extra + i for i in ones))
    return x.sum(axis=axes, keepdims=False).reshape(shape)


def like(g: X, x: Value) -> X:
    """The cotangent g of a result summed to the shape of the argument x that broadcasting
    copied."""
    shape = getattr(x, "shape", ())
    return g if g.shape == shape else sum_to(g, shape)


# --- form ---------------------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: reshape(g, x.shape), None)
def reshape(x: X, shape: Shape) -> X:
    """x with the same numbers in the same order in another shape; one length may be -1."""
    return x.reshape(shape)


def _inverse(axes):
    inverse = [0] * len(axes)
    for new, old in enumerate(axes):
        inverse[old] = new
    return tuple(inverse)


@primitive(lambda g, y, x, axes: _transpose(g, _inverse(axes)), None)
def _transpose(x, axes):
    return x.transpose(axes)


def transpose(x: X, axes: Sequence[int] | None = None) -> X:
    """x with its axes in this order; without one, in reverse order."""
    axes = range(x.ndim)[::-1] if axes is None else [_axis(a, x.ndim) for a in axes]
    return _transpose(x, tuple(axes))


def matrix_transpose(x: X) -> X:
    """x with its last two axes exchanged, a stack of matrices (..., n, m) -> (..., m, n)."""
    return _transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def moveaxis(x: X, source: int, destination: int) -> X:
    """x with the axis `source` moved to `destination`."""
    source, destination = _axis(source, x.ndim), _axis(destination, x.ndim)
    axes = [a for a in range(x.ndim) if a != source]
    axes.insert(destination, source)
    return _transpose(x, tuple(axes))


def expand_dims(x: X, axis: int) -> X:
    """x with a new axis of length 1 at this place of the result."""
    axis = _axis(axis, x.ndim + 1)
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def squeeze(x: X, axis: int) -> X:
    """x without this axis, which must have length 1."""
    axis = _axis(axis, x.ndim)
    if x.shape[axis] != 1:
        raise ValueError(f"squeeze: wanted length 1 on axis {axis}, got shape {x.shape}")
    return reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))


# --- picking out and putting back -----------------------------------------------------------------


def _is_basic(index):
    """Whether an index consists of integers, slices, ... and None, and so picks nothing twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts)


@primitive(lambda g, y, x, index: scatter_add(g, index, x.shape), None)
def getitem(x: X, index: Any) -> X:
    """x[index], with NumPy's basic and advanced indexing."""
    return x[index]


@primitive(lambda g, y, x, index, shape: like(getitem(g, index), x), None, None)
def scatter_add(x: X, index: Any, shape: Shape) -> X:
    """Zeros of this shape with x added at `index`: the adjoint of getitem.

    A place that an index of integers names twice gets both numbers.
    """
    out = xp(x).zeros(shape, dtype=x.dtype)
    if _is_basic(index):
        out[index] = x
    else:
        backend.scatter_add(out, index, x)
    return out


def take(x: X, indices: Array, axis: int = 0) -> X:
    """x[..., indices, ...]: the entries at `indices`, an array of integers, along an axis."""
    return getitem(x, (slice(None),) * _axis(axis, x.ndim) + (indices,))


def take_along_axis(x: X, indices: Array, axis: int = -1) -> X:
    """y[i, j] = x[i, indices[i, j]]: entries along an axis, chosen separately at every other
    place."""
    axis = _axis(axis, x.ndim)
    module = xp(indices)
    index = [
        indices
        if a == axis
        else module.arange(n).reshape((1,) * a + (n,) + (1,) * (x.ndim - a - 1))
        for a, n in enumerate(x.shape)
    ]
    return getitem(x, tuple(index))


def split(x: X, parts: int | Sequence[int], axis: int = -1) -> list[X]:
    """x cut along an axis, as a list: into `parts` equal pieces, or into pieces of these
    lengths."""
    axis = _axis(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(parts, int):
        if length % parts:
            raise ValueError(f"split: wanted a multiple of {parts} on axis {axis}, got {x.shape}")
        parts = [length // parts] * parts
    if builtins.sum(parts) != length:
        raise ValueError(f"split: wanted pieces adding up to {length}, got {list(parts)}")
    pieces, start = [], 0
    for n in parts:
        pieces.append(getitem(x, (slice(None),) * axis + (slice(start, start + n),)))
        start += n
    return pieces


# --- joining ------------------------------------------------------------------------------------


def _split_like(g, y, *arrays, axis):
    if axis is None:
        pieces = split(g, [a.size for a in arrays])
        return [reshape(piece, a.shape) for piece, a in zip(pieces, arrays, strict=True)]
    return split(g, [a.shape[axis] for a in arrays], axis)


@primitive(joint=_split_like)
def _concat(*arrays, axis):
    return xp(*arrays).concatenate(arrays, axis=axis)


def concat(arrays: Sequence[Value], axis: int | None = 0) -> Value:
    """The arrays end to end along an existing axis; with axis=None their numbers in one vector."""
    return _concat(*arrays, axis=None if axis is None else _axis(axis, arrays[0].ndim))


def stack(arrays: Sequence[Value], axis: int = 0) -> Value:
    """The arrays, all of one shape, side by side along a new axis."""
    return concat([expand_dims(a, axis) for a in arrays], axis)


# --- borders and order ----------------------------------------------------------------------------


def _inside(x, widths):
    return tuple(slice(low, low + n) for (low, _), n in zip(widths, x.shape, strict=True))


@primitive(lambda g, y, x, widths, value: getitem(g, _inside(x, widths)), None, None)
def _pad(x, widths, value):
    return xp(x).pad(x, widths, constant_values=value)


def pad(x: X, widths: Sequence[tuple[int, int]], value: float = 0.0) -> X:
    """x with `value` around it: widths[i] = (before, after) numbers along axis i."""
    if len(widths) != x.ndim:
        raise ValueError(f"pad: wanted widths for {x.ndim} axes, got {len(widths)}")
    return _pad(x, tuple(tuple(w) for w in widths), value)


@primitive(lambda g, y, x, axis: flip(g, axis), None)
def flip(x: X, axis: int | tuple[int, ...]) -> X:
    """x in reverse order along an axis, or along several."""
    return xp(x).flip(x, axis)


@primitive(lambda g, y, x, shift, axis: roll(g, -shift, axis), None, None)
def roll(x: X, shift: int, axis: int) -> X:
    """x moved by `shift` places along an axis; what leaves at one end enters at the other."""
    return xp(x).roll(x, shift, _axis(axis, x.ndim))
