"""The recorded graph, printed and drawn."""

import shutil

import numpy as np
import pytest

import scratchmeta as sm
from scratchmeta import Tensor, backend, ops


def expression():
    x, w = Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((3, 4), np.float32))
    return ops.mean(ops.tanh(x @ w), axis=-1), {"x": x, "w": w}


def test_a_line_for_each_node_with_shapes_and_arguments():
    y, names = expression()
    assert str(sm.graph(y, names)).splitlines() == [
        "%0  x                  float32(2, 3)",
        "%1  w                  float32(3, 4)",
        "%2  matmul(%0, %1)     float32(2, 4)",
        "%3  tanh(%2)           float32(2, 4)",
        "%4  mean(%3, axis=-1)  float32(2,) <- result",
    ]
    assert "%0  input" in str(sm.graph(y))


def test_numbers_are_those_of_recording_and_a_gradient_has_a_graph_too():
    x = Tensor(np.array(2.0))
    y = ops.sin(x)
    g = sm.grad(y, x, create_graph=True)
    text = str(sm.graph([y, g], {"x": x}))
    assert [line.split()[0] for line in text.splitlines()] == ["%0", "%1", "%2", "%3"]
    assert "cos(%0)" in text
    assert text.count("<- result") == 2


def test_several_outputs_and_constants():
    z, c = Tensor(np.ones((2, 8))), np.ones((2, 2))
    h, _ = ops.lstm_gates(z, c)
    text = str(sm.graph(h))
    assert "lstm_gates(%0, float64(2, 2))" in text
    assert "output 0(%1)" in text
    with backend.use_kernels(False):
        assert "sigmoid" in str(sm.graph(ops.lstm_gates(z, c)[0]))


def test_a_constant_is_all_there_is_to_it():
    assert "float64(3,)" in str(sm.graph(sm.stop_gradient(Tensor(np.ones(3)))))


def test_graphviz_source():
    y, names = expression()
    source = sm.graph(y, {**names, 'odd "name"': names["x"]}).dot()
    assert source.startswith("digraph {")
    assert source.rstrip().endswith("}")
    assert '[label="matmul\\nfloat32(2, 4)", shape=box]' in source
    assert 'odd \\"name\\"' in source
    assert "  0 -> 2\n" in source
    assert "penwidth=2" in source
    squares = sm.graph(names["x"] * names["x"]).dot()
    assert squares.count("0 -> 1") == 2  # x is used twice


def test_drawing(tmp_path):
    y, _ = expression()
    sm.graph(y).save(tmp_path / "y.dot")
    assert (tmp_path / "y.dot").read_text() == sm.graph(y).dot()
    with pytest.raises(ValueError, match=r"wanted a file \.dot or \.svg, got .*y\.png"):
        sm.graph(y).save(tmp_path / "y.png")
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    sm.graph(y).save(tmp_path / "y.svg")
    assert "<svg" in (tmp_path / "y.svg").read_text()
    assert "matmul" in sm.graph(y)._repr_svg_()


def test_dot_is_asked_for_and_heard(tmp_path, monkeypatch):
    """With a program of that name that answers, one that fails, and none."""
    y, _ = expression()
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\ngrep -c digraph >/dev/null && echo '<svg>drawn</svg>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert sm.graph(y).svg() == "<svg>drawn</svg>\n"
    assert sm.graph(y)._repr_svg_() == "<svg>drawn</svg>\n"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(RuntimeError, match="dot failed: broken"):
        sm.graph(y).svg()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="`dot` is not installed"):
        sm.graph(y).svg()
    assert sm.graph(y)._repr_svg_() is None


def test_what_has_no_graph_is_refused():
    with pytest.raises(TypeError, match="graph: wanted Tensors, got ndarray"):
        sm.graph([np.ones(2)])
