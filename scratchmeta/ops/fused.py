"""fused(reference, forward, backward): kernels for the first orders, the engine for all others.

    order 0   forward(*args)                         -> ys, kept
    order 1   backward(gs, ys, kept, *args)          -> the cotangent of every argument
    order 2   double_backward(us, gs, ys, kept, *args) -> cotangents of the gs and of the args
    beyond    derivatives of the reference, taken by the engine

ys is the tuple of results and gs that of their cotangents; `kept` is whatever the forward kernel
wants to hand to the backward one; us are the cotangents of what backward returned. The kernels see
raw arrays only. `double_backward` is optional: without it order 2, too, differentiates the
reference.

Differentiating the reference means: with respect to each argument as if it were independent of the
others. Arguments are therefore re-rooted, replaced by copies made through `identity`, before the
reference runs on them. Were op(x, h(x)) differentiated in place, the derivative with respect to x
would include the path through h, which the engine follows as well, and from order 3 on the result
would be wrong.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from scratchmeta import backend
from scratchmeta.core import DEAD, P, R, Tensor, primitive, pull_back, raw, recording


@primitive(lambda g, y, x: g)
def identity(x):
    """x itself, as a new node."""
    return x


def _rerooted(a):
    """A copy of `a` that nothing else depends on, connected to `a` if `a` is live."""
    if isinstance(a, Tensor) and a.node is not DEAD:
        return identity(a)
    return Tensor(raw(a))


def _is_differentiable(a):
    return backend.is_array(raw(a)) and raw(a).dtype.kind == "f"


_TYPES = {np.dtype(np.float32)}, {np.dtype(np.float64)}  # in the machine's own order of bytes


def _of_one_type(args):
    """Whether the floating-point arrays among the arguments are all float32 or all float64."""
    arrays = [backend.plain(raw(a)) for a in args if hasattr(a, "dtype")]
    return {a.dtype for a in arrays if a.dtype.kind not in "iub"} in _TYPES


def fused(
    reference: Callable[P, R],
    forward: Callable,
    backward: Callable,
    double_backward: Callable | None = None,
) -> Callable[P, R]:
    """An operation defined by `reference` and run by kernels while `backend.use_kernels` is on.

    It takes the reference's arguments, of which forward and backward get all, in order, and returns
    the reference's results. Kernels see floating-point arrays of one type, float32 or float64 in
    the machine's own order of bytes; of others the reference makes what NumPy makes of them. The
    kernels' contract is the module's; a kernel returns None as the cotangent of an argument that is
    not an array of floating-point numbers. ∞ and NaN among the inputs give ∞ and NaN where the
    reference has them; only in gradients one may have ∞ where the other has NaN.
    """
    signature = inspect.signature(reference)

    def second_order_by_reference(us, gs, args):
        in_graph = any(isinstance(a, Tensor) for a in (*us, *gs, *args))
        with recording(True):
            gs = [_rerooted(g) for g in gs]
            args = [_rerooted(a) if _is_differentiable(a) else a for a in args]
            xs = [a for a in args if isinstance(a, Tensor)]
            ys = reference(*args)
            ys = ys if isinstance(ys, tuple) else (ys,)
            gxs = pull_back(ys, gs, xs, create_graph=True)
            us = [u for u, a in zip(us, args, strict=True) if isinstance(a, Tensor)]
            reached = [(gx, u) for gx, u in zip(gxs, us, strict=True) if u is not None]
            gxs, us = zip(*reached, strict=True)
            found = iter(pull_back(gxs, us, [*gs, *xs], create_graph=in_graph))
        return [next(found) if isinstance(a, Tensor) else None for a in (*gs, *args)]

    def gradient_joint(us, out, *gs_and_args, ys_and_kept):
        *ys, kept = ys_and_kept
        gs, args = gs_and_args[: len(ys)], gs_and_args[len(ys) :]
        plain = not any(isinstance(a, Tensor) for a in (*us, *gs_and_args))
        if double_backward is not None and plain:
            return double_backward(us, gs, tuple(ys), kept, *args)
        return second_order_by_reference(us, gs, args)

    @primitive(joint=gradient_joint)
    def gradient(*gs_and_args, ys_and_kept):
        *ys, kept = ys_and_kept
        gs, args = gs_and_args[: len(ys)], gs_and_args[len(ys) :]
        return tuple(backward(gs, tuple(ys), kept, *args))

    def joint(gs, out, *args):
        *ys, _ = out
        gs = [
            backend.xp(y).zeros_like(y) if g is None else g
            for g, y in zip(gs[: len(ys)], ys, strict=True)
        ]
        gxs = gradient(*gs, *args, ys_and_kept=out)
        return [None if raw(gx) is None else gx for gx in gxs]

    @primitive(joint=joint)
    def recorded(*args):
        ys, kept = forward(*args)
        return (*ys, kept)

    run: Any = recorded
    run.__name__ = gradient.__name__ = reference.__name__
    run.names = list(signature.parameters)

    @functools.wraps(reference)
    def operation(*args, **kwargs):
        if kwargs or len(args) < len(run.names):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args = bound.args
        if not backend.kernels_enabled() or not _of_one_type(args):
            ys = reference(*args)
            # Of several results none depends on another, though the reference computes it so.
            return tuple(map(identity, ys)) if isinstance(ys, tuple) else ys
        *ys, _ = run(*args)
        return ys[0] if len(ys) == 1 else tuple(ys)

    made: Any = operation
    made.reference = reference
    return made
