"""Mutation of the derivative rules: is there a mistake in a rule that the checks would not see?

Every rule of a primitive in scratchmeta/ops, and every private function that rules call, is parsed;
small mistakes are made in it one at a time: operands exchanged, + for −, × for ÷, a term or a
factor or a call left out, a sign, sin for cos, another constant, a condition turned round. Each
mutant takes its original's place while the checks of the operations that use it run. A mutant that
all of them pass has *survived*, and shows a hole in the checks, unless it computes the same.
Mutants known to compute the same are in EQUIVALENT, each with the reason.
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

import scratchmeta.ops
from scratchmeta.verify import diagnosis

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
SWAPPED_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
# Not > for >=: that moves the choice at a kink, where the documented one is asserted by test_cases.
SWAPPED_COMPARISONS = {
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
    for path, node in _expressions(target.node):
        result = path[-1][0] == "body" or isinstance(_parent(target.node, path), ast.Return)
        result = result and not isinstance(node, ast.BoolOp | ast.Compare)
        negative = [ast.UnaryOp(ast.USub(), node)] if result else []
        for replacement in [*_mistakes(node, arrays), *negative]:
            mutated = copy.deepcopy(target.node)
            _replace(mutated, path, replacement)
            before, after = (_statement(root, path) for root in (target.node, mutated))
            yield Mutant(target, node.lineno, before, after, mutated)


def _expressions(root):
    """(path, expression) for all that is computed: no texts, error messages, or zip's strict."""

    def walk(node, path):
        if isinstance(node, ast.Raise | ast.arguments):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if path and path[-1][0] == "decorator_list":
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.expr) and path:
            yield path, node
        for name, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            for i, child in enumerate(children):
                if isinstance(child, ast.AST):
                    at = (name, i) if isinstance(value, list) else (name, None)
                    yield from walk(child, (*path, at))

    yield from walk(root, ())


def _statement(root, path):
    """The innermost statement on a path, without the block it may begin; or the whole rule."""
    found = root
    for name, i in path:
        root = getattr(root, name) if i is None else getattr(root, name)[i]
        found = root if isinstance(root, ast.stmt) else found
    if isinstance(found, ast.If | ast.For | ast.With):
        found = copy.deepcopy(found)
        found.body, found.orelse = [], []
    return ast.unparse(found.body if isinstance(found, ast.Lambda) else found).strip()


def _parent(root, path):
    for name, i in path[:-1]:
        root = getattr(root, name) if i is None else getattr(root, name)[i]
    return root


def _replace(root, path, new):
    parent, (name, i) = _parent(root, path), path[-1]
    if i is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[i] = new


def _mistakes(node, arrays):
    """The expressions that a slip could have put in this one's place."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in arrays:
            for other in arrays:
                if other != name:
                    yield ast.Name(other, ast.Load())
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in SWAPPED_OPERATORS:
                yield ast.BinOp(left, SWAPPED_OPERATORS[type(op)](), right)
            yield left
            yield right
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not(), operand=operand):
            yield operand
        case ast.BoolOp(values=values):
            yield from values
        case ast.Compare(left=left, ops=[op], comparators=[right]) if (
            type(op) in SWAPPED_COMPARISONS
        ):
            yield ast.Compare(left, [SWAPPED_COMPARISONS[type(op)]()], [right])
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            if name in SWAPPED_CALLS:
                yield ast.Call(ast.Name(SWAPPED_CALLS[name], ast.Load()), args, keywords)
            if args and not isinstance(args[0], ast.Starred | ast.Constant) and name not in FORMS:
                yield args[0]
        case ast.Call(func=ast.Attribute(value=value)) if not isinstance(value, ast.Call):
            yield value
        case ast.Constant(value=True | False as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant({0.5: 1.0, 1.0: 2.0}.get(value, value + 1))


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


def is_killed(mutant: Mutant, checks: Callable[[str], Iterator[Callable[[], Any]]]) -> bool:
    """Whether some check of the rows that use the target fails or raises."""
    with in_place(mutant), without_diagnosis():
        try:
            for row in mutant.target.rows:
                for check in checks(row):
                    check()
        except Exception:  # a wrong rule may raise anything
            return True
    return False
