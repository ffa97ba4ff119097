"""Numerical verification of gradients, of any order: for this library's code and for yours.

    report = gradcheck(f, x, params)        # f made of scratchmeta.ops, or of a primitive of yours
    report = gradcheck(f, x, vjp=f_vjp)     # f of plain arrays, with a VJP written by hand

When it returns, then at these inputs, in float64 and on the backend they live on:

1. f and its backward pass are deterministic, bit for bit (or within `nondet_tol`).
2. f left its inputs and cotangents as they were; every gradient has its input's shape, dtype and
   array type.
3. Order 1: for each input alone and for all together, along random directions v (of ±1) and with
   random cotangents w, the gradient's ⟨Jᵀw, v⟩ is the numerical ⟨w, J v⟩ by `slopes.slope`,
   which carries its own error estimate. Where that is poor, NonSmoothPoint is raised.
4. Order 2: the same for the function (x, w) → Jᵀw, in both x and w; order 3: for that one's.
5. Without differences, at every order: Jᵀw is linear in w; a zero cotangent gives zeros; an input
   that f does not use gets zeros; the gradient that can be differentiated again (create_graph) is
   the one that cannot; and ⟨u, H v⟩ = ⟨v, H u⟩ for H, the second derivative. All to 1e-12 of the
   gradient's size or of 1.
6. With `analytic=True`, for f without max, abs or the like: the complex step
   Im f(x + iεv) / ε, exact to rounding, as a second witness.

A random direction catches a single wrong entry among thousands because the tolerance is tight:
an error e in entry j changes ⟨Jᵀw, v⟩ by e, and 1e-7 of it is less than nearly any e.
"""

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchmeta import backend, core
from scratchmeta.core import Tensor
from scratchmeta.shown import html_table
from scratchmeta.verify import aliasing, diagnosis, plain
from scratchmeta.verify.pullbacks import Derivative, Function
from scratchmeta.verify.slopes import NonSmoothPoint

IDENTITY_TOLERANCE = 1e-12
COMPLEX_TOLERANCE = 1e-10
MAX_ORDER = 6
_COMPLEX_STEP = 1e-30


class GradientError(AssertionError):
    """A gradient is wrong; the message names the function, order, input and entry."""


# --- the report -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderReport:
    """What was checked of one order: the numbers are relative to the derivative's size."""

    order: int
    directions: int
    worst: float  # largest |analytic − numeric|
    estimate: float  # largest estimated error of a numeric value
    complex_step: float | None  # largest |analytic − complex step|; None if not asked for
    seconds: float


@dataclass(frozen=True)
class Report:
    """The result of a passed check; `str(report)` is one aligned line."""

    name: str
    backend: str
    kernels: bool
    orders: tuple[OrderReport, ...]

    @property
    def order(self) -> int:
        """The highest order checked."""
        return max(o.order for o in self.orders)

    @property
    def directions(self) -> int:
        """The number of directions over all orders."""
        return sum(o.directions for o in self.orders)

    @property
    def worst(self) -> float:
        """The largest relative error over all orders."""
        return max(o.worst for o in self.orders)

    @property
    def estimate(self) -> float:
        """The largest estimated relative error of the numeric values."""
        return max(o.estimate for o in self.orders)

    @property
    def complex_step(self) -> float | None:
        """The largest relative distance to the complex step, or None."""
        found = [o.complex_step for o in self.orders if o.complex_step is not None]
        return max(found, default=None)

    @property
    def seconds(self) -> float:
        """The time all orders took."""
        return sum(o.seconds for o in self.orders)

    def _repr_html_(self) -> str:  # what notebooks ask for
        header = ("order", "directions", "worst", "estimate", "complex step", "seconds")
        rows = [
            (
                o.order,
                o.directions,
                f"{o.worst:.1e}",
                f"{o.estimate:.1e}",
                "-" if o.complex_step is None else f"{o.complex_step:.1e}",
                f"{o.seconds:.2f}",
            )
            for o in self.orders
        ]
        kernels = "on" if self.kernels else "off"
        return html_table(f"{self.name}, {self.backend}, kernels {kernels}", header, rows)

    def __str__(self) -> str:
        second = "       -" if self.complex_step is None else f"{self.complex_step:8.1e}"
        return (
            f"{self.name:<28} order {self.order}  directions {self.directions:4d}  "
            f"worst {self.worst:8.1e}  estimate {self.estimate:8.1e}  "
            f"complex {second}  {self.seconds:6.2f} s"
        )


