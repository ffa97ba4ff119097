"""No mistake in a rule survives: see mutation.py."""

import mutation
import numpy as np
import pytest
import test_cases
from mutation import mutants, targets

from scratchmeta import Tensor, backend, grad, ops
from scratchmeta.ops import fused as fused_module
from scratchmeta.verify.cases import CASES
from scratchmeta.verify.cases.numbers import normal
from scratchmeta.verify.gradcheck import gradcheck

TARGETS = {t.name: t for t in targets()}

# Mutants that compute the same as the original: (target, statement) -> (why, mutated statements).
EQUIVALENT: dict[tuple[str, str], tuple[str, set[str]]] = {
    ("relu.rules[0]", "g * (a > 0)"): (
        "y = max(a, 0) is positive where a is",
        {"g * (y > 0)"},
    ),
    ("like", "return g if g.shape == shape else sum_to(g, shape)"): (
        "summing to the shape that g has changes nothing, it only takes time",
        {"return sum_to(g, shape)"},
    ),
    ("_reciprocal", "return where(zero, 0.0, 1.0 / where(zero, 1.0, y))"): (
        "where y is 0, any number but 0 will do: the outer where passes over what it gives",
        {"return where(zero, 0.0, 1.0 / where(zero, 2.0, y))"},
    ),
    ("_one_less", "return where((raw(a) == 0) & (raw(p) == 0), 1.0, p - 1)"): (
        "any positive exponent will do: the power of a = 0 is multiplied by p = 0",
        {
            "return where((raw(a) == 0) & (raw(p) == 0), 2.0, p - 1)",
        },
    ),
    ("_inverse", "inverse = [0] * len(axes)"): (
        "every place is written afterwards",
        {"inverse = [1] * len(axes)"},
    ),
    ("_rows", "return reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))"): (
        "one product of all rows, instead of a stack of products whose sum `like` takes",
        {"return a"},
    ),
    ("_of_right", "if b.ndim == 2 and a.ndim > 2:"): (
        "never taking this short cut, or taking it where a has two axes as well, changes nothing: "
        "b has two axes in all of these, or the condition never holds",
        {
            "if b.ndim == 2:",
            "if g.ndim == 2 and a.ndim > 2:",
            "if a.ndim == 2 and a.ndim > 2:",
            "if b.ndim == 2 and a.ndim < 2:",
            "if b.ndim == 2 and g.ndim > 2:",
            "if b.ndim == 2 and b.ndim > 2:",
            "if b.ndim == 2 and a.ndim > 3:",
        },
    ),
    ("_windows", "if (out_h * size, out_w * size) != (h, w):"): (
        "cutting off nothing changes nothing: these cut always",
        {
            "if (out_h / size, out_w * size) != (h, w):",
            "if (out_h, out_w * size) != (h, w):",
            "if (size, out_w * size) != (h, w):",
            "if (out_h * size, out_w / size) != (h, w):",
            "if (out_h * size, out_w) != (h, w):",
            "if (out_h * size, size) != (h, w):",
        },
    ),
    ("fused", "in_graph = any((isinstance(a, Tensor) for a in (*us, *gs, *args)))"): (
        "in a graph, one of gs and args is a Tensor, whatever us are",
        {
            "in_graph = any((isinstance(a, Tensor) for a in (*gs, *gs, *args)))",
            "in_graph = any((isinstance(a, Tensor) for a in (*us, *us, *args)))",
        },
    ),
    ("fused", "plain = not any((isinstance(a, Tensor) for a in (*us, *gs_and_args)))"): (
        "likewise",
        {"plain = not any((isinstance(a, Tensor) for a in (*gs, *gs_and_args)))"},
    ),
    (
        "fused",
        "gs = [backend.xp(y).zeros_like(y) if g is None else g "
        "for g, y in zip(gs[:len(ys)], ys, strict=True)]",
    ): (
        "−0 is 0",
        {
            "gs = [-backend.xp(y).zeros_like(y) if g is None else g "
            "for g, y in zip(gs[:len(ys)], ys, strict=True)]"
        },
    ),
    ("fused", "return [None if raw(gx) is None else gx for gx in gxs]"): (
        "what is None is the cotangent of a constant, which nobody reads",
        {"return [gx for gx in gxs]"},
    ),
    ("_rerooted", "if isinstance(a, Tensor) and a.node is not DEAD:"): (
        "a constant Tensor stays one by identity; nobody reads its cotangent",
        {"if isinstance(a, Tensor):"},
    ),
    ("_unpool", "*lead, out_h, out_w, c = g.shape"): (
        "g and y have the same shape",
        {"*lead, out_h, out_w, c = y.shape"},
    ),
    (
        "_unpool",
        "return pad(gx, [(0, 0)] * len(lead) + [(0, h), (0, w), (0, 0)]) if h or w else gx",
    ): (
        "padding by nothing changes nothing",
        {"return pad(gx, [(0, 0)] * len(lead) + [(0, h), (0, w), (0, 0)])"},
    ),
}


