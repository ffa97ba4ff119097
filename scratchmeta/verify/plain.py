"""A function of plain arrays with a VJP of its own, as an operation that gradcheck can take apart.

    f(*inputs)               an array, or a tuple of them
    vjp(g, *inputs)          ḡ ∂f/∂input for every input; g is like what f returns
    double(us, g, *inputs)   the VJP of vjp: us are like what vjp returns, and it returns the
                             cotangent of g, and then that of every input

vjp returns a tuple with None for an input that is not differentiated; of one input alone it may
return the cotangent itself, and then `us` is that one's. The arrays are NumPy's or CuPy's; what
computes with others (a tensor of another library's) turns them into its own, and back.
"""

import functools
from collections.abc import Callable

from scratchmeta import backend
from scratchmeta.core import primitive, raw


def operation(f: Callable, vjp: Callable, double: Callable | None = None) -> Callable:
    """f as a differentiable function, to order 1 by `vjp` and to order 2 by `double`."""
    alone: list[bool] = []  # whether f, and then vjp, returned an array and no tuple of them

    def tupled(found):
        alone.append(not isinstance(found, tuple))
        found = (found,) if alone[-1] else found
        return tuple(x if x is None or backend.is_array(x) else backend.asarray(x) for x in found)

    def filled(gs, likes):
        """Zeros for the cotangents of what nothing depends on."""
        pairs = zip(gs, likes, strict=True)
        return [
            backend.xp(y).zeros_like(raw(y)) if g is None and y is not None else g for g, y in pairs
        ]

    @functools.wraps(f)
    def differentiable(*inputs):
        def given(gs, k):
            return gs[0] if alone[k] else tuple(gs)

        @primitive(joint=lambda g, y, *xs: _none_for_none(gradient(*filled(g, y), *xs)))
        def value(*xs):
            alone.clear()
            return tupled(f(*xs))

        def second(us, gxs, *gs_and_xs):
            if double is None:
                raise ValueError("gradcheck: order 2 wants a VJP of the VJP: vjp=(first, second)")
            return _none_for_none(gradient_of_gradient(*filled(us, gxs), *gs_and_xs))

        @primitive(joint=second)
        def gradient(*gs_and_xs):
            gs, xs = gs_and_xs[: -len(inputs)], gs_and_xs[-len(inputs) :]
            del alone[1:]
            found = tupled(vjp(given(gs, 0), *xs))
            return _counted("vjp", found, len(inputs))

        @primitive()
        def gradient_of_gradient(*all_of_them):
            m = len(inputs)
            us, gs, xs = all_of_them[:m], all_of_them[m:-m], all_of_them[-m:]
            gg, *gxs = double(given(us, 1), given(gs, 0), *xs)
            gg = gg if isinstance(gg, tuple) else (gg,)
            return (*gg, *_counted("the VJP of the VJP", tuple(gxs), m))

        ys = value(*inputs)
        return ys[0] if alone[0] else ys

    return differentiable


def _none_for_none(gs):
    return [None if raw(g) is None else g for g in gs]


def _counted(name, found, wanted):
    if len(found) != wanted:
        raise ValueError(f"{name}: wanted a cotangent of each of {wanted} inputs, got {len(found)}")
    return found
