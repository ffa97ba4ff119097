"""The LSTM cell: its backward pass, and the backward pass of that.

    z = x w_x + h w_h + b,   z = (z_i, z_f, z_g, z_o)
    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c' = f ⊙ c + i ⊙ g          t = tanh(c')          h' = o ⊙ t

The products are BLAS's; the rest, the gates, is one pass over z. Write di = i (1 − i),
df = f (1 − f), dg = 1 − g², do = o (1 − o) for the slopes of the gates and dt = 1 − t².

Backward, for the cotangents gh of h' and gc of c':

    s = gc + gh o dt                         the cotangent of c' by all ways
    gz_i = s g di        gz_f = s c df       gz_g = s i dg        gz_o = gh t do
    gc_before = s f

Backward of the backward, for the cotangents u_i, u_f, u_g, u_o of gz and v of gc_before:

    k = u_i g di + u_f c df + u_g i dg + v f
    w = gh dt (u_o do − 2 k o t)             the cotangent of c' by t and dt
    ugc = k                                  ugh = u_o t do + k o dt
    uz_i = s di (u_i g (1 − 2i) + u_g dg) + w g di
    uz_f = s df (u_f c (1 − 2f) + v) + w c df
    uz_g = s dg (u_i di − 2 u_g i g) + w i dg
    uz_o = gh do (u_o t (1 − 2o) + k dt)
    uc = s u_f df + w f

Gates are kept as (.., 4H) in the order i, f, g, o. x (B.., N, D), h and c (B.., N, H), w_x (D, 4H),
w_h (H, 4H), b (4H), or these three with leading axes B.. as well, one cell for each element of the
batch. Arrays are all float32 or all float64, of any memory layout. Reference: Hochreiter and
Schmidhuber (1997), with the forget gate of Gers, Schmidhuber and Cummins (2000). The derivation is
in docs/derivations/lstm.md.
"""

import math
from pathlib import Path

import numpy as np

from .compiling import kernel
from .elementary import sigmoid, tanh
from .runtime import CudaSource, dense, module_of
from .threads import run

_OPERATIONS = 16  # for each of the H units of a row: what `run` counts
_THREADS = 256  # in a CUDA block, one for a unit of a row


@kernel
def _gates(start, stop, z, c, h_new, c_new, gates):
    # z (R, 4H), c (R, H) -> h_new, c_new (R, H), gates (R, 4H)
    n = c.shape[1]
    for r in range(start, stop):
        for j in range(2 * n):
            gates[r, j] = sigmoid(z[r, j])
        for j in range(2 * n, 3 * n):
            gates[r, j] = tanh(z[r, j])
        for j in range(3 * n, 4 * n):
            gates[r, j] = sigmoid(z[r, j])
        i, f, g, o = gates[r, :n], gates[r, n : 2 * n], gates[r, 2 * n : 3 * n], gates[r, 3 * n :]
        for j in range(n):
            c_new[r, j] = f[j] * c[r, j] + i[j] * g[j]
        for j in range(n):
            h_new[r, j] = o[j] * tanh(c_new[r, j])


@kernel
def _gates_backward(start, stop, gh, gc, c, c_new, gates, gz, gc_before):
    # gh, gc, c, c_new (R, H), gates (R, 4H) -> gz (R, 4H), gc_before (R, H)
    n, one = c.shape[1], c.dtype.type(1)
    t, s = np.empty(n, c.dtype), np.empty(n, c.dtype)
    for r in range(start, stop):
        i, f, g, o = gates[r, :n], gates[r, n : 2 * n], gates[r, 2 * n : 3 * n], gates[r, 3 * n :]
        gi, gf, gg, go = gz[r, :n], gz[r, n : 2 * n], gz[r, 2 * n : 3 * n], gz[r, 3 * n :]
        # one result a loop, so that the compiler has few arrays to prove apart
        for j in range(n):
            t[j] = tanh(c_new[r, j])
        for j in range(n):
            s[j] = gc[r, j] + gh[r, j] * o[j] * (one - t[j] * t[j])
        for j in range(n):
            gi[j] = s[j] * g[j] * i[j] * (one - i[j])
        for j in range(n):
            gf[j] = s[j] * c[r, j] * f[j] * (one - f[j])
        for j in range(n):
            gg[j] = s[j] * i[j] * (one - g[j] * g[j])
        for j in range(n):
            go[j] = gh[r, j] * t[j] * o[j] * (one - o[j])
        for j in range(n):
            gc_before[r, j] = s[j] * f[j]


