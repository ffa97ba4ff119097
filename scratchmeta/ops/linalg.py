"""Products, matmul over stacks of matrices and einsum, and the solution of linear systems."""

import builtins
import math
import string

from scratchmeta import backend
from scratchmeta.backend import xp
from scratchmeta.core import Value, primitive
from scratchmeta.ops.reduction import sum
from scratchmeta.ops.shape import (
    broadcast_to,
    expand_dims,
    like,
    matrix_transpose,
    reshape,
    squeeze,
)


def _rows(a):
    """A stack of matrices as one matrix, of all their rows."""
    return reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))


def _of_right(a, g, b):
    """aᵀ g, the cotangent of b in y = a b; of one b for a whole stack, one product of all its
    rows and not a sum of many."""
    if b.ndim == 2 and a.ndim > 2:
        a, g = _rows(a), _rows(g)
    return like(transposed_times(a, g), b)


def _product(a, b):
    if a.shape[-1] == 1 == b.shape[-2]:  # columns times rows: there is nothing to sum
        return a * b
    if b.ndim == 2 and a.ndim > 2:  # one b for the whole stack: all its rows at once
        return (_rows(a) @ b).reshape(*a.shape[:-1], b.shape[-1])
    return a @ b


# Three products that are each other's rules: a b, a bᵀ and aᵀ b.


@primitive(
    lambda g, y, a, b: like(times_transposed(g, b), a),
    lambda g, y, a, b: _of_right(a, g, b),
)
def _matmul(a, b):
    return _product(a, b)


@primitive(
    lambda g, y, a, b: like(_matmul(g, b), a),
    lambda g, y, a, b: _of_right(g, a, b),
)
def times_transposed(a: Value, b: Value) -> Value:
    """a bᵀ, for matrices (n, k) and (m, k), or stacks of them."""
    return _product(a, b.swapaxes(-1, -2))


@primitive(
    lambda g, y, a, b: like(times_transposed(b, g), a),
    lambda g, y, a, b: like(_matmul(a, g), b),
)
def transposed_times(a: Value, b: Value) -> Value:
    """aᵀ b, for matrices (k, n) and (k, m), or stacks of them."""
    return _product(a.swapaxes(-1, -2), b)


def matmul(a: Value, b: Value) -> Value:
    """The product a b of matrices (n, k) and (k, m), or of stacks (..., n, k) and (..., k, m).

    Leading axes broadcast. A vector counts as a row on the left, as a column on the right, and its
    axis of length 1 is dropped from the result.
    """
    if a.ndim > 1 and b.ndim > 1:
        return _matmul(a, b)
    rows = expand_dims(a, 0) if a.ndim == 1 else a
    columns = expand_dims(b, 1) if b.ndim == 1 else b
    y = _matmul(rows, columns)
    y = squeeze(y, -2) if a.ndim == 1 else y
    return squeeze(y, -1) if b.ndim == 1 else y


@primitive(
    lambda g, y, x, w, b: like(times_transposed(g, w), x),
    lambda g, y, x, w, b: _of_right(x, g, w),
    lambda g, y, x, w, b: like(sum(g, -2), b),
)
def _affine(x, w, b):
    y, b = _product(x, w), b[..., None, :]
    if y.dtype != b.dtype:
        return y + b
    y += b
    return y


def project(x: Value, w: Value, b: Value = None) -> Value:
    """x w + b for rows x (..., n, k); each leading index of w (..., k, m) and b (..., m) has its
    own rows.

    w's and b's leading axes are those that x begins with; axes of x between them and the last are
    rows. Without b it is x w. Raises ValueError where x does not begin so.
    """
    stacks = x.ndim > 1 and (w.ndim == 2 or x.ndim == w.ndim)
    if not stacks and x.shape[: w.ndim - 2] != w.shape[:-2]:
        raise ValueError(
            f"project: wanted x to begin with w's leading axes {w.shape[:-2]}, got {x.shape}"
        )
    rows = x if stacks else reshape(x, (*w.shape[:-2], -1, x.shape[-1]))
    y = matmul(rows, w) if b is None else _affine(rows, w, b)
    return y if stacks else reshape(y, (*x.shape[:-1], w.shape[-1]))


