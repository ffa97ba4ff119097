"""What the engine has recorded of an expression: printed, and drawn by Graphviz.

    print(sm.graph(y))                      a line for each node, oldest first
    sm.graph(y, names={"w": w}).dot()       Graphviz source
    sm.graph(y).save("y.svg")               drawn, where Graphviz's `dot` is installed

Nodes have the numbers in which they were recorded. Backward visits them in the reverse order, and
reaches a node when all that use it have had their say.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from scratchmeta import backend
from scratchmeta.core import Node, Tensor, raw


class Graph:
    """The nodes that some Tensors depend on; `str(graph)` lists them, and notebooks draw it."""

    def __init__(self, ys: Sequence[Tensor], names: Mapping[str, Tensor]) -> None:
        self.names = {x.node: name for name, x in names.items()}
        self.results = {y.node for y in ys}
        found = set(self.results)
        stack = list(found)
        self.leaves: dict[Node, str] = {x.node: _form(x) for x in (*ys, *names.values())}
        while stack:
            node = stack.pop()
            for k, parent in enumerate(node.parents):
                if parent is None:
                    continue
                if parent.op is None and node.op is not None:
                    self.leaves.setdefault(parent, _form(node.args[k]))
                if parent not in found:
                    found.add(parent)
                    stack.append(parent)
        self.nodes = sorted(found, key=lambda node: node.number)
        self.place = {node: k for k, node in enumerate(self.nodes)}

    def label(self, node: Node) -> tuple[str, str]:
        """What a node is, and the dtype and shape of what it made."""
        if node.op is not None:
            what, form = node.op.__name__, _form(node.out)
        elif node.slot is not None:
            (parent,) = node.parents
            what, form = f"output {node.slot}", _form(parent.out[node.slot])
        else:
            what, form = "input", self.leaves[node]
        name = self.names.get(node)
        return (what if name is None else f"{name} = {what}" if node.op else name), form

    def arguments(self, node: Node) -> list[str]:
        """A node's arguments: %number for a node's result, else what the constant is."""
        if node.op is None:
            return [f"%{self.place[parent]}" for parent in node.parents]
        given = [
            _form(a) if parent is None else f"%{self.place[parent]}"
            for a, parent in zip(node.args, node.parents, strict=True)
        ]
        return given + [f"{name}={_form(a)}" for name, a in node.kwargs.items()]

    def __str__(self) -> str:
        lines = []
        for k, node in enumerate(self.nodes):
            what, form = self.label(node)
            arguments = self.arguments(node)
            call = f"{what}({', '.join(arguments)})" if arguments else what
            lines.append((f"%{k}", call, form, " <- result" if node in self.results else ""))
        number, wide = (max(len(line[i]) for line in lines) for i in (0, 1))
        return "\n".join(f"{n:<{number}}  {c:<{wide}}  {form}{end}" for n, c, form, end in lines)

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        lines = ["digraph {", '  node [fontname="sans-serif", fontsize=10]']
        for k, node in enumerate(self.nodes):
            shape = "box" if node.op is not None else "ellipse"
            style = ", penwidth=2" if node in self.results else ""
            text = "\\n".join(map(_escaped, self.label(node)))
            lines.append(f'  {k} [label="{text}", shape={shape}{style}]')
            lines += [f"  {self.place[p]} -> {k}" for p in node.parents if p is not None]
        return "\n".join([*lines, "}"]) + "\n"

    def svg(self) -> str:
        """The graph drawn. Raises RuntimeError where Graphviz's `dot` is not installed or fails."""
        import subprocess  # here, since importing the library would wait for it

        program = shutil.which("dot")
        if program is None:
            raise RuntimeError(
                "graph: Graphviz's program `dot` is not installed; .dot() needs none"
            )
        done = subprocess.run(
            [program, "-Tsvg"], input=self.dot(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"graph: {program} failed: {done.stderr.strip()}")
        return done.stdout

    def save(self, path: str | Path) -> None:
        """Writes Graphviz source to a path that ends in .dot, a drawing to one in .svg."""
        path = Path(path)
        if path.suffix not in (".dot", ".svg"):
            raise ValueError(f"graph: wanted a file .dot or .svg, got {path}")
        path.write_text(self.dot() if path.suffix == ".dot" else self.svg(), encoding="utf-8")

    def _repr_svg_(self) -> str | None:  # what notebooks ask for
        return self.svg() if shutil.which("dot") else None


def graph(y: Tensor | Sequence[Tensor], names: Mapping[str, Tensor] | None = None) -> Graph:
    """The recorded graph of a Tensor, or of several: the operations, shapes and numbers of nodes.

    `names` says what to call some of the Tensors in it. Raises TypeError for what has no graph.

    >>> from scratchmeta import Tensor, ops
    >>> x = Tensor(np.array([1.0, 2.0]))
    >>> print(graph(ops.sum(x * x + 1.0), names={"x": x}))
    %0  x                 float64(2,)
    %1  multiply(%0, %0)  float64(2,)
    %2  add(%1, 1.0)      float64(2,)
    %3  sum(%2)           float64() <- result
    """
    ys = [y] if isinstance(y, Tensor) else list(y)
    for each in (*ys, *(names or {}).values()):
        if not isinstance(each, Tensor):
            raise TypeError(f"graph: wanted Tensors, got {type(each).__name__}")
    return Graph(ys, names or {})


def _form(value) -> str:
    value = raw(value)
    if isinstance(value, tuple) and any(backend.is_array(raw(v)) for v in value):
        return f"({', '.join(map(_form, value))})"
    if backend.is_array(value):
        return f"{value.dtype}{tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