def combine(name: str, reports: Sequence[Report]) -> Report:
    """One report on several checks of the same subject: sums of directions, largest errors."""

    def merged(order):
        parts = [o for r in reports for o in r.orders if o.order == order]
        witnesses = [p.complex_step for p in parts if p.complex_step is not None]
        return OrderReport(
            order,
            sum(p.directions for p in parts),
            max(p.worst for p in parts),
            max(p.estimate for p in parts),
            max(witnesses, default=None),
            sum(p.seconds for p in parts),
        )

    orders = sorted({o.order for r in reports for o in r.orders})
    return Report(name, reports[0].backend, reports[0].kernels, tuple(map(merged, orders)))


# --- the check ------------------------------------------------------------------------------------


def gradcheck(
    f: Callable,
    *inputs: Any,
    order: int | None = None,
    vjp: Callable | Sequence[Callable] | None = None,
    directions: int = 3,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    rng: np.random.Generator | int = 0,
    nondet_tol: float = 0.0,
    analytic: bool = False,
    name: str | None = None,
) -> Report:
    """Checks the gradients of f at these inputs, up to `order`, against numerical derivatives.

    inputs    float64 arrays, or trees of them (parameters); integer arrays, numbers and other
              objects are passed to f as they are
    f         takes Tensors in their place; returns a Tensor of any shape, or several
    order     1: Jᵀw; 2: also the derivatives of (x, w) → Jᵀw; 3: also those of these; at most 6,
              for each takes several times as long as the one before. 2 if nothing is said
    vjp       for an f of plain arrays, its own vector-Jacobian product vjp(g, *inputs): checked to
              order 1; or a pair of it and of its own, to order 2. See verify/plain.py
    directions  random directions for each input alone and for all together
    rtol, atol  |analytic − numeric| ≤ max(rtol · size, atol, 4 · estimated error); a gradient
              much smaller than atol / rtol is not held to much: scale f so that it is not
    rng       a Generator or a seed, from which directions and cotangents come
    analytic  also compare with the complex step

    Returns a Report. Raises GradientError where a promise of this module is not kept, with the
    worst entry and what the pattern of errors suggests; NonSmoothPoint at a kink; TypeError for
    floating-point inputs or outputs that are not float64; ValueError where `order` or `directions`
    would leave nothing to check.

    >>> from scratchmeta import ops
    >>> report = gradcheck(ops.tanh, np.array([0.5, -1.0]))
    >>> report.order, report.worst < 1e-9
    (2, True)
    """
    name = _name(f) if name is None else name
    vjps = () if vjp is None else (vjp,) if callable(vjp) else tuple(vjp)
    if vjp is not None:
        if len(vjps) not in (1, 2):
            raise ValueError(f"gradcheck: wanted one vjp or a pair of them, got {len(vjps)}")
        f = plain.operation(f, *vjps)
    order = len(vjps) or 2 if order is None else order
    highest = len(vjps) or MAX_ORDER
    for what, n in (("order", order), ("directions", directions)):
        if n < 1:
            raise ValueError(f"gradcheck: wanted {what} of at least 1, got {n}")
    if order > highest:
        why = "as many as there are VJPs" if vjps else "each takes several times the one before"
        raise ValueError(f"gradcheck: wanted order of at most {highest}, {why}; got {order}")
    seed = int(rng.integers(2**32)) if isinstance(rng, np.random.Generator) else int(rng)
    settings = _Settings(order, directions, rtol, atol, nondet_tol, analytic)
    own = "vjp=vjp, " if vjps else ""
    here = backend.current(), backend.kernels_enabled()
    try:
        return Report(name, *here, _check(f, inputs, settings, seed))
    except diagnosis.Failure as failure:
        lines = [
            f"gradient check failed: {name}, order {failure.order}{_of_what(failure.order)}, "
            f"backend {here[0]}, kernels {'on' if here[1] else 'off'}",
            *failure.lines,
        ]
        if here[1] and _passes_without_kernels(f, inputs, settings, seed):
            lines.append("passes with kernels off")
        lines.append(f"reproduce: gradcheck({name}, *inputs, {own}{settings.spell(seed)})")
        raise GradientError("\n  ".join(lines)) from None


