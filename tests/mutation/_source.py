"""Mutants of whole modules, each tried by running tests of the suite in a process of its own.

Mistakes are those that wiring invites: an argument left out, or another one's value given; an
option passed over for its default; one split, one seed, one index for another; a number, a flag, a
comparison, a condition; a term, a factor, a call or a statement left out.
"""

import ast
import contextlib
import fnmatch
import importlib.util
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader

from mutation import Equivalent, Path, expressions, parent, replaced, slips, statement

REPOSITORY = pathlib.Path(__file__).parents[2]
PATIENCE = 120.0  # seconds, after which a mutant that has not ended is taken for killed

# What can be taken for one another, as names, attributes or keys.
ALIKE = [
    {"train", "validation", "test"},
    {"dataset", "validation"},
    {"CALIBRATION", "VALIDATION", "TEST"},
    {"support_x", "query_x"},
    {"support_y", "query_y"},
    {"n_way", "k_shot", "n_query"},
    {"shape", "test_shape"},
    {"seed", "index"},
    {"inner_steps", "eval_inner_steps"},
    {"inner_batch", "eval_batch"},
    {"batch_norm", "test_batch_norm"},
    {"n_in", "n_out", "n_hidden"},
    {"jitter", "affine"},
    {"forget_bias", "input_bias"},
    {"rows", "width", "heads"},
    {"min", "max"},
]
# An attribute of one of these is an option.
OPTIONS = {"options", "settings", "training", "method", "network", "dataset"}
# Calls that change where an array lies, or how a text reads.
FORMS = {
    "to_backend",
    "to_numpy",
    "asarray",
    "raw",
    "tuple",
    "list",
    "str",
    "int",
    "float",
    "repr",
    "type",
}
SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Gt: ast.GtE,
    ast.Lt: ast.LtE,
    ast.GtE: ast.Gt,
    ast.LtE: ast.Lt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake in it."""

    module: str  # scratchmeta.run.training
    name: str  # "training.start"
    line: int
    before: str
    after: str
    root: ast.Module  # as it is
    path: Path  # to the definition that
    changed: ast.AST  # takes its place

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.name}: {self.before}  ->  {self.after}"

    def put(self) -> None:
        """In its module's place, for this process."""
        unchanged = SourceFileLoader.get_code

        def get_code(loader, name):
            if name != self.module:
                return unchanged(loader, name)
            tree = replaced(self.root, self.path, self.changed)
            return compile(ast.fix_missing_locations(tree), loader.path, "exec")

        SourceFileLoader.get_code = get_code


@dataclass(frozen=True)
class Source:
    """A subject: parts of modules, and the tests that are to find mistakes in them.

    `parts` are names of modules, or patterns of what is defined in one: scratchmeta.nn, or
    scratchmeta.nn:*.init. `tests` are run one after another, the quickest first, as pytest is
    told them, until one fails.
    """

    parts: Sequence[str]
    tests: Sequence[Sequence[str]]
    equivalent: Equivalent

    def mutants(self) -> list[Mutant]:
        """Every mutant."""
        return [mutant for part in self.parts for mutant in _mutants(part)]

    def passes(self) -> bool:
        """Whether all tests pass without a mistake."""
        return all(passes(None, tests) for tests in self.tests)

    def is_killed(self, mutant: Mutant) -> bool:
        """Whether some test fails with it."""
        return any(not passes(mutant, tests) for tests in self.tests)


# --- mistakes -------------------------------------------------------------------------------------


def _mutants(part: str) -> Iterator[Mutant]:
    module, _, inside = part.partition(":")
    source = importlib.util.find_spec(module).origin
    root = ast.parse(pathlib.Path(source).read_text(encoding="utf-8"))
    short = module.removeprefix("scratchmeta.")
    for path, name in _definitions(root, inside):
        within = _at(root, path)
        for inner, node, replacement in _changes(within):
            changed = replaced(within, inner, replacement)
            before, after = (statement(definition, inner) for definition in (within, changed))
            if before != after:
                yield Mutant(
                    module, f"{short}.{name}", node.lineno, before, after, root, path, changed
                )


