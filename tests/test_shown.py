"""How results are seen: one style for a percentage, tables of 80 columns, colours, notebooks."""

import ast
import itertools
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scratchmeta as sm
from scratchmeta import ops
from scratchmeta.run.checkpoint import State
from scratchmeta.run.evaluation import Evaluation
from scratchmeta.shown import html_table, percent
from scratchmeta.verify import cases
from scratchmeta.verify.cases.rows import Result
from scratchmeta.verify.gradcheck import OrderReport, Report

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
SOURCES = [*(ROOT / "scratchmeta").rglob("*.py")]


# --- a percentage ---


def test_percent():
    assert percent(0.9728) == "97.28 %"
    assert percent(0.9728, 0.0032) == "97.28 ± 0.32 %"
    assert percent(0.3333, digits=0) == "33 %"
    assert percent(0.2, 0.04, digits=1) == "20.0 ± 4.0 %"
    assert percent(float("nan")) == "nan %"


@pytest.mark.parametrize("file", [*PAGES, *SOURCES], ids=lambda f: str(f.relative_to(ROOT)))
def test_every_percentage_is_written_as_percent_does(file):
    """A space before the sign, which stands once, after the interval."""
    text = file.read_text(encoding="utf-8")
    assert re.findall(r".*\d%(?![\d(]).*", text) == []
    assert re.findall(r".*\d ?% ?±.*", text) == []
    if file.suffix != ".py" or file.name == "shown.py":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            assert not ast.unparse(node.format_spec).rstrip("'\"").endswith("%"), node.lineno
        if isinstance(node, ast.JoinedStr):  # a number put before the sign by hand
            for one, then in itertools.pairwise(node.values):
                after = then.value if isinstance(then, ast.Constant) else ""
                number = isinstance(one, ast.FormattedValue)
                assert not (number and after.lstrip().startswith("%")), node.lineno


def test_an_evaluation_says_its_measure():
    assert str(Evaluation("accuracy", 0.9728, 0.0032, 600, 5, 1)) == "accuracy 97.28 ± 0.32 %"
    assert str(Evaluation("mse", 0.5, 0.25, 600, 1, 10)) == "mse 0.5000 ± 0.2500"
    assert str(Evaluation("bit_errors", 3.0, 0.5, 9, 1, 1)) == "bit errors 3.0000 ± 0.5000"


# --- the table of checks ---


def test_a_table_fits_80_columns_whatever_is_in_it():
    """Names as long as the library's longest, errors of 6 figures in every place."""
    results = []
    for name, case in cases.CASES.items():
        order = OrderReport(2, 99_999, 1.2e-100, 1.2e-100, 1.2e-100, 9999.0)
        results.append(Result(name, case.kind, 9999.0, Report(name, "numpy", True, (order,))))
    lines = cases.table(results).splitlines()
    assert max(map(len, lines)) <= 80
    head, first, second = lines[:3]
    assert len(head) == len(first) == len(second) == 80
    assert [m.end() for m in re.finditer(r"\w+", head)] == [
        m.end() for m in re.finditer(r"\S+", " " * 28 + first[28:])
    ]


def test_what_failed_fits_too(monkeypatch):
    monkeypatch.setattr(ops.tanh, "rules", [lambda g, y, a: g * (1.0 + y * y)])
    results = cases.run(["tanh", "exp"])
    text = cases.table(results)
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(results[0].error.split()) in " ".join(text.split())


def on_terminal(*argv, **environment):
    """What a command prints on a terminal of 80 columns."""
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
    script = "import sys; from scratchmeta.run.cli import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", script, *argv],
        stdout=inner, stderr=subprocess.DEVNULL, env=environment,
    ) as process:  # fmt: skip
        os.close(inner)
        found = b""
        while True:
            try:
                part = os.read(outer, 4096)
            except OSError:  # Linux's way to say that a terminal is closed
                break
            if not part:
                break
            found += part
        os.close(outer)
    return process.returncode, found.decode().replace("\r\n", "\n")


@pytest.fixture
def no_colours_set(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_colours_set")
def test_verdicts_are_coloured_on_a_terminal_only():
    status, text = on_terminal("check", "exp", "tanh")
    assert status == 0
    assert re.findall(r"\x1b\[32mok\x1b\[0m   (\w+)", text) == ["exp", "tanh"]
    plain = on_terminal("check", "exp", "tanh", NO_COLOR="1")[1]
    assert "\x1b" not in plain
    bare = re.sub(r"\x1b\[\d*m", "", text)
    assert [line.split()[:5] for line in bare.splitlines()[:3]] == [
        line.split()[:5] for line in plain.splitlines()[:3]
    ]
    assert max(map(len, bare.splitlines())) <= 80


@pytest.mark.usefixtures("no_colours_set")
def test_what_failed_is_red_on_a_terminal_and_plain_in_a_pipe(monkeypatch, capsys):
    from scratchmeta.run.cli import main
    from scratchmeta.run.progress import coloured

    colours = {"ok": "green", "FAIL": "red"}
    text = "FAIL tanh\n  an ok FAIL inside\nokay"
    assert coloured(text, colours) == text
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(text, colours) == text.replace("FAIL t", "\x1b[31mFAIL\x1b[0m t")
    monkeypatch.delenv("FORCE_COLOR")
    assert main(["check", "exp"]) == 0
    assert "\x1b" not in capsys.readouterr().out


# --- notebooks ---


def test_html_is_escaped():
    assert html_table("a < b", ["x"], [["<b>"], [1]]) == (
        "<table><caption>a &lt; b</caption><tr><th>x</th></tr>"
        "<tr><td>&lt;b&gt;</td></tr><tr><td>1</td></tr></table>"
    )


def cells(shown):
    """Caption and cells of what a notebook would show."""
    return re.findall(r"<(?:caption|th|td)>(.*?)</", shown._repr_html_())


def test_a_report_in_a_notebook():
    report = sm.gradcheck(ops.tanh, np.array([0.5, -1.0]), order=2, analytic=True)
    found = cells(report)
    assert found[0] == "tanh, numpy, kernels on"
    assert found[1:7] == ["order", "directions", "worst", "estimate", "complex step", "seconds"]
    assert [found[7], found[13]] == ["1", "2"]
    assert found[9] == f"{report.orders[0].worst:.1e}"
    assert cells(sm.gradcheck(ops.tanh, np.array([0.5])))[11] == "-"


def test_an_evaluation_in_a_notebook():
    assert cells(Evaluation("accuracy", 0.9728, 0.0032, 600, 5, 1)) == [
        "test episodes", "accuracy", "episodes", "n_way", "k_shot",
        "97.28 ± 0.32 %", "600", "5", "1",
    ]  # fmt: skip


def test_a_state_is_shown_without_its_numbers():
    params = {"a": np.zeros((2, 3), np.float32), "b": {"c": np.zeros(4)}}
    state = State(7, params, None, 0.5, 5)
    assert repr(state) == "State(step 7, 10 parameters in 2 arrays, best at step 5)"
    assert repr(state._replace(best_score=None)) == "State(step 7, 10 parameters in 2 arrays)"
    assert cells(state) == [
        repr(state), "parameters", "dtype", "shape",
        "a", "float32", "(2, 3)", "b/c", "float64", "(4,)",
    ]  # fmt: skip