def _name(f):
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__name__", type(f).__name__)


def _of_what(order):
    return {1: "", 2: " (derivative of the VJP)"}.get(order, f" ({order - 1} times from the VJP)")


@dataclass(frozen=True)
class _Settings:
    order: int
    directions: int
    rtol: float
    atol: float
    nondet_tol: float
    analytic: bool

    def spell(self, seed):
        """The settings as keyword arguments of gradcheck, those left at their default left out."""
        defaults = inspect.signature(gradcheck).parameters
        given = {**vars(self), "order": None if self.order == 2 else self.order, "rng": seed}
        return ", ".join(f"{k}={v!r}" for k, v in given.items() if v != defaults[k].default) or (
            "rng=0"
        )


def _passes_without_kernels(f, inputs, settings, seed):
    try:
        with backend.use_kernels(False):
            _check(f, inputs, settings, seed)
    except (diagnosis.Failure, NonSmoothPoint):
        return False
    return True


def _check(f, inputs, settings, seed):
    rng = np.random.default_rng(seed)
    reports = []
    with core.recording(True):
        function = Function(f, inputs)
        for _ in range(settings.order):
            start = time.perf_counter()
            before = [p.copy() for p in function.points]
            ys = _basics(function, before, rng, settings)
            numbers = _slopes(function, ys, rng, settings)
            _identities(function, ys, rng, settings)
            if function.order > 1:
                _symmetry(function, rng, settings)
            reports.append(OrderReport(function.order, *numbers, time.perf_counter() - start))
            function = Derivative(function, _normal(rng, ys))
    return tuple(reports)


def _normal(rng, like):
    """Standard normal arrays, one like each of these."""
    return [backend.xp(a).asarray(rng.standard_normal(a.shape)) for a in like]


def _basics(function, before, rng, settings):
    """Guarantees 1 and 2; returns f's outputs."""
    ys = function.value(function.points)
    function.name_outputs(len(ys))
    for y, name in zip(ys, function.outputs, strict=True):
        if y.dtype != np.float64:
            raise TypeError(f"gradcheck: wanted float64, got {y.dtype} for {name}")
        if not bool(backend.xp(y).isfinite(y).all()):
            raise diagnosis.Failure(function.order, [f"{name} is not finite at these inputs"])
    ws = _normal(rng, ys)
    given = [w.copy() for w in ws]
    for create_graph in (False, True):
        gs = function.pull(function.points, ws, create_graph)
        for g, p, name in zip(gs, function.points, function.inputs, strict=True):
            problem = diagnosis.misfit(g, p)
            if problem:
                raise diagnosis.Failure(function.order, [f"gradient of {name} {problem}"])
    runs = [(function.value(function.points), function.pull(function.points, ws)) for _ in range(2)]
    for kind, names, first, second in zip(
        ("", "gradient of "), (function.outputs, function.inputs), *runs, strict=True
    ):
        for a, b, name in zip(first, second, names, strict=True):
            apart = diagnosis.largest(a - b)
            if not apart <= settings.nondet_tol:
                text = f"{kind}{name} is not deterministic: two runs differ by {apart:.1e}"
                raise diagnosis.Failure(function.order, [text])
    cotangents = [f"the cotangent of {name}" for name in function.outputs]
    for arrays, copies, names in (
        (function.points, before, function.inputs),
        (ws, given, cotangents),
    ):
        for p, kept, name in zip(arrays, copies, names, strict=True):
            if not bool((p == kept).all()):
                culprit = aliasing.written(function, given)
                lines = [f"f modified {name}", *([culprit] if culprit else [])]
                raise diagnosis.Failure(function.order, lines)
    return ys


