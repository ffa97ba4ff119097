"""Everything that only a GPU can tell, in a quarter of an hour, on a machine without a network.

Parts, in this order, each in processes of its own with a share of the time and a file of results:

    compile     every kernel by NVRTC: registers, shared and local memory           1-compile.txt
    tests       the kernels and the CuPy path, on the hardware                      2-tests.txt
    gradients   every gradient check on the card; those cut off are named           3-gradients.txt
    kernels     every kernel against its reference, torch and the card's ceilings   4-kernels.txt
    steps       training steps: gradients as on the CPU, times, launches, torch     5-steps.txt
    training    Prototypical Networks, then MAML, until the time is up              6-training.txt

A part that fails or is cut off keeps what it has written, and the next begins. The summary, at most
60 lines, comes last and into 0-summary.txt. Nothing is installed: the interpreter must have CuPy,
NumPy, Numba, pytest, pytest-xdist, hypothesis and safetensors; what else is missing (rich, tyro) is
taken from a folder of wheels (`make gpu-wheels` fills it).

    python benchmarks/gpu.py --out DIR [--minutes 11] [--wheels DIR] [--rehearsal]

`--rehearsal` runs all of it on a machine without a GPU, at little sizes, on the stand-in for CuPy
and the emulation of CUDA in tests/: the tables are the same, their times mean nothing. Characters
are Omniglot's where SCRATCHMETA_DATA names a folder with omniglot/ in it, else procedural glyphs.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ("rich", "tyro")  # beside these, what a Python with CuPy, PyTorch and pytest has

# The share of the time that a part may take; what it leaves is the next parts'.
PARTS = {
    "compile": 0.10,
    "tests": 0.25,
    "gradients": 0.25,
    "kernels": 0.25,
    "steps": 0.35,
    "training": 1.0,
}
TESTS = ("test_cases.py", "test_cupy_path.py", "test_cuda_host.py", "test_benchmarks.py")
FOR_TRAINING = 60.0  # seconds that are kept for the trainings, of 11 minutes


def main(argv: list[str] | None = None) -> int:
    """Runs the parts, or one of them in this process; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--minutes", type=float, help="for everything: 11, or 60 in a rehearsal")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what is missing")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rehearsal", action="store_true", help="without a GPU, at little sizes")
    parser.add_argument("--tests", help="an expression for pytest -k, in the place of all tests")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.minutes = options.minutes or (60 if options.rehearsal else 11)
    if options.inside:
        return inside(options)
    return everything(options)


# --- all parts, one after another -----------------------------------------------------------------


def everything(options: argparse.Namespace) -> int:
    """Runs the parts in processes of their own, and prints the summary."""
    deadline = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="scratchmeta-gpu-") as scratch:
        environment = prepared(Path(scratch), options.wheels)
        for part in options.parts:
            left = deadline - time.monotonic()
            kept = 0.0 if part == "training" else FOR_TRAINING * options.minutes / 11
            seconds = max(5.0, min(PARTS[part] * 60 * options.minutes, left - kept - 5))
            status = run_part(part, seconds, options, environment)
            if status != "done":
                failed.append(f"{part} {status}")
    text = summary(options)
    (options.out / "0-summary.txt").write_text(text, encoding="utf-8")
    print(text)
    print(f"everything is in {options.out}" + (f"; NOT GREEN: {', '.join(failed)}" * bool(failed)))
    return 1 if failed else 0


def prepared(scratch: Path, wheels: Path | None) -> dict[str, str]:
    """The environment of the parts: scratchmeta from this checkout, without installing it."""
    package = scratch / "scratchmeta"  # its kernels lie elsewhere in the repository
    package.mkdir()
    for entry in (ROOT / "scratchmeta").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    (package / "kernels").symlink_to(ROOT / "kernels")
    if wheels is not None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
        pip += ["--disable-pip-version-check", "--find-links", str(wheels), "--target"]
        subprocess.run([*pip, str(scratch), *WHEELS], check=True)
    paths = [str(scratch), str(ROOT / "benchmarks"), str(ROOT / "tests")]
    return {
        "CUPY_CACHE_DIR": str(scratch / "cupy"),  # what is compiled is kept for the next part
        **os.environ,
        "NUMBA_CACHE_DIR": str(scratch / "numba"),
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        "PYTHONSAFEPATH": "1",  # the folder that it runs in is not searched for packages
        "PYTHONUNBUFFERED": "1",
        "SCRATCHMETA_SCRATCH": str(scratch),
    }


