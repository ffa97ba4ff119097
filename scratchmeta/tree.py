"""Parameters are nested dicts of arrays; these functions treat such a tree as one value.

A tree is a leaf (anything that is not a dict, list or tuple) or a dict, list or tuple of trees.
Leaves come in the order of the sorted keys, so the same parameters flatten alike wherever they
came from.
"""

from collections.abc import Callable
from typing import Any

from scratchmeta import backend

Tree = Any


class _Leaf:
    """Marks a leaf's place in a treedef."""

    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()


def _children(node: Tree) -> list[tuple[Any, Tree]]:
    if isinstance(node, dict):
        return [(key, node[key]) for key in sorted(node)]
    return list(enumerate(node))


def _rebuild(node: Tree, children: list) -> Tree:
    if isinstance(node, dict):
        built = dict(zip(sorted(node), children, strict=True))
        return {key: built[key] for key in node}  # the dict keeps its own order
    if hasattr(node, "_fields"):  # a named tuple
        return type(node)(*children)
    return type(node)(children)


def _is_leaf(node: Tree) -> bool:
    return not isinstance(node, dict | list | tuple)


def map(f: Callable, *trees: Tree) -> Tree:
    """The tree of f(leaf, ...) over the matching leaves of trees of the same form.

    >>> map(lambda p, g: p - g, {"w": 3, "b": [1, 2]}, {"w": 1, "b": [1, 1]})
    {'w': 2, 'b': [0, 1]}

    Raises ValueError naming the first place where the forms differ.
    """
    return _map(f, trees, "")


def _map(f, trees, path):
    first = trees[0]
    if _is_leaf(first):
        for other in trees[1:]:
            if not _is_leaf(other):
                raise ValueError(f"tree.map at {path!r}: wanted a leaf, got {_form(other)}")
        return f(*trees)
    for other in trees[1:]:
        if not _same_form(first, other):
            got = "a leaf" if _is_leaf(other) else _form(other)
            raise ValueError(f"tree.map at {path!r}: wanted {_form(first)}, got {got}")
    columns = zip(*(_children(t) for t in trees), strict=True)
    return _rebuild(
        first, [_map(f, [child for _, child in row], _join(path, row[0][0])) for row in columns]
    )


def _same_form(a: Tree, b: Tree) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys()
    return isinstance(b, list | tuple) and len(a) == len(b)


def _form(node: Tree) -> str:
    if isinstance(node, dict):
        return f"a dict with keys {sorted(node)}"
    return f"a {type(node).__name__} of {len(node)}"


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)


def flatten(tree: Tree) -> tuple[list, Tree]:
    """The leaves in order, and the treedef from which `unflatten` rebuilds the tree."""
    leaves: list = []

    def place(leaf):
        leaves.append(leaf)
        return LEAF

    return leaves, map(place, tree)


def unflatten(treedef: Tree, leaves: list) -> Tree:
    """The tree of the form treedef with these leaves."""
    rest = iter(leaves)
    built = map(lambda _: next(rest), treedef)
    if next(rest, LEAF) is not LEAF:
        raise ValueError(
            f"tree.unflatten: wanted {len(flatten(treedef)[0])} leaves, got {len(leaves)}"
        )
    return built


def paths(tree: Tree) -> list[str]:
    """The name of every leaf, keys joined by "/", in flatten's order.

    >>> paths({"conv": {"w": 0, "b": 0}, "out": [0, 0]})
    ['conv/b', 'conv/w', 'out/0', 'out/1']
    """
    found: list[str] = []

    def walk(node, path):
        if _is_leaf(node):
            found.append(path)
        else:
            for key, child in _children(node):
                walk(child, _join(path, key))

    walk(tree, "")
    return found


def ravel(tree: Tree) -> tuple[Any, Callable]:
    """All arrays of the tree as one vector, and the function that cuts such a vector up into the
    tree again."""
    leaves, treedef = flatten(tree)
    shapes = [leaf.shape for leaf in leaves]
    sizes = [leaf.size for leaf in leaves]
    vector = backend.xp(*leaves).concatenate([leaf.reshape(-1) for leaf in leaves])

    def unravel(vector):
        parts, start = [], 0
        for shape, size in zip(shapes, sizes, strict=True):
            parts.append(vector[start : start + size].reshape(shape))
            start += size
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
