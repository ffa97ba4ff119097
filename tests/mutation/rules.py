"""Mutation of the derivative rules.

Every rule of a primitive in scratchmeta/ops, and every private function that rules call, is parsed;
small mistakes are made in it: operands exchanged, + for −, × for ÷, a term or a factor or a call
left out, a sign, sin for cos, another constant, a condition turned round. Each mutant takes its
original's place while the checks of the operations that use it run.
"""

import ast
import contextlib
import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import test_cases

import scratchmeta.ops
from mutation import Equivalent, expressions, parent, replaced, slips, statement
from scratchmeta import Tensor, backend, grad, ops
from scratchmeta.ops import fused as fused_module
from scratchmeta.verify import diagnosis
from scratchmeta.verify.cases import CASES
from scratchmeta.verify.gradcheck import gradcheck
from scratchmeta.verify.numbers import normal

gradcheck_module = importlib.import_module("scratchmeta.verify.gradcheck")

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(scratchmeta.ops.__path__, "scratchmeta.ops.")
]

# Arguments that are arrays, and so can be mistaken for one another.
ARRAYS = {"gs", "us", "g", "y", "u", "x", "w", "a", "b", "p", "other", "condition"}
# Calls that change only the form: NumPy takes any sequence for a shape, and comparisons, for which
# raw() is there, are not recorded anyway. Leaving one out is no mistake in the mathematics.
FORMS = {"raw", "tuple", "list"}
SWAPPED_CALLS = {"sin": "cos", "cos": "sin", "maximum": "minimum", "minimum": "maximum"}
SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    # Not > for >=: that moves the choice at a kink; the documented one is asserted by test_cases.
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.LtE,
    ast.LtE: ast.GtE,
}


@dataclass
class Target:
    """A rule, or a private function that rules call."""

    module: ModuleType
    name: str  # "tanh.rules[0]" or "_spread"
    node: ast.Lambda | ast.FunctionDef
    original: Callable
    rows: list[str] = field(default_factory=list)  # the rows whose rules use it


@dataclass
class Mutant:
    """One mistake in a target."""

    target: Target
    line: int
    before: str  # the statement, or the rule
    after: str
    node: ast.AST

    @property
    def name(self) -> str:
        """The target's."""
        return self.target.name

    def __str__(self) -> str:
        file = self.target.module.__name__.replace(".", "/") + ".py"
        return f"{file}:{self.line} {self.target.name}: {self.before}  ->  {self.after}"

    def compile(self) -> Callable:
        """The mutated function, in its module's namespace."""
        node = ast.fix_missing_locations(copy.deepcopy(self.node))
        if isinstance(node, ast.Lambda):
            code = compile(ast.Expression(node), str(self), "eval")
            return eval(code, vars(self.target.module))
        scope: dict[str, Any] = {}
        exec(compile(ast.Module([node], []), str(self), "exec"), vars(self.target.module), scope)
        return scope[node.name]


# --- what there is to mutate ----------------------------------------------------------------------


def primitives() -> dict[str, Any]:
    """The operations with rules, by their names in the source."""
    return {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if hasattr(value, "rules") and value.__module__ == module.__name__
    }


def targets() -> list[Target]:
    """All rules, then all private functions that they call, directly or not."""
    operations = primitives()
    found: list[Target] = []
    helpers: dict[str, Target] = {}
    for module in MODULES:
        parsed = ast.parse(inspect.getsource(module))
        functions = {n.name: n for n in parsed.body if isinstance(n, ast.FunctionDef)}
        for name, node in functions.items():
            own = vars(module).get(name)
            if name not in operations and inspect.isfunction(own):
                helpers.setdefault(name, Target(module, name, node, own))
        for name, node in functions.items():
            if name in operations:
                found += _rules(module, operations[name], node)
    engine = helpers.pop("fused")  # its inner functions are the rules of every fused operation
    engine.rows.append("fused")
    found.append(engine)
    for rule in list(found):
        _note_helpers(rule, rule.rows, helpers, set())
    return found + [h for h in helpers.values() if h.rows]


def _rules(module, operation, node):
    (decorator,) = (d for d in node.decorator_list if isinstance(d, ast.Call))
    row = operation.__name__.strip("_")
    rules = [(f"{row}.rules[{i}]", rule) for i, rule in enumerate(decorator.args)]
    rules += [(f"{row}.joint", k.value) for k in decorator.keywords if k.arg == "joint"]
    for name, rule in rules:
        if isinstance(rule, ast.Constant):  # None: not differentiated
            continue
        i = name.partition("[")[2].rstrip("]")
        original = operation.rules[int(i)] if i else operation.joint
        yield Target(module, name, rule, original, [row])