def file_of(part: str, out: Path) -> Path:
    """Where a part writes its results."""
    return out / f"{1 + list(PARTS).index(part)}-{part}.txt"


def run_part(part: str, seconds: float, options: argparse.Namespace, environment: dict) -> str:
    """Runs a part for at most so many seconds; "done", or what became of it."""
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", part]
    command += ["--seconds", f"{seconds:.0f}", "--out", str(options.out.resolve())]
    command += ["--rehearsal"] * options.rehearsal
    if options.tests:
        command += ["--tests", options.tests]
    began = time.monotonic()
    print(f"== {part}, at most {seconds:.0f} s", flush=True)
    with open(file_of(part, options.out), "wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        try:  # a part looks at the clock itself; this is for one that hangs
            process.wait(seconds + 15)
            status = "done" if process.returncode == 0 else f"failed ({process.returncode})"
        except subprocess.TimeoutExpired:
            status = "cut off"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = time.monotonic() - began
    with open(file_of(part, options.out), "a", encoding="utf-8") as file:
        file.write(f"\nSUMMARY {part}: {status} after {took:.0f} s\n")
    print(f"   {status} after {took:.0f} s", flush=True)
    return status


def summary(options: argparse.Namespace) -> str:
    """The lines that the parts have marked, at most 60."""
    lines = [f"scratchmeta on a GPU{', REHEARSED WITHOUT ONE' * options.rehearsal}"]
    for part in options.parts:
        text = file_of(part, options.out).read_text(encoding="utf-8", errors="replace")
        marked = [line[8:] for line in text.splitlines() if line.startswith("SUMMARY ")]
        lines += marked[-1:] + marked[:-1]  # how it ended comes first
    if len(lines) > 60:
        lines = [*lines[:59], f"... {len(lines) - 59} lines more in the files"]
    return "\n".join(lines) + "\n"


def say(line: str) -> None:
    """A line of a part's file that is to be in the summary too."""
    print(f"SUMMARY {line}", flush=True)


# --- one part, in its own process -----------------------------------------------------------------


def inside(options: argparse.Namespace) -> int:
    """Runs one part in this process; on the stand-in for CuPy in a rehearsal."""
    if options.inside == "tests":  # they install the stand-in themselves, where it is wanted
        return tests(options)
    if options.rehearsal:
        stand_in()
    part = {
        "compile": compile_kernels,
        "gradients": gradients,
        "kernels": kernels,
        "steps": steps,
        "training": training,
        "cli": command_line,
    }
    return part[options.inside](options)


def stand_in() -> None:
    """Puts the stand-in in CuPy's place, for the rest of this process."""
    import fakecupy

    sys.modules["cupy"] = fakecupy.build()


def compile_kernels(options: argparse.Namespace) -> int:
    """Compiles every .cu file and prints what the driver says of each kernel."""
    from importlib import import_module

    from scratchmeta import backend

    say(f"python {platform.python_version()}, {os.cpu_count()} cores; {card()}")
    print(f"{'kernel':<44}{'registers':>10}{'shared':>9}{'local':>7}{'compiled':>10}")
    with backend.use("cupy"):
        for path in sorted((ROOT / "kernels").glob("*.cu")):
            source = import_module(f"scratchmeta.kernels.{path.stem}")._cuda
            began = time.monotonic()
            kernels = list(source.kernels())
            seconds = time.monotonic() - began
            for name, kernel in kernels:
                sizes = [
                    getattr(kernel, what, 0)
                    for what in ("num_regs", "shared_size_bytes", "local_size_bytes")
                ]
                print("{:<44}{:>10}{:>9}{:>7}".format(f"{path.stem}: {name}", *sizes))
                if sizes[2]:
                    say(f"{path.stem}: {name} spills or indexes {sizes[2]} bytes of local memory")
            say(f"{path.name}: {len(kernels)} kernels in {seconds:.1f} s")
        say(calls())
    return 0


def calls(times: int = 200) -> str:
    """What one call of CuPy's costs on the host: small steps are made of these."""
    import cupy

    from scratchmeta.kernels import unit

    x = cupy.ones((16, 16), dtype="float32")
    measured = {
        "empty": lambda: cupy.empty((16, 16), "float32"),
        "add": lambda: x + x,
        "sum": lambda: x.sum(axis=0),
        "matmul": lambda: x @ x,
        "batched matmul": lambda: x[None] @ x[None],
        "kernel and two arrays": lambda: unit.unit(x),
        "to the host": lambda: float(x[0, 0]),
    }
    found = []
    for name, call in measured.items():
        call()
        began = time.perf_counter()
        for _ in range(times):
            call()
        found.append(f"{name} {1e6 * (time.perf_counter() - began) / times:.1f}")
    return "µs a call: " + ", ".join(found)


def card() -> str:
    """The card, the driver and the versions."""
    import cupy
    import numpy

    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    versions = f"cupy {cupy.__version__}, numpy {numpy.__version__}"
    with contextlib.suppress(ImportError):
        import torch

        versions += f", torch {torch.__version__}"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        versions += f", driver {driver}"
    return f"{name}, CUDA {runtime.runtimeGetVersion()}, {versions}"


def tests(options: argparse.Namespace) -> int:
    """pytest on several processes; how it closed, and what failed, goes into the summary."""
    chosen = [ROOT / "tests" / name for name in TESTS]
    chosen += sorted((ROOT / "tests").glob("test_kernels_*.py"))
    workers = min(8, os.cpu_count() or 1)
    command = [sys.executable, "-m", "pytest", "-n", str(workers), "-p", "no:cacheprovider"]
    command += ["-W", "default", "--tb=short", "-k", options.tests or "cupy or cuda"]
    on = {} if options.rehearsal else {"SCRATCHMETA_TEST_ON": "gpu"}
    process = subprocess.Popen(
        [*command, *map(str, chosen)],
        env={**os.environ, **on},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stop_after(process, options.seconds)
    failed, last = [], ""
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("FAILED ", "ERROR ")):
            failed.append(line.strip()[:150])
        last = line.strip() or last
    for line in failed[:8]:
        say(line)
    say(f"tests: {len(failed)} failed; {last}")
    return process.wait()


def stop_after(process: subprocess.Popen, seconds: float, signum: int = signal.SIGKILL) -> None:
    """Sends the process a signal after so many seconds."""
    import threading

    timer = threading.Timer(seconds, lambda: process.poll() is None and process.send_signal(signum))
    timer.daemon = True
    timer.start()


def check_one(name: str, rehearsal: bool) -> tuple[str, bool, str]:
    """A row of the table of gradient checks, in a worker."""
    if rehearsal and "cupy" not in sys.modules:
        stand_in()
    from scratchmeta import backend
    from scratchmeta.verify import cases

    try:
        with backend.use("cupy"):
            (result,) = cases.run([name])
    except Exception as error:  # of whatever kind: the other rows are to be seen
        return name, False, f"FAIL {name}: {type(error).__name__}: {error}"
    return name, result.passed, str(result)


def gradients(options: argparse.Namespace) -> int:
    """Every gradient check on the card, on several processes, as far as the time reaches."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from scratchmeta.verify import cases

    began = time.monotonic()
    names = [case.name for case in cases.select()]
    if options.rehearsal:
        names = ["exp", "matmul", "lstm_gates"]
    open_ones, failed = set(names), []
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=context)
    jobs = [pool.submit(check_one, name, options.rehearsal) for name in names]
    with contextlib.suppress(TimeoutError):
        for job in as_completed(jobs, options.seconds):
            name, passed, text = job.result()
            open_ones.discard(name)
            print(text, flush=True)
            failed += [] if passed else [name]
    for name in failed:
        say(f"gradient FAILED: {name}")
    done = len(names) - len(open_ones)
    late = f"; not run in the time: {', '.join(sorted(open_ones))}" * bool(open_ones)
    took = time.monotonic() - began
    say(f"gradients: {done} of {len(names)} rows, {len(failed)} failed, {took:.0f} s{late}")
    sys.stdout.flush()
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(1 if failed else 0)  # the pool would wait for what was cut off


def kernels(options: argparse.Namespace) -> int:
    """The table of benchmarks/kernels.py."""
    import kernels as table

    rounds = "1" if options.rehearsal else "8"
    rows = table.main(
        ["--backend", "cupy", "--rounds", rounds, *["--little"] * options.rehearsal],
        until=time.monotonic() + options.seconds,
    )
    say(f"{'kernel':<42}  ours ms      off    torch  ours/t  ceil")
    for name, which, ours, off, theirs, ratio, ceiling, _ in rows:
        arrow = "fwd" if which == "forward" else "f+b"
        say(f"{name:<38}{arrow:<4}{ours:9.3f}{off:9.3f}{theirs:9.3f}{ratio:8.2f}{ceiling:6.2f}")
    return 0


def steps(options: argparse.Namespace) -> int:
    """The table of benchmarks/gpu_steps.py."""
    import gpu_steps

    return gpu_steps.table(say, options.rehearsal, time.monotonic() + options.seconds)


def command_line(options: argparse.Namespace) -> int:
    """`scratchmeta` with the arguments in SCRATCHMETA_ARGUMENTS."""
    from scratchmeta.run.cli import main as scratchmeta

    return scratchmeta(json.loads(os.environ["SCRATCHMETA_ARGUMENTS"]))


# --- real trainings -------------------------------------------------------------------------------


def training(options: argparse.Namespace) -> int:
    """Trains by the command line until the time is up, evaluates on 600 episodes."""
    data = os.environ.get("SCRATCHMETA_DATA")
    if data and (Path(data) / "omniglot").is_dir():
        where = ["--data", "omniglot", "--data-dir", data]
    else:
        where = ["--data", "glyphs"]
    long = "paper" if "omniglot" in where else "quick"
    little = ["--channels", "2", "--steps", "2", "--validate-every", "2"]
    little += ["--validation-episodes", "2"]
    queue = {
        "prototypical": ["--preset", long, "--n-way", "60", "--n-query", "5"],
        "maml": ["--preset", "author-code" if long == "paper" else "quick"],
    }
    if options.rehearsal:
        queue = {"prototypical": [*little, "--n-way", "2", "--n-query", "1", "--test-query", "1"]}
    deadline = time.monotonic() + options.seconds
    worst = 0
    for number, (name, settings) in enumerate(queue.items()):
        left = deadline - time.monotonic()
        seconds = left * (0.45 if number == 0 and len(queue) > 1 else 0.8) - 8
        if seconds < 10 and not options.rehearsal:
            say(f"training {name}: not begun, {left:.0f} s were left")
            continue
        run = Path(os.environ["SCRATCHMETA_SCRATCH"]) / f"run-{name}"
        arguments = ["train", name, *where, *settings, "--out", str(run), "--backend", "cupy"]
        began = time.monotonic()
        scratchmeta(arguments, options, stop=seconds)
        took = time.monotonic() - began
        shots = ["--episodes", "4" if options.rehearsal else "600", "--backend", "cupy"]
        status, text = scratchmeta(["evaluate", str(run), *shots, "--json"], options)
        if status:
            say(f"training {name}: evaluate failed: {text.strip()[-200:]}")
            worst = 1
            continue
        found = json.loads(text.strip().splitlines()[-1])
        record = json.loads((run / "config.json").read_text(encoding="utf-8"))["training"]
        history = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        step = json.loads(history[-1])["step"]
        images = record["n_way"] * (record["k_shot"] + record["n_query"]) * record["tasks"]
        say(
            f"training {name} on {where[1]}: {step} steps in {took:.0f} s, "
            f"{step * images / took:.0f} images/s, start, validations and compilation included; "
            f"{found['n_way']}-way {found['k_shot']}-shot {100 * found['accuracy']:.2f} ± "
            f"{100 * found['ci95']:.2f} % of {found['episodes']} test episodes, seed 0"
        )
    return worst


def scratchmeta(
    arguments: list[str], options: argparse.Namespace, stop: float | None = None
) -> tuple[int, str]:
    """The command line in a process of its own, stopped (with a checkpoint) after `stop` seconds:
    its exit status and what it printed."""
    print("$ scratchmeta", *arguments, flush=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", "cli"]
    command += ["--rehearsal"] * options.rehearsal
    process = subprocess.Popen(
        command,
        env={**os.environ, "SCRATCHMETA_ARGUMENTS": json.dumps(arguments)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if stop is not None:
        stop_after(process, max(stop, 1.0), signal.SIGTERM)
    out, errors = process.communicate()
    print(out, "\n".join(errors.splitlines()[-5:]), sep="\n", flush=True)
    return process.returncode, out if process.returncode == 0 else errors


if __name__ == "__main__":
    sys.exit(main())
