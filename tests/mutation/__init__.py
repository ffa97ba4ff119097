"""Mutation: is there a mistake in the library that its checks would not see?

A subject names code and the checks that are to find a mistake in it. Small mistakes are made in the
code one at a time, and the checks run with each; a mutant that all of them pass has *survived*, and
shows a hole in the checks, unless it computes the same.

    python -m tests.mutation [SUBJECT ...] [--sample N] [--seed S]

prints for every subject how many were tried and killed, and each survivor. A subject is a module
here with `SUBJECT`, see `Subject`.
"""

import argparse
import ast
import copy
import importlib
import pkgutil
import random
import time
from collections.abc import Iterator
from typing import Any, Protocol


class Mutant(Protocol):
    """One mistake; as a text it says where it is and what it is."""

    name: str  # the function it is in
    before: str  # the statement it is in
    after: str


# Mutants that compute the same: (name, before) -> (why, {after, ...}).
Equivalent = dict[tuple[str, str], tuple[str, set[str]]]


class Subject(Protocol):
    """Code, and what checks it."""

    equivalent: Equivalent

    def mutants(self) -> list[Any]:
        """Every mutant, also those that are known to be equivalent."""

    def passes(self) -> bool:
        """Whether every check passes without a mistake: else mutants die of something else."""

    def is_killed(self, mutant: Any) -> bool:
        """Whether some check fails with it."""


def subjects() -> list[str]:
    """The names of all subjects."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"]


def subject(name: str) -> Subject:
    """The subject of this name."""
    return importlib.import_module(f"mutation.{name}").SUBJECT


def is_equivalent(of: Subject, mutant: Mutant) -> bool:
    """Whether it is known to compute the same."""
    _, known = of.equivalent.get((mutant.name, mutant.before), ("", set()))
    return mutant.after in known


def campaign(name: str, of: Subject, sample: int | None = None, seed: int = 0) -> list[Any]:
    """Tries every mutant of a subject, or a sample of them; prints survivors, and the tally."""
    began = time.monotonic()
    if not of.passes():
        raise SystemExit(f"{name}: some check fails without a mistake")
    made = of.mutants()
    tried = [mutant for mutant in made if not is_equivalent(of, mutant)]
    chosen = tried
    if sample is not None and sample < len(tried):
        chosen = random.Random(seed).sample(tried, sample)
    survivors = []
    for mutant in chosen:
        if not of.is_killed(mutant):
            survivors.append(mutant)
            print(f"survived: {mutant}", flush=True)
    print(
        f"{name}: {len(made)} mutants, {len(made) - len(tried)} equivalent, {len(chosen)} tried, "
        f"{len(chosen) - len(survivors)} killed, {len(survivors)} survived "
        f"({time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return survivors


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status is 1 where a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(subjects()))
    parser.add_argument("--sample", type=int, help="try so many of each, drawn")
    parser.add_argument("--seed", type=int, default=0, help="decides the sample")
    options = parser.parse_args(argv)
    if unknown := set(options.subjects) - set(subjects()):
        parser.error(f"wanted {', '.join(subjects())}, got {', '.join(sorted(unknown))}")
    survived = [
        campaign(name, subject(name), options.sample, options.seed)
        for name in options.subjects or subjects()
    ]
    return 1 if any(survived) else 0


# --- in the syntax tree ---------------------------------------------------------------------------

Path = tuple[tuple[str, int | None], ...]  # (field, place in its list) from the root down


def expressions(root: ast.AST) -> Iterator[tuple[Path, ast.AST]]:
    """(path, expression) for all that is computed: no texts, error messages, or zip's strict."""

    def walk(node, path):
        if isinstance(node, ast.Raise | ast.arguments | ast.JoinedStr):
            return
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if path and path[-1][0] in ("decorator_list", "annotation", "returns"):
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


def statement(root: ast.AST, path: Path) -> str:
    """The innermost statement on a path, without the block it may begin; or the whole rule."""
    found = root
    for name, i in path:
        root = getattr(root, name) if i is None else getattr(root, name)[i]
        found = root if isinstance(root, ast.stmt) else found
    if isinstance(found, ast.If | ast.For | ast.With):
        found = copy.deepcopy(found)
        found.body, found.orelse = [], []
    return ast.unparse(found.body if isinstance(found, ast.Lambda) else found).strip()


def parent(root: ast.AST, path: Path) -> ast.AST:
    """The node above the one that the path leads to."""
    for name, i in path[:-1]:
        root = getattr(root, name) if i is None else getattr(root, name)[i]
    return root


def replaced(root: ast.AST, path: Path, new: Any) -> ast.AST:
    """A copy with `new` where the path leads."""
    root = copy.deepcopy(root)
    above, (name, i) = parent(root, path), path[-1]
    if i is None:
        setattr(above, name, new)
    else:
        getattr(above, name)[i] = new
    return root


def slips(node: ast.AST, swapped: dict[type, type]) -> Iterator[ast.AST]:
    """What a slip makes of an operator, a condition or a constant; `swapped` operators, too."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in swapped:
                yield ast.BinOp(left, swapped[type(op)](), right)
            yield left
            yield right
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not(), operand=operand):
            yield operand
        case ast.BoolOp(values=values):
            yield from values
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in swapped:
            yield ast.Compare(left, [swapped[type(op)]()], [right])
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Constant(value=True | False as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant({0.5: 1.0, 1.0: 2.0}.get(value, value + 1))