def _slopes(function, like, rng, settings):
    """Guarantees 3, 4 and 6: number of directions, worst error, worst estimate, complex step."""
    groups = [(i,) for i, p in enumerate(function.points) if p.size]
    if len(groups) > 1:
        groups.append(tuple(i for (i,) in groups))
    found = [
        _compare(function, members, _normal(rng, like), rng, settings)
        for members in groups
        for _ in range(settings.directions)
    ]
    worst, estimate, witness = map(max, zip((0.0, 0.0, 0.0), *found, strict=True))
    return len(found), worst, estimate, witness if settings.analytic else None


def _compare(function, members, ws, rng, settings):
    """⟨Jᵀw, v⟩ with ⟨w, J v⟩, v along these inputs: relative error, its estimate, complex step."""
    vs = {i: diagnosis.rademacher(rng, function.points[i]) for i in members}
    gs = function.pull(function.points, ws)
    analytic = sum(float((gs[i] * v).sum()) for i, v in vs.items())
    numeric = diagnosis.directional(function, vs, ws, settings)
    if numeric.jump or numeric.error > max(10 * settings.rtol * numeric.size, settings.atol):
        raise NonSmoothPoint(_not_smooth(function, members, numeric))
    apart = abs(analytic - numeric.value)
    if not apart <= max(settings.rtol * numeric.size, settings.atol, 4 * numeric.error):
        raise diagnosis.explain(function, members, ws, analytic, numeric, settings)
    size = max(numeric.size, settings.atol / settings.rtol)
    if not settings.analytic:
        return apart / size, numeric.error / size, 0.0
    exact = _complex_step(function, vs, ws)
    if not abs(analytic - exact) <= max(COMPLEX_TOLERANCE * numeric.size, 1e-3 * settings.atol):
        text = (
            f"{_along(function, members)}: analytic {analytic:.12g}   complex step {exact:.12g}   "
            f"abs {abs(analytic - exact):.1e}"
        )
        raise diagnosis.Failure(function.order, [text])
    return apart / size, numeric.error / size, abs(analytic - exact) / size


def _complex_step(function, vs, ws):
    """Im ⟨w, f(x + iεv)⟩ / ε: no difference is taken, so nothing cancels and ε can be tiny."""
    points = [
        p + 1j * _COMPLEX_STEP * vs[i] if i in vs else p.astype(np.complex128)
        for i, p in enumerate(function.points)
    ]
    with backend.use_kernels(False):  # kernels take real numbers; their references take any
        ys = function.value(points)
    return float(diagnosis.flat(ws) @ diagnosis.flat(ys).imag) / _COMPLEX_STEP


def _along(function, members):
    return "along " + (function.inputs[members[0]] if len(members) == 1 else "all inputs together")


def _not_smooth(function, members, numeric):
    where = f"gradcheck: not smooth at this point, order {function.order}, "
    where += _along(function, members)
    if numeric.jump:
        return f"{where}: the slopes on the two sides differ by {numeric.jump:.3g}"
    large, small = numeric.coarse
    return (
        f"{where}: the largest and the smallest step give slopes {large:.6g} and {small:.6g}, and "
        f"none is known better than ± {numeric.error:.1e}; move the inputs away from kinks"
    )


def _allowed(size, settings):
    """How far apart two sides of an identity may be."""
    return max(IDENTITY_TOLERANCE * max(1.0, size), settings.nondet_tol)


