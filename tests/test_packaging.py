"""What is shipped, what knows CuPy, and how long importing takes."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, KERNELS = ROOT / "scratchmeta", ROOT / "kernels"


def test_only_the_backend_knows_cupy():
    for file in [*PACKAGE.rglob("*.py"), *KERNELS.glob("*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        plain |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        if any(module.split(".")[0] == "cupy" for module in plain):
            assert file == PACKAGE / "backend.py" or file.is_relative_to(KERNELS), file


def in_python(script, cwd=ROOT, **environment):
    """The words that a script prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout.split()


def test_importing_is_quick_and_compiles_nothing():
    script = (
        "import sys, time; start = time.process_time(); import scratchmeta;"
        "print(time.process_time() - start,"
        " *{'numba', 'matplotlib', 'cupy', 'rich', 'html', 'subprocess',"
        " 'scratchmeta.algorithms.maml'} & set(sys.modules))"
    )
    measured = [in_python(script) for _ in range(5)]
    assert all(heavy == [] for _, *heavy in measured)
    assert min(float(seconds) for seconds, *_ in measured) < 0.5


def test_help_is_quick():
    script = (
        "import sys, time; t = time.process_time(); from scratchmeta.run.cli import main;"
        "main(['--help']); print(time.process_time() - t, *{'tyro', 'numba'} & set(sys.modules))"
    )
    measured = [in_python(script) for _ in range(3)]
    assert all("numba" not in line and "tyro" not in line for line in measured)
    assert min(float(line[-1]) for line in measured) < 0.5


# --- wheel and sdist ------------------------------------------------------------------------------


def shipped():
    """The files that an installation must have, as paths in it."""
    files = {file.relative_to(ROOT).as_posix() for file in PACKAGE.rglob("*.py")}
    files.add("scratchmeta/py.typed")
    for file in KERNELS.iterdir():
        if file.suffix in {".py", ".cu", ".h"}:
            files.add(f"scratchmeta/kernels/{file.name}")
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel made from the sdist made from a copy of the sources."""
    tmp = tmp_path_factory.mktemp("packaging")
    source, dist = tmp / "source", tmp / "dist"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in (PACKAGE, KERNELS):
        shutil.copytree(folder, source / folder.name, ignore=skip)
    build = [sys.executable, "-m", "build", "--no-isolation"]
    done = subprocess.run(
        [*build, "--outdir", dist, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = dist.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_cuda_source(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("scratchmeta/")}
    assert held == shipped()
    assert "scratchmeta/kernels/__init__.py" in held
    assert any(name.endswith(".cu") for name in held)


def test_the_kernels_import_from_the_installed_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        "import scratchmeta, scratchmeta.kernels, scratchmeta.run.cli, importlib.resources as r;"
        "print(scratchmeta.__file__, scratchmeta.kernels.__file__);"
        "names = [file.name for file in r.files('scratchmeta.kernels').iterdir()];"
        "print(*(name for name in names if name.endswith('.cu')))"
    )
    found, kernels, *sources = in_python(script, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert Path(found).is_relative_to(tmp_path)
    assert Path(kernels).is_relative_to(tmp_path)
    assert set(sources) == {file.name for file in KERNELS.glob("*.cu")}


# --- make gpu -------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_gpu_says_that_there_is_no_gpu_and_stops():
    command = ["make", "--no-print-directory", "gpu"]  # make may run this suite
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode != 0
    assert done.stdout == "no NVIDIA GPU here: nvidia-smi finds none\n"
