"""Parameters are nested dicts of arrays; these functions treat such a tree as one value.

A tree is a leaf (anything that is not a dict, list or tuple) or a dict, list or tuple of trees.
Leaves come in the order of the sorted keys, so the same parameters flatten alike wherever they
came from.
"""

from collections.abc import Callable
from typing import Any

from scratchmeta import backend

Tree = Any


_BRANCHES = (dict, list, tuple)


def _is_leaf(node: Tree) -> bool:
    return not isinstance(node, _BRANCHES)


def _like(node: Tree, children: list) -> Tree:
    """A list or tuple, named tuples included, of node's type with these children."""
    return type(node)(*children) if hasattr(node, "_fields") else type(node)(children)


def map(f: Callable, *trees: Tree) -> Tree:
    """The tree of f(leaf, ...) over the matching leaves of trees of the same form.

    >>> map(lambda p, g: p - g, {"w": 3, "b": [1, 2]}, {"w": 1, "b": [1, 1]})
    {'w': 2, 'b': [0, 1]}

    Raises ValueError naming the keys where the forms differ.
    """
    first, *others = trees
    return _map(f, first, others)


def _map(f, first, others):
    if isinstance(first, dict):
        for other in others:
            if not isinstance(other, dict) or other.keys() != first.keys():
                raise _differ(first, other)
        return {key: _map(f, child, [o[key] for o in others]) for key, child in first.items()}
    if isinstance(first, _BRANCHES):
        for other in others:
            if not isinstance(other, list | tuple) or len(other) != len(first):
                raise _differ(first, other)
        return _like(
            first, [_map(f, child, row) for child, *row in zip(first, *others, strict=True)]
        )
    for other in others:
        if isinstance(other, _BRANCHES):
            raise _differ(first, other)
    return f(first, *others)


def _differ(wanted: Tree, got: Tree) -> ValueError:
    def form(node):
        if isinstance(node, dict):
            return f"a dict with keys {sorted(node)}"
        return "a leaf" if _is_leaf(node) else f"a {type(node).__name__} of {len(node)}"

    return ValueError(f"tree.map: wanted {form(wanted)}, got {form(got)}")


def flatten(tree: Tree) -> tuple[list, Tree]:
    """The leaves in order, and a treedef: any tree of that form, from which `unflatten`
    rebuilds."""
    if _is_leaf(tree):
        return [tree], tree
    leaves: list = []
    _collect(tree, leaves)
    return leaves, tree


def _collect(branch, leaves):
    for child in [branch[key] for key in sorted(branch)] if isinstance(branch, dict) else branch:
        if isinstance(child, _BRANCHES):
            _collect(child, leaves)
        else:
            leaves.append(child)


def paths(tree: Tree) -> list[str]:
    """The name of every leaf, keys joined by "/", in flatten's order.

    >>> paths({"conv": {"w": 0, "b": 0}, "out": [0, 0]})
    ['conv/b', 'conv/w', 'out/0', 'out/1']
    """
    if _is_leaf(tree):
        return [""]
    pairs = ((k, tree[k]) for k in sorted(tree)) if isinstance(tree, dict) else enumerate(tree)
    return [f"{k}/{rest}" if rest else str(k) for k, child in pairs for rest in paths(child)]


def unflatten(treedef: Tree, leaves: list) -> Tree:
    """The tree of the form treedef with these leaves.

    Raises ValueError for another number of them.
    """
    rest = iter(leaves)
    try:
        built = _build(treedef, rest)
        if not list(rest):
            return built
    except StopIteration:
        pass
    wanted = len(flatten(treedef)[0])
    raise ValueError(f"tree.unflatten: wanted {wanted} leaves, got {len(leaves)}")


# Not a function inside unflatten: one that calls itself would be a reference cycle, and keep the
# leaves' graphs alive until the collector comes.
def _build(node, rest):
    if isinstance(node, dict):
        built = dict.fromkeys(node)  # in the order that the dict has
        for key in sorted(node):
            built[key] = _build(node[key], rest)
        return built
    return next(rest) if _is_leaf(node) else _like(node, [_build(child, rest) for child in node])


def ravel(tree: Tree) -> tuple[Any, Callable]:
    """All arrays of the tree as one vector, and the function that cuts such a vector up into the
    tree again."""
    leaves, treedef = flatten(tree)
    vector = backend.xp(*leaves).concatenate(leaves, axis=None)

    def unravel(vector):
        parts, start = [], 0
        for leaf in leaves:
            parts.append(vector[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return unflatten(treedef, parts)

    return vector, unravel


def lerp(a: Tree, b: Tree, t: float) -> Tree:
    """a + t (b − a), leaf by leaf: t = 0 is a, t = 1 is b."""
    return map(lambda a, b: a + t * (b - a), a, b)


def astype(tree: Tree, dtype: object) -> Tree:
    """The tree with every array in this dtype."""
    return map(lambda a: a.astype(dtype), tree)


def to_backend(tree: Tree) -> Tree:
    """The tree with every array on the backend in use."""
    return map(backend.asarray, tree)


def to_numpy(tree: Tree) -> Tree:
    """The tree with every array in the host's memory."""
    return map(backend.to_numpy, tree)