def _identities(function, like, rng, settings):
    """Guarantee 5, but for the symmetry."""
    points, names = function.points, function.inputs
    w1, w2 = _normal(rng, like), _normal(rng, like)
    g1, g2 = function.pull(points, w1), function.pull(points, w2)

    # Jᵀ(a w₁ + b w₂) = a Jᵀw₁ + b Jᵀw₂
    a, b = 0.75, -1.25
    both = function.pull(points, [a * u + b * v for u, v in zip(w1, w2, strict=True)])
    for g, u, v, name in zip(both, g1, g2, names, strict=True):
        apart, size = diagnosis.largest(g - (a * u + b * v)), diagnosis.largest(abs(u) + abs(v))
        if not apart <= _allowed(size, settings):
            text = f"gradient of {name} is not linear in the cotangent: off by {apart:.1e}"
            raise diagnosis.Failure(function.order, [text])

    for g, name in zip(function.pull(points, [0.0 * w for w in w1]), names, strict=True):
        if diagnosis.largest(g) != 0.0:
            text = f"a zero cotangent gives {name} the gradient {diagnosis.largest(g):.1e}, not 0"
            raise diagnosis.Failure(function.order, [text])

    xs = [Tensor(p) for p in points]
    unused = Tensor(backend.xp(points[0]).ones((2,)))
    (extra,) = core.pull_back(function.trace(xs), w1, [*xs, unused], create_graph=False)[len(xs) :]
    if extra.shape != (2,) or diagnosis.largest(extra) != 0.0:
        raise diagnosis.Failure(function.order, [f"an unused input gets {extra!r}, not zeros"])

    recorded = function.pull(points, w1, create_graph=True)
    for i, (on, off) in enumerate(zip(recorded, g1, strict=True)):
        if not diagnosis.largest(on - off) <= _allowed(diagnosis.largest(off), settings):
            excess = [p - q for p, q in zip(recorded, g1, strict=True)]
            raise diagnosis.create_graph_matters(function, i, on, off, w1, excess)


def _symmetry(derivative, rng, settings):
    """⟨u, H v⟩ = ⟨v, H u⟩ with H v = ∂⟨Jᵀw, v⟩/∂x."""
    xs = derivative.below.points
    u, v = _normal(rng, xs), _normal(rng, xs)
    hu, hv = (derivative.pull(derivative.points, d)[: len(xs)] for d in (u, v))
    one, other = diagnosis.inner(u, hv), diagnosis.inner(v, hu)
    size = np.sqrt(diagnosis.inner(u, u) * diagnosis.inner(hv, hv))
    if not abs(one - other) <= _allowed(size, settings):
        text = f"the second derivative is not symmetric: ⟨u, Hv⟩ = {one:.9g}, ⟨v, Hu⟩ = {other:.9g}"
        raise diagnosis.Failure(derivative.order, [text])


# --- float32 --------------------------------------------------------------------------------------


def compare_float32(
    f: Callable,
    *inputs: Any,
    rtol: float = 1e-4,
    rng: np.random.Generator | int = 0,
    name: str | None = None,
) -> float:
    """Holds f's gradient in float32 against the one in float64, which `gradcheck` verifies.

    Takes float64 inputs as gradcheck does, and rounds them itself. Returns the largest difference,
    relative to the largest entry of the input's gradient. Raises GradientError where it exceeds
    `rtol`, or where something turned into another dtype on the way: then a float32 training step
    would quietly run in float64.
    """
    name = _name(f) if name is None else name
    rng = np.random.default_rng(rng)
    function = Function(f, inputs)
    points = [p.astype(np.float32) for p in function.points]
    worst = 0.0
    with core.recording(True):
        for y in function.value(points):
            if y.dtype != np.float32:
                raise GradientError(f"{name}: float32 inputs give an output of dtype {y.dtype}")
        ws = _normal(rng, function.value(function.points))
        gs = function.pull(function.points, ws)
        for create_graph in (False, True):
            hs = function.pull(points, [w.astype(np.float32) for w in ws], create_graph)
            for g, h, where in zip(gs, hs, function.inputs, strict=True):
                if h.dtype != np.float32:
                    raise GradientError(
                        f"{name}: float32 {where} has a gradient of dtype {h.dtype}"
                    )
                apart = diagnosis.largest(h - g) / max(diagnosis.largest(g), 1e-3)
                if not apart <= rtol:
                    raise GradientError(
                        f"{name}: the gradient of {where} in float32 is {apart:.1e} from that in "
                        f"float64, relative to its largest entry; wanted at most {rtol:.1e}"
                    )
                worst = max(worst, apart)
    return worst