def _note_helpers(target, rows, helpers, seen):
    """Enters the rows of a rule with all the private functions it calls."""
    for node in ast.walk(target.node):
        if isinstance(node, ast.Name) and node.id in helpers and node.id not in seen:
            helper = helpers[node.id]
            if not (node.id.startswith("_") or node.id == "like"):
                continue  # a public operation made of others: its value and gradient have a row
            seen.add(node.id)
            helper.rows += [row for row in rows if row not in helper.rows]
            _note_helpers(helper, rows, helpers, seen)


# --- mistakes -------------------------------------------------------------------------------------


def mutants(target: Target) -> Iterator[Mutant]:
    """Every mutant of a target; a rule that only names a function is mutated in that function."""
    if isinstance(target.node, ast.Name):
        return
    named = {n.arg for n in ast.walk(target.node) if isinstance(n, ast.arg)}
    arrays = sorted(named & ARRAYS)
    for path, node in expressions(target.node):
        result = path[-1][0] == "body" or isinstance(parent(target.node, path), ast.Return)
        result = result and not isinstance(node, ast.BoolOp | ast.Compare)
        negative = [ast.UnaryOp(ast.USub(), node)] if result else []
        for replacement in [*_mistakes(node, arrays), *negative]:
            mutated = replaced(target.node, path, replacement)
            before, after = (statement(root, path) for root in (target.node, mutated))
            yield Mutant(target, node.lineno, before, after, mutated)


def _mistakes(node, arrays):
    """The expressions that a slip could have put in this one's place."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in arrays:
            for other in arrays:
                if other != name:
                    yield ast.Name(other, ast.Load())
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            if name in SWAPPED_CALLS:
                yield ast.Call(ast.Name(SWAPPED_CALLS[name], ast.Load()), args, keywords)
            if args and not isinstance(args[0], ast.Starred | ast.Constant) and name not in FORMS:
                yield args[0]
        case ast.Call(func=ast.Attribute(value=value)) if not isinstance(value, ast.Call):
            yield value
        case _:
            yield from slips(node, SWAPPED)


# --- running --------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """The mutant wherever its original is: in lists of rules and in the modules' namespaces."""
    original, new = mutant.target.original, mutant.compile()
    undo: list[Callable[[], None]] = []
    for operation in primitives().values():
        for i, rule in enumerate(operation.rules):
            if rule is original:
                operation.rules[i] = new
                undo.append(lambda o=operation, i=i: o.rules.__setitem__(i, original))
        if operation.joint is original:
            operation.joint = new
            undo.append(lambda o=operation: setattr(o, "joint", original))
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, new)
                undo.append(lambda m=module, n=name: setattr(m, n, original))
    assert undo, f"{mutant.target.name} is used nowhere"
    try:
        yield
    finally:
        for restore in undo:
            restore()


@contextlib.contextmanager
def without_diagnosis() -> Iterator[None]:
    """Failed checks say nothing but that they failed."""
    explain, bisect = diagnosis.explain, gradcheck_module._passes_without_kernels
    diagnosis.explain = lambda function, *rest: diagnosis.Failure(function.order, [])
    gradcheck_module._passes_without_kernels = lambda *rest: False
    try:
        yield
    finally:
        diagnosis.explain, gradcheck_module._passes_without_kernels = explain, bisect


# --- the checks -----------------------------------------------------------------------------------


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


# --- the subject ----------------------------------------------------------------------------------

EQUIVALENT: Equivalent = {
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


class Rules:
    """The subject."""

    equivalent = EQUIVALENT

    def mutants(self) -> list[Mutant]:
        """Every mutant of every rule."""
        return [mutant for target in targets() for mutant in mutants(target)]

    def passes(self) -> bool:
        """Whether the checks of every row pass."""
        with np.errstate(all="raise", under="ignore"):
            for row in sorted({row for target in targets() for row in target.rows}):
                for check in checks(row):
                    check()
        return True

    def is_killed(self, mutant: Mutant) -> bool:
        """Whether some check of the rows that use the target fails or raises."""
        with np.errstate(all="raise", under="ignore"), in_place(mutant), without_diagnosis():
            try:
                for row in mutant.target.rows:
                    for check in checks(row):
                        check()
            except Exception:  # a wrong rule may raise anything
                return True
        return False


SUBJECT = Rules()