@kernel
def _gates_double_backward(start, stop, u, v, gh, gc, c, c_new, gates, ugh, ugc, uz, uc):
    # u (R, 4H), v (R, H), gh, gc, c, c_new (R, H), gates (R, 4H)
    # -> ugh, ugc (R, H), uz (R, 4H), uc (R, H)
    n, one = c.shape[1], c.dtype.type(1)
    two = one + one
    for r in range(start, stop):
        for j in range(n):
            i, f, g, o = gates[r, j], gates[r, n + j], gates[r, 2 * n + j], gates[r, 3 * n + j]
            di, df, dg, do = i * (one - i), f * (one - f), one - g * g, o * (one - o)
            ui, uf, ug, uo = u[r, j], u[r, n + j], u[r, 2 * n + j], u[r, 3 * n + j]
            t = tanh(c_new[r, j])
            dt = one - t * t
            s = gc[r, j] + gh[r, j] * o * dt
            k = ui * g * di + uf * c[r, j] * df + ug * i * dg + v[r, j] * f
            w = gh[r, j] * dt * (uo * do - two * k * o * t)
            ugc[r, j] = k
            ugh[r, j] = uo * t * do + k * o * dt
            uz[r, j] = s * di * (ui * g * (one - two * i) + ug * dg) + w * g * di
            uz[r, n + j] = s * df * (uf * c[r, j] * (one - two * f) + v[r, j]) + w * c[r, j] * df
            uz[r, 2 * n + j] = s * dg * (ui * di - two * ug * i * g) + w * i * dg
            uz[r, 3 * n + j] = gh[r, j] * do * (uo * t * (one - two * o) + k * dt)
            uc[r, j] = s * uf * df + w * f


_cuda = CudaSource(Path(__file__).with_suffix(".cu"))


def _apply(name, compiled, inputs, shapes, c):
    """The new arrays, of these shapes, that a kernel makes of inputs like c (.., H) or (.., 4H)."""
    inputs = dense(name, *inputs)
    outputs = [module_of(c).empty(shape, c.dtype) for shape in shapes]
    rows, n = math.prod(c.shape[:-1]), c.shape[-1]
    if isinstance(c, np.ndarray):
        flat = (a.reshape(rows, a.shape[-1]) for a in (*inputs, *outputs))
        run(compiled, _OPERATIONS * rows * n, rows, *flat)
    elif rows * n:
        blocks = -(-rows * n // _THREADS)
        _cuda(name, c.dtype)((blocks,), (_THREADS,), (*inputs, *outputs, rows, n))
    return outputs


def _check(name, c, wide, narrow):
    """ValueError unless the arrays `wide` are (.., 4H) and the arrays `narrow` (.., H) as c is."""
    quadruple = (*c.shape[:-1], 4 * c.shape[-1])
    if any(a.shape != quadruple for a in wide) or any(a.shape != c.shape for a in narrow):
        got = ", ".join(str(a.shape) for a in (*wide, *narrow))
        raise ValueError(f"{name}: wanted {quadruple} {len(wide)} times, then {c.shape}, got {got}")


def gates(z, c):
    """(h', c', gates): the elementwise part of the cell, z (.., 4H) and c (.., H).

    gates (.., 4H) are i, f, g, o, which the backward passes need.
    """
    if not c.ndim or z.shape != (*c.shape[:-1], 4 * c.shape[-1]):
        raise ValueError(f"gates: wanted z (.., 4H) and c (.., H), got {z.shape} and {c.shape}")
    return _apply("gates", _gates, (z, c), (c.shape, c.shape, z.shape), c)


def gates_backward(gh, gc, c, c_new, gates):
    """(gz, gc_before) for the cotangents gh of h' and gc of c'."""
    _check("gates_backward", c, [gates], [gh, gc, c_new])
    inputs = gh, gc, c, c_new, gates
    return _apply("gates_backward", _gates_backward, inputs, (gates.shape, c.shape), c)


def gates_double_backward(u, v, gh, gc, c, c_new, gates):
    """(ugh, ugc, uz, uc) for the cotangents u (.., 4H) of gz and v (.., H) of gc_before.

    They are the cotangents of the arguments gh and gc of `gates_backward` and of z and c.
    """
    _check("gates_double_backward", c, [u, gates], [v, gh, gc, c_new])
    inputs, shapes = (u, v, gh, gc, c, c_new, gates), (c.shape, c.shape, gates.shape, c.shape)
    return _apply("gates_double_backward", _gates_double_backward, inputs, shapes, c)


def lstm_cell(x, h, c, w_x, w_h, b):
    """(h', c', gates): one step of the cell for x (B.., N, D), h and c (B.., N, H)."""
    z = x @ w_x
    z += h @ w_h
    z += b if b.ndim == 1 else b[..., None, :]
    return gates(z, c)


def lstm_cell_backward(gh, gc, x, h, c, w_x, w_h, b, c_new, gates):
    """(gx, gh, gc, gw_x, gw_h, gb) for the cotangents gh of h' and gc of c' of `lstm_cell`."""
    gz, gc = gates_backward(gh, gc, c, c_new, gates)
    rows = gz.reshape(math.prod(gz.shape[:-1]), gz.shape[-1]) if b.ndim == 1 else gz
    return (
        gz @ w_x.swapaxes(-1, -2),
        gz @ w_h.swapaxes(-1, -2),
        gc,
        _weight_cotangent(x, gz, w_x),
        _weight_cotangent(h, gz, w_h),
        rows.sum(axis=-2),
    )


def _weight_cotangent(x, gz, w):
    """xᵀ gz, over the whole batch when it shares the weight."""
    if w.ndim == 2:
        x, gz = (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (x, gz))
    return x.swapaxes(-1, -2) @ gz
