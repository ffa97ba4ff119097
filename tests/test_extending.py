"""docs/extending.md: its Python runs as it stands, where what it imports is installed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_is_something_of_everything():
    assert len(BLOCKS) == 7
    page = "\n".join(BLOCKS)
    for what in ("vjp=", "sm.graph", "sm.primitive", "sm.fused", "import torch", "import jax"):
        assert what in page


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.search(r"def (\w+)|y =", block)[0])
def test_the_examples_run(block, tmp_path):
    """Each in a process of its own: what JAX is set to, and what it does to NumPy, stays there."""
    for other in re.findall(r"^import (torch|jax)$", block, re.MULTILINE):
        if importlib.util.find_spec(other) is None:
            pytest.skip(f"{other} is not installed")
    file = tmp_path / "example.py"
    file.write_text(block, encoding="utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"order [123]  directions" if "gradcheck" in block else "<- result", done.stdout
    )