def _definitions(root: ast.Module, inside: str) -> Iterator[tuple[tuple, str]]:
    """Paths and names of all functions, and of what classes and modules assign, under `inside`."""

    def walk(node, path, names):
        for i, child in enumerate(node.body):
            at = (*path, ("body", i))
            name = getattr(child, "name", None)
            named = ".".join([*names, name] if name else names)
            if isinstance(child, ast.ClassDef):
                yield from walk(child, at, [*names, name])
            elif (
                isinstance(child, ast.FunctionDef | ast.Assign | ast.AnnAssign)
                and not (name or "").startswith("__repr")
                and fnmatch.fnmatchcase(named, inside or "*")
            ):
                yield at, named or "module"

    yield from walk(root, (), [])


def _at(root: ast.AST, path: tuple) -> ast.AST:
    for name, i in path:
        root = getattr(root, name) if i is None else getattr(root, name)[i]
    return root


def _changes(root: ast.AST) -> Iterator[tuple[tuple, ast.AST, ast.AST]]:
    """(path, what is there, what a slip could have put there) for all that is in a definition."""
    for path, node in expressions(root):
        above = parent(root, path)
        for replacement in _mistakes(node):
            yield path, node, replacement
        if isinstance(above, ast.If | ast.IfExp | ast.While) and path[-1][0] == "test":
            yield path, node, ast.UnaryOp(ast.Not(), node)
    for path, node in _statements(root):
        yield path, node, ast.copy_location(ast.Pass(), node)


def _statements(root: ast.AST) -> Iterator[tuple[tuple, ast.stmt]]:
    """What can be left out without a name being missing afterwards."""

    def walk(node, path):
        for field in ("body", "orelse", "finalbody"):
            for i, child in enumerate(getattr(node, field, None) or ()):
                if not isinstance(child, ast.stmt):
                    return
                at = (*path, (field, i))
                call = isinstance(child, ast.Expr) and isinstance(child.value, ast.Call)
                call = call and getattr(child.value.func, "id", "") != "print"
                set_ = isinstance(child, ast.Assign) and not isinstance(child.targets[0], ast.Name)
                if call or set_ or isinstance(child, ast.AugAssign | ast.Continue | ast.Break):
                    yield at, child
                if not isinstance(child, ast.FunctionDef | ast.ClassDef):
                    yield from walk(child, at)

    yield from walk(root, ())


def _mistakes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            yield from (ast.Name(other, ast.Load()) for other in _like(name))
        case ast.Attribute(value=value, attr=name, ctx=ast.Load()):
            yield from (ast.Attribute(value, other, ast.Load()) for other in _like(name))
            last = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
            if last in OPTIONS:
                yield ast.Constant(0)  # falsy: as if it were not given
        case ast.Call(func=func, args=args, keywords=keywords):
            name = func.id if isinstance(func, ast.Name) else getattr(func, "attr", "")
            for i in range(len(keywords)):
                yield ast.Call(func, args, keywords[:i] + keywords[i + 1 :])
            if len(args) > 1:
                yield ast.Call(func, args[:-1], keywords)
            if args and not isinstance(args[0], ast.Starred | ast.Constant) and name not in FORMS:
                yield args[0]
        case _:
            yield from slips(node, SWAPPED)


def _like(name: str) -> list[str]:
    return sorted({other for group in ALIKE if name in group for other in group} - {name})


# --- running --------------------------------------------------------------------------------------


def passes(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Whether these tests pass with a mutant in its module's place."""
    _warm()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os._exit(_run(mutant, tests))
        finally:
            os._exit(99)
    deadline = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.005)


def _warm() -> None:
    """Imports what children would else import one after another."""
    for name in ("numba", "numpy", "hypothesis", "PIL.Image", "pytest", "tyro", "rich.progress"):
        importlib.import_module(name)


def _run(mutant: Mutant | None, tests: Sequence[str]) -> int:
    import pytest

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    own = {file.stem for file in (REPOSITORY / "tests").iterdir()} - {"mutation"}
    for name in list(sys.modules):
        if name.partition(".")[0] in own | {"scratchmeta"}:
            del sys.modules[name]
    if mutant is not None:
        mutant.put()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a script began this
    os.chdir(REPOSITORY)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with contextlib.suppress(SystemExit):
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    return 99
