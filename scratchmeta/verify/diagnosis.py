"""What is wrong with a gradient: which entries, by how much, and what the pattern suggests.

Used by `gradcheck` once a check has failed. The function's Jacobian is then computed twice, column
by column from differences and row by row from the backward pass, as far as its size allows:

    N[o, j]   numeric   ∂ output o / ∂ entry j       from `slope` along entry j
    A[o, j]   analytic                               from the backward pass with cotangent e_o

and the two are compared: A = −N, A = c N, A = N with two axes exchanged, A = 0, …
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scratchmeta import backend, core
from scratchmeta.core import Tensor
from scratchmeta.verify.aliasing import nodes, shared, written
from scratchmeta.verify.slopes import NonSmoothPoint, Slope, slope

MAX_ENTRIES = 256  # of an input, whose columns are computed; of a larger one the wrong are sought
MAX_OUTPUTS = 256  # whose rows are computed; more are projected on random cotangents
_PROJECTIONS = 8
_MAX_HALVINGS = 400


class Failure(Exception):
    """A promise of gradcheck's that was not kept: the order, and the lines that say how."""

    def __init__(self, order: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.order, self.lines = order, lines


# --- arrays ---------------------------------------------------------------------------------------


def largest(a) -> float:
    """max |a|, and 0 for an empty array."""
    return float(abs(a).max()) if a.size else 0.0


def inner(a: Sequence, b: Sequence) -> float:
    """Σ a b over two lists of arrays."""
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def flat(arrays: Sequence) -> np.ndarray:
    """All arrays as one vector in the host's memory."""
    return np.concatenate([np.zeros(0), *(backend.to_numpy(a).reshape(-1) for a in arrays)])


def misfit(g, p) -> str:
    """What keeps g from being a gradient with respect to p; "" if nothing does."""
    if g.shape != p.shape:
        text = f"has shape {tuple(g.shape)}, wanted {tuple(p.shape)}"
        if _broadcasts(p.shape, g.shape):
            return f"{text}: the sum over what broadcasting copied is missing"
        return f"{text}: it is transposed" if g.shape == p.shape[::-1] else text
    if g.dtype != p.dtype or backend.xp(g) is not backend.xp(p):
        wanted, got = (f"{backend.xp(a).__name__} {a.dtype}" for a in (p, g))
        return f"has type {got}, wanted {wanted}"
    return "" if bool(backend.xp(g).isfinite(g).all()) else "is not finite"


def _broadcasts(small, large):
    try:
        return np.broadcast_shapes(small, large) == tuple(large)
    except ValueError:
        return False


# --- directions -----------------------------------------------------------------------------------


def rademacher(rng: np.random.Generator, p):
    """Random signs like p, times min(1, max |p|): where numbers are small, so are the steps."""
    scale = min(1.0, largest(p)) or 1.0
    return backend.xp(p).asarray(scale * rng.choice([-1.0, 1.0], size=p.shape))


def along(function, vs: dict):
    """φ(t) = f(points + t v) as one vector; v is given for some of the points."""

    def phi(t):
        points = [p + t * vs[i] if i in vs else p for i, p in enumerate(function.points)]
        with np.errstate(all="ignore"):  # a large step may leave the domain; smaller ones follow
            return flat(function.value(points))

    return phi


class Projected(NamedTuple):
    """A slope's ⟨w, dφ/dt⟩."""

    value: float
    error: float
    size: float  # max(|value|, ‖w ⊙ dφ/dt‖₂): what "relative" is relative to
    jump: float  # 0 where φ is smooth
    coarse: tuple[float, float]


def directional(function, vs: dict, ws: Sequence, settings) -> Projected:
    """The derivative of ⟨w, f⟩ along v."""
    return _project(_slope(function, vs, settings), ws, settings.atol)


def _slope(function, vs, settings) -> Slope:
    return slope(along(function, vs), 0.01 * settings.rtol, 0.1 * settings.atol)


def _project(s: Slope, ws: Sequence, atol: float) -> Projected:
    """The slope of ⟨w, φ⟩ from that of φ."""
    w = flat(ws)
    value = float(w @ s.value)
    size = max(abs(value), float(np.linalg.norm(w * s.value)))
    jump = float(np.abs(w * s.jump).max(initial=0.0))
    coarse = float(w @ s.coarse[0]), float(w @ s.coarse[1])
    error = float(np.linalg.norm(w * s.error))
    return Projected(value, error, size, jump if jump > max(1e-5 * size, atol) else 0.0, coarse)


# --- the two Jacobians ----------------------------------------------------------------------------


class _Jacobians(NamedTuple):
    """N and A for some entries of one input: (rows, entries)."""

    entries: np.ndarray  # flat indices into the input
    numeric: np.ndarray
    error: np.ndarray
    analytic: np.ndarray
    kinked: np.ndarray  # entries along which f has a kink here
    by_output: bool  # whether rows are outputs, or random projections of them

    def wrong(self, settings):
        size = np.abs(self.numeric)
        size = np.maximum(size, 1e-3 * size.max(initial=0.0))
        allowed = np.maximum(np.maximum(settings.rtol * size, settings.atol), 4 * self.error)
        return ~(np.abs(self.analytic - self.numeric) <= allowed)


def _jacobians(function, i, ws, settings):
    """Those of input i; None where it is large and no entry alone is found to be wrong."""
    p = function.points[i]
    n_out = sum(w.size for w in ws)
    by_output = n_out <= MAX_OUTPUTS
    rng = np.random.default_rng(0)
    rows = np.eye(n_out) if by_output else rng.standard_normal((_PROJECTIONS, n_out))
    if not by_output:
        rows[0] = flat(ws)
    if p.size <= MAX_ENTRIES:
        entries = np.arange(p.size)
    else:
        entries = np.array(sorted(_seek(function, i, ws, settings)), dtype=int)
        if not entries.size:
            return None
    columns = [_slope(function, {i: _unit(p, j)}, settings) for j in entries]
    return _Jacobians(
        entries,
        np.stack([rows @ c.value for c in columns], axis=1),
        np.stack([np.sqrt(rows**2 @ c.error**2) for c in columns], axis=1),
        np.stack([flat([function.pull(function.points, _cut(r, ws))[i]])[entries] for r in rows]),
        np.array([_project(c, ws, settings.atol).jump != 0 for c in columns]),
        by_output,
    )


def _unit(p, j):
    e = np.zeros(p.size)
    e[j] = min(1.0, largest(p)) or 1.0
    return backend.xp(p).asarray(e.reshape(p.shape))


def _cut(row, ws):
    """A vector over all outputs as one cotangent per output."""
    parts = np.split(row, np.cumsum([w.size for w in ws])[:-1])
    return [backend.xp(w).asarray(part.reshape(w.shape)) for part, w in zip(parts, ws, strict=True)]


def _seek(function, i, ws, settings) -> Iterator[int]:
    """Wrong entries of a large input, by halving the sets of entries that fail; most of them."""
    p = function.points[i]
    rng = np.random.default_rng(0)
    g = flat([function.pull(function.points, ws)[i]])
    sets, found = [np.arange(p.size)], 0
    for _ in range(_MAX_HALVINGS):
        if not sets or found == MAX_ENTRIES // 4:
            return
        entries = sets.pop()
        signs = np.zeros(p.size)
        signs[entries] = flat([rademacher(rng, p)])[entries]
        v = backend.xp(p).asarray(signs.reshape(p.shape))
        s = directional(function, {i: v}, ws, settings)
        if abs(g @ signs - s.value) > max(settings.rtol * s.size, settings.atol, 4 * s.error):
            if len(entries) == 1:
                found += 1
                yield int(entries[0])
            else:
                sets += np.array_split(entries, 2)


# --- the report -----------------------------------------------------------------------------------


def explain(function, members, ws, analytic: float, numeric: Projected, settings) -> Exception:
    """The failure of ⟨Jᵀw, v⟩ along some inputs: entry by entry, or as a kink."""
    for i in members:
        js = _jacobians(function, i, ws, settings) if function.points[i].size else None
        if js is None:
            continue
        wrong = js.wrong(settings)
        if not wrong.any():
            continue
        columns = wrong.any(axis=0)
        if js.kinked[columns].all():
            where = _at(function.inputs[i], function.points[i], js.entries[columns][0])
            return NonSmoothPoint(
                f"gradcheck: not smooth at this point, order {function.order}: kink at {where}"
            )
        return Failure(function.order, _describe(function, i, ws, js, wrong))
    text = (
        f"the derivative along {' and '.join(function.inputs[i] for i in members)} is off by more "
        f"than any single entry: analytic {analytic:.9g}   numeric {numeric.value:.9g} ± "
        f"{numeric.error:.0e}"
    )
    return Failure(function.order, [text])


def _at(name, p, entry):
    return f"{name} {_index(entry, p.shape)}".rstrip()


def _index(entry, shape):
    return str([int(k) for k in np.unravel_index(entry, shape)]) if shape else ""


def _describe(function, i, ws, js, wrong):
    p = function.points[i]
    n_wrong = int(wrong.any(axis=0).sum())
    apart = np.where(wrong, np.abs(js.analytic - js.numeric), -1.0)
    o, j = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), apart.shape)
    a, n, e = js.analytic[o, j], js.numeric[o, j], js.error[o, j]
    output = _output(function, ws, o) if js.by_output else "summed over the outputs"
    at = _index(js.entries[j], p.shape)
    least = "at least " if len(js.entries) < p.size else ""
    lines = [
        f"{function.inputs[i]} shape {tuple(p.shape)}: {least}{n_wrong} of {p.size} entries wrong",
        f"worst{f' at {at}' if at else ''}, {output}:  analytic {a:.6g}   numeric {n:.6g} ± {e:.0e}"
        f"   abs {abs(a - n):.1e}   rel {abs(a - n) / max(abs(n), 1e-300):.1e}",
    ]
    hint = _hint(function, i, ws, js, wrong)
    return [*lines, hint] if hint else lines