def is_equivalent(mutant):
    _, known = EQUIVALENT.get((mutant.target.name, mutant.before), ("", set()))
    return mutant.after in known


def fused_checks():
    """A fused operation of two arguments and two results, and one with constant arguments."""
    x, y = (normal(np.random.default_rng(k), 2) for k in (1, 2))
    ran = []

    def reference(x, y):
        return ops.exp(x) * y, ops.sin(x) + ops.square(y)

    def forward(x, y):
        ran.append("forward")
        return (np.exp(x) * y, np.sin(x) + y * y), np.exp(x)

    def backward(gs, ys, kept, x, y):
        gp, gq = gs
        return gp * ys[0] + gq * np.cos(x), gp * kept + 2.0 * gq * y

    def double_backward(us, gs, ys, kept, x, y):
        ran.append("double backward")
        (gp, gq), (ux, uy) = gs, (np.zeros_like(x) if u is None else u for u in us)
        return (
            ux * ys[0] + uy * kept,
            ux * np.cos(x) + 2.0 * uy * y,
            ux * (gp * ys[0] - gq * np.sin(x)) + uy * gp * kept,
            ux * gp * kept + 2.0 * uy * gq,
        )

    def check(op, double):
        for kernels in (True, False):
            ran.clear()
            with backend.use_kernels(kernels):
                values = op(x, y)
                gradcheck(op, x, y, order=2, directions=1)
            assert ("forward" in ran) == kernels
            assert ("double backward" in ran) == (kernels and double)
            np.testing.assert_allclose(values, reference(x, y), rtol=1e-15)
            assert type(values) is tuple
            ran.clear()
            with backend.use_kernels(kernels):
                op(x.astype(np.float32), y.astype(np.float32))
                assert ("forward" in ran) == kernels
                ran.clear()
                assert op(x.astype(np.float32), y)[0].dtype == np.float64
                assert not ran
        gradcheck(op, x, y, order=3, directions=1)
        gradcheck(lambda x: op(x, ops.exp(x)), x, order=3, directions=1)
        gradcheck(lambda x, y: op(x, y)[0], x, y, order=3, directions=1)
        gradcheck(lambda x, y: op(x, y)[1], x, y, order=3, directions=1)
        gradcheck(lambda x: op(x, y), x, order=3, directions=1)

    for rest in ((), (double_backward,)):
        op = fused_module.fused(reference, forward, backward, *rest)
        yield lambda op=op, double=bool(rest): check(op, double)

    def picked(x, places, name, factor=1.0):
        return {"exp": ops.exp}[name](ops.take(x, places)) * factor

    def picked_forward(x, places, name, factor):
        ran.append("forward")
        return (np.exp(x[places]) * factor,), None

    def picked_backward(gs, ys, kept, x, places, name, factor):
        gx = np.zeros_like(x)
        np.add.at(gx, places, gs[0] * ys[0])
        return gx, None, None, None

    op = fused_module.fused(
        picked,
        picked_forward,
        picked_backward,
    )
    places = np.array([1, 0, 1])

    def chained(x):
        q = ops.exp(x)
        return ops.sin(q), q

    def forms():
        with backend.use_kernels(False):
            p, q = fused_module.fused(chained, None, None)(Tensor(x))
            assert grad(ops.sum(p), q).tolist() == [0.0, 0.0]
        for kernels in (True, False):
            with backend.use_kernels(kernels):
                ran.clear()
                assert op(x, places, "exp").tolist() == op.reference(x, places, "exp").tolist()
                assert ("forward" in ran) == kernels
        try:
            op(x, places, "exp", 1.0, scale=2.0)
        except TypeError:
            pass
        else:
            raise AssertionError("an argument that does not exist was accepted")

    yield forms
    yield lambda: gradcheck(lambda x: op(x, places, "exp"), x, order=3, directions=1)
    yield lambda: gradcheck(lambda x: op(x, places, "exp", factor=0.5), x, order=3, directions=1)
    yield lambda: np.testing.assert_array_equal(op(x, places, "exp"), np.exp(x[places]))