# --- linear systems -------------------------------------------------------------------------------


def _solve_rules(g, x, a, b):
    """a dx = db − da x, hence b̄ = a⁻ᵀ x̄ and ā = −b̄ xᵀ."""
    gb = _solve(matrix_transpose(a), g)
    return [like(-times_transposed(gb, x), a), like(gb, b)]


@primitive(joint=_solve_rules)
def _solve(a, b):
    return backend.solve(a, b)


def solve(a: Value, b: Value) -> Value:
    """x with a x = b, for matrices (n, n) and (n, k), or stacks (..., n, n) and (..., n, k).

    Leading axes broadcast. A vector b counts as a column, and its axis of length 1 is dropped from
    the result. A matrix without an inverse raises OperationError on NumPy, and gives numbers that
    are not finite on CuPy.
    """
    if b.ndim > 1:
        return _solve(a, b)
    return squeeze(_solve(a, expand_dims(b, 1)), -1)


# --- einsum -------------------------------------------------------------------------------------


def _spell_out(subscripts, operands):
    """The index letters of every operand and of the result, with ... replaced by letters."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if not arrow:
        raise ValueError(f"einsum: wanted explicit subscripts 'inputs->output', got {subscripts!r}")
    if len(inputs) != len(operands):
        raise ValueError(
            f"einsum: wanted {len(inputs)} operands for {subscripts!r}, got {len(operands)}"
        )
    free = [c for c in string.ascii_letters if c not in subscripts]
    n_leading = max(
        (x.ndim - len(s) + 3 for s, x in zip(inputs, operands, strict=True) if "..." in s),
        default=0,
    )
    leading = "".join(free[:n_leading])
    spelled = []
    for s, x in zip(inputs, operands, strict=True):
        n = x.ndim - len(s) + 3
        s = s.replace("...", leading[n_leading - n :]) if "..." in s else s
        if len(s) != x.ndim or len(set(s)) != len(s):
            raise ValueError(
                f"einsum: wanted one letter, used once, per axis of shape {x.shape}, got {s!r}"
            )
        spelled.append(s)
    return spelled, output.replace("...", leading)


def _einsum_rules(g, y, *operands, inputs, output):
    """x̄ᵢ is the einsum of ȳ with all other operands, down to the letters of xᵢ."""
    cotangents = []
    for i, (s, x) in enumerate(zip(inputs, operands, strict=True)):
        others = [o for j, o in enumerate(operands) if j != i]
        names = [output, *(t for j, t in enumerate(inputs) if j != i)]
        known = "".join(c for c in s if any(c in t for t in names))
        gx = _einsum(g, *others, inputs=names, output=known)
        # A letter that only xᵢ had was summed over: every entry along it gets the same cotangent.
        # One that has length 1 in all others but not in xᵢ likewise.
        length = dict(zip(known, gx.shape, strict=True))
        gx = reshape(gx, tuple(length.get(c, 1) for c in s))
        wide = tuple(map(builtins.max, gx.shape, x.shape))
        cotangents.append(like(broadcast_to(gx, wide), x))
    return cotangents


@primitive(joint=_einsum_rules)
def _einsum(*operands, inputs, output):
    return xp(*operands).einsum(f"{','.join(inputs)}->{output}", *operands, optimize=True)


def einsum(subscripts: str, *operands: Value) -> Value:
    """A sum of products over named indices, for example "tnd,tmd->tnm".

    Subscripts are explicit (with "->"); "..." stands for leading axes that broadcast; a letter
    occurs once per operand. Raises ValueError for anything else.
    """
    inputs, output = _spell_out(subscripts, operands)
    return _einsum(*operands, inputs=inputs, output=output)