def _output(function, ws, o):
    for w, name in zip(ws, function.outputs, strict=True):
        if o < w.size:
            return _at(name, w, o)
        o -= w.size
    raise IndexError(o)


# --- hints ----------------------------------------------------------------------------------------


def _hint(function, i, ws, js, wrong):
    """What kind of mistake makes such errors, where that can be recognised; else None."""
    a, n = js.analytic, js.numeric
    in_place = written(function, ws)
    if in_place:
        return in_place
    count = int(wrong.any(axis=0).sum())
    if not np.any(a[wrong]):
        return _zero_hint(function, ws, js, wrong)
    if count > 1 or function.points[i].size == 1:
        ratios = a[wrong] / np.where(n[wrong] == 0, np.nan, n[wrong])
        c = np.median(ratios)
        if np.all(np.abs(ratios - c) <= 1e-5 * abs(c)):
            if abs(c + 1) < 1e-5:
                return f"analytic = −numeric for all {count}: the sign is wrong"
            return f"analytic / numeric is {c:.5g} for all {count}: a constant factor"
    complete = js.by_output and len(js.entries) == function.points[i].size
    if complete and _is_transposed(function, i, ws, js):
        return "analytic is numeric with two axes exchanged: something is transposed"
    if complete:
        excess = (flat(ws) @ (a - n)).reshape(function.points[i].shape)
        twice = _counted_twice(function, ws, {i: excess})
        if twice:
            return twice
    if count == 1 and function.points[i].size > 1:
        return "a single entry is wrong"
    return None