def checks(row):
    """What the operation of this row is put through, the quickest first."""
    if row == "fused":
        yield from fused_checks()
        return

    def gradients(order):
        for example in CASES[row].inputs():
            gradcheck(example, *example.inputs, order=order, directions=1)

    yield lambda: gradients(1)
    yield lambda: gradients(2)
    yield lambda: test_cases.test_value(row)
    yield test_cases.test_slopes_at_kinks_are_the_documented_ones
    yield test_cases.test_dtypes_in_the_middle
    if row != "astype":  # whose result has another dtype
        yield lambda: test_cases.test_float32(row)


@pytest.mark.parametrize("row", sorted({row for t in TARGETS.values() for row in t.rows}))
def test_without_a_mistake_every_check_passes(row):
    """Else the mutants would die of something else."""
    for check in checks(row):
        check()


@pytest.mark.parametrize("name", TARGETS)
def test_no_mistake_survives(name):
    survivors = [
        str(mutant)
        for mutant in mutants(TARGETS[name])
        if not is_equivalent(mutant) and not mutation.is_killed(mutant, checks)
    ]
    assert not survivors, "\n".join(["mutants that pass every check:", *survivors])


def test_the_exceptions_are_still_there():
    """Every entry of EQUIVALENT is a mutant that would be made: none is left over."""
    made = {(m.target.name, m.before, m.after) for t in TARGETS.values() for m in mutants(t)}
    for (name, before), (_, known) in EQUIVALENT.items():
        for after in known:
            assert (name, before, after) in made


def test_every_rule_is_mutated():
    """Each primitive that has a rule has mutants, and they are many."""
    made = {t.name: sum(1 for _ in mutants(t)) for t in TARGETS.values()}
    assert sum(made.values()) > 300
    for primitive in mutation.primitives().values():
        row = primitive.__name__.strip("_")
        rules = [t for t in TARGETS if t.startswith(f"{row}.")]
        wanted = sum(1 for rule in primitive.rules if rule is not None)
        assert len(rules) == wanted + (primitive.joint is not None), row


def test_rules_are_put_back():
    before = [list(p.rules) for p in mutation.primitives().values()]
    target = TARGETS["tanh.rules[0]"]
    for mutant in mutants(target):
        with mutation.in_place(mutant):
            assert target.original not in mutation.primitives()["tanh"].rules
    assert [list(p.rules) for p in mutation.primitives().values()] == before


def tally() -> str:
    """The count, as `python tests/test_mutation.py` prints it."""
    made = [mutant for target in TARGETS.values() for mutant in mutants(target)]
    equivalent = [mutant for mutant in made if is_equivalent(mutant)]
    tried = [mutant for mutant in made if not is_equivalent(mutant)]
    survivors = [mutant for mutant in tried if not mutation.is_killed(mutant, checks)]
    return "\n".join(
        [
            f"{len(TARGETS)} rules and their functions, {len(made)} mutants: "
            f"{len(tried) - len(survivors)} killed, {len(equivalent)} equivalent, "
            f"{len(survivors)} survived",
            *map(str, survivors),
        ]
    )


if __name__ == "__main__":
    with np.errstate(all="raise", under="ignore"):
        print(tally())
