"""Values that are used twice: who writes into one, and who takes one for two.

An operation or a rule that works in place changes what others still need; a rule that tells its
arguments apart by identity, or differentiates with respect to one of them, goes wrong where both
are the same value. Either looks like a detached path, a constant factor or nothing in particular.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from scratchmeta import backend, core
from scratchmeta.core import Node, Tensor, raw


def nodes(ys: Sequence) -> Iterator[Node]:
    """The nodes with an operation that the Tensors ys depend on."""
    stack = [y.node for y in ys if isinstance(y, Tensor)]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node.op is not None:
            yield node
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)


def written(function, ws: Sequence) -> str | None:
    """Which operation or rule, if any, writes into an array that it was given."""
    if function.order > 1:
        below = function.below
        found = written(below, function.points[len(below.points) :])
        if found:
            return found
    xs = [Tensor(p.copy()) for p in function.points]
    ys = function.trace(xs)
    recorded = sorted(nodes(ys), key=lambda node: node.number)
    changed = None
    for node in recorded:
        args = _copies(node.args)
        out = node.op(*args, **node.kwargs)
        for k, (a, before) in enumerate(zip(args, node.args, strict=True)):
            if not _same(a, before):
                return f"{node.op.__name__} writes into its argument {k}: others may use it too"
        if changed is None and not _same(out, node.out):
            changed = (
                f"an argument or the result of {node.op.__name__} was written into after it had "
                "been computed: something works in place on a value that is used twice"
            )
    if changed:
        return changed
    said: list[str] = []
    for node in recorded:
        node.op = _Watched(node.op, said)
    core.pull_back(ys, _copies(ws), xs, create_graph=False)
    return said[0] if said else None


def shared(function) -> str | None:
    """Which operation that is not this library's, if any, gets one value in two places."""
    for node in nodes(function.trace([Tensor(p) for p in function.points])):
        own = getattr(node.op, "__module__", "").startswith("scratchmeta.ops")
        for k, parent in enumerate(node.parents):
            if not own and parent is not None and parent in node.parents[:k]:
                return (
                    f"{node.op.__name__}'s arguments {node.parents.index(parent)} and {k} are one "
                    "value here: a rule that tells them apart by identity, or that differentiates "
                    "with respect to one of them, takes one for both"
                )
    return None


class _Watched:
    """An operation whose rules are seen when they write into what they are given."""

    def __init__(self, op, said):
        def watched(rule):
            def watching(g, out, *args, **kwargs):
                given = [*(g if isinstance(g, list) else [g]), *args]
                before = _copies(given)
                found = rule(g, out, *args, **kwargs)
                for a, b in zip(given, before, strict=True):
                    if not _same(a, b):
                        what = "an argument" if any(a is x for x in args) else "the cotangent"
                        said.append(
                            f"a rule of {op.__name__} writes into {what} that it is given, which "
                            "others use too: copy it first"
                        )
                return found

            return rule and watching

        self.__name__ = op.__name__
        self.rules, self.joint = [watched(rule) for rule in op.rules], watched(op.joint)


def _copies(values):
    return [raw(v).copy() if backend.is_array(raw(v)) else v for v in values]


def _same(a, b):
    if isinstance(a, tuple) and isinstance(b, tuple):
        return all(map(_same, a, b))
    if not (backend.is_array(a) and backend.is_array(b)):
        return True
    a, b = backend.to_numpy(a), backend.to_numpy(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