def _zero_hint(function, ws, js, wrong):
    """For wrong entries that are all 0."""
    twice = shared(function)
    if twice:
        return f"analytic is 0 where numeric is not, and {twice}"
    if not js.analytic.any():
        what = "the gradient" if function.order == 1 else f"order {function.order}"
        return f"analytic is 0 everywhere: {what} is detached (stop_gradient, raw or .data)"
    if js.by_output:
        start = 0
        for w, name in zip(ws, function.outputs, strict=True):
            bad = wrong[start : start + w.size].any(axis=1).reshape(w.shape)
            start += w.size
            for axis in range(w.ndim):
                others = tuple(k for k in range(w.ndim) if k != axis)
                hit = bad.any(axis=others)
                if (
                    w.shape[axis] > 1
                    and hit.sum() == w.shape[axis] - 1
                    and (bad.all(axis=others)[hit].all())
                ):
                    return (
                        f"analytic sees one index of axis {axis} of {name}, numeric all: "
                        "a missing sum over a broadcast axis"
                    )
    if function.order > 1:
        return (
            "analytic is 0 where numeric is not: a path of this order is detached "
            "(stop_gradient, raw or .data in a rule)"
        )
    return "analytic is 0 where numeric is not: a contribution is missing"


def _is_transposed(function, i, ws, js):
    """Whether exchanging two equal axes, of the input or of it and an output, mends A."""
    shape = function.points[i].shape
    start = 0
    mends = False
    for w in ws:
        a, n = (
            m[start : start + w.size].reshape((*w.shape, *shape)) for m in (js.analytic, js.numeric)
        )
        start += w.size
        size = np.abs(n).max(initial=0.0)
        if np.allclose(a, n, rtol=1e-5, atol=1e-5 * size):
            continue
        pairs = itertools.combinations(range(a.ndim), 2)
        if not any(
            a.shape[k] == a.shape[m]
            and np.allclose(a.swapaxes(k, m), n, rtol=1e-5, atol=1e-5 * size)
            for k, m in pairs
        ):
            return False
        mends = True
    return mends


