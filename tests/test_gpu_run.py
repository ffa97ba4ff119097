"""`make gpu` rehearsed: every part at little sizes, on the stand-in, without a network for pip."""

import os
import subprocess
import sys
from pathlib import Path

import fakecupy
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(fakecupy.ON_GPU, reason="there is a GPU: it is no rehearsal")
def test_the_gpu_run_rehearsed(tmp_path):
    script = ROOT / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [
            *(sys.executable, script, "--rehearsal", "--out", tmp_path / "out", "--minutes", "5"),
            *("--tests", "nothing_mixes_with_numpy"),
        ],
        env={**os.environ, "PIP_NO_INDEX": "1", "SCRATCHMETA_DATA": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = ["compile", "tests", "gradients", "kernels", "steps", "training"]
    names = ["0-summary.txt", *(f"{n}-{part}.txt" for n, part in enumerate(parts, 1))]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    summary = (tmp_path / "out" / "0-summary.txt").read_text("utf-8").splitlines()
    assert len(summary) <= 60
    for part in parts:
        assert any(line.startswith(f"{part}: done after") for line in summary)
    assert summary[0] == "scratchmeta on a GPU, REHEARSED WITHOUT ONE"
    for row in ("conv.cu: 6 kernels", "norm ", "sinusoid MAML", "training prototypical on glyphs"):
        assert any(line.startswith(row) for line in summary), row
    (closing,) = [line for line in summary if line.startswith("tests: 0 failed")]
    assert "passed" in closing


def test_a_part_that_fails_does_not_stop_the_next(tmp_path):
    script = ROOT / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [
            *(sys.executable, script, "--rehearsal", "--out", tmp_path),
            *("--parts", "tests", "compile", "--tests", "no_test_is_called_so"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "NOT GREEN: tests failed (5)" in done.stdout  # pytest's status for nothing collected
    assert "compile: done after" in done.stdout
