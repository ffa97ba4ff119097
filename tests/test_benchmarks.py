"""The benchmark of kernels at little sizes, on both backends: it agrees, and writes its table."""

import sys
from pathlib import Path

import fakecupy
import pytest

from scratchmeta import backend

ROOT = Path(__file__).parent.parent


@pytest.fixture
def kernels(monkeypatch):
    """benchmarks/kernels.py, timing nothing."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import kernels

    monkeypatch.setattr(kernels, "seconds", lambda calls, *_, **__: once(calls))
    yield kernels
    for name in ("kernels", "common"):
        sys.modules.pop(name, None)


def once(calls):
    for call in calls.values():
        call()
    return dict.fromkeys(calls, 1e-3)


@pytest.mark.parametrize("name", backend.NAMES)
def test_the_table_of_kernels(name, kernels, tmp_path, capsys):
    arguments = [
        "--backend",
        name,
        "--rounds",
        "1",
        "--little",
        "--write",
        str(tmp_path / "table.md"),
    ]
    with fakecupy.install():
        kernels.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(kernels.LITTLE)
    head, _, columns, _, *rows = (tmp_path / "table.md").read_text("utf-8").splitlines()[2:]
    assert ("GPU" in head) == (name == "cupy")
    assert len(rows) == 2 * len(kernels.LITTLE)
    assert all(line.count("|") == columns.count("|") for line in rows)


def test_a_kernel_that_is_wrong_is_not_timed(kernels, monkeypatch):
    right = kernels.pairwise.cityblock
    monkeypatch.setattr(kernels.pairwise, "cityblock", lambda x, y: 1.01 * right(x, y))
    with pytest.raises(AssertionError, match=r"L1.*: wanted agreement to 2e-04"):
        kernels.main(["--only", "L1", "--backend", "numpy", "--little"])


def test_the_table_of_registers(monkeypatch, tmp_path, capsys):
    """Of every kernel of every file, whatever NVRTC reports."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import registers
    from cuda_host import nvrtc

    def compiled(code, names, architecture):
        assert all(name.partition("<")[0] in code for name in names)
        return b"", [nvrtc.Usage(name, int(architecture[3:]), 48, 0) for name in names]

    monkeypatch.setattr(nvrtc, "compiled", compiled)
    monkeypatch.setattr(nvrtc, "version", lambda: "12.9")
    registers.main(["sm_70", "sm_90", "--write", str(tmp_path / "table.md")])
    text = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text("utf-8") == text
    head, _, _, _, *rows = text.splitlines()
    assert head == "NVRTC 12.9, sm_70 / sm_90"
    assert "| unit.cu | unit_backward<double> | 70 / 90 | 48 / 48 | 0 / 0 |" in rows
    sources = [path.read_text("utf-8") for path in (ROOT / "kernels").glob("*.cu")]
    assert len(rows) == 2 * sum(source.count("__global__") for source in sources)