# --- total instead of partial derivatives ---------------------------------------------------------


def create_graph_matters(function, i, on, off, ws, excess: list) -> Failure:
    """The failure of the gradient that can be differentiated again to equal the one that can't."""
    j = int(np.argmax(np.abs(flat([on - off]))))
    a, b = flat([on])[j], flat([off])[j]
    lines = [
        f"with create_graph=True the gradient of {_at(function.inputs[i], on, j)} is another one: "
        f"{a:.9g} instead of {b:.9g}   abs {abs(a - b):.1e}"
    ]
    twice = _counted_twice(function, ws, dict(enumerate(map(backend.to_numpy, excess))))
    twice = twice or written(function, ws) or shared(function)
    return Failure(function.order, [*lines, twice] if twice else lines)


def _counted_twice(function, ws, excess: dict):
    """Names the operation, if any, one of whose rules takes a total for a partial derivative.

    In op(a, b) with b = h(a), a rule for a that follows a into b as well adds ∂op/∂b ∂b/∂a, which
    the engine adds, too, on its way through b. The gradient is then too large by just this.
    """
    xs = [Tensor(p) for p in function.points]
    ys = function.trace(xs)
    for node in nodes(ys):
        parents = {p: k for k, p in enumerate(node.parents) if p is not None}
        for b, k in parents.items():
            a = next((a for a in parents if a is not b and _depends(b, a)), None)
            if a is None:
                continue
            inside = Tensor(node.args[k], b)
            through = core.pull_back(ys, ws, [inside], create_graph=False)
            path = core.pull_back([inside], through, xs, create_graph=False)
            if all(_same(backend.to_numpy(path[i]), e) for i, e in excess.items()):
                return (
                    f"too large by the path of {node.op.__name__}'s argument {parents[a]} through "
                    f"its argument {k}: a total instead of a partial derivative"
                )
    return None


def _same(a, b):
    return np.allclose(a, b, rtol=1e-5, atol=1e-5 * largest(b))


def _depends(node, ancestor):
    stack, seen = [node], {node}
    while stack:
        for parent in stack.pop().parents:
            if parent is ancestor:
                return True
            if parent is not None and parent not in seen and parent.number > ancestor.number:
                seen.add(parent)
                stack.append(parent)
    return False
